/**
 * Planning a conversion: the extents of the sources, window by window, become jobs. Control plane:
 * no guest byte is looked at here.
 */
import { settled } from '../base/awaitable.ts';
import { isQcow2Error } from '../base/errors.ts';
import type { ClusterCodec } from '../codec/codec.ts';
import { type DataSource, type Disk, ExtentKind, ExtentList, extentWindow } from '../image/disk.ts';
import { collectExtents } from './collect.ts';
import { type CopiedClusters, CopyList } from './copies.ts';
import { JOB_OPS_MAX, JobBuilder, OpKind } from './job.ts';
import { addLost, type LostRange, UnitState } from './runner.ts';

/** One job: operations on ranges of the target, or clusters of it that are copied as they are. */
export type PlannedJob = JobSpan &
  (
    | { readonly ops: Float64Array<ArrayBuffer>; readonly copies?: undefined }
    | { readonly copies: CopiedClusters }
  );

/** How far a job gets a conversion. */
export interface JobSpan {
  /** Target bytes up to which everything is in this job or an earlier one. */
  readonly until: number;
  /** Target bytes that this job deals with, those counted of which nothing is to be done. */
  readonly span: number;
}

/** What jobs come from. */
export interface JobSource {
  /** The next job, or undefined after the last one. */
  next(): Promise<PlannedJob | undefined>;
  /** The operations that were kept back: to run when all others are done. */
  last(): Float64Array<ArrayBuffer>;
  /** Ranges of which nobody knows what they are made of, where that is no end. */
  readonly lost?: readonly LostRange[];
  /** Ranges that were read as they are, since nobody knows what they are made of. */
  readonly unmapped?: readonly LostRange[];
}

/** A target made of clusters: a job has whole ones. */
export interface PlanClusters {
  readonly clusterSize: number;
  /** Virtual bytes of the target. */
  readonly diskSize: number;
  /** Compressed clusters of this kind are copied as they are. */
  readonly copies: ClusterCodec | undefined;
  /** So are plain ones: nobody looks for zeros in them. */
  readonly moves?: boolean;
}

/** What decides the shape of jobs. */
export interface PlanOptions {
  /**
   * Target bytes of a job: enough to make a hand-over worth it. With clusters, the bytes of those
   * that are touched: room for the largest source cluster at least.
   */
  readonly jobBytes: number;
  /** Of the first one; each further has twice as much. The sooner there is something to write. */
  readonly firstJobBytes?: number | undefined;
  readonly clusters?: PlanClusters;
  /** Clusters that a job copies as they are, at most. */
  readonly copiesMax?: number | undefined;
  /** Emit zeros too: the target may hold something else, or must be written whole. */
  readonly writeZeros: boolean;
  /** Long runs of zeros take work like data: a job has its share of them. */
  readonly splitZeros?: boolean;
  /** Target offset from which on operations are kept back for the last job. */
  readonly holdFrom: number;
  /** What of a disk's tables is broken or cannot be read is zeros, rather than the end. */
  readonly salvage?: boolean | undefined;
}

/** What is copied takes no memory of its job, and little time: it has so many times the bytes. */
const COPIED_JOB = 8;
/** Clusters that are given up for broken tables, at most: then the image is. */
const LOST_CLUSTERS_MAX = 2 ** 16;

/** Guest bytes of the first look at the extents: a small one, so that work starts at once. */
const WINDOW_FIRST = 64 * 2 ** 20;
/** Extents of a look beyond which the next is no wider: nobody has work while this one looks. */
const LOOK_EXTENTS = 512;
/** Windows of a look at most: what lies behind much of nothing may still be many extents. */
const STRETCH_MAX = 16;
/**
 * Windows whose copies come before what has to be made of a window's clusters: copying starts at
 * once, and while something is being made there is enough to copy.
 */
const COPIES_LEAD = 4;

/** What jobs are made of: extents of a disk that starts somewhere in the target. */
interface Window {
  readonly list: ExtentList;
  readonly diskStart: number;
  /** Where it ends in the target. */
  readonly end: number;
}

/** The files of several disks, one list. */
export function allSources(disks: readonly Disk[]): DataSource[] {
  return disks.flatMap((disk) => disk.sources);
}

/** Whether a target takes a source's compressed clusters as they are. */
export function isAsIs(
  source: DataSource,
  target: { readonly codec: ClusterCodec | undefined; readonly clusterSize: number },
): boolean {
  return source.codec === target.codec && source.clusterSize === target.clusterSize;
}

/** Makes the jobs of several disks, concatenated, in target order. */
export class Planner implements JobSource {
  /** The window in hand, as far as it is not copied; and those that were looked at behind it. */
  private window: Window = { list: new ExtentList(), diskStart: 0, end: 0 };
  private record = 0;
  private readonly waiting: Window[] = [];
  /** How many of them come before their first one's turn. */
  private lead = 0;
  /** Lists of windows that are done. */
  private readonly spare: ExtentList[] = [];
  /** What of the last window that was looked at is copied as it is. */
  private readonly copies = new CopyList();
  private readonly sources: readonly DataSource[];
  private readonly builder = new JobBuilder();
  private readonly held = new JobBuilder();
  /** With clusters, what the job in hand has room for. */
  private jobBytes: number;
  private windowBytes = WINDOW_FIRST;
  /** Windows that the next look spans: more than one where nothing was in the last. */
  private stretch = 1;
  private disk = 0;
  /** Where this disk starts in the target, and how far its extents were looked at. */
  private diskStart = 0;
  private at = 0;
  private sourceBase = 0;

  constructor(
    private readonly disks: readonly Disk[],
    private readonly options: PlanOptions,
  ) {
    this.sources = allSources(disks);
    this.jobBytes = options.firstJobBytes ?? options.jobBytes;
  }

  /** The next job, or undefined after the last one. */
  async next(): Promise<PlannedJob | undefined> {
    const { builder, options } = this;
    for (;;) {
      if (options.clusters && !this.copies.isEmpty) return this.takeCopies(options.clusters);
      while (this.record < this.window.list.count) {
        if (options.clusters) {
          if (this.isFull(options.clusters)) return this.takeJob();
          this.addClusters(options.clusters);
          continue;
        }
        this.addRecord();
        if (builder.bytes >= options.jobBytes || builder.count >= JOB_OPS_MAX) {
          return this.takeJob();
        }
      }
      if (!(await this.nextWindow())) break;
    }
    if (builder.count === 0) return undefined;
    this.until = this.diskStart;
    return this.takeJob();
  }

  /** Goes on to the next window, or to copies that come first; false when there is neither. */
  private async nextWindow(): Promise<boolean> {
    this.until = this.window.end;
    while (this.waiting.length <= this.lead && (await this.lookAhead())) {
      if (!this.copies.isEmpty) return true;
    }
    const next = this.waiting.shift();
    if (!next) return false;
    // A job does not wait for clusters of windows to come.
    if (this.lead > 0) this.isDue = this.builder.count > 0;
    this.spare.push(this.window.list);
    this.window = next;
    this.record = 0;
    return true;
  }
  /** Whether the job in hand ends with the cluster that it has come to. */
  private isDue = false;

  /** The operations that were kept back: to run when all others are done. */
  last(): Float64Array<ArrayBuffer> {
    return this.held.take();
  }

  /** Collects the next window's extents; false when there are no more. */
  private async lookAhead(): Promise<boolean> {
    let disk = this.disks[this.disk];
    while (disk && this.at >= disk.size) {
      this.diskStart += disk.size;
      this.sourceBase += disk.sources.length;
      this.at = 0;
      disk = this.disks[++this.disk];
    }
    if (!disk) return false;
    const most = extentWindow(disk) * this.stretch;
    const end = Math.min(disk.size, this.at + Math.min(this.windowBytes, most));
    const list = this.emptyList();
    if (this.options.salvage) await this.salvage(disk, list, this.at, end);
    else {
      const collected = collectExtents(disk, [this.at, end], list, this.sourceBase);
      if (!settled(collected)) await collected;
    }
    if (list.count < LOOK_EXTENTS) this.windowBytes *= 8;
    this.stretch = list.count > 1 ? 1 : Math.min(STRETCH_MAX, this.stretch * 2);
    this.at = end;
    const { diskStart } = this;
    const { clusters } = this.options;
    const setsAside = clusters?.copies || clusters?.moves;
    const rest = setsAside ? await this.setAside(clusters, list) : list;
    this.lead = this.copies.isEmpty ? 0 : COPIES_LEAD;
    this.waiting.push({ list: rest, diskStart, end: diskStart + end });
    return true;
  }

  private emptyList(): ExtentList {
    const list = this.spare.pop() ?? new ExtentList();
    list.clear();
    return list;
  }

  readonly lost: LostRange[] = [];
  readonly unmapped: LostRange[] = [];
  private lostClusters = 0;

  /** Collects what can be collected of a range, and takes the rest for zeros. */
  private async salvage(disk: Disk, list: ExtentList, from: number, to: number): Promise<void> {
    const mark = list.mark();
    try {
      const collected = disk.collectExtents(from, to, list, this.sourceBase);
      if (!settled(collected)) await collected;
      return;
    } catch (cause) {
      if (!isQcow2Error(cause, 'CORRUPT', 'IO')) throw cause;
      list.backTo(mark);
      const unit = Math.max(512, ...disk.sources.map(({ clusterSize }) => clusterSize));
      if (to - from > unit) {
        const half = from + Math.ceil((to - from) / unit / 2) * unit;
        await this.salvage(disk, list, from, half);
        await this.salvage(disk, list, half, to);
        return;
      }
      const guest = this.diskStart + from;
      addLost(this.unmapped, { guest, length: to - from, why: 'Input/output error' });
      if (disk.format === 'raw') {
        // Where its holes are is a hint and no more: what is there is told by reading it.
        list.push(ExtentKind.data, from, to - from, this.sourceBase, from);
        return;
      }
      if (++this.lostClusters > LOST_CLUSTERS_MAX) throw cause;
      list.push(ExtentKind.zero, from, to - from, this.sourceBase);
      addLost(this.lost, { guest, length: to - from, why: 'Input/output error' });
    }
  }

  // ---- clusters ------------------------------------------------------------------------------

  /** The last cluster of the job in hand, the memory it takes, how far it reaches. */
  private lastCluster = -1;
  private jobRoom = 0;
  private until = 0;

  private takeJob(): PlannedJob {
    this.growJob();
    this.jobRoom = 0;
    this.lastCluster = -1;
    this.isDue = false;
    this.complete = this.until;
    return { ops: this.builder.take(), until: this.until, span: this.takeSpan() };
  }
  /** How far the last of the jobs with operations reached. */
  private complete = 0;

  private growJob(): void {
    this.jobBytes = Math.min(this.options.jobBytes, this.jobBytes * 2);
  }

  /** Bytes that were dealt with since the last job. */
  private takeSpan(): number {
    const span = this.passed;
    this.passed = 0;
    return span;
  }
  private passed = 0;

  /**
   * Whatever of a window is copied goes first: then its jobs have no others among them, and none
   * of them waits for what a cluster turns out to be.
   */
  private takeCopies({ clusterSize }: PlanClusters): PlannedJob {
    const { copiesMax = JOB_OPS_MAX } = this.options;
    const copies = this.copies.take(this.jobBytes * COPIED_JOB, copiesMax, clusterSize);
    this.growJob();
    this.passed += copies.hosts.length * clusterSize;
    const until = this.builder.count > 0 ? this.complete : this.until;
    return { copies, until, span: this.takeSpan() };
  }

  /** Whether what is next lies in another cluster than what the job ends with. */
  private startsCluster(clusterSize: number): boolean {
    return Math.floor(this.target() / clusterSize) !== this.lastCluster;
  }

  /** Where what is next goes in the target. */
  private target(): number {
    const { list, diskStart } = this.window;
    return diskStart + list.guest(this.record) + this.partDone;
  }

  /** Whether what is next starts a cluster that the job has no room for. */
  private isFull({ clusterSize }: PlanClusters): boolean {
    const { builder, record } = this;
    const { list } = this.window;
    if (builder.count === 0 || !this.startsCluster(clusterSize)) return false;
    if (this.isDue || builder.count >= JOB_OPS_MAX) return true;
    let needed = clusterSize;
    // One that is decoded should not be cut in two.
    if (list.kind(record) === ExtentKind.compressed) {
      needed = list.length(record) - this.partDone + clusterSize;
    }
    return this.jobRoom + needed > this.jobBytes;
  }

  private addClusters({ clusterSize }: PlanClusters): void {
    const { record: index, options } = this;
    const { list } = this.window;
    const kind = list.kind(index);
    const rest = list.length(index) - this.partDone;
    const target = this.target();
    const isZero = kind !== ExtentKind.data && kind !== ExtentKind.compressed;
    let length = rest;
    if (!isZero || options.writeZeros) {
      const first = Math.floor(target / clusterSize);
      const start = first * clusterSize;
      const before = first === this.lastCluster ? clusterSize : 0;
      const room = Math.max(clusterSize, this.jobBytes - this.jobRoom + before);
      length = Math.min(rest, start + room - (room % clusterSize) - target);
      this.addPart(kind, index, target, length);
      this.lastCluster = Math.floor((target + length - 1) / clusterSize);
      this.jobRoom += (this.lastCluster - first + 1) * clusterSize - before;
    }
    this.pass(target, length, rest);
  }

  /** Goes on behind `length` bytes of a record, of which there are `rest`. */
  private pass(target: number, length: number, rest: number): void {
    this.until = target + length;
    this.passed += length;
    this.partDone = length === rest ? 0 : this.partDone + length;
    if (this.partDone === 0) this.record++;
  }

  // ---- what is copied as it is ---------------------------------------------------------------

  /** Takes what is copied out of a list. @returns the rest, in another one */
  private async setAside(clusters: PlanClusters, list: ExtentList): Promise<ExtentList> {
    const { copies, diskStart } = this;
    const rest = this.emptyList();
    copies.clear();
    const isAdded = new Uint8Array(list.count);
    const { copies: codec, clusterSize, diskSize } = clusters;
    const window = { list, diskStart, clusterSize, diskSize };
    for (const [source, data] of this.sources.entries()) {
      if (!isAsIs(data, { codec, clusterSize })) continue;
      copies.addStreams(window, source, await data.storage.size(), isAdded);
    }
    for (let index = 0; index < list.count; index++) {
      if (isAdded[index] === 1) continue;
      const isPlain = list.kind(index) === ExtentKind.data;
      if (isPlain && this.copyPlain(clusters, { list, rest }, index)) continue;
      keep({ list, rest }, index, 0, list.length(index));
    }
    this.spare.push(list);
    return rest;
  }

  /** Sets the whole clusters of plain bytes aside, where nobody looks for zeros in them. */
  private copyPlain(clusters: PlanClusters, lists: SplitLists, index: number): boolean {
    const { clusterSize, moves } = clusters;
    const { list } = lists;
    const source = list.source(index);
    if (moves !== true || this.sources[source]?.encrypted) return false;
    const target = this.diskStart + list.guest(index);
    const length = list.length(index);
    const before = (clusterSize - (target % clusterSize)) % clusterSize;
    const whole = length - before - ((length - before) % clusterSize);
    if (whole <= 0) return false;
    keep(lists, index, 0, before);
    for (let at = before; at < before + whole; at += clusterSize) {
      this.copies.add((target + at) / clusterSize, UnitState.data, source, list.host(index) + at);
    }
    keep(lists, index, before + whole, length);
    return true;
  }

  // ---- raw targets ---------------------------------------------------------------------------

  /** Adds what is next of the list; a long plain range is added in parts of a job's size. */
  private addRecord(): void {
    const { record: index, options } = this;
    const { list } = this.window;
    const kind = list.kind(index);
    const rest = list.length(index) - this.partDone;
    const target = this.target();
    const room = Math.max(1, options.jobBytes - this.builder.bytes);
    let length = rest;
    const splits =
      kind === ExtentKind.data || (kind !== ExtentKind.compressed && options.splitZeros === true);
    if (splits) length = Math.min(rest, room);
    if (target < options.holdFrom) length = Math.min(length, options.holdFrom - target);
    this.addPart(kind, index, target, length);
    this.pass(target, length, rest);
  }
  private partDone = 0;

  private addPart(kind: ExtentKind, index: number, target: number, length: number): void {
    const { options } = this;
    const { list } = this.window;
    const builder = target >= options.holdFrom ? this.held : this.builder;
    const source = list.source(index);
    if (kind === ExtentKind.data) {
      const host = list.host(index) + this.partDone;
      const file = list.skip(index) + this.partDone;
      builder.add(OpKind.copy, source, host, 0, target, length, file, 0);
    } else if (kind === ExtentKind.compressed) {
      const { codec, clusterSize } = this.sources[source] as DataSource;
      const op = codec === 'zstd' ? OpKind.zstd : OpKind.deflate;
      const skip = list.skip(index) + this.partDone;
      const host = list.host(index);
      builder.add(op, source, host, list.stored(index), target, length, skip, clusterSize);
    } else if (options.writeZeros) {
      builder.add(OpKind.zero, 0, 0, 0, target, length, 0, 0);
    }
  }
}

/** A window's extents, and what is left of them when those are out that are copied. */
interface SplitLists {
  readonly list: ExtentList;
  readonly rest: ExtentList;
}

/** Leaves the bytes [from, to) of a record in the list. */
function keep({ list, rest }: SplitLists, index: number, from: number, to: number): void {
  if (from === to) return;
  const [kind, guest, host] = [list.kind(index), list.guest(index), list.host(index)];
  const at = host < 0 || kind === ExtentKind.compressed ? host : host + from;
  const skip = list.skip(index);
  // Plain bytes of most files have no other place than `host`.
  const file = kind === ExtentKind.data && skip === 0 ? 0 : skip + from;
  rest.push(kind, guest + from, to - from, list.source(index), at, list.stored(index), file);
}
