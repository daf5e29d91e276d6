// Refcounts out of a block and into it, all widths as u64. (Kernels.refcountGet, refcountSet)
//
// Sixteen entries a step: narrow ones (layout: refcount-entry.ts) by way of a vector with one in
// each byte, wide ones as they are but for the order of their bytes. An entry that shares its byte
// with one outside of the range is set alone.

import { MISUSE, mapped } from './bounds';
import { wordPairAt } from './entry-word';
import {
  ORDER_MAX, byteOf, bytesOf16, entriesMapped, entryGet, entrySet, storeBytes16,
} from './refcount-entry';

/** Entries before the first that starts a byte. */
// @ts-ignore: decorator
@inline
export function headOf(first: u32, count: u32, order: u32): u32 {
  return order < 3 ? min((0 - first) & ((1 << (3 - order)) - 1), count) : 0;
}

// @ts-ignore: decorator
@inline
export function swap16(shorts: v128): v128 {
  return v128.swizzle(shorts, i8x16(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
}

// @ts-ignore: decorator
@inline
export function swap32(words: v128): v128 {
  return v128.swizzle(words, i8x16(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12));
}

/** Four u32 as u64. */
// @ts-ignore: decorator
@inline
function widen4(words: v128, out: usize): void {
  v128.store(out, v128.extend_low<u32>(words));
  v128.store(out, v128.extend_high<u32>(words), 16);
}

/** Eight u16 as u64. */
// @ts-ignore: decorator
@inline
function widen8(shorts: v128, out: usize): void {
  widen4(v128.extend_low<u16>(shorts), out);
  widen4(v128.extend_high<u16>(shorts), out + 32);
}

/** Sixteen entries as u64, little-endian. */
// @ts-ignore: decorator
@inline
function get16(at: usize, order: u32, out: usize): void {
  if (order <= 3) {
    const entries = bytesOf16(at, order);
    widen8(v128.extend_low<u8>(entries), out);
    widen8(v128.extend_high<u8>(entries), out + 64);
  } else if (order == 4) {
    widen8(swap16(v128.load(at)), out);
    widen8(swap16(v128.load(at, 16)), out + 64);
  } else if (order == 5) {
    widen4(swap32(v128.load(at)), out);
    widen4(swap32(v128.load(at, 16)), out + 32);
    widen4(swap32(v128.load(at, 32)), out + 64);
    widen4(swap32(v128.load(at, 48)), out + 96);
  } else {
    for (let i: usize = 0; i < 128; i += 16) v128.store(out + i, wordPairAt(at + i));
  }
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
  return v128.narrow<u32>(lowOf4(values), lowOf4(values + 32));
}

// @ts-ignore: decorator
@inline
function set16(at: usize, order: u32, values: usize): void {
  if (order <= 3) {
    storeBytes16(at, order, v128.narrow<u16>(shortsOf8(values), shortsOf8(values + 64)));
  } else if (order == 4) {
    v128.store(at, swap16(shortsOf8(values)));
    v128.store(at, swap16(shortsOf8(values + 64)), 16);
  } else if (order == 5) {
    v128.store(at, swap32(lowOf4(values)));
    v128.store(at, swap32(lowOf4(values + 32)), 16);
    v128.store(at, swap32(lowOf4(values + 64)), 32);
    v128.store(at, swap32(lowOf4(values + 96)), 48);
  } else {
    for (let i: usize = 0; i < 128; i += 16) v128.store(at + i, wordPairAt(values + i));
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
