/**
 * The data plane as the control plane sees it: runners that carry out jobs, in this thread or in
 * another, and ask before they write where that matters.
 */
import type { ClusterCodec } from '../codec/codec.ts';
import type { SectorKeys } from '../storage/storage.ts';
import type { CopiedRange } from './range-copier.ts';

/**
 * What is to be written of a job, and asked a place for. Three numbers per unit:
 * 0 cluster index · 1 state · 2 subclusters that hold data, as a mask
 */
export type Units = Float64Array<ArrayBuffer>;

/** What a unit becomes. A number above 0 is the length of its compressed bytes. */
export const UnitState = {
  /** Nothing is written: the target shows the right bytes already. */
  skip: -2,
  /** Plain bytes. */
  data: -1,
  /** An entry says that it is zeros. */
  zero: 0,
} as const;

/** Tables that are complete, to be written along with a job's data. */
export interface TableBytes {
  readonly host: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Where a job's clusters go in the target's file. */
export interface Placement {
  /** Host byte offset of each unit, in their order; −1 for those that have no bytes. */
  readonly hosts: Float64Array<ArrayBuffer>;
  readonly tables: readonly TableBytes[];
  /**
   * A target that is written front to back: the bytes [from, to) of it are this job's, and what of
   * them is neither a unit's nor a table's is zeros.
   */
  readonly stream: { readonly from: number; readonly to: number } | undefined;
  /** Write nothing: only the sizes were wanted. */
  readonly dry: boolean;
}

/**
 * Waits until the job may write. A runner that makes clusters says which, and is told where they
 * go; for others the answer only means that it is their turn.
 */
export type Turn = (units?: Units) => Promise<Placement | undefined>;

/** Ranges to be copied, and tables to be written along with them. */
export interface CopyBatch {
  readonly ranges: readonly CopiedRange[];
  readonly tables: readonly TableBytes[];
  /** As in `Placement`. */
  readonly stream: Placement['stream'];
  /** Clusters that the ranges are made of: compressed ones, and plain. */
  readonly streams: number;
  readonly plain: number;
}

/** Carries out jobs; several may be in its hands. */
export interface Runner {
  /**
   * Carries out one job; resolves when all of it is written.
   * @throws Qcow2Error CORRUPT, IO or NO_SPACE; some of the job may have been written
   */
  run(ops: Float64Array, turn?: Turn): Promise<void>;
  /**
   * Copies ranges of the sources to the target as they are, where the target is made of clusters.
   * @throws Qcow2Error CORRUPT, IO or NO_SPACE; some may have been written
   */
  copy?(batch: CopyBatch): Promise<void>;
  /** Resolves when another job would be started on at once. */
  ready(): Promise<void>;
  /** What was done so far, to be added to what other runners did. */
  readonly tally: Tally;
}

/** A range of the disk that could not be read, or not be asked about. */
export interface LostRange {
  readonly guest: number;
  readonly length: number;
  /** What the host said, or what is wrong with the image. */
  readonly why: string;
}

/** Ranges that are remembered, at most: each may be a sector of a disk that is gone. */
const LOST_MAX = 2 ** 16;

/** Adds a range to those that were lost. */
export function addLost(list: LostRange[], range: LostRange): void {
  const last = list.at(-1);
  if (last && last.guest + last.length === range.guest && last.why === range.why) {
    list[list.length - 1] = { ...last, length: last.length + range.length };
  } else if (list.length < LOST_MAX) list.push(range);
}

/** What became of the clusters and bytes that runners had in their hands. */
export interface Tally {
  /** Bytes read from the sources' files. */
  bytesRead: number;
  /** Bytes written to the target, tables not counted. */
  bytesWritten: number;
  /** Clusters written as they are, written compressed by us, and copied compressed. */
  dataClusters: number;
  compressedClusters: number;
  copiedClusters: number;
  /** Clusters that were read and left out: zeros, or what the backing file has. */
  skippedClusters: number;
  /** What could not be read, where that is no end. */
  readonly lost: LostRange[];
  /** What was read without knowing what it is made of. */
  readonly unmapped: LostRange[];
}

/** A tally of nothing. */
export function emptyTally(): Tally {
  return {
    bytesRead: 0,
    bytesWritten: 0,
    dataClusters: 0,
    compressedClusters: 0,
    copiedClusters: 0,
    skippedClusters: 0,
    lost: [],
    unmapped: [],
  };
}

/** Adds one tally to another. */
export function addTally(sum: Tally, more: Tally): void {
  for (const key of Object.keys(sum) as (keyof Tally)[]) {
    if (key !== 'lost' && key !== 'unmapped') sum[key] += more[key];
  }
  for (const range of more.lost) addLost(sum.lost, range);
}

/** What any runner needs to know of its sources. */
interface ReadingOptions {
  /** The largest cluster of any compressed source, bytes. */
  readonly clusterSizeMax: number;
  /** What cannot be read becomes zeros, rather than the end of the conversion. */
  readonly salvage?: boolean;
}

/** How a raw target is written. */
export interface RawRunnerOptions extends ReadingOptions {
  readonly kind: 'raw';
  /**
   * Zeros within data become holes where they fill `granule`-aligned blocks for at least
   * `holeBytes`; 0 writes all that is read.
   */
  readonly granule: number;
  readonly holeBytes: number;
  /** Zeros are written like data, so that the target has room for all of the disk. */
  readonly allocate: boolean;
  /** Plain bytes are copied by the host where it can, zeros among them as they are. */
  readonly copyRange?: boolean;
  /** What becomes a hole is said to be zeros, since the target may hold something there. */
  readonly zeroHoles?: boolean;
  /** While bytes are being written the next ones are read: each has its place in the target. */
  readonly ahead?: boolean;
  /** Zeros up to this many bytes are written along with their neighbours. Default 64 KiB. */
  readonly zeroInline?: number;
}

/** How clusters of a target image are made. */
export interface ClusterOptions extends ReadingOptions {
  /** Bytes of a target cluster, and of the unit of its entries (a subcluster, or the same). */
  readonly clusterSize: number;
  readonly subclusterSize: number;
  /** Virtual bytes of the target. */
  readonly diskSize: number;
  /** Plain bytes that one job makes at most; a multiple of the cluster size. */
  readonly jobBytes: number;
  /** Runs of zeros at least this long are left out; 0: nothing is. */
  readonly sparseBytes: number;
  /** Zeros have to be said: the target shows something else where nothing is written. */
  readonly explicitZeros: boolean;
  /** Index of the first source that belongs to the target's backing file; −1: it has none. */
  readonly backingSource: number;
}

/** How a new qcow2 image is written. */
export interface ImageRunnerOptions extends ClusterOptions {
  readonly kind: 'image';
  readonly compress: { readonly codec: ClusterCodec; readonly level: number } | undefined;
  /** The image's entries can say "zeros". */
  readonly zeroFlag: boolean;
  /** Clusters are encrypted by where they are in the guest: the old AES. */
  readonly guestKeys?: SectorKeys | undefined;
}

/** What a runner is made with. Survives `postMessage` where its storages do. */
export type RunnerOptions = RawRunnerOptions | ImageRunnerOptions;

/** Waits for a job, and for what it has begun to write, even if it failed. */
export async function whenWritten(
  job: Promise<void>,
  writes: readonly Promise<void>[],
): Promise<void> {
  try {
    await job;
  } finally {
    await Promise.allSettled(writes);
  }
  await Promise.all(writes);
}

/** What qemu-img takes at most for the zeros that count. */
const GRANULE_MAX = 2 ** 24;

/**
 * Zeros are looked for in blocks of the target, which begin at multiples of their size. As with
 * qemu-img a block is the largest power of two that is no more than the zeros that count.
 */
export function granuleFor(sparseBytes: number): number {
  return 2 ** Math.floor(Math.log2(Math.min(GRANULE_MAX, Math.max(512, sparseBytes))));
}
