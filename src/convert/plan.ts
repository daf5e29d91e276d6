/**
 * Planning a conversion: the extents of the sources, window by window, become jobs. Control plane:
 * no guest byte is looked at here.
 */
import { settled } from '../base/awaitable.ts';
import { isQcow2Error } from '../base/errors.ts';
import type { ClusterCodec } from '../codec/codec.ts';
import { type DataSource, type Disk, ExtentKind, ExtentList, extentWindow } from '../image/disk.ts';
import { COPIED_ROOM, JOB_OPS_MAX, JobBuilder, OpKind } from './job.ts';
import { addLost, type LostRange } from './runner.ts';

/** One job: operations of a range of the target. */
export interface PlannedJob {
  readonly ops: Float64Array<ArrayBuffer>;
  /** Target bytes up to which everything is in this job or an earlier one. */
  readonly until: number;
}

/** What jobs come from. */
export interface JobSource {
  /** The next job, or undefined after the last one. */
  next(): Promise<PlannedJob | undefined>;
  /** The operations that were kept back: to run when all others are done. */
  last(): Float64Array<ArrayBuffer>;
  /** Ranges of which nobody knows what they are made of, where that is no end. */
  readonly lost?: readonly LostRange[];
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
   * that are touched, and of streams that are copied: room for the largest source cluster at least.
   */
  readonly jobBytes: number;
  /** Of the first one; each further has twice as much. The sooner there is something to write. */
  readonly firstJobBytes?: number | undefined;
  readonly clusters?: PlanClusters;
  /** Emit zeros too: the target may hold something else, or must be written whole. */
  readonly writeZeros: boolean;
  /** Long runs of zeros take work like data: a job has its share of them. */
  readonly splitZeros?: boolean;
  /** Target offset from which on operations are kept back for the last job. */
  readonly holdFrom: number;
  /** What of a disk's tables is broken or cannot be read is zeros, rather than the end. */
  readonly salvage?: boolean | undefined;
}

/** Clusters that are given up for broken tables, at most: then the image is. */
const LOST_CLUSTERS_MAX = 2 ** 16;

/** Guest bytes of the first look at the extents: a small one, so that work starts at once. */
const WINDOW_FIRST = 64 * 2 ** 20;
/** Windows of a look at most: what lies behind much of nothing may still be many extents. */
const STRETCH_MAX = 16;

/** The files of several disks, one list. */
export function allSources(disks: readonly Disk[]): DataSource[] {
  return disks.flatMap((disk) => disk.sources);
}

/** Makes the jobs of several disks, concatenated, in target order. */
export class Planner implements JobSource {
  private readonly list = new ExtentList();
  private readonly sources: readonly DataSource[];
  private readonly builder = new JobBuilder();
  private readonly held = new JobBuilder();
  /** With clusters, what the job in hand has room for. */
  private jobBytes: number;
  private window = WINDOW_FIRST;
  /** Windows that the next look spans: more than one where nothing was in the last. */
  private stretch = 1;
  private disk = 0;
  /** Where this disk starts in the target, and how far its extents were looked at. */
  private diskStart = 0;
  private at = 0;
  private record = 0;
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
      while (this.record < this.list.count) {
        if (options.clusters) {
          if (this.isFull(options.clusters)) return this.takeJob();
          this.addClusters(options.clusters);
          continue;
        }
        const until = this.addRecord();
        if (builder.bytes >= options.jobBytes || builder.count >= JOB_OPS_MAX) {
          return { ops: builder.take(), until };
        }
      }
      if (!(await this.lookAhead())) break;
    }
    if (builder.count === 0) return undefined;
    this.until = this.diskStart;
    return this.takeJob();
  }

  /** The operations that were kept back: to run when all others are done. */
  last(): Float64Array<ArrayBuffer> {
    return this.held.take();
  }

  /** Collects the next window's extents; false when there are no more. */
  private async lookAhead(): Promise<boolean> {
    const { list } = this;
    let disk = this.disks[this.disk];
    while (disk && this.at >= disk.size) {
      this.diskStart += disk.size;
      this.sourceBase += disk.sources.length;
      this.at = 0;
      disk = this.disks[++this.disk];
    }
    if (!disk) return false;
    const most = extentWindow(disk) * this.stretch;
    const end = Math.min(disk.size, this.at + Math.min(this.window, most));
    this.window *= 8;
    list.clear();
    this.record = 0;
    if (this.options.salvage) await this.salvage(disk, this.at, end);
    else {
      const collected = disk.collectExtents(this.at, end, list, this.sourceBase);
      if (!settled(collected)) await collected;
    }
    const sorted = this.sortStreams();
    if (!settled(sorted)) await sorted;
    this.stretch = list.count > 1 ? 1 : Math.min(STRETCH_MAX, this.stretch * 2);
    this.at = end;
    return true;
  }

  readonly lost: LostRange[] = [];
  private lostClusters = 0;

  /** Collects what can be collected of a range, and takes the rest for zeros. */
  private async salvage(disk: Disk, from: number, to: number): Promise<void> {
    const { list } = this;
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
        await this.salvage(disk, from, half);
        await this.salvage(disk, half, to);
        return;
      }
      if (disk.format === 'raw') {
        // Where its holes are is a hint and no more: what is there is told by reading it.
        list.push(ExtentKind.data, from, to - from, this.sourceBase, from);
        return;
      }
      if (++this.lostClusters > LOST_CLUSTERS_MAX) throw cause;
      list.push(ExtentKind.zero, from, to - from, this.sourceBase);
      const guest = this.diskStart + from;
      addLost(this.lost, { guest, length: to - from, why: 'Input/output error' });
    }
  }

  // ---- clusters ------------------------------------------------------------------------------

  /** The last cluster of the job in hand, the memory it takes, how far it reaches. */
  private lastCluster = -1;
  private jobRoom = 0;
  private until = 0;

  private takeJob(): PlannedJob {
    this.jobBytes = Math.min(this.options.jobBytes, this.jobBytes * 2);
    this.jobRoom = 0;
    this.lastCluster = -1;
    return { ops: this.builder.take(), until: this.until };
  }

  /** Whether what is next starts a cluster that the job has no room for. */
  private isFull({ clusterSize, copies }: PlanClusters): boolean {
    const { builder, list, record } = this;
    if (builder.count === 0) return false;
    const target = this.diskStart + list.guest(record) + this.partDone;
    if (Math.floor(target / clusterSize) === this.lastCluster) return false;
    if (builder.count >= JOB_OPS_MAX) return true;
    let needed = clusterSize;
    if (list.kind(record) === ExtentKind.compressed) {
      const source = this.sources[list.source(record)] as DataSource;
      // One that is decoded should not be cut in two.
      if (source.codec !== copies || source.clusterSize !== clusterSize) {
        needed = list.length(record) - this.partDone + clusterSize;
      }
    }
    return this.jobRoom + needed > this.jobBytes;
  }

  private addClusters(clusters: PlanClusters): void {
    const { list, record: index, options } = this;
    const { clusterSize } = clusters;
    const kind = list.kind(index);
    const rest = list.length(index) - this.partDone;
    const target = this.diskStart + list.guest(index) + this.partDone;
    const isZero = kind !== ExtentKind.data && kind !== ExtentKind.compressed;
    let length = rest;
    if (isZero && !options.writeZeros) {
      // Nothing to do.
    } else if (kind === ExtentKind.compressed && this.isCopied(clusters, index, target)) {
      const stored = this.storedBytes(index);
      const host = list.host(index);
      const source = list.source(index);
      this.builder.add(OpKind.stream, source, host, stored, target, length, 0, clusterSize);
      this.jobRoom += stored * COPIED_ROOM;
      this.lastCluster = target / clusterSize;
    } else if (kind === ExtentKind.data && this.isMoved(clusters, index, target)) {
      const room = Math.max(clusterSize, (this.jobBytes - this.jobRoom) / COPIED_ROOM);
      length = Math.min(rest - (rest % clusterSize), room - (room % clusterSize));
      const host = list.host(index) + this.partDone;
      this.builder.add(OpKind.move, list.source(index), host, 0, target, length, 0, 0);
      this.jobRoom += length * COPIED_ROOM;
      this.lastCluster = (target + length) / clusterSize - 1;
    } else {
      const first = Math.floor(target / clusterSize);
      const start = first * clusterSize;
      const before = first === this.lastCluster ? clusterSize : 0;
      const room = Math.max(clusterSize, this.jobBytes - this.jobRoom + before);
      length = Math.min(rest, start + room - (room % clusterSize) - target);
      this.addPart(kind, index, target, length);
      this.lastCluster = Math.floor((target + length - 1) / clusterSize);
      this.jobRoom += (this.lastCluster - first + 1) * clusterSize - before;
    }
    this.until = target + length;
    this.partDone = length === rest ? 0 : this.partDone + length;
    if (this.partDone === 0) this.record++;
  }

  /** Whether a compressed cluster is just what the target would have. */
  private isCopied(clusters: PlanClusters, index: number, target: number): boolean {
    const { clusterSize, copies, diskSize } = clusters;
    const { list } = this;
    const source = this.sources[list.source(index)] as DataSource;
    if (source.codec !== copies || source.clusterSize !== clusterSize) return false;
    if (list.skip(index) !== 0 || this.partDone !== 0 || target % clusterSize !== 0) return false;
    const length = list.length(index);
    if (length !== clusterSize && target + length !== diskSize) return false;
    // What may be longer than a cluster is made anew: then it is known to be shorter. So is what
    // may not be there as a whole.
    const stored = this.storedBytes(index);
    return stored > 0 && stored <= clusterSize && stored > list.stored(index) - 512;
  }

  /** Whether what is next of plain bytes has whole clusters that are copied without a look. */
  private isMoved({ clusterSize, moves }: PlanClusters, index: number, target: number): boolean {
    const { list, partDone } = this;
    if (moves !== true || this.sources[list.source(index)]?.encrypted) return false;
    return target % clusterSize === 0 && list.length(index) - partDone >= clusterSize;
  }

  /**
   * Bytes of a stream: an entry says in how many sectors it lies, and where another one starts in
   * the last of them, or the file ends, it ends there.
   */
  private storedBytes(index: number): number {
    const { list, starts } = this;
    const stored = list.stored(index);
    const host = list.host(index);
    const known = starts.get(list.source(index));
    if (!known) return stored;
    const apart = known.nextAbove(host) - host;
    return apart < stored && apart > stored - 512 ? apart : Math.min(stored, known.end - host);
  }

  /** Where the streams of the window start, by their source. */
  private readonly starts = new Map<number, StreamStarts>();

  private async sortStreams(): Promise<void> {
    const { list, starts, options } = this;
    starts.clear();
    if (!options.clusters?.copies) return;
    const found = new Map<number, number[]>();
    for (let index = 0; index < list.count; index++) {
      if (list.kind(index) !== ExtentKind.compressed) continue;
      const source = list.source(index);
      const hosts = found.get(source);
      if (hosts) hosts.push(list.host(index));
      else found.set(source, [list.host(index)]);
    }
    for (const [source, hosts] of found) {
      const { storage } = this.sources[source] as DataSource;
      starts.set(source, new StreamStarts(hosts, await storage.size()));
    }
  }

  // ---- raw targets ---------------------------------------------------------------------------

  /** Adds what is next of the list; a long plain range is added in parts of a job's size. */
  private addRecord(): number {
    const { list, record: index, options } = this;
    const kind = list.kind(index);
    const start = list.guest(index) + this.partDone;
    const rest = list.length(index) - this.partDone;
    const target = this.diskStart + start;
    const room = Math.max(1, options.jobBytes - this.builder.bytes);
    let length = rest;
    const splits =
      kind === ExtentKind.data || (kind !== ExtentKind.compressed && options.splitZeros === true);
    if (splits) length = Math.min(rest, room);
    if (target < options.holdFrom) length = Math.min(length, options.holdFrom - target);
    this.addPart(kind, index, target, length);
    this.partDone = length === rest ? 0 : this.partDone + length;
    if (this.partDone === 0) this.record++;
    return target + length;
  }
  private partDone = 0;

  private addPart(kind: ExtentKind, index: number, target: number, length: number): void {
    const { list, options } = this;
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

/** Where streams of a file start. */
class StreamStarts {
  private readonly sorted: Float64Array;
  /** Where the last answer was found: streams come nearly in the order of the file. */
  private last = 0;

  /** @param end bytes of the file */
  constructor(
    starts: readonly number[],
    readonly end: number,
  ) {
    this.sorted = Float64Array.from(starts).sort();
  }

  /** The first start above `host`; Infinity where there is none. */
  nextAbove(host: number): number {
    const { sorted } = this;
    let at = this.last;
    for (let step = 1; at > 0 && sorted[at - 1]! > host; step *= 2) at = Math.max(0, at - step);
    // All in front of `at` are at most `host`.
    let to = at;
    for (let step = 1; to < sorted.length && sorted[to]! <= host; step *= 2) {
      at = to + 1;
      to += step;
    }
    to = Math.min(to, sorted.length);
    while (at < to) {
      const middle = (at + to) >>> 1;
      if (sorted[middle]! > host) to = middle;
      else at = middle + 1;
    }
    this.last = at;
    return sorted[at] ?? Number.POSITIVE_INFINITY;
  }
}
