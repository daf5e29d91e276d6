/**
 * The data plane for new qcow2 images: gathers the clusters of a job, compresses them, asks where
 * they go, and writes them there. Several jobs are in hand at a time: while one waits for its
 * turn, the next is gathered. What is copied as it is has its place already.
 */
import { settled } from '../base/awaitable.ts';
import { assert } from '../base/errors.ts';
import { compressInto } from '../codec/compress.ts';
import { CipherStorage } from '../crypto/cipher-storage.ts';
import { SECTOR_BYTES } from '../crypto/sector-batch.ts';
import { SectorCipher } from '../crypto/sector-cipher.ts';
import { Workspace } from '../kernels/arena.ts';
import type { Storage } from '../storage/storage.ts';
import { ClusterBuffer } from './cluster-buffer.ts';
import { type CopiedRange, type CopyTarget, RangeCopier } from './range-copier.ts';
import {
  type CopyBatch,
  type ImageRunnerOptions,
  type Placement,
  type Runner,
  type TableBytes,
  type Tally,
  type Turn,
  UnitState,
} from './runner.ts';
import { SourceReader } from './source-reader.ts';

/** Jobs that may be in hand. */
const SLOTS = 3;
/** Zeros between a job's pieces, for targets without positions. */
const ZEROS_BYTES = 2 ** 16;

/** What images are written to: clusters, and tables beside them. */
export interface ImageTarget {
  /** The image file. */
  readonly file: CopyTarget;
  /** Where plain clusters go: the file itself, or an external data file. */
  readonly data: CopyTarget;
}

/** Makes clusters of a new qcow2 image. */
export class ImageRunner implements Runner {
  private readonly reader: SourceReader;
  private readonly copier: RangeCopier;
  private readonly guestCipher: SectorCipher | undefined;
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
    this.copier = new RangeCopier(workspace, sources, this.reader.tally);
    for (let slot = 0; slot < SLOTS; slot++) {
      this.slots.push(new ClusterBuffer(workspace, options, this.reader));
    }
    const { data } = target;
    // A job's clusters are written once, and forgotten.
    if (data instanceof CipherStorage) data.workIn(workspace, { writesOver: true });
    const { guestKeys } = options;
    if (guestKeys) this.guestCipher = new SectorCipher(guestKeys, { workspace });
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
      if (!placement.dry) await this.write(this.pieces(slot, placement), placement.stream);
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
      if (this.guestCipher) this.encryptUnits(slot, this.guestCipher);
      return slot;
    } catch (cause) {
      this.release(slot);
      throw cause;
    }
  }

  /** Encrypts plain units where they are; those that follow each other at once. */
  private encryptUnits(slot: ClusterBuffer, cipher: SectorCipher): void {
    const { clusterSize } = this.options;
    for (let unit = 0; unit < slot.count; unit++) {
      if (slot.state[unit] !== UnitState.data) continue;
      const first = slot.guest[unit]!;
      const at = slot.at[unit]!;
      let count = 1;
      while (
        unit + 1 < slot.count &&
        slot.state[unit + 1] === UnitState.data &&
        slot.guest[unit + 1] === first + count &&
        slot.at[unit + 1] === at + count * clusterSize
      ) {
        count++;
        unit++;
      }
      const bytes = slot.plain.bytes.subarray(at, at + count * clusterSize);
      cipher.encrypt(bytes, (first * clusterSize) / SECTOR_BYTES);
    }
  }

  private release(slot: ClusterBuffer): void {
    const next = this.waiting.shift();
    if (next) next(slot);
    else this.free.push(slot);
  }

  async copy({ ranges, tables, stream, streams, plain }: CopyBatch): Promise<void> {
    const { tally } = this;
    tally.copiedClusters += streams;
    tally.dataClusters += plain;
    const pieces: Piece[] = [];
    for (const range of ranges) pieces.push({ ...range, bytes: undefined });
    await this.write([...pieces, ...tables.map(pieceOf)], stream);
  }

  /**
   * Writes pieces; copies that follow each other in the target's file go together. A target with
   * positions is told of all pieces before it is done with the first.
   */
  private async write(pieces: Piece[], stream: Placement['stream']): Promise<void> {
    const underWay: Promise<void>[] = [];
    try {
      await this.writeInOrder(pieces, stream, underWay);
    } finally {
      // Their memory is another job's afterwards.
      await Promise.allSettled(underWay);
    }
    await Promise.all(underWay);
  }

  private async writeInOrder(
    pieces: Piece[],
    stream: Placement['stream'],
    underWay: Promise<void>[],
  ): Promise<void> {
    if (stream) pieces.sort((a, b) => a.host - b.host);
    const { file, data } = this.target;
    let at = stream?.from ?? 0;
    for (let index = 0; index < pieces.length; ) {
      const { host, isData, bytes } = pieces[index]!;
      if (stream && at < host) await this.pad(at, host);
      const target = isData ? data : file;
      at = host;
      if (bytes) {
        const written = target.write(host, bytes);
        if (!settled(written)) {
          // Whoever waits for all of them hears of it.
          written.catch(() => {});
          underWay.push(written);
          if (stream) await written;
        }
        at += bytes.length;
        index++;
      } else {
        const copies: CopiedRange[] = [];
        for (; index < pieces.length; index++) {
          const piece = pieces[index]!;
          if (piece.bytes || (stream && piece.host !== at) || piece.isData !== isData) break;
          copies.push(piece);
          at += piece.length;
        }
        await this.copier.copy(copies, target);
      }
      this.tally.bytesWritten += at - host;
    }
    if (stream && at < stream.to) await this.pad(at, stream.to);
  }

  private async pad(from: number, to: number): Promise<void> {
    const zeros = new Uint8Array(Math.min(ZEROS_BYTES, to - from));
    for (let at = from; at < to; at += zeros.length) {
      await this.target.file.write(at, zeros.subarray(0, Math.min(zeros.length, to - at)));
    }
  }

  /** What of a job is written; units that follow each other in memory and in the file are one. */
  private pieces(slot: ClusterBuffer, { hosts, tables }: Placement): Piece[] {
    const { clusterSize, subclusterSize } = this.options;
    const pieces = new PieceList();
    const tally = this.tally;
    const { plain, packed } = slot;
    let index = 0;
    for (let unit = 0; unit < slot.count; unit++) {
      const state = slot.state[unit]!;
      if (state === UnitState.skip) {
        tally.skippedClusters++;
        continue;
      }
      const host = hosts[index++]!;
      const at = slot.at[unit]!;
      if (state > 0) {
        tally.compressedClusters++;
        pieces.add(packed.bytes, at, state, host, false);
      } else if (state === UnitState.data) {
        tally.dataClusters++;
        const mask = slot.mask[unit]!;
        if (mask === 0xffff_ffff) pieces.add(plain.bytes, at, clusterSize, host, true);
        else {
          for (let sub = 0; sub < 32; sub++) {
            if (((mask >>> sub) & 1) === 0) continue;
            const skip = sub * subclusterSize;
            pieces.add(plain.bytes, at + skip, subclusterSize, host + skip, true);
          }
        }
      }
    }
    return [...pieces.end(), ...tables.map(pieceOf)];
  }
}

/** What goes to one place of the target's file: bytes, or a range of a source. */
interface Piece extends CopiedRange {
  bytes: Uint8Array | undefined;
}

function pieceOf({ host, bytes }: TableBytes): Piece {
  return { host, bytes, isData: false, source: -1, from: 0, length: bytes.length };
}

/** Bytes in the making: what continues the last piece is joined with it. */
class PieceList {
  private readonly list: Piece[] = [];
  private last: Piece | undefined;
  /** The memory that the last piece lies in, from `last.from` on. */
  private memory: Uint8Array | undefined;

  add(memory: Uint8Array, from: number, length: number, host: number, isData: boolean): void {
    const { last } = this;
    if (last && this.memory === memory && last.isData === isData) {
      const done = last.length;
      if (last.from + done === from && last.host + done === host) {
        last.length += length;
        return;
      }
    }
    this.finish();
    this.memory = memory;
    this.last = { host, bytes: undefined, isData, source: -1, from, length };
    this.list.push(this.last);
  }

  end(): Piece[] {
    this.finish();
    return this.list;
  }

  private finish(): void {
    const { last, memory } = this;
    if (last && memory) last.bytes = memory.subarray(last.from, last.from + last.length);
  }
}
