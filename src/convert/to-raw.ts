/** Converting to raw: a file, a block device, or a stream. */
import type { Disk } from '../image/disk.ts';
import type { Storage, StorageHandle } from '../storage/storage.ts';
import { Conversion } from './conversion.ts';
import { lanesOver } from './lane.ts';
import {
  type ConvertOptions,
  type ConvertResult,
  concatenatedSize,
  ratedJobBytes,
  resultOf,
  workersFor,
} from './options.ts';
import { allSources, Planner } from './plan.ts';
import { RawRunner } from './raw-runner.ts';
import { granuleFor, type RawRunnerOptions } from './runner.ts';

/** Target bytes of a job, where the target has positions: a few milliseconds of work. */
const JOB_BYTES = 8 * 2 ** 20;
/** And where it has none: what a worker can hold while others write. */
const STREAM_JOB_BYTES = 512 * 1024;
/**
 * What is written last: while it is missing the target is shorter than the disk, so that a
 * conversion that was cut off never looks whole.
 */
const TAIL_BYTES = 4096;

/**
 * Writes the guest bytes of disks, one after another, to storage. New storage grows to its full
 * size only at the end. On failure the target is left shorter than the disk (or, where it was
 * larger before, with some of it overwritten); it is the caller's to remove.
 * @throws Qcow2Error of any kind; ABORTED when the signal says so
 */
export async function convertToRaw(
  disks: readonly Disk[],
  target: Storage,
  options: ConvertOptions = {},
): Promise<ConvertResult> {
  const size = concatenatedSize(disks);
  // New storage has nothing but zeros, and a device what it held.
  const { targetIsZero = !target.isFixed } = options;
  const told = { ...options, targetIsZero };
  const result = await convertBytes(disks, target, told, {
    jobBytes: JOB_BYTES,
    holdFrom: Math.max(0, size - TAIL_BYTES),
    stream: false,
  });
  if ((await target.size()) < size) await target.truncate(size);
  return result;
}

/** A target without positions: takes bytes front to back. */
export type StreamTarget = Pick<Storage, 'write' | 'zero' | 'copyFrom' | 'background'> & {
  share?(): StorageHandle;
};

/**
 * Writes the guest bytes of disks to a stream, front to back, holes as zeros.
 * @throws Qcow2Error of any kind; ABORTED when the signal says so
 */
export function convertToStream(
  disks: readonly Disk[],
  target: StreamTarget,
  options: Omit<ConvertOptions, 'sparseBytes' | 'targetIsZero'> = {},
): Promise<ConvertResult> {
  const whole = { ...options, sparseBytes: 0 };
  return convertBytes(disks, target, whole, {
    jobBytes: STREAM_JOB_BYTES,
    holdFrom: Number.POSITIVE_INFINITY,
    stream: true,
  });
}

interface Shape {
  readonly jobBytes: number;
  readonly holdFrom: number;
  readonly stream: boolean;
}

async function convertBytes(
  disks: readonly Disk[],
  target: StreamTarget,
  options: ConvertOptions,
  { jobBytes, holdFrom, stream }: Shape,
): Promise<ConvertResult> {
  const { sparseBytes = 4096, targetIsZero = true, salvage = false } = options;
  const sources = allSources(disks);
  const total = concatenatedSize(disks);
  const runner: RawRunnerOptions = {
    kind: 'raw',
    clusterSizeMax: Math.max(1, ...sources.map(({ clusterSize }) => clusterSize)),
    granule: granuleFor(sparseBytes),
    // A target that holds something must get the zeros within data too.
    holeBytes: targetIsZero ? sparseBytes : 0,
    // A stream has no holes; its own way to write zeros is the cheaper one.
    allocate: sparseBytes === 0 && !stream,
    salvage,
    copyRange: (options.copyRange ?? false) && !stream,
  };
  const storages = sources.map(({ storage }) => storage);
  // Decoding, and what is not written in place, is for workers.
  const isMoved = targetIsZero && !stream && !runner.copyRange && (options.workers ?? 0) > 0;
  const lanes = isMoved
    ? lanesOver(
        [target, ...storages],
        ([file = target, ...files]) => new RawRunner(files, file, { ...runner, ahead: true }),
      )
    : [];
  const conversion = new Conversion({
    ...options,
    lanes,
    jobs: new Planner(disks, {
      jobBytes: ratedJobBytes(jobBytes, options),
      writeZeros: sparseBytes === 0 || !targetIsZero,
      splitZeros: sparseBytes === 0 || stream,
      salvage,
      holdFrom,
    }),
    runner: new RawRunner(storages, target, runner),
    order: { kind: stream ? 'written' : 'none' },
    total,
    startWorkers: () => workersFor(sources, { file: target, runner, stream }, options),
  });
  return resultOf(await conversion.run(), total, 1);
}
