/**
 * The data plane: carries out jobs with memory of its own. Bytes are read into linear memory,
 * decoded and scanned in place, and written out of it; the same code runs in a worker and inline.
 *
 *   input    compressed streams, as many neighbouring ones as one read brings in
 *   output   a window of the target, as long as operations follow each other in it
 *   cluster  a decoded cluster of which only a part is wanted
 *   ranges   what the zero scan found
 */
import { settled } from '../base/awaitable.ts';
import { Qcow2Error } from '../base/errors.ts';
import { decodeFailure, decodeInto } from '../codec/codec.ts';
import type { Region } from '../kernels/arena.ts';
import { Workspace } from '../kernels/arena.ts';
import { INPUT_SLACK, type Kernels } from '../kernels/kernels.ts';
import type { Storage } from '../storage/storage.ts';
import { OP_STRIDE, OpKind } from './job.ts';

/** What a runner needs beside its jobs. Survives `postMessage` where its storages do. */
export interface RunnerOptions {
  /** The largest cluster of any compressed source, bytes. */
  readonly clusterSizeMax: number;
  /**
   * Zeros within data become holes where they fill `granule`-aligned blocks for at least
   * `holeBytes`; 0 writes all that is read.
   */
  readonly granule: number;
  readonly holeBytes: number;
  /** Zeros are written like data, so that the target has room for all of the disk. */
  readonly allocate: boolean;
}

/** Bytes of the output window. Small enough for a core's cache to keep between read and write. */
const OUTPUT_BYTES = 512 * 1024;
const INPUT_BYTES = 1024 * 1024;
/** A gap between two streams that is read along rather than read around. */
const STREAM_GAP = 64 * 1024;
/** Zeros up to this are written along with their neighbours; more get a call of their own. */
const ZERO_INLINE = 64 * 1024;
const RANGE_PAIRS = 4096;

/** Waits until the job may write; for targets that are written front to back. */
export type Turn = () => Promise<void>;

/** Carries out jobs, one at a time. */
export class JobRunner {
  private readonly kernels: Kernels;
  private readonly input: Region;
  private readonly output: Region;
  private readonly cluster: Region;
  private readonly ranges: Region;
  /** Which bytes `input` holds: of which source, from where to where. */
  private inputSource = -1;
  private inputFrom = 0;
  private inputTo = 0;
  /** The window: where in the target it starts, and how much of it is filled. */
  private windowAt = 0;
  private filled = 0;
  private turn: Turn | undefined;

  constructor(
    private readonly sources: readonly Storage[],
    private readonly target: Pick<Storage, 'write' | 'zero'>,
    private readonly options: RunnerOptions,
  ) {
    const { clusterSizeMax } = options;
    const workspace = new Workspace();
    this.input = workspace.reserve(Math.max(INPUT_BYTES, 2 * clusterSizeMax + 512) + INPUT_SLACK);
    this.output = workspace.reserve(Math.max(OUTPUT_BYTES, clusterSizeMax));
    this.cluster = workspace.reserve(Math.max(clusterSizeMax, 1));
    this.ranges = workspace.reserve(RANGE_PAIRS * 8);
    this.kernels = workspace.kernels;
  }

  /**
   * Carries out one job.
   * @param turn awaited before the job's first write
   * @throws Qcow2Error CORRUPT or IO; some of the job may have been written
   */
  async run(ops: Float64Array, turn?: Turn): Promise<void> {
    this.turn = turn;
    this.filled = 0;
    for (let op = 0; op < ops.length; op += OP_STRIDE) {
      const kind = ops[op] as OpKind;
      if (kind === OpKind.copy) await this.copy(ops, op);
      else if (kind === OpKind.zero) await this.zero(ops, op);
      else {
        // No promise per cluster: only what really waits is waited for.
        const decoded = this.decode(ops, op);
        if (decoded) await decoded;
      }
    }
    await this.flushWindow();
    if (turn && this.turn) await turn();
  }

  private async copy(ops: Float64Array, op: number): Promise<void> {
    const source = this.sources[ops[op + 1]!] as Storage;
    const host = ops[op + 2]!;
    const target = ops[op + 4]!;
    const length = ops[op + 5]!;
    for (let done = 0; done < length; ) {
      if (!this.follows(target + done, 1)) await this.flushWindow();
      const at = this.place(target + done);
      const take = Math.min(length - done, this.output.length - at);
      const into = this.output.bytes.subarray(at, at + take);
      const read = source.read(host + done, into);
      const got = settled(read) ? read : await read;
      if (got < take) into.fill(0, got);
      this.filled = at + take;
      done += take;
    }
  }

  private async zero(ops: Float64Array, op: number): Promise<void> {
    const target = ops[op + 4]!;
    const length = ops[op + 5]!;
    if (length <= ZERO_INLINE || this.options.allocate) {
      for (let done = 0; done < length; ) {
        if (!this.follows(target + done, 1)) await this.flushWindow();
        const at = this.place(target + done);
        const take = Math.min(length - done, this.output.length - at);
        this.output.bytes.fill(0, at, at + take);
        this.filled = at + take;
        done += take;
      }
      return;
    }
    await this.flushWindow();
    await this.takeTurn();
    await this.target.zero(target, length);
  }

  /** Decodes one cluster, at once where its stream is in memory and the window has room. */
  private decode(ops: Float64Array, op: number): Promise<void> | undefined {
    if (!this.hasStream(ops, op)) {
      const loaded = this.loadStreams(ops, op);
      if (loaded) return loaded.then(() => this.decode(ops, op));
    }
    if (!this.follows(ops[op + 4]!, ops[op + 5]!)) {
      return this.flushWindow().then(() => this.decode(ops, op));
    }
    const at = this.place(ops[op + 4]!);
    const length = ops[op + 5]!;
    const skip = ops[op + 6]!;
    const clusterSize = ops[op + 7]!;
    const whole = length === clusterSize;
    const host = ops[op + 2]!;
    const src = host - this.inputFrom;
    const codec = ops[op] === OpKind.zstd ? 'zstd' : 'deflate';
    const result = decodeInto(this.kernels, codec, {
      src: this.input.at + src,
      srcBytes: Math.max(0, Math.min(ops[op + 3]!, this.inputTo - host)),
      dst: whole ? this.output.at + at : this.cluster.at,
      dstBytes: clusterSize,
    });
    if (result !== clusterSize) throw decodeFailure(result, codec, host);
    if (!whole) this.output.bytes.set(this.cluster.bytes.subarray(skip, skip + length), at);
    this.filled = at + length;
    return undefined;
  }

  private hasStream(ops: Float64Array, op: number): boolean {
    if (this.inputSource !== ops[op + 1]) return false;
    const host = ops[op + 2]!;
    return host >= this.inputFrom && host + ops[op + 3]! <= this.inputEnd;
  }
  /** How far the last read was meant to reach: beyond `inputTo` where the file ended first. */
  private inputEnd = 0;

  /** Reads the stream of an operation and those of the following ones that lie close by. */
  private loadStreams(ops: Float64Array, first: number): Promise<void> | undefined {
    const index = ops[first + 1]!;
    const from = ops[first + 2]!;
    const room = this.input.length - INPUT_SLACK;
    let to = from + ops[first + 3]!;
    for (let op = first + OP_STRIDE; op < ops.length; op += OP_STRIDE) {
      const kind = ops[op];
      if ((kind !== OpKind.deflate && kind !== OpKind.zstd) || ops[op + 1] !== index) break;
      const host = ops[op + 2]!;
      const end = host + ops[op + 3]!;
      if (host < from || host > to + STREAM_GAP || end - from > room) break;
      if (end > to) to = end;
    }
    if (to - from > room) throw new Qcow2Error('CORRUPT', 'compressed cluster is too long', from);
    const finish = (got: number) => {
      this.inputSource = index;
      this.inputFrom = from;
      this.inputTo = from + got;
      this.inputEnd = to;
    };
    this.inputSource = -1;
    const source = this.sources[index] as Storage;
    const read = source.read(from, this.input.bytes.subarray(0, to - from));
    if (!settled(read)) return read.then(finish);
    finish(read);
    return undefined;
  }

  /** True when `length` bytes at `target` continue the window and fit into it. */
  private follows(target: number, length: number): boolean {
    if (this.filled === 0) return true;
    return target === this.windowAt + this.filled && this.filled + length <= this.output.length;
  }

  /** Where in the output region the target offset lies; an empty window moves there. */
  private place(target: number): number {
    if (this.filled === 0) this.windowAt = target;
    return target - this.windowAt;
  }

  private async takeTurn(): Promise<void> {
    const { turn } = this;
    this.turn = undefined;
    if (turn) await turn();
  }

  /** Writes what the window holds, leaving zeros out where the target is to be sparse. */
  private async flushWindow(): Promise<void> {
    const { filled, windowAt, target, options, output, ranges } = this;
    if (filled === 0) return;
    this.filled = 0;
    if (this.turn) await this.takeTurn();
    const write = (from: number, to: number) => {
      return target.write(windowAt + from, output.bytes.subarray(from, to));
    };
    if (options.holeBytes === 0) {
      await write(0, filled);
      return;
    }
    const { granule, holeBytes } = options;
    // A scan that runs out of room says so by a last pair that reaches the end: the zeros behind
    // it are written, which is right and, with this many pieces, no loss.
    const count = this.kernels.dataRanges(
      output.at,
      filled,
      granule,
      windowAt % granule,
      ranges.at,
      RANGE_PAIRS,
    );
    const pairs = new Uint32Array(this.kernels.memory.buffer, ranges.at, count * 2);
    for (let pair = 0; pair < count * 2; ) {
      const from = pairs[pair]!;
      let to = pairs[pair + 1]!;
      pair += 2;
      while (pair < count * 2 && pairs[pair]! - to < holeBytes) {
        to = pairs[pair + 1]!;
        pair += 2;
      }
      const written = write(from, to);
      if (!settled(written)) await written;
    }
  }
}
