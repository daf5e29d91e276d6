/**
 * The data plane for new qcow2 images: gathers the clusters of a job, compresses them, asks where
 * they go, and writes them there. Several jobs are in hand at a time: while one waits for its
 * turn, the next is gathered.
 *
 *   what it asks with, three numbers per unit:
 *   0 cluster index · 1 state (`UnitState`, or the length of compressed bytes)
 *   2 subclusters that hold data, as a mask
 */
import { settled } from '../base/awaitable.ts';
import { assert } from '../base/errors.ts';
import { compressInto } from '../codec/compress.ts';
import { Workspace } from '../kernels/arena.ts';
import type { Storage } from '../storage/storage.ts';
import { ClusterBuffer, UnitState } from './cluster-buffer.ts';
import type { ImageRunnerOptions, Placement, Runner, Tally, Turn } from './runner.ts';
import { SourceReader } from './source-reader.ts';

/** Jobs that may be in hand. */
const SLOTS = 3;
/** Zeros between a job's pieces, for targets without positions. */
const ZEROS_BYTES = 2 ** 16;

/** What images are written to: clusters, and tables beside them. */
export interface ImageTarget {
  /** The image file. */
  readonly file: Pick<Storage, 'write'>;
  /** Where plain clusters go: the file itself, or an external data file. */
  readonly data: Pick<Storage, 'write'>;
}

/** Makes clusters of a new qcow2 image. */
export class ImageRunner implements Runner {
  private readonly reader: SourceReader;
  private readonly slots: ClusterBuffer[] = [];
  private readonly free: ClusterBuffer[] = [];
  private readonly waiting: ((slot: ClusterBuffer) => void)[] = [];
  private preparing: Promise<unknown> = Promise.resolve();

  constructor(
    sources: readonly Storage[],
    private readonly target: ImageTarget,
    private readonly options: ImageRunnerOptions,
  ) {
    const workspace = new Workspace();
    this.reader = new SourceReader(workspace, sources, options);
    for (let slot = 0; slot < SLOTS; slot++) {
      this.slots.push(new ClusterBuffer(workspace, options, this.reader));
    }
    this.free.push(...this.slots);
  }

  get tally(): Tally {
    return this.reader.tally;
  }

  async ready(): Promise<void> {
    await this.preparing;
    const slot =
      this.free.pop() ??
      (await new Promise<ClusterBuffer>((resolve) => {
        this.waiting.push(resolve);
      }));
    this.release(slot);
  }

  async run(ops: Float64Array, turn?: Turn): Promise<void> {
    assert(turn, 'an image is written in turns');
    const prepared = this.preparing.then(() => this.prepare(ops));
    this.preparing = prepared.catch(() => {});
    const slot = await prepared;
    try {
      const placement = await turn(slot.report());
      assert(placement, 'a job of an image is given its place');
      if (!placement.dry) await this.write(slot, placement);
    } finally {
      this.release(slot);
    }
  }

  private async prepare(ops: Float64Array): Promise<ClusterBuffer> {
    const slot =
      this.free.pop() ??
      (await new Promise<ClusterBuffer>((resolve) => {
        this.waiting.push(resolve);
      }));
    try {
      await slot.gather(ops);
      const { compress, zeroFlag } = this.options;
      slot.judge({ wholeClusters: compress !== undefined, zeroFlag });
      if (compress) {
        const { codec, level } = compress;
        slot.compress((kernels, range) => compressInto(kernels, codec, { ...range, level }));
      }
      return slot;
    } catch (cause) {
      this.release(slot);
      throw cause;
    }
  }

  private release(slot: ClusterBuffer): void {
    const next = this.waiting.shift();
    if (next) next(slot);
    else this.free.push(slot);
  }

  /** Writes units and tables; what follows each other in memory and in the file goes at once. */
  private async write(slot: ClusterBuffer, placement: Placement): Promise<void> {
    const pieces = this.pieces(slot, placement);
    const { file, data } = this.target;
    const { stream } = placement;
    let at = stream?.from ?? 0;
    for (const { host, bytes, isData } of pieces) {
      if (stream && at < host) await this.pad(at, host);
      const written = (isData ? data : file).write(host, bytes);
      if (!settled(written)) await written;
      this.tally.bytesWritten += bytes.length;
      at = host + bytes.length;
    }
    if (stream && at < stream.to) await this.pad(at, stream.to);
  }

  private async pad(from: number, to: number): Promise<void> {
    const zeros = new Uint8Array(Math.min(ZEROS_BYTES, to - from));
    for (let at = from; at < to; at += zeros.length) {
      await this.target.file.write(at, zeros.subarray(0, Math.min(zeros.length, to - at)));
    }
  }

  private pieces(slot: ClusterBuffer, { hosts, tables, stream }: Placement): Piece[] {
    const { clusterSize, subclusterSize } = this.options;
    const pieces: Piece[] = [];
    const tally = this.tally;
    let index = 0;
    let last: { memory: Uint8Array; from: number; to: number; host: number } | undefined;
    const flush = () => {
      if (!last) return;
      const isData = last.memory === slot.plain.bytes;
      pieces.push({ host: last.host, bytes: last.memory.subarray(last.from, last.to), isData });
      last = undefined;
    };
    const add = (memory: Uint8Array, from: number, length: number, host: number) => {
      if (last && last.memory === memory && last.to === from) {
        if (last.host + last.to - last.from === host) {
          last.to += length;
          return;
        }
      }
      flush();
      last = { memory, from, to: from + length, host };
    };
    for (let unit = 0; unit < slot.count; unit++) {
      const state = slot.state[unit]!;
      if (state === UnitState.skip) {
        tally.skippedClusters++;
        continue;
      }
      const host = hosts[index++]!;
      const at = slot.at[unit]!;
      if (state > 0) {
        tally[slot.isCopied(unit) ? 'copiedClusters' : 'compressedClusters']++;
        add(slot.packed.bytes, at, state, host);
      } else if (state === UnitState.data) {
        tally.dataClusters++;
        const mask = slot.mask[unit]!;
        if (mask === 0xffff_ffff) add(slot.plain.bytes, at, clusterSize, host);
        else {
          for (let sub = 0; sub < 32; sub++) {
            if (((mask >>> sub) & 1) === 0) continue;
            const skip = sub * subclusterSize;
            add(slot.plain.bytes, at + skip, subclusterSize, host + skip);
          }
        }
      }
    }
    flush();
    for (const { host, bytes } of tables) pieces.push({ host, bytes, isData: false });
    if (stream) pieces.sort((a, b) => a.host - b.host);
    return pieces;
  }
}

interface Piece {
  readonly host: number;
  readonly bytes: Uint8Array;
  /** Plain bytes of the guest. */
  readonly isData: boolean;
}
