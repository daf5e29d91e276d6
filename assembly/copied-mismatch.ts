// The COPIED flags of an L2 table against the refcounts: does each entry's flag say whether its
// cluster's refcount is 1? (Kernels.l2CopiedMismatch)
//
// The refcounts come as a bitmap with a bit for each cluster whose count is 1: a 1 TiB image's fits
// into a core's cache. Eight entries that follow each other are one step.

import { MISUSE, isClusterBits, mapped } from './bounds';
import { COMPRESSED, COPIED } from './compressed-descriptor';
import { bytesSwapped, wordAt } from './entry-word';

// @ts-ignore: decorator
@inline const HOST: u64 = 0x00ff_ffff_ffff_fe00;
// @ts-ignore: decorator
@inline const DATA_FILE: u32 = 2;
// @ts-ignore: decorator
@inline const LAST_WINDOW: u32 = 4;

/** Whether the eight entries from `at` on are the first one and the seven clusters behind it. */
// @ts-ignore: decorator
@inline
function isRunOfEight(at: usize, stride: usize, entry: u64, bits: u32): bool {
  let want = v128.replace_lane<u64>(v128.splat<u64>(entry), 1, entry + ((<u64>1) << bits));
  const two = v128.splat<u64>((<u64>2) << bits);
  let differ = v128.splat<u64>(0);
  for (let i: u32 = 0; i < 4; i++) {
    const pair = stride == 8
      ? v128.load(at)
      : v128.load_lane<u64>(at + 16, v128.load_zero<u64>(at), 1);
    differ = v128.or(differ, v128.xor(bytesSwapped(pair), want));
    want = v128.add<u64>(want, two);
    at += stride << 1;
  }
  return !v128.any_true(differ);
}

// @ts-ignore: decorator
@inline
function firstMismatch(
  table: usize, entries: u32, stride: u32, bits: u32, flags: u32,
  ones: usize, first: u32, length: u32,
): u32 {
  const dataFile = (flags & DATA_FILE) != 0;
  const beyondIsFree = (flags & LAST_WINDOW) != 0;
  let i: u32 = 0;
  while (i < entries) {
    const at = table + <usize>i * stride;
    const word = wordAt(at);
    const copied = word >> 63 != 0;
    const host = word & HOST;
    if (word & COMPRESSED) {
      i++;
      continue;
    }
    if (dataFile) {
      // An entry of offset 0 is one only with the flag, so it cannot lack it.
      if (host != 0 && !copied) return i;
      i++;
      continue;
    }
    if (host == 0) {
      i++;
      continue;
    }
    const cluster = host >> bits;
    if (cluster < first) {
      i++;
      continue;
    }
    const k = cluster - first;
    if (k >= length) {
      if (beyondIsFree && copied) return i;
      i++;
      continue;
    }
    if (
      k + 8 <= length && entries - i >= 8 &&
      wordAt(at + stride) == word + ((<u64>1) << bits) && isRunOfEight(at, stride, word, bits)
    ) {
      const eight = (<u32>load<u16>(ones + <usize>(k >> 3)) >> (<u32>k & 7)) & 0xff;
      if (eight == (copied ? 0xff : 0)) {
        i += 8;
        continue;
      }
    }
    const one = ((load<u8>(ones + <usize>(k >> 3)) >> (<u8>k & 7)) & 1) != 0;
    if (one != copied) return i;
    i++;
  }
  return entries;
}

export function l2CopiedMismatch(
  table: usize, entries: u32, stride: u32, clusterBits: u32, flags: u32,
  ones: usize, first: u32, length: u32,
): i32 {
  if ((stride != 8 && stride != 16) || !isClusterBits(clusterBits)) return MISUSE;
  if (!mapped(table, <u64>entries * stride) || !mapped(ones, (<u64>length >> 3) + 2)) return MISUSE;
  return stride == 8
    ? firstMismatch(table, entries, 8, clusterBits, flags, ones, first, length)
    : firstMismatch(table, entries, 16, clusterBits, flags, ones, first, length);
}
