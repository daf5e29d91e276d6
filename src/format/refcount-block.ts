/**
 * Refcount blocks: one cluster of counters, 1 to 64 bits wide.
 *
 *   width 8 and more   big-endian, entry i at byte i × width / 8
 *   width 1, 2, 4      entry 0 in the least significant bits of byte 0
 *
 * Reading and scanning in bulk are the kernels `refcountGet` and `refcountFreeRuns`.
 */
import { HIGH } from '../base/bits.ts';
import type { Geometry } from '../format/geometry.ts';

/** The highest count that a width of `2 ** order` bits holds; 2^64 − 1 is not exact: Infinity. */
export function refcountMax(order: number): number {
  return order === 6 ? Number.POSITIVE_INFINITY : 2 ** (2 ** order) - 1;
}

/** Reads counter `index` of a block. Counts above 2^53 come back rounded. */
export function refcountAt(view: DataView, index: number, order: number): number {
  switch (order) {
    case 4:
      return view.getUint16(index * 2);
    case 5:
      return view.getUint32(index * 4);
    case 6:
      return view.getUint32(index * 8) * HIGH + view.getUint32(index * 8 + 4);
    default: {
      const perByte = 8 >>> order;
      const byte = view.getUint8(Math.floor(index / perByte));
      const width = 2 ** order;
      return (byte >>> ((index % perByte) * width)) & (2 ** width - 1);
    }
  }
}

/** Which block, and which counter of it, holds the count of host cluster `cluster`. */
export function refcountPlace(
  cluster: number,
  geometry: Geometry,
): { readonly block: number; readonly index: number } {
  const index = cluster % geometry.refcountBlockEntries;
  return { block: (cluster - index) / geometry.refcountBlockEntries, index };
}
