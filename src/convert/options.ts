/**
 * Converting disks: what a conversion can be told, and what it tells. How each kind of target is
 * written is in `to-raw`, `to-qcow2` and `to-disk`.
 */
import type { DataSource, Disk } from '../image/disk.ts';
import { kernelModule } from '../kernels/wasm.ts';
import type { Storage, StorageHandle } from '../storage/storage.ts';
import type { JobWorker, StartWorkers } from './pool.ts';
import type { LostRange, RunnerOptions, Tally } from './runner.ts';

/** How a conversion goes. Sizes are bytes. */
export interface ConvertOptions {
  /**
   * Runs of zeros at least this long become holes of the target; 0 writes every byte, holes of the
   * source included. A multiple of 512. Default 4096, as qemu-img.
   */
  readonly sparseBytes?: number | undefined;
  /** The target reads as zeros already: holes need no write. Default true: it is new and empty. */
  readonly targetIsZero?: boolean | undefined;
  /** Stops the conversion; it then fails with ABORTED. */
  readonly signal?: AbortSignal | undefined;
  /** Told now and then how many bytes of the target are done, of how many, at what rate. */
  readonly onProgress?: ((done: number, total: number, rate: number) => void) | undefined;
  /** Threads beside this one, and how they are started. Without them all is done here. */
  readonly workers?: number | undefined;
  readonly startWorkers?: StartWorkers | undefined;
  /**
   * Whether this thread works, too, where there are workers. Default true; a page that is to answer
   * its user leaves the work to them.
   */
  readonly jobsHere?: boolean | undefined;
  /** Target bytes a second, at most. */
  readonly bytesPerSecond?: number | undefined;
  /** Plain bytes are copied by the host where it can, without a look at them. */
  readonly copyRange?: boolean | undefined;
  /** What cannot be read becomes zeros, rather than the end of the conversion. */
  readonly salvage?: boolean | undefined;
}

/** Of a conversion that is held back, a job has what this part of a second may bring, or this. */
const RATED_JOBS = 1 / 8;
const RATED_JOB_BYTES = 64 * 1024;

/** Bytes of a job: as many as are usual, or few enough to keep to a rate. */
export function ratedJobBytes(
  usual: number,
  { bytesPerSecond }: Pick<ConvertOptions, 'bytesPerSecond'>,
): number {
  if (!bytesPerSecond) return usual;
  return Math.min(usual, Math.max(RATED_JOB_BYTES, Math.floor(bytesPerSecond * RATED_JOBS)));
}

/** What a conversion did. */
export interface ConvertResult {
  /** Bytes read from the sources' files. */
  readonly bytesRead: number;
  /** Bytes written to the target, holes not counted. */
  readonly bytesWritten: number;
  /** Bytes of the target disk, and those of them that were not written. */
  readonly diskBytes: number;
  readonly bytesSkipped: number;
  /** What could not be read and became zeros, since `salvage` was asked for; in order. */
  readonly lost: readonly LostRange[];
  /** What could not be asked about: what it is made of is not known, and all of it was read. */
  readonly unmapped: readonly LostRange[];
  /** Clusters of a qcow2 target, by what became of them; 0 for raw ones. */
  readonly clusters: {
    readonly data: number;
    readonly compressed: number;
    /** Compressed clusters that were copied as they were. */
    readonly copied: number;
  };
}

/** Bytes of the raw disk that several disks make, one after another. */
export function concatenatedSize(disks: readonly Disk[]): number {
  return disks.reduce((sum, disk) => sum + disk.size, 0);
}

/** The result of a conversion, from what its runners counted. */
export function resultOf(tally: Tally, diskBytes: number, clusterSize: number): ConvertResult {
  const { dataClusters, compressedClusters, copiedClusters, bytesRead, bytesWritten } = tally;
  const clusters = dataClusters + compressedClusters + copiedClusters;
  const filled = clusterSize > 1 ? clusters * clusterSize : bytesWritten;
  return {
    bytesRead,
    bytesWritten,
    diskBytes,
    bytesSkipped: Math.max(0, diskBytes - filled),
    lost: [...tally.lost].sort((a, b) => a.guest - b.guest),
    unmapped: tally.unmapped,
    clusters: { data: dataClusters, compressed: compressedClusters, copied: copiedClusters },
  };
}

/** Bytes of sources from which on starting workers pays: some 30 ms of work. */
const WORKERS_FROM_BYTES = 24 * 2 ** 20;
/** And where they are to be compressed. */
const WORKERS_FROM_BYTES_COMPRESSED = 3 * 2 ** 20;

/** Starts workers where that pays and all storages can be shared with them. */
export async function workersFor(
  sources: readonly DataSource[],
  target: {
    readonly file: { share?(): StorageHandle };
    readonly data?: { share?(): StorageHandle } | undefined;
    readonly runner: RunnerOptions;
    readonly stream: boolean;
  },
  { workers = 0, startWorkers }: ConvertOptions,
): Promise<readonly JobWorker[]> {
  if (workers === 0 || !startWorkers) return [];
  const file = target.file.share?.();
  const data = target.data?.share?.();
  const handles = sources.map(({ storage }) => storage.share?.());
  if (!file || (target.data && !data) || handles.some((handle) => !handle)) return [];
  const { runner, stream } = target;
  const compress = runner.kind === 'image' && runner.compress !== undefined;
  if (!(await worthWorkers(sources, { compress }))) return [];
  const setup = {
    module: kernelModule(),
    sources: handles as StorageHandle[],
    target: file,
    data,
    options: runner,
    stream,
  };
  return startWorkers(setup, workers);
}

/** Whether there is so much to do that workers pay. */
export async function worthWorkers(
  sources: readonly DataSource[],
  { compress }: { readonly compress: boolean },
): Promise<boolean> {
  const enough = compress ? WORKERS_FROM_BYTES_COMPRESSED : WORKERS_FROM_BYTES;
  return (await storedBytes(sources)) >= enough;
}

/** Bytes that the sources' files take, holes left out where that is known. */
async function storedBytes(sources: readonly DataSource[]): Promise<number> {
  let sum = 0;
  for (const { storage } of sources) sum += await storedIn(storage);
  return sum;
}

async function storedIn(storage: Storage): Promise<number> {
  const size = await storage.size();
  return Math.min(size, storage.allocatedBytes?.() ?? size);
}
