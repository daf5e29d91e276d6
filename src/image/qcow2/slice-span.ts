/**
 * How far QEMU looks at a time. Its cache of L2 tables has entries of a whole table where the cache
 * is large enough for all of the disk's tables, else of 4 KiB, and no question about a range is
 * answered beyond the entry that it begins in.
 */
import { alignUp, divCeil } from '../../base/bits.ts';
import type { Metadata } from './open.ts';

/** QEMU's default l2-cache-size. */
const CACHE_BYTES = 32 * 2 ** 20;
/** Entries of a cache that is too small for the disk. */
const SMALL_ENTRY_BYTES = 4096;

/** Guest bytes that one entry of QEMU's L2 cache maps. */
export function qemuSliceSpan({ header, geometry }: Metadata): number {
  const { clusterSize, l2EntryBytes } = geometry;
  const tables = alignUp(divCeil(header.size, clusterSize) * l2EntryBytes, clusterSize);
  const entryBytes = tables > CACHE_BYTES ? Math.min(clusterSize, SMALL_ENTRY_BYTES) : clusterSize;
  return (entryBytes / l2EntryBytes) * clusterSize;
}
