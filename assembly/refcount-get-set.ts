// Refcounts out of a block and into it, all widths as u64. (Kernels.refcountGet, refcountSet)
//
// Sixteen entries a step: narrow ones (layout: refcount-entry.ts) by way of a vector with one in
// each byte, wide ones by one shuffle that also swaps their bytes. An entry that shares its byte
// with one outside of the range is set alone.

import { MISUSE, mapped } from './bounds';
import {
  ORDER_MAX, byteOf, bytesOf16, entriesMapped, entryGet, entrySet, storeBytes16,
} from './refcount-entry';

/** Entries before the first that starts a byte. */
// @ts-ignore: decorator
@inline
function headOf(first: u32, count: u32, order: u32): u32 {
  return order < 3 ? min((0 - first) & ((1 << (3 - order)) - 1), count) : 0;
}

/** Sixteen entries as u64, little-endian. */
// @ts-ignore: decorator
@inline
function get16(at: usize, order: u32, out: usize): void {
  const none = v128.splat<u64>(0);
  if (order <= 3) {
    const b = bytesOf16(at, order);
    v128.store(out, v128.shuffle<u8>(b, none, 0, 16, 16, 16, 16, 16, 16, 16, 1, 16, 16, 16, 16, 16, 16, 16), 0);
    v128.store(out, v128.shuffle<u8>(b, none, 2, 16, 16, 16, 16, 16, 16, 16, 3, 16, 16, 16, 16, 16, 16, 16), 16);
    v128.store(out, v128.shuffle<u8>(b, none, 4, 16, 16, 16, 16, 16, 16, 16, 5, 16, 16, 16, 16, 16, 16, 16), 32);
    v128.store(out, v128.shuffle<u8>(b, none, 6, 16, 16, 16, 16, 16, 16, 16, 7, 16, 16, 16, 16, 16, 16, 16), 48);
    v128.store(out, v128.shuffle<u8>(b, none, 8, 16, 16, 16, 16, 16, 16, 16, 9, 16, 16, 16, 16, 16, 16, 16), 64);
    v128.store(out, v128.shuffle<u8>(b, none, 10, 16, 16, 16, 16, 16, 16, 16, 11, 16, 16, 16, 16, 16, 16, 16), 80);
    v128.store(out, v128.shuffle<u8>(b, none, 12, 16, 16, 16, 16, 16, 16, 16, 13, 16, 16, 16, 16, 16, 16, 16), 96);
    v128.store(out, v128.shuffle<u8>(b, none, 14, 16, 16, 16, 16, 16, 16, 16, 15, 16, 16, 16, 16, 16, 16, 16), 112);
  } else if (order == 4) {
    for (let i: usize = 0; i < 2; i++) {
      const b = v128.load(at + (i << 4));
      const to = out + (i << 6);
      v128.store(to, v128.shuffle<u8>(b, none, 1, 0, 16, 16, 16, 16, 16, 16, 3, 2, 16, 16, 16, 16, 16, 16), 0);
      v128.store(to, v128.shuffle<u8>(b, none, 5, 4, 16, 16, 16, 16, 16, 16, 7, 6, 16, 16, 16, 16, 16, 16), 16);
      v128.store(to, v128.shuffle<u8>(b, none, 9, 8, 16, 16, 16, 16, 16, 16, 11, 10, 16, 16, 16, 16, 16, 16), 32);
      v128.store(to, v128.shuffle<u8>(b, none, 13, 12, 16, 16, 16, 16, 16, 16, 15, 14, 16, 16, 16, 16, 16, 16), 48);
    }
  } else if (order == 5) {
    for (let i: usize = 0; i < 4; i++) {
      const b = v128.load(at + (i << 4));
      const to = out + (i << 5);
      v128.store(to, v128.shuffle<u8>(b, none, 3, 2, 1, 0, 16, 16, 16, 16, 7, 6, 5, 4, 16, 16, 16, 16), 0);
      v128.store(to, v128.shuffle<u8>(b, none, 11, 10, 9, 8, 16, 16, 16, 16, 15, 14, 13, 12, 16, 16, 16, 16), 16);
    }
  } else {
    for (let i: usize = 0; i < 128; i += 16) v128.store(out + i, swap64(v128.load(at + i)));
  }
}

// @ts-ignore: decorator
@inline
function swap64(pair: v128): v128 {
  return v128.shuffle<u8>(pair, pair, 7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8);
}

// @ts-ignore: decorator
@inline
function getAll(block: usize, first: u32, count: u32, order: u32, out: usize): void {
  let i: u32 = 0;
  const head = headOf(first, count, order);
  for (; i < head; i++) store<u64>(out + (<usize>i << 3), entryGet(block, first + i, order));
  for (; count - i >= 16; i += 16) {
    get16(byteOf(block, first + i, order), order, out + (<usize>i << 3));
  }
  for (; i < count; i++) store<u64>(out + (<usize>i << 3), entryGet(block, first + i, order));
}

export function refcountGet(block: usize, first: u32, count: u32, order: u32, out: usize): i32 {
  if (order > ORDER_MAX || !entriesMapped(block, first, count, order)) return MISUSE;
  if (!mapped(out, <u64>count << 3)) return MISUSE;
  switch (order) {
    case 0: getAll(block, first, count, 0, out); break;
    case 1: getAll(block, first, count, 1, out); break;
    case 2: getAll(block, first, count, 2, out); break;
    case 3: getAll(block, first, count, 3, out); break;
    case 4: getAll(block, first, count, 4, out); break;
    case 5: getAll(block, first, count, 5, out); break;
    default: getAll(block, first, count, 6, out);
  }
  return count;
}

/** The low halves of four values. */
// @ts-ignore: decorator
@inline
function lowOf4(values: usize): v128 {
  return v128.shuffle<u32>(v128.load(values), v128.load(values, 16), 0, 2, 4, 6);
}

/** Eight values that fit 16 bits. */
// @ts-ignore: decorator
@inline
function shortsOf8(values: usize): v128 {
  return v128.shuffle<u16>(lowOf4(values), lowOf4(values + 32), 0, 2, 4, 6, 8, 10, 12, 14);
}

// @ts-ignore: decorator
@inline
function set16(at: usize, order: u32, values: usize): void {
  if (order <= 3) {
    storeBytes16(at, order, v128.narrow<u16>(shortsOf8(values), shortsOf8(values + 64)));
  } else if (order == 4) {
    for (let i: usize = 0; i < 2; i++) {
      const s = shortsOf8(values + (i << 6));
      v128.store(at + (i << 4), v128.shuffle<u8>(s, s, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
    }
  } else if (order == 5) {
    for (let i: usize = 0; i < 4; i++) {
      const w = lowOf4(values + (i << 5));
      v128.store(at + (i << 4), v128.shuffle<u8>(w, w, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12));
    }
  } else {
    for (let i: usize = 0; i < 128; i += 16) v128.store(at + i, swap64(v128.load(values + i)));
  }
}

// @ts-ignore: decorator
@inline
function setAll(block: usize, first: u32, count: u32, order: u32, values: usize): void {
  let i: u32 = 0;
  const head = headOf(first, count, order);
  for (; i < head; i++) entrySet(block, first + i, order, load<u64>(values + (<usize>i << 3)));
  for (; count - i >= 16; i += 16) {
    set16(byteOf(block, first + i, order), order, values + (<usize>i << 3));
  }
  for (; i < count; i++) entrySet(block, first + i, order, load<u64>(values + (<usize>i << 3)));
}

/** Index of the first value that has a bit in `above`, or `count`. */
function firstAbove(values: usize, count: u32, above: u64): u32 {
  const mask = v128.splat<u64>(above);
  let i: u32 = 0;
  for (; count - i >= 8; i += 8) {
    const at = values + (<usize>i << 3);
    const a = v128.or(v128.load(at), v128.load(at, 16));
    const b = v128.or(v128.load(at, 32), v128.load(at, 48));
    if (v128.any_true(v128.and(v128.or(a, b), mask))) break;
  }
  while (i < count && (load<u64>(values + (<usize>i << 3)) & above) == 0) i++;
  return i;
}

export function refcountSet(block: usize, first: u32, count: u32, order: u32, values: usize): i32 {
  if (order > ORDER_MAX || !entriesMapped(block, first, count, order)) return MISUSE;
  if (!mapped(values, <u64>count << 3)) return MISUSE;
  if (order < 6) {
    const bad = firstAbove(values, count, (~(<u64>0)) << (1 << order));
    if (bad != count) return -1 - bad;
  }
  switch (order) {
    case 0: setAll(block, first, count, 0, values); break;
    case 1: setAll(block, first, count, 1, values); break;
    case 2: setAll(block, first, count, 2, values); break;
    case 3: setAll(block, first, count, 3, values); break;
    case 4: setAll(block, first, count, 4, values); break;
    case 5: setAll(block, first, count, 5, values); break;
    default: setAll(block, first, count, 6, values);
  }
  return count;
}
