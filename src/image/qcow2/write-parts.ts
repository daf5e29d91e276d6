/** What the verbs that change an image share. */
import type { Awaitable } from '../../base/awaitable.ts';
import { Qcow2Error } from '../../base/errors.ts';
import type { RangeLock } from '../../base/locks.ts';
import type { Disk } from '../disk.ts';
import type { Allocator } from './allocate.ts';
import type { BitmapStore } from './bitmap-store.ts';
import type { ClusterCompressor } from './cluster-compressor.ts';
import type { Encryption } from './encryption.ts';
import type { L2Tables } from './l2-tables.ts';
import type { MetadataStore } from './metadata-store.ts';
import type { GuestReader } from './read.ts';
import type { Refcounts } from './refcounts.ts';

/** The parts of a writable image. */
export interface WriteParts {
  readonly store: MetadataStore;
  readonly refcounts: Refcounts;
  readonly allocator: Allocator;
  readonly tables: L2Tables;
  readonly reader: GuestReader;
  readonly backing: Disk | undefined;
  readonly bitmaps: BitmapStore;
  readonly compressor: ClusterCompressor;
  /** What plain clusters are encrypted with. */
  encryption: Encryption | undefined;
  /** Guest ranges that requests are working on, whole clusters. */
  readonly ranges: RangeLock;
  /** The data file is kept a raw image of the disk: zeros must be written there too. */
  readonly rawDataFile: boolean;
  /** Done once, before the first change of anything. */
  beforeFirstWrite(): Promise<void>;
}

/**
 * Runs one request over a guest range: alone on its clusters, on an image that may be written. A
 * metadata overlap that it runs into marks the image corrupt, and no write follows.
 */
export async function withRange<T>(
  parts: WriteParts,
  range: { readonly guest: number; readonly length: number },
  work: () => Awaitable<T>,
  { shared = false }: { readonly shared?: boolean } = {},
): Promise<T> {
  const { store, ranges } = parts;
  const { clusterSize } = store.geometry;
  const start = range.guest - (range.guest % clusterSize);
  const hold = ranges.acquire(start, range.guest + range.length, shared);
  try {
    if (hold.ready) await hold.ready;
    return await changing(parts, work);
  } finally {
    ranges.release(hold);
  }
}

/**
 * Whether somebody debugs requests, and may hold one of them: then others go by it that QEMU lets
 * go by, where they would wait for it otherwise.
 */
export function isDebugged({ store }: Pick<WriteParts, 'store'>): boolean {
  return store.storage.announce !== undefined;
}

/** The same for a caller that holds the range. */
export async function changing<T>(parts: WriteParts, work: () => Awaitable<T>): Promise<T> {
  const { store } = parts;
  try {
    store.corruption.refuse();
    if (store.broken) throw refusedAfter(store.broken);
    await parts.beforeFirstWrite();
    return await work();
  } catch (cause) {
    await store.corruption.note(cause);
    throw cause;
  }
}

/**
 * For a request that waited: the disk may have become smaller meanwhile.
 * @throws Qcow2Error OUT_OF_RANGE
 */
export function needInside(
  { store }: WriteParts,
  { guest, length }: { readonly guest: number; readonly length: number },
): void {
  if (guest + length > store.header.size) {
    throw new Qcow2Error('OUT_OF_RANGE', 'request past the end of the disk', guest);
  }
}

function refusedAfter({ message, at }: Qcow2Error): Qcow2Error {
  return new Qcow2Error('IO', `${message}: the image takes no changes until it is opened anew`, at);
}
