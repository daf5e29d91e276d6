/**
 * Two disks side by side, and a third that takes what differs: an image that gets another backing
 * file, an overlay that is there already and is to show a source.
 */
import type { Disk, ExtentKind, WritableDisk } from '../image/disk.ts';
import type { Storage } from '../storage/storage.ts';
import { AheadTarget } from './ahead-target.ts';
import { Conversion } from './conversion.ts';
import { DiskRunner } from './disk-runner.ts';
import { type ConvertOptions, concatenatedSize } from './options.ts';
import { allSources } from './plan.ts';
import { OverlayPlanner } from './plan-overlay.ts';
import type { Tally } from './runner.ts';

/** Bytes of a job. */
const JOB_BYTES = 2 ** 21;

/** How differences are looked for, and written. */
export interface DifferenceOptions extends ConvertOptions {
  /** What is compared, and written where it differs, as a whole: clusters or parts of them. */
  readonly unitBytes: number;
  /** Whether two storages are one file: what both sides have in common is not read then. */
  readonly sameFile: (a: Storage, b: Storage) => boolean;
  /** What the target has already, by kind and index of the source: it stays as it is. */
  readonly keeps?: (kind: ExtentKind, source: number) => boolean;
  /** Whole units are compressed; a unit is a cluster then. */
  readonly compress: boolean;
  /** Zeros give up the clusters that held something. */
  readonly unmap: boolean;
  /** Puts in other words why the target could not be written. */
  readonly explainWrite?: ((cause: unknown) => unknown) | undefined;
}

/**
 * Writes into `target` what disks, one after another, show otherwise than `below`, which may be the
 * target itself. In the disk's order, so that an image is the same after every run.
 * @throws Qcow2Error of any kind; ABORTED when the signal says so
 */
export function writeDifferences(
  disks: readonly Disk[],
  below: Pick<Disk, 'size' | 'sources' | 'collectExtents'>,
  target: WritableDisk,
  options: DifferenceOptions,
): Promise<Tally> {
  const { unitBytes, sameFile, keeps, compress, unmap, sparseBytes = 4096 } = options;
  const total = concatenatedSize(disks);
  const own = allSources(disks);
  const sources = [...own, ...below.sources];
  const storages = sources.map(({ storage }) => storage);
  const ahead = new AheadTarget(target, options.explainWrite);
  const conversion = new Conversion({
    ...options,
    runner: new DiskRunner(storages, ahead, {
      clusterSize: unitBytes,
      subclusterSize: unitBytes,
      clusterSizeMax: Math.max(1, ...sources.map((source) => source.clusterSize)),
      diskSize: total,
      jobBytes: JOB_BYTES,
      sparseBytes,
      explicitZeros: true,
      backingSource: own.length,
      compress,
      unmap,
      salvage: options.salvage ?? false,
    }),
    jobs: new OverlayPlanner(disks, below as Disk, {
      jobBytes: JOB_BYTES,
      clusterSize: unitBytes,
      diskSize: total,
      sameFile: (a, b) => sameFile(a.storage, b.storage),
      ...(keeps ? { keeps } : {}),
    }),
    // One runner, and so in the disk's order.
    order: { kind: 'none' },
    total,
    startWorkers: async () => [],
  });
  return conversion.run().finally(() => ahead.close());
}
