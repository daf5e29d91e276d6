/**
 * The data plane for raw targets: bytes are read into linear memory, decoded and scanned in place,
 * and written out of it; the same code runs in a worker and inline.
 *
 *   output   a window of the target, as long as operations follow each other in it; where writes
 *            answer later, the next one is filled meanwhile
 *   ranges   what the zero scan found
 */
import { settled } from '../base/awaitable.ts';
import type { Region } from '../kernels/arena.ts';
import { Workspace } from '../kernels/arena.ts';
import type { Kernels } from '../kernels/kernels.ts';
import type { Storage } from '../storage/storage.ts';
import { OP_STRIDE, OpKind } from './job.ts';
import {
  type RawRunnerOptions,
  type Runner,
  type Tally,
  type Turn,
  whenWritten,
} from './runner.ts';
import { SourceReader } from './source-reader.ts';

/** Bytes of the output window. Small enough for a core's cache to keep between read and write. */
const OUTPUT_BYTES = 512 * 1024;
/** Windows that are being written, and the one in hand. */
const OUTPUTS = 6;
/** Zeros up to this are written along with their neighbours; more get a call of their own. */
const ZERO_INLINE = 64 * 1024;
const RANGE_PAIRS = 4096;

/** A window's memory, and what of it has not been written. */
interface Output {
  readonly region: Region;
  readonly underWay: Promise<void>[];
}

/** Carries out jobs of a raw target: one at a time, but for what is yet to be written of others. */
export class RawRunner implements Runner {
  private readonly kernels: Kernels;
  private readonly reader: SourceReader;
  private readonly outputs: readonly Output[];
  private current = 0;
  private readonly ranges: Region;
  /** Writes of the job in hand that answer later. */
  private underWay: Promise<void>[] = [];
  /** The window: where in the target it starts, and how much of it is filled. */
  private windowAt = 0;
  private filled = 0;
  private turn: Turn | undefined;
  private last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly sources: readonly Storage[],
    private readonly target: Pick<Storage, 'write' | 'zero' | 'copyFrom'>,
    private readonly options: RawRunnerOptions,
  ) {
    const workspace = new Workspace();
    this.reader = new SourceReader(workspace, sources, options);
    this.outputs = Array.from({ length: OUTPUTS }, () => ({
      region: workspace.reserve(Math.max(OUTPUT_BYTES, options.clusterSizeMax)),
      underWay: [],
    }));
    this.ranges = workspace.reserve(RANGE_PAIRS * 8);
    this.kernels = workspace.kernels;
  }

  get tally(): Tally {
    return this.reader.tally;
  }

  run(ops: Float64Array, turn?: Turn): Promise<void> {
    const writes: Promise<void>[] = [];
    const begun = this.last.then(() => {
      this.underWay = writes;
      return this.carryOut(ops, turn);
    });
    this.last = begun.catch(() => {});
    return whenWritten(begun, writes);
  }

  private get output(): Region {
    return this.outputs[this.current]!.region;
  }

  async ready(): Promise<void> {
    await this.last;
  }

  private async carryOut(ops: Float64Array, turn: Turn | undefined): Promise<void> {
    this.turn = turn;
    this.filled = 0;
    for (let op = 0; op < ops.length; op += OP_STRIDE) {
      const kind = ops[op] as OpKind;
      if (kind === OpKind.copy) await this.copyPlain(ops, op);
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

  private async copyPlain(ops: Float64Array, op: number): Promise<void> {
    const host = ops[op + 2]!;
    const target = ops[op + 4]!;
    const length = ops[op + 5]!;
    let done = 0;
    if (this.options.copyRange && this.target.copyFrom) {
      await this.flushWindow();
      await this.takeTurn();
      const source = this.sources[ops[op + 1]!] as Storage;
      done = await this.target.copyFrom(source, host, target, length);
      this.tally.bytesWritten += done;
    }
    while (done < length) {
      if (!this.follows(target + done, 1)) await this.flushWindow();
      const at = this.place(target + done);
      const take = Math.min(length - done, this.output.length - at);
      const into = this.output.bytes.subarray(at, at + take);
      const read = this.reader.copy(ops, op, done, into);
      if (!settled(read)) await read;
      this.filled = at + take;
      done += take;
    }
  }

  private async zero(ops: Float64Array, op: number): Promise<void> {
    const target = ops[op + 4]!;
    const length = ops[op + 5]!;
    const { zeroInline = ZERO_INLINE } = this.options;
    if (length <= zeroInline || this.options.allocate) {
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
    await this.zeroTarget(target, length);
  }

  /** What makes zeros may make a file longer, and must not find that it has grown meanwhile. */
  private async zeroTarget(at: number, length: number): Promise<void> {
    for (const { underWay } of this.outputs) await Promise.allSettled(underWay);
    await this.target.zero(at, length);
  }

  /** Decodes one cluster, at once where its stream is in memory and the window has room. */
  private decode(ops: Float64Array, op: number): Promise<void> | undefined {
    const loaded = this.reader.load(ops, op);
    if (loaded) return loaded.then(() => this.decode(ops, op));
    const length = ops[op + 5]!;
    if (!this.follows(ops[op + 4]!, length)) {
      return this.flushWindow().then(() => this.decode(ops, op));
    }
    const at = this.place(ops[op + 4]!);
    this.reader.decode(ops, op, this.output.at + at);
    this.filled = at + length;
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
    const { underWay } = this.outputs[this.current]!;
    underWay.length = 0;
    const write = (from: number, to: number) => {
      this.tally.bytesWritten += to - from;
      const done = target.write(windowAt + from, output.bytes.subarray(from, to));
      if (settled(done)) return undefined;
      // What has no positions is written front to back, and no further than it works.
      if (!options.ahead) return done;
      // Whoever waits for the job hears of it.
      done.catch(() => {});
      underWay.push(done);
      this.underWay.push(done);
      return undefined;
    };
    if (options.holeBytes === 0) {
      const wait = write(0, filled);
      if (wait) await wait;
      await this.nextOutput();
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
    let done = 0;
    for (let pair = 0; pair < count * 2; ) {
      const from = pairs[pair]!;
      let to = pairs[pair + 1]!;
      pair += 2;
      while (pair < count * 2 && pairs[pair]! - to < holeBytes) {
        to = pairs[pair + 1]!;
        pair += 2;
      }
      if (options.zeroHoles && done < from) await this.zeroTarget(windowAt + done, from - done);
      const wait = write(from, to);
      if (wait) await wait;
      done = to;
    }
    await this.nextOutput();
    if (options.zeroHoles && done < filled) await this.zeroTarget(windowAt + done, filled - done);
  }

  /** Leaves a window to its writes, and goes on to one that has none. */
  private async nextOutput(): Promise<void> {
    const { underWay } = this.outputs[this.current]!;
    if (underWay.length === 0) return;
    this.current = (this.current + 1) % OUTPUTS;
    await Promise.allSettled(this.outputs[this.current]!.underWay);
  }
}
