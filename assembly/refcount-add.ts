// Adds 1 to, or takes 1 from, a run of refcounts of one block. (Kernels.refcountAdd)
//
// All or nothing: a first pass looks for an entry that cannot change (at the width's maximum, or
// at 0, which is no count of anything in use), a second changes them all. Both take sixteen
// entries a step; the maximum and 0 look the same in either byte order, so the first pass need not
// swap any bytes. Layout: refcount-entry.ts.

import { MISUSE } from './bounds';
import { wordPairAt, bytesSwapped } from './entry-word';
import {
  ORDER_MAX, byteOf, bytesOf16, entriesMapped, entryGet, entrySet, storeBytes16,
} from './refcount-entry';
import { headOf, swap16, swap32 } from './refcount-get-set';

/** Whether one of the sixteen entries from `at` is `limit` (all ones of its width) or 0. */
// @ts-ignore: decorator
@inline
function anyFixed16(at: usize, order: u32, limit: u64): bool {
  if (order <= 3) {
    const entries = bytesOf16(at, order);
    const high = v128.eq<u8>(entries, v128.splat<u8>(<u8>limit));
    return v128.any_true(v128.or(high, v128.eq<u8>(entries, v128.splat<u8>(0))));
  }
  let found = v128.splat<u64>(0);
  const none = v128.splat<u64>(0);
  const all = v128.splat<u64>(limit == 0 ? 0 : -1);
  const bytes: usize = (<usize>1) << (order + 1);
  for (let i: usize = 0; i < bytes; i += 16) {
    const here = v128.load(at + i);
    if (order == 4) found = v128.or(found, eitherOf<u16>(here, all, none));
    else if (order == 5) found = v128.or(found, eitherOf<u32>(here, all, none));
    else found = v128.or(found, eitherOf<u64>(here, all, none));
  }
  return v128.any_true(found);
}

// @ts-ignore: decorator
@inline
function eitherOf<T>(here: v128, all: v128, none: v128): v128 {
  return v128.or(v128.eq<T>(here, all), v128.eq<T>(here, none));
}

/** Index of the first entry that cannot change, or `count`. */
// @ts-ignore: decorator
@inline
function firstFixed(block: usize, first: u32, count: u32, order: u32, limit: u64): u32 {
  let i: u32 = 0;
  const head = headOf(first, count, order);
  for (; i < head; i++) if (isFixed(entryGet(block, first + i, order), limit)) return i;
  for (; count - i >= 16; i += 16) {
    if (anyFixed16(byteOf(block, first + i, order), order, limit)) break;
  }
  while (i < count && !isFixed(entryGet(block, first + i, order), limit)) i++;
  return i;
}

// @ts-ignore: decorator
@inline
function isFixed(entry: u64, limit: u64): bool {
  return entry == 0 || entry == limit;
}

// @ts-ignore: decorator
@inline
function add16(at: usize, order: u32, delta: i32): void {
  if (order <= 3) {
    storeBytes16(at, order, v128.add<u8>(bytesOf16(at, order), v128.splat<u8>(<u8>delta)));
    return;
  }
  const bytes: usize = (<usize>1) << (order + 1);
  for (let i: usize = 0; i < bytes; i += 16) {
    const here = v128.load(at + i);
    if (order == 4) {
      v128.store(at + i, swap16(v128.add<u16>(swap16(here), v128.splat<u16>(<u16>delta))));
    } else if (order == 5) {
      v128.store(at + i, swap32(v128.add<u32>(swap32(here), v128.splat<u32>(<u32>delta))));
    } else {
      const sum = v128.add<u64>(wordPairAt(at + i), v128.splat<u64>(<u64><i64>delta));
      v128.store(at + i, bytesSwapped(sum));
    }
  }
}

// @ts-ignore: decorator
@inline
function addAll(block: usize, first: u32, count: u32, order: u32, delta: i32): i32 {
  // Taking away has no upper limit; 0 stands for "none".
  const most: u64 = order == 6 ? -1 : ((<u64>1) << ((<u64>1) << order)) - 1;
  const fixed = firstFixed(block, first, count, order, delta > 0 ? most : 0);
  if (fixed != count) return -1 - <i32>fixed;
  let i: u32 = 0;
  const head = headOf(first, count, order);
  for (; i < head; i++) addOne(block, first + i, order, delta);
  for (; count - i >= 16; i += 16) add16(byteOf(block, first + i, order), order, delta);
  for (; i < count; i++) addOne(block, first + i, order, delta);
  return count;
}

// @ts-ignore: decorator
@inline
function addOne(block: usize, index: u32, order: u32, delta: i32): void {
  entrySet(block, index, order, entryGet(block, index, order) + <u64><i64>delta);
}

export function refcountAdd(block: usize, first: u32, count: u32, order: u32, delta: i32): i32 {
  if (order > ORDER_MAX || !entriesMapped(block, first, count, order)) return MISUSE;
  if (<i32>count < 0 || (delta != 1 && delta != -1)) return MISUSE;
  switch (order) {
    case 0: return addAll(block, first, count, 0, delta);
    case 1: return addAll(block, first, count, 1, delta);
    case 2: return addAll(block, first, count, 2, delta);
    case 3: return addAll(block, first, count, 3, delta);
    case 4: return addAll(block, first, count, 4, delta);
    case 5: return addAll(block, first, count, 5, delta);
    default: return addAll(block, first, count, 6, delta);
  }
}
