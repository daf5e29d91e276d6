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

/** Writes counter `index` of the block at byte `at` of a view; the value fits the width. */
export function putRefcount(
  view: DataView,
  at: number,
  index: number,
  order: number,
  value: number,
): void {
  switch (order) {
    case 4:
      view.setUint16(at + index * 2, value);
      return;
    case 5:
      view.setUint32(at + index * 4, value);
      return;
    case 6:
      view.setUint32(at + index * 8, Math.floor(value / HIGH));
      view.setUint32(at + index * 8 + 4, value % HIGH);
      return;
    default: {
      const perByte = 8 >>> order;
      const width = 2 ** order;
      const byte = at + Math.floor(index / perByte);
      const shift = (index % perByte) * width;
      const mask = ((2 ** width - 1) << shift) & 0xff;
      view.setUint8(byte, (view.getUint8(byte) & ~mask) | (value << shift));
    }
  }
}

/** Adds 1 to, or takes 1 from, a counter that has room for it: exact, however high it counts. */
export function stepRefcount(
  view: DataView,
  at: number,
  index: number,
  order: number,
  delta: 1 | -1,
): void {
  if (order !== 6) {
    const block = new DataView(view.buffer, view.byteOffset + at);
    putRefcount(view, at, index, order, refcountAt(block, index, order) + delta);
    return;
  }
  const place = at + index * 8;
  const low = view.getUint32(place + 4) + delta;
  const carry = low < 0 ? -1 : low >= HIGH ? 1 : 0;
  view.setUint32(place, view.getUint32(place) + carry);
  view.setUint32(place + 4, low);
}

/** Which block, and which counter of it, holds the count of host cluster `cluster`. */
export function refcountPlace(
  cluster: number,
  geometry: Geometry,
): { readonly block: number; readonly index: number } {
  const index = cluster % geometry.refcountBlockEntries;
  return { block: (cluster - index) / geometry.refcountBlockEntries, index };
}
