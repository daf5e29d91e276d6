/**
 * Planning an overlay: the sources and the target's backing file side by side. Where both read as
 * zeros, or show the same bytes of the same file, there is nothing to do; elsewhere jobs bring in
 * both, so that only what differs is written.
 */
import { settled } from '../base/awaitable.ts';
import { type DataSource, type Disk, ExtentKind, ExtentList } from '../image/disk.ts';
import { collectExtents } from './collect.ts';
import { JOB_OPS_MAX, JobBuilder, OpKind } from './job.ts';
import { allSources, type JobSource, type PlannedJob } from './plan.ts';

/** What decides the shape of an overlay's jobs. */
export interface OverlayOptions {
  /** Bytes of the target's clusters that a job touches, at most. */
  readonly jobBytes: number;
  readonly clusterSize: number;
  readonly diskSize: number;
  /** Whether two files are one. */
  readonly sameFile: (a: DataSource, b: DataSource) => boolean;
  /** What the target has already, by kind and index of the source: it stays as it is. */
  readonly keeps?: (kind: ExtentKind, source: number) => boolean;
}

/** Guest bytes whose extents are looked at together. */
const WINDOW_BYTES = 2 ** 30;
const NOTHING = -1;

/** Makes the jobs of an overlay. */
export class OverlayPlanner implements JobSource {
  private readonly sources: readonly DataSource[];
  private readonly source = new ExtentList();
  private readonly below = new ExtentList();
  /** Operations of both sides, the backing's to go last. */
  private readonly builder = new JobBuilder();
  private readonly belowBuilder = new JobBuilder();
  private windowEnd = 0;
  private at = 0;
  /** How far the jobs reach that were taken. */
  private until = 0;
  private record = 0;
  private belowRecord = 0;
  private lastCluster = -1;
  private clusters = 0;

  /** @param backing what the target's backing file shows */
  constructor(
    private readonly disks: readonly Disk[],
    private readonly backing: Disk,
    private readonly options: OverlayOptions,
  ) {
    this.sources = [...allSources(disks), ...backing.sources];
  }

  async next(): Promise<PlannedJob | undefined> {
    const { diskSize } = this.options;
    for (;;) {
      while (this.at < this.windowEnd) {
        if (this.isFull()) return this.takeJob();
        this.addSegment();
      }
      if (this.at >= diskSize) break;
      await this.lookAhead();
    }
    return this.builder.count + this.belowBuilder.count === 0 ? undefined : this.takeJob();
  }

  last(): Float64Array<ArrayBuffer> {
    return new Float64Array(0);
  }

  private takeJob(): PlannedJob {
    const own = this.builder.take();
    const below = this.belowBuilder.take();
    const ops = new Float64Array(own.length + below.length);
    ops.set(own);
    ops.set(below, own.length);
    this.clusters = 0;
    this.lastCluster = -1;
    const span = this.at - this.until;
    this.until = this.at;
    return { ops, until: this.at, span };
  }

  private isFull(): boolean {
    const { clusterSize, jobBytes } = this.options;
    if (Math.floor(this.at / clusterSize) === this.lastCluster) return false;
    const ops = this.builder.count + this.belowBuilder.count;
    return ops >= JOB_OPS_MAX || (this.clusters + 1) * clusterSize > jobBytes;
  }

  private async lookAhead(): Promise<void> {
    const { diskSize } = this.options;
    const end = Math.min(diskSize, this.at + WINDOW_BYTES);
    this.source.clear();
    this.below.clear();
    this.record = 0;
    this.belowRecord = 0;
    let start = 0;
    let base = 0;
    for (const disk of this.disks) {
      await this.collect(disk, { start, base, end, list: this.source });
      start += disk.size;
      base += disk.sources.length;
    }
    await this.collect(this.backing, { start: 0, base, end, list: this.below });
    this.windowEnd = end;
  }

  /** Adds a disk's part of the window; guest offsets of the list are the target's. */
  private async collect(
    disk: Disk,
    part: { start: number; base: number; end: number; list: ExtentList },
  ): Promise<void> {
    const { start, base, end, list } = part;
    const from = Math.max(0, this.at - start);
    const to = Math.min(disk.size, end - start);
    if (to <= from) return;
    const own = new ExtentList();
    const collected = collectExtents(disk, [from, to], own, base);
    if (!settled(collected)) await collected;
    for (let i = 0; i < own.count; i++) {
      const guest = own.guest(i) + start;
      const { kind, length, source, host } = {
        kind: own.kind(i),
        length: own.length(i),
        source: own.source(i),
        host: own.host(i),
      };
      list.push(kind, guest, length, source, host, own.stored(i), own.skip(i));
    }
  }

  /** Takes the next stretch in which neither side changes, as much as the job has room for. */
  private addSegment(): void {
    const { source, below } = this;
    this.record = seek(source, this.record, this.at);
    this.belowRecord = seek(below, this.belowRecord, this.at);
    const own = recordAt(source, this.record, this.at);
    const other = recordAt(below, this.belowRecord, this.at);
    const end = Math.min(
      this.windowEnd,
      endOf(source, this.record, this.at),
      endOf(below, this.belowRecord, this.at),
    );
    if (this.isKept(own) && this.skipWhole(endOf(source, this.record, this.at))) return;
    const ownBytes = hasBytes(source, own);
    const otherBytes = hasBytes(below, other);
    if (!ownBytes && !otherBytes) {
      this.at = end;
      return;
    }
    const { clusterSize, jobBytes } = this.options;
    const first = Math.floor(this.at / clusterSize);
    const known = first === this.lastCluster ? 1 : 0;
    const room = jobBytes / clusterSize - this.clusters + known;
    let to = Math.min(end, (first + room) * clusterSize);
    if (ownBytes && otherBytes && this.isSame(own, other)) {
      if (this.skipWhole(end)) return;
      to = Math.min(to, (first + 1) * clusterSize);
    }
    if (ownBytes) this.add(this.builder, source, own, to);
    if (otherBytes) this.add(this.belowBuilder, below, other, to);
    this.lastCluster = Math.floor((to - 1) / clusterSize);
    this.clusters += this.lastCluster - first + 1 - known;
    this.at = to;
  }

  /**
   * Whole clusters that are as they should be need no look; one that is so in part is brought in as
   * a whole.
   */
  private skipWhole(until: number): boolean {
    const { clusterSize, diskSize } = this.options;
    const end = Math.min(until, this.windowEnd);
    const whole = end === diskSize ? end : end - (end % clusterSize);
    if (this.at % clusterSize !== 0 || whole <= this.at) return false;
    this.at = whole;
    return true;
  }

  private isKept(own: number): boolean {
    const { source, options } = this;
    return own !== NOTHING && (options.keeps?.(source.kind(own), source.source(own)) ?? false);
  }

  /** Both sides show the same bytes of one file. */
  private isSame(own: number, other: number): boolean {
    const { source, below, at } = this;
    if (source.kind(own) !== below.kind(other)) return false;
    const a = this.sources[source.source(own)] as DataSource;
    const b = this.sources[below.source(other)] as DataSource;
    if (!this.options.sameFile(a, b)) return false;
    const ownIn = at - source.guest(own);
    const otherIn = at - below.guest(other);
    if (source.kind(own) === ExtentKind.data) {
      return source.host(own) + ownIn === below.host(other) + otherIn;
    }
    const skips = source.skip(own) + ownIn === below.skip(other) + otherIn;
    return skips && source.host(own) === below.host(other);
  }

  private add(builder: JobBuilder, list: ExtentList, index: number, to: number): void {
    const { at } = this;
    const within = at - list.guest(index);
    const source = list.source(index);
    const host = list.host(index);
    if (list.kind(index) === ExtentKind.data) {
      const file = list.skip(index) + within;
      builder.add(OpKind.copy, source, host + within, 0, at, to - at, file, 0);
      return;
    }
    const { codec, clusterSize } = this.sources[source] as DataSource;
    const kind = codec === 'zstd' ? OpKind.zstd : OpKind.deflate;
    const skip = list.skip(index) + within;
    builder.add(kind, source, host, list.stored(index), at, to - at, skip, clusterSize);
  }
}

/** The first record from `index` on that ends after `at`. */
function seek(list: ExtentList, index: number, at: number): number {
  let found = index;
  while (found < list.count && list.guest(found) + list.length(found) <= at) found++;
  return found;
}

function recordAt(list: ExtentList, index: number, at: number): number {
  return index < list.count && list.guest(index) <= at ? index : NOTHING;
}

function endOf(list: ExtentList, index: number, at: number): number {
  if (index >= list.count) return Number.POSITIVE_INFINITY;
  const start = list.guest(index);
  return start > at ? start : start + list.length(index);
}

function hasBytes(list: ExtentList, index: number): boolean {
  if (index === NOTHING) return false;
  const kind = list.kind(index);
  return kind === ExtentKind.data || kind === ExtentKind.compressed;
}
