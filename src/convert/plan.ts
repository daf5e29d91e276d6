/**
 * Planning a conversion: the extents of the sources, window by window, become jobs. Control plane:
 * no guest byte is looked at here.
 */
import { settled } from '../base/awaitable.ts';
import { type DataSource, type Disk, ExtentKind, ExtentList, extentWindow } from '../image/disk.ts';
import { JobBuilder, OpKind } from './job.ts';

/** One job: operations of a range of the target. */
export interface PlannedJob {
  readonly ops: Float64Array<ArrayBuffer>;
  /** Target bytes up to which everything is in this job or an earlier one. */
  readonly until: number;
}

/** What decides the shape of jobs. */
export interface PlanOptions {
  /** Target bytes of a job: enough to make a hand-over worth it. */
  readonly jobBytes: number;
  /** Emit zeros too: the target may hold something else, or must be written whole. */
  readonly writeZeros: boolean;
  /** Target offset from which on operations are kept back for the last job. */
  readonly holdFrom: number;
}

/** Operations of one job at most: bounds a job of many small pieces. */
const JOB_OPS_MAX = 4096;
/** Guest bytes of the first look at the extents: a small one, so that work starts at once. */
const WINDOW_FIRST = 64 * 2 ** 20;

/** The files of several disks, one list. */
export function allSources(disks: readonly Disk[]): DataSource[] {
  return disks.flatMap((disk) => disk.sources);
}

/** Makes the jobs of several disks, concatenated, in target order. */
export class Planner {
  private readonly list = new ExtentList();
  private readonly sources: readonly DataSource[];
  private readonly builder = new JobBuilder();
  private readonly held = new JobBuilder();
  private window = WINDOW_FIRST;
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
  }

  /** The next job, or undefined after the last one. */
  async next(): Promise<PlannedJob | undefined> {
    const { builder, options } = this;
    for (;;) {
      while (this.record < this.list.count) {
        const until = this.addRecord();
        if (builder.bytes >= options.jobBytes || builder.count >= JOB_OPS_MAX) {
          return { ops: builder.take(), until };
        }
      }
      if (!(await this.lookAhead())) break;
    }
    if (builder.count === 0) return undefined;
    return { ops: builder.take(), until: this.diskStart };
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
    const end = Math.min(disk.size, this.at + Math.min(this.window, extentWindow(disk)));
    this.window *= 8;
    list.clear();
    this.record = 0;
    const collected = disk.collectExtents(this.at, end, list, this.sourceBase);
    if (!settled(collected)) await collected;
    this.at = end;
    return true;
  }

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
      kind === ExtentKind.data || (kind !== ExtentKind.compressed && options.writeZeros);
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
      builder.add(OpKind.copy, source, host, 0, target, length, 0, 0);
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
