/**
 * Comparing disks: the extents of both side by side. What reads as zeros on both sides, or is the
 * same bytes of the same file, is not looked at; all else is brought into linear memory and
 * compared there.
 */
import { type Awaitable, settled } from '../base/awaitable.ts';
import { alignDown } from '../base/bits.ts';
import { isQcow2Error, Qcow2Error } from '../base/errors.ts';
import { type Disk, ExtentKind } from '../image/disk.ts';
import { type Region, Workspace } from '../kernels/arena.ts';
import type { Storage } from '../storage/storage.ts';
import { type ComparisonStep, comparisonSteps } from './compare-steps.ts';
import { ExtentCursor } from './extent-cursor.ts';
import { JobBuilder, OP_STRIDE, OpKind } from './job.ts';
import { SourceReader } from './source-reader.ts';

/** How disks are compared. */
export interface CompareOptions {
  /** Sizes, and what is allocated and how, must be the same as well. */
  readonly strict?: boolean;
  /** Whether two files are one: their bytes at one place are the same. Default: one object. */
  readonly sameFile?: (a: Storage, b: Storage) => boolean;
  readonly signal?: AbortSignal | undefined;
  /** Told now and then how many bytes were compared, of how many. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** What a comparison found. */
export type Comparison =
  | { readonly identical: true; readonly sameSize: boolean }
  | {
      readonly identical: false;
      readonly sameSize: boolean;
      /** Guest bytes, what is allocated (strict), or the size (strict). */
      readonly what: 'content' | 'status' | 'size';
      /** Where: the sector's first byte. */
      readonly guest: number;
    };

/** What was being done when a comparison failed. */
export interface ComparePlace {
  readonly step: 'extents' | 'read';
  /** Which of the two disks. */
  readonly side: 0 | 1;
  readonly guest: number;
}

/** Guest bytes that are compared at a time: whole clusters of every size. */
const BATCH_BYTES = 2 * 2 ** 20;
const SECTOR = 512;
const SIDES = [0, 1] as const;

/**
 * Compares two disks. Where one is longer, the rest of it must read as zeros.
 * @throws Qcow2Error what reading the disks throws; ABORTED
 */
export function compareDisks(a: Disk, b: Disk, options: CompareOptions = {}): Promise<Comparison> {
  return new DiskComparison(a, b, options).run();
}

/** A range that has to be looked at, and which sides have bytes of it. */
interface Segment {
  readonly from: number;
  to: number;
  /** A bit for each side. */
  readonly sides: number;
}

/** One side of a comparison. */
class Side {
  readonly cursor: ExtentCursor;
  readonly reader: SourceReader;
  readonly region: Region;
  readonly builder = new JobBuilder();
  /** The compressed cluster that was added last: it is decoded once, whole. */
  private stream = -1;

  constructor(
    readonly disk: Disk,
    workspace: Workspace,
  ) {
    const storages = disk.sources.map(({ storage }) => storage);
    const clusterSizeMax = Math.max(1, ...disk.sources.map(({ clusterSize }) => clusterSize));
    this.cursor = new ExtentCursor(disk);
    this.reader = new SourceReader(workspace, storages, { clusterSizeMax, placeless: true });
    this.region = workspace.reserve(BATCH_BYTES);
  }

  start(): void {
    this.stream = -1;
  }

  /** Adds the operation that brings in [from, to), or the stream that it is a part of. */
  add(from: number, to: number, batch: number): void {
    const { list, record, source } = this.cursor;
    const index = list.source(record);
    const host = list.host(record);
    const guest = list.guest(record);
    if (list.kind(record) === ExtentKind.data) {
      const within = from - guest;
      const file = list.skip(record) + within;
      this.builder.add(OpKind.copy, index, host + within, 0, from - batch, to - from, file, 0);
      return;
    }
    if (this.stream === guest) return;
    this.stream = guest;
    const { codec, clusterSize } = source;
    const kind = codec === 'zstd' ? OpKind.zstd : OpKind.deflate;
    const skip = list.skip(record);
    const start = Math.max(guest, batch);
    const end = Math.min(guest + list.length(record), batch + BATCH_BYTES);
    const length = end - start;
    const target = start - batch;
    const stored = list.stored(record);
    this.builder.add(kind, index, host, stored, target, length, skip + start - guest, clusterSize);
  }

  /**
   * Brings in what was added.
   * @returns where in the batch it failed, and why
   */
  async gather(): Promise<{ readonly at: number; readonly cause: unknown } | undefined> {
    const { reader, region } = this;
    const ops = this.builder.take();
    for (let op = 0; op < ops.length; op += OP_STRIDE) {
      const target = ops[op + 4] as number;
      try {
        if (ops[op] === OpKind.copy) {
          const into = region.bytes.subarray(target, target + (ops[op + 5] as number));
          const read = reader.copy(ops, op, 0, into);
          if (!settled(read)) await read;
        } else {
          const loaded = reader.load(ops, op);
          if (loaded) await loaded;
          reader.decode(ops, op, region.at + target);
        }
      } catch (cause) {
        return { at: target, cause };
      }
    }
    return undefined;
  }
}

/** A comparison in the making. */
export class DiskComparison {
  /** What is being done: of use where `run` fails. */
  place: ComparePlace = { step: 'extents', side: 0, guest: 0 };
  private readonly sides: readonly [Side, Side];
  private readonly pairs: Region;
  /** QEMU's steps, where what is allocated counts. */
  private readonly steps: AsyncGenerator<ComparisonStep> | undefined;
  private step: ComparisonStep | undefined;
  private segments: Segment[] = [];

  constructor(
    a: Disk,
    b: Disk,
    private readonly options: CompareOptions = {},
  ) {
    const workspace = new Workspace();
    this.sides = [new Side(a, workspace), new Side(b, workspace)];
    this.pairs = workspace.reserve(8);
    if (options.strict) this.steps = comparisonSteps([a, b]);
  }

  /** Once only. @throws as `compareDisks` */
  async run(): Promise<Comparison> {
    const [a, b] = this.sides;
    const sameSize = a.disk.size === b.disk.size;
    if (this.options.strict && !sameSize) {
      return { identical: false, sameSize, what: 'size', guest: 0 };
    }
    const end = Math.max(a.disk.size, b.disk.size);
    for (let at = 0; at < end; ) {
      const { signal } = this.options;
      if (signal?.aborted) throw new Qcow2Error('ABORTED', 'comparison was stopped');
      const batch = alignDown(at, BATCH_BYTES);
      const stop = Math.min(end, batch + BATCH_BYTES);
      let status: number | undefined;
      let failure: unknown;
      try {
        const next = await this.collect(at, stop, end);
        if (next.mismatch) status = next.at;
        at = next.at;
      } catch (cause) {
        if (!isQcow2Error(cause)) throw cause;
        failure = cause;
      }
      const { place } = this;
      const guest = this.segments.length > 0 ? await this.compareBatch(batch) : undefined;
      if (guest !== undefined) return { identical: false, sameSize, what: 'content', guest };
      if (failure !== undefined) {
        this.place = place;
        throw failure;
      }
      if (status !== undefined) {
        return { identical: false, sameSize, what: 'status', guest: status };
      }
      this.options.onProgress?.(Math.min(at, end), end);
    }
    return { identical: true, sameSize };
  }

  /**
   * Notes what is to be compared up to `stop`; goes beyond where there is nothing to compare.
   * @returns how far it came, and whether that is where strict comparison ends
   */
  private async collect(from: number, stop: number, end: number) {
    const [a, b] = this.sides;
    const batch = alignDown(from, BATCH_BYTES);
    this.segments = [];
    for (const side of this.sides) side.start();
    let at = from;
    while (at < stop) {
      for (const side of SIDES) {
        const sought = this.seek(side, at);
        if (!settled(sought)) await sought;
      }
      let to = Math.min(end, a.cursor.endAt(at), b.cursor.endAt(at));
      const step = this.steps && (await this.stepAt(at));
      if (step) {
        if (!step.isAlike) return { at, mismatch: true };
        to = Math.min(to, step.end);
      }
      const sides = (a.cursor.hasBytes(at) ? 1 : 0) | (b.cursor.hasBytes(at) ? 2 : 0);
      if (sides !== 0 && !(sides === 3 && this.isSame(at))) {
        to = Math.min(to, stop);
        this.note(at, to, sides);
        if (sides & 1) a.add(at, to, batch);
        if (sides & 2) b.add(at, to, batch);
      }
      at = to;
    }
    return { at, mismatch: false };
  }

  private async stepAt(at: number): Promise<ComparisonStep | undefined> {
    while (this.steps && !(this.step && at < this.step.end)) {
      const { value } = await this.steps.next();
      if (!value) return undefined;
      this.step = value;
    }
    return this.step;
  }

  private seek(side: 0 | 1, at: number): Awaitable<void> {
    const { cursor } = this.sides[side];
    // Only what leaves the window can fail.
    if (!cursor.isAt(at)) this.place = { step: 'extents', side, guest: at };
    return cursor.seek(at);
  }

  private note(from: number, to: number, sides: number): void {
    const last = this.segments.at(-1);
    if (last && last.to === from && last.sides === sides && !this.steps) last.to = to;
    else this.segments.push({ from, to, sides });
  }

  /** Both sides show the same bytes of one file. */
  private isSame(at: number): boolean {
    const [a, b] = [this.sides[0].cursor, this.sides[1].cursor];
    if (a.kindAt(at) !== b.kindAt(at)) return false;
    const { sameFile = (x: Storage, y: Storage) => x === y } = this.options;
    if (a.source.encrypted || b.source.encrypted) return false;
    const [ownIn, otherIn] = [at - a.list.guest(a.record), at - b.list.guest(b.record)];
    const [own, other] = [a.list.host(a.record), b.list.host(b.record)];
    if (a.kindAt(at) === ExtentKind.data) {
      if (own + ownIn !== other + otherIn) return false;
    } else {
      const skips = [a.list.skip(a.record) + ownIn, b.list.skip(b.record) + otherIn];
      if (own !== other || skips[0] !== skips[1]) return false;
    }
    return sameFile(a.source.storage, b.source.storage);
  }

  /** @returns the guest offset of the first sector that differs */
  private async compareBatch(batch: number): Promise<number | undefined> {
    const failures = [await this.sides[0].gather(), await this.sides[1].gather()] as const;
    // What differs before it counts before a failure.
    const [first, second] = failures.map((failure) => failure?.at ?? Number.POSITIVE_INFINITY);
    const limit = batch + Math.min(first as number, second as number);
    for (const { from, to, sides } of this.segments) {
      if (to > limit) break;
      const at = this.differs(from - batch, to - from, sides);
      if (at !== undefined) return from + at;
    }
    const side = (first as number) <= (second as number) ? 0 : 1;
    const failure = failures[side];
    if (!failure) return undefined;
    const broken = this.segments.find(({ to, sides }) => to > limit && (sides >> side) & 1);
    this.place = { step: 'read', side, guest: broken?.from ?? limit };
    throw failure.cause;
  }

  private differs(at: number, length: number, sides: number): number | undefined {
    const [a, b] = [this.sides[0].region, this.sides[1].region];
    const { kernels } = this.pairs;
    if (sides === 3) {
      const same = kernels.firstDifference(a.at + at, b.at + at, length);
      return same === length ? undefined : alignDown(same, SECTOR);
    }
    const only = sides === 1 ? a : b;
    const count = kernels.dataRanges(only.at + at, length, SECTOR, 0, this.pairs.at, 1);
    if (count === 0) return undefined;
    return new DataView(kernels.memory.buffer).getUint32(this.pairs.at, true);
  }
}
