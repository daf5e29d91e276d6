/**
 * How far QEMU looks at a time. Its cache of L2 tables has entries of a whole table where the cache
 * is large enough for all of the disk's tables, else of 4 KiB, and no question about a range is
 * answered beyond the entry that it begins in.
 */
import { alignUp, divCeil } from '../../base/bits.ts';
import type { Metadata } from './open.ts';

/** Sizes that QEMU's caches are to have, bytes. What is absent has its default. */
export interface QemuCaches {
  /** Of L2 tables and refcount blocks together. */
  readonly total?: number | undefined;
  readonly l2?: number | undefined;
  readonly l2Entry?: number | undefined;
  readonly refcounts?: number | undefined;
}

/** QEMU's default l2-cache-size. */
const L2_BYTES = 32 * 2 ** 20;
/** Entries of a cache that is too small for the disk. */
const SMALL_ENTRY_BYTES = 4096;
/** Clusters that refcount blocks get before L2 tables do. */
const REFCOUNT_CLUSTERS = 4;

/** Guest bytes that one entry of QEMU's L2 cache maps. */
export function qemuSliceSpan({ header, geometry }: Metadata, caches: QemuCaches = {}): number {
  const { clusterSize, l2EntryBytes } = geometry;
  const tables = alignUp(divCeil(header.size, clusterSize) * l2EntryBytes, clusterSize);
  const isSmall = l2CacheBytes(tables, clusterSize, caches) < tables;
  const standard = isSmall ? Math.min(clusterSize, SMALL_ENTRY_BYTES) : clusterSize;
  return ((caches.l2Entry ?? standard) / l2EntryBytes) * clusterSize;
}

/** @param tables bytes of all L2 tables of the disk */
function l2CacheBytes(tables: number, clusterSize: number, caches: QemuCaches): number {
  const { total, l2, refcounts } = caches;
  if (total === undefined || l2 !== undefined) return Math.min(tables, l2 ?? L2_BYTES);
  if (refcounts !== undefined) return total - refcounts;
  const least = REFCOUNT_CLUSTERS * clusterSize;
  return total >= tables + least ? tables : total - Math.min(total, least);
}
