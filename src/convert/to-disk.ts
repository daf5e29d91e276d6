/**
 * Converting into a disk that is there already, with its own places for clusters: through the
 * engine, request by request.
 */
import type { Disk, WritableDisk } from '../image/disk.ts';
import type { Storage } from '../storage/storage.ts';
import { AheadTarget } from './ahead-target.ts';
import { Conversion } from './conversion.ts';
import { writeDifferences } from './differences.ts';
import { DiskRunner } from './disk-runner.ts';
import { type ConvertOptions, type ConvertResult, concatenatedSize, resultOf } from './options.ts';
import { allSources, Planner } from './plan.ts';
import { RawRunner } from './raw-runner.ts';
import { granuleFor } from './runner.ts';

/** Target bytes of a job. */
const JOB_BYTES = 2 ** 20;

/** How a disk is filled. */
export interface ConvertToDiskOptions extends ConvertOptions {
  /** Writes clusters compressed, where that makes them smaller. */
  readonly compress?: boolean;
  /**
   * The target is an overlay that shows some of it already: only what differs is written, in units
   * of so many bytes. `sameFile` tells whether two files of the sources and of the target are one.
   */
  readonly overlay?:
    | { readonly unitBytes: number; readonly sameFile: (a: Storage, b: Storage) => boolean }
    | undefined;
}

/**
 * Writes the guest bytes of disks, one after another, into a disk that is at least as long. What
 * lies behind them there stays as it is. On failure the disk holds some of them.
 * @throws Qcow2Error of any kind; ABORTED when the signal says so
 */
export async function convertToDisk(
  disks: readonly Disk[],
  target: WritableDisk,
  options: ConvertToDiskOptions = {},
): Promise<ConvertResult> {
  const { sparseBytes = 4096, targetIsZero = false, compress = false, salvage = false } = options;
  const { overlay } = options;
  if (overlay) {
    const how = { ...options, ...overlay, compress, unmap: true };
    const tally = await writeDifferences(disks, target, target, how);
    return resultOf(tally, concatenatedSize(disks), overlay.unitBytes);
  }
  const sources = allSources(disks);
  const storages = sources.map(({ storage }) => storage);
  const total = concatenatedSize(disks);
  const clusterSizeMax = Math.max(1, ...sources.map((source) => source.clusterSize));
  const clusterSize = Math.max(512, target.sources[0]?.clusterSize ?? 1);
  const isPacked = compress && target.format === 'qcow2';
  const jobBytes = Math.ceil(Math.max(JOB_BYTES, clusterSizeMax) / clusterSize + 1) * clusterSize;
  const ahead = new AheadTarget(target);
  const runner = isPacked
    ? new DiskRunner(storages, ahead, {
        clusterSizeMax,
        clusterSize,
        subclusterSize: clusterSize,
        diskSize: total,
        jobBytes,
        sparseBytes,
        explicitZeros: !targetIsZero,
        backingSource: -1,
        compress: true,
        unmap: true,
        salvage,
      })
    : new RawRunner(storages, ahead, {
        kind: 'raw',
        ahead: true,
        clusterSizeMax,
        granule: granuleFor(sparseBytes),
        holeBytes: sparseBytes,
        zeroHoles: !targetIsZero,
        allocate: sparseBytes === 0,
        salvage,
      });
  const conversion = new Conversion({
    ...options,
    jobs: new Planner(disks, {
      jobBytes,
      writeZeros: sparseBytes === 0 || !targetIsZero,
      holdFrom: Number.POSITIVE_INFINITY,
      salvage,
      ...(isPacked ? { clusters: { clusterSize, diskSize: total, copies: undefined } } : {}),
    }),
    runner,
    order: { kind: 'none' },
    total,
    startWorkers: async () => [],
  });
  const tally = await conversion.run().finally(() => ahead.close());
  if (isPacked) return resultOf(tally, total, clusterSize);
  return resultOf({ ...tally, dataClusters: ahead.written.count }, total, 1);
}
