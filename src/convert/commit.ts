/**
 * Committing: what the images above a base hold is written into the base, which then shows by
 * itself what the whole chain does.
 */
import { settled } from '../base/awaitable.ts';
import { assert } from '../base/errors.ts';
import {
  type DataSource,
  type Disk,
  ExtentKind,
  ExtentList,
  extentWindow,
  type WritableDisk,
} from '../image/disk.ts';
import { AheadTarget } from './ahead-target.ts';
import { Conversion } from './conversion.ts';
import { JOB_OPS_MAX, JobBuilder, OpKind } from './job.ts';
import type { ConvertOptions } from './options.ts';
import type { JobSource, PlannedJob } from './plan.ts';
import { RawRunner } from './raw-runner.ts';

/** How a commit goes. */
export type CommitOptions = Pick<ConvertOptions, 'signal' | 'onProgress' | 'bytesPerSecond'>;

/** Guest bytes of a job. */
const JOB_BYTES = 2 ** 20;

/**
 * Writes what a chain holds above a base into the base, which grows where the chain's disk is
 * longer. All of it is on stable storage when this resolves; nothing else of the chain changes. On
 * failure the base holds some of it, and the chain shows what it did before.
 * @param base an image of the disk's own chain, open for writing
 * @throws Qcow2Error of any kind; ABORTED when the signal says so
 */
export async function commitDisk(
  disk: Disk,
  base: WritableDisk,
  options: CommitOptions = {},
): Promise<void> {
  const first = disk.sources.indexOf(base.sources[0] as DataSource);
  assert(first > 0, 'the base stands behind the disk in its chain');
  const { size } = disk;
  if (base.size < size) await base.resize(size);
  const storages = disk.sources.map(({ storage }) => storage);
  const ahead = new AheadTarget(base);
  const conversion = new Conversion({
    ...options,
    jobs: new CommitPlanner(disk, first),
    runner: new RawRunner(storages, ahead, {
      kind: 'raw',
      ahead: true,
      clusterSizeMax: Math.max(1, ...disk.sources.map(({ clusterSize }) => clusterSize)),
      granule: 512,
      holeBytes: 0,
      allocate: false,
      zeroInline: 0,
    }),
    // One runner, and so in the disk's order: a base is the same after every run.
    order: { kind: 'none' },
    total: size,
    startWorkers: async () => [],
  });
  await conversion.run().finally(() => ahead.close());
  await base.flush();
}

/** Jobs of what lies above the base. */
class CommitPlanner implements JobSource {
  private readonly list: ExtentList;
  private readonly builder = new JobBuilder();
  private record = 0;
  private partDone = 0;
  private windowEnd = 0;

  /** @param baseSource index of the base's first source among the disk's */
  constructor(
    private readonly disk: Disk,
    private readonly baseSource: number,
  ) {
    this.list = new ExtentList(baseSource);
  }

  async next(): Promise<PlannedJob | undefined> {
    const { disk, list, builder } = this;
    let until = this.windowEnd;
    for (;;) {
      for (; this.record < list.count; this.record++) {
        if (builder.bytes >= JOB_BYTES || builder.count >= JOB_OPS_MAX) {
          return this.takeJob(until);
        }
        until = this.addRecord();
        if (this.partDone > 0) this.record--;
      }
      if (this.windowEnd >= disk.size) break;
      const at = this.windowEnd;
      this.windowEnd = Math.min(disk.size, at + extentWindow(disk));
      this.record = 0;
      list.clear();
      const collected = disk.collectExtents(at, this.windowEnd, list);
      if (!settled(collected)) await collected;
    }
    return builder.count === 0 ? undefined : this.takeJob(disk.size);
  }

  private takeJob(until: number): PlannedJob {
    const span = until - this.taken;
    this.taken = until;
    return { ops: this.builder.take(), until, span };
  }
  private taken = 0;

  last(): Float64Array<ArrayBuffer> {
    return new Float64Array(0);
  }

  /** Adds a record, or as much of a long one as a job takes; gives the guest offset reached. */
  private addRecord(): number {
    const { list, record, builder, disk } = this;
    const guest = list.guest(record) + this.partDone;
    const rest = list.length(record) - this.partDone;
    const index = list.source(record);
    if (index >= this.baseSource) return guest + rest;
    const kind = list.kind(record);
    if (kind === ExtentKind.data) {
      const length = Math.min(rest, JOB_BYTES - builder.bytes);
      const file = list.skip(record) + this.partDone;
      const host = list.host(record) + this.partDone;
      builder.add(OpKind.copy, index, host, 0, guest, length, file, 0);
      this.partDone = length === rest ? 0 : this.partDone + length;
      return guest + length;
    }
    if (kind === ExtentKind.compressed) {
      const { codec, clusterSize } = disk.sources[index] as DataSource;
      const op = codec === 'zstd' ? OpKind.zstd : OpKind.deflate;
      const stored = list.stored(record);
      builder.add(
        op,
        index,
        list.host(record),
        stored,
        guest,
        rest,
        list.skip(record),
        clusterSize,
      );
      return guest + rest;
    }
    // Zeros, also those of an image that is shorter than the one in front of it.
    builder.add(OpKind.zero, 0, 0, 0, guest, rest, 0, 0);
    return guest + rest;
  }
}
