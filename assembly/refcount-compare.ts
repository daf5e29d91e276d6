// Refcount blocks against counts in memory, and which of their entries are 1.
// (Kernels.refcountCompare, refcountOnes)
//
// Counts are little-endian u16 or u32 and entries of any width (refcount-entry.ts): eight or
// sixteen are brought to one width and compared in one step.

import { MISUSE, mapped } from './bounds';
import { wordPairAt } from './entry-word';
import { ORDER_MAX, byteOf, bytesOf16, entriesMapped, entryGet } from './refcount-entry';

// @ts-ignore: decorator
@inline
function swap16(shorts: v128): v128 {
  return v128.swizzle(shorts, i8x16(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
}

// @ts-ignore: decorator
@inline
function swap32(words: v128): v128 {
  return v128.swizzle(words, i8x16(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12));
}

/** Whether sixteen entries equal sixteen counts; the first entry starts a byte. */
// @ts-ignore: decorator
@inline
function equal16(at: usize, order: u32, counts: usize, wide: bool): bool {
  let differ: v128;
  if (order <= 4) {
    let low: v128;
    let high: v128;
    if (order == 4) {
      low = swap16(v128.load(at));
      high = swap16(v128.load(at, 16));
    } else {
      const entries = bytesOf16(at, order);
      low = v128.extend_low<u8>(entries);
      high = v128.extend_high<u8>(entries);
    }
    if (wide) {
      const a = v128.xor(v128.extend_low<u16>(low), v128.load(counts));
      const b = v128.xor(v128.extend_high<u16>(low), v128.load(counts, 16));
      const c = v128.xor(v128.extend_low<u16>(high), v128.load(counts, 32));
      const d = v128.xor(v128.extend_high<u16>(high), v128.load(counts, 48));
      differ = v128.or(v128.or(a, b), v128.or(c, d));
    } else {
      differ = v128.or(v128.xor(low, v128.load(counts)), v128.xor(high, v128.load(counts, 16)));
    }
    return !v128.any_true(differ);
  }
  differ = v128.splat<u64>(0);
  for (let i: usize = 0; i < 4; i++) {
    const four = wide
      ? v128.load(counts + (i << 4))
      : v128.extend_low<u16>(v128.load_zero<u64>(counts + (i << 3)));
    if (order == 5) {
      differ = v128.or(differ, v128.xor(swap32(v128.load(at + (i << 4))), four));
    } else {
      const low = v128.xor(wordPairAt(at + (i << 5)), v128.extend_low<u32>(four));
      const high = v128.xor(wordPairAt(at + (i << 5) + 16), v128.extend_high<u32>(four));
      differ = v128.or(differ, v128.or(low, high));
    }
  }
  return !v128.any_true(differ);
}

// @ts-ignore: decorator
@inline
function countOf(counts: usize, index: u32, wide: bool): u64 {
  return wide ? load<u32>(counts + (<usize>index << 2)) : load<u16>(counts + (<usize>index << 1));
}

// @ts-ignore: decorator
@inline
function firstDifference(
  block: usize, first: u32, count: u32, order: u32, counts: usize, wide: bool,
): u32 {
  let i: u32 = 0;
  const size: usize = wide ? 4 : 2;
  // Entries that share a byte with one before the first go one by one.
  const head: u32 = order < 3 ? min<u32>((0 - first) & ((1 << (3 - order)) - 1), count) : 0;
  for (; i < head; i++) {
    if (entryGet(block, first + i, order) != countOf(counts, i, wide)) return i;
  }
  while (count - i >= 16) {
    const at = byteOf(block, first + i, order);
    if (!equal16(at, order, counts + <usize>i * size, wide)) break;
    i += 16;
  }
  for (; i < count; i++) {
    if (entryGet(block, first + i, order) != countOf(counts, i, wide)) return i;
  }
  return count;
}

// @ts-ignore: decorator
@inline
function differenceOfWidth(
  block: usize, first: u32, count: u32, order: u32, counts: usize, wide: bool,
): u32 {
  switch (order) {
    case 0: return firstDifference(block, first, count, 0, counts, wide);
    case 1: return firstDifference(block, first, count, 1, counts, wide);
    case 2: return firstDifference(block, first, count, 2, counts, wide);
    case 3: return firstDifference(block, first, count, 3, counts, wide);
    case 4: return firstDifference(block, first, count, 4, counts, wide);
    case 5: return firstDifference(block, first, count, 5, counts, wide);
    default: return firstDifference(block, first, count, 6, counts, wide);
  }
}

export function refcountCompare(
  block: usize, first: u32, count: u32, order: u32, counts: usize, width: u32,
): i32 {
  if (order > ORDER_MAX || !entriesMapped(block, first, count, order)) return MISUSE;
  if ((width != 2 && width != 4) || !mapped(counts, <u64>count * width)) return MISUSE;
  return width == 4
    ? differenceOfWidth(block, first, count, order, counts, true)
    : differenceOfWidth(block, first, count, order, counts, false);
}

/** Which of sixteen entries are 1: a bit each, the first the lowest. */
// @ts-ignore: decorator
@inline
function ones16(at: usize, order: u32): u32 {
  if (order == 0) return load<u16>(at);
  if (order <= 3) return v128.bitmask<u8>(v128.eq<u8>(bytesOf16(at, order), v128.splat<u8>(1)));
  if (order == 4) {
    const one = v128.splat<u16>(0x0100);
    const low = v128.eq<u16>(v128.load(at), one);
    return v128.bitmask<u8>(v128.narrow<i16>(low, v128.eq<u16>(v128.load(at, 16), one)));
  }
  let bits: u32 = 0;
  for (let i: u32 = 0; i < 16; i++) bits |= <u32>(entryGet(at, i, order) == 1) << i;
  return bits;
}

// @ts-ignore: decorator
@inline
function putOnes(block: usize, count: u32, order: u32, out: usize): void {
  for (let i: u32 = 0; i < count; i += 16) {
    store<u16>(out + (<usize>i >> 3), <u16>ones16(byteOf(block, i, order), order));
  }
}

export function refcountOnes(block: usize, count: u32, order: u32, out: usize): i32 {
  if (order > ORDER_MAX || (count & 15) != 0 || !entriesMapped(block, 0, count, order)) {
    return MISUSE;
  }
  if (!mapped(out, <u64>count >> 3)) return MISUSE;
  switch (order) {
    case 0: putOnes(block, count, 0, out); break;
    case 1: putOnes(block, count, 1, out); break;
    case 2: putOnes(block, count, 2, out); break;
    case 3: putOnes(block, count, 3, out); break;
    case 4: putOnes(block, count, 4, out); break;
    case 5: putOnes(block, count, 5, out); break;
    default: putOnes(block, count, 6, out);
  }
  return count;
}
