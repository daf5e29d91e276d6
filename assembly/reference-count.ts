// Counting what an L2 table refers to: one added to each host cluster's count, a table in one call.
// (Kernels.l2References)
//
// Eight entries go in one step where they follow each other, as they do in most of an image: eight
// neighbouring clusters, hence eight neighbouring counts. All else goes one by one. What a check
// would have a word to say about is left to the caller, entry by entry.
//
// Spec: "L2 table entry", "Standard Cluster Descriptor", "Extended L2 Entries".

import { MISUSE, isClusterBits, mapped } from './bounds';
import { COMPRESSED, COPIED, streamBytes, streamHost } from './compressed-descriptor';
import { bytesSwapped, wordAt } from './entry-word';

// @ts-ignore: decorator
@inline const RESERVED: u64 = 0x3f00_0000_0000_01fe;
// @ts-ignore: decorator
@inline const HOST: u64 = 0x00ff_ffff_ffff_fe00;
// @ts-ignore: decorator
@inline const ALLOCATED: u64 = 0xffff_ffff;
// @ts-ignore: decorator
@inline const DATA_FILE: u32 = 2;
// @ts-ignore: decorator
@inline const TALLY_BYTES: u64 = 64;

// The tally, little-endian u32 but for the last:
//   0 cluster bits · 4 flags · 8 limit · 12 counts · 16 first · 20 length · 24 most · 28 width
//   32 times · 36 allocated · 40 fragmented · 44 compressed · 48 next (u64) · 56 flags seen

/** Bytes of each of the two bitmaps of flags seen. */
// @ts-ignore: decorator
@inline
function seenBytes(length: u32): usize {
  return <usize>(length >> 3) + 4;
}

// @ts-ignore: decorator
@inline
function countAt(counts: usize, index: u32, wide: bool): u32 {
  return wide ? load<u32>(counts + (<usize>index << 2)) : load<u16>(counts + (<usize>index << 1));
}

// @ts-ignore: decorator
@inline
function addAt(counts: usize, index: u32, wide: bool, times: u32): void {
  if (wide) {
    const at = counts + (<usize>index << 2);
    store<u32>(at, load<u32>(at) + times);
  } else {
    const at = counts + (<usize>index << 1);
    store<u16>(at, <u16>(load<u16>(at) + times));
  }
}

/** Adds to eight neighbours; false, with nothing changed, where one has no room. */
// @ts-ignore: decorator
@inline
function addToEight(counts: usize, index: u32, wide: bool, more: v128, bound: v128): bool {
  if (wide) {
    const at = counts + (<usize>index << 2);
    const a = v128.load(at);
    const b = v128.load(at, 16);
    if (v128.any_true(v128.or(v128.gt<u32>(a, bound), v128.gt<u32>(b, bound)))) return false;
    v128.store(at, v128.add<u32>(a, more));
    v128.store(at, v128.add<u32>(b, more), 16);
  } else {
    const at = counts + (<usize>index << 1);
    const eight = v128.load(at);
    if (v128.any_true(v128.gt<u16>(eight, bound))) return false;
    v128.store(at, v128.add<u16>(eight, more));
  }
  return true;
}

/** Notes for clusters from `k` on that they were met with COPIED, or without. */
// @ts-ignore: decorator
@inline
function note(seen: usize, half: usize, k: u32, copied: bool, count: u32): void {
  const base = seen + (copied ? 0 : half);
  const end = k + count;
  const at = base + <usize>(k >> 3);
  const last = base + <usize>(end >> 3);
  const from: u32 = 0xff << (k & 7);
  const until: u32 = (1 << (end & 7)) - 1;
  if (at == last) {
    store<u8>(at, <u8>(<u32>load<u8>(at) | (from & until)));
    return;
  }
  store<u8>(at, <u8>(<u32>load<u8>(at) | from));
  memory.fill(at + 1, 0xff, last - at - 1);
  if (until != 0) store<u8>(last, <u8>(<u32>load<u8>(last) | until));
}

/**
 * How often eight standard entries are clusters that follow each other, flags alike, from the first
 * on; counts them.
 */
function countEights(
  table: usize, most: u32, bits: u32,
  counts: usize, k: u32, wide: bool, times: u32, room: u32,
): u32 {
  const entry = wordAt(table);
  const two = v128.splat<u64>((<u64>2) << bits);
  const eight = v128.splat<u64>((<u64>8) << bits);
  const more = wide ? v128.splat<u32>(times) : v128.splat<u16>(<u16>times);
  const bound = wide ? v128.splat<u32>(room) : v128.splat<u16>(<u16>room);
  let a = v128.replace_lane<u64>(v128.splat<u64>(entry), 1, entry + ((<u64>1) << bits));
  let b = v128.add<u64>(a, two);
  let c = v128.add<u64>(b, two);
  let d = v128.add<u64>(c, two);
  let n: u32 = 0;
  for (; n < most; n++, table += 64, k += 8) {
    const x = v128.xor(bytesSwapped(v128.load(table)), a);
    const y = v128.xor(bytesSwapped(v128.load(table, 16)), b);
    const z = v128.xor(bytesSwapped(v128.load(table, 32)), c);
    const w = v128.xor(bytesSwapped(v128.load(table, 48)), d);
    if (v128.any_true(v128.or(v128.or(x, y), v128.or(z, w)))) break;
    if (!addToEight(counts, k, wide, more, bound)) break;
    a = v128.add<u64>(a, eight);
    b = v128.add<u64>(b, eight);
    c = v128.add<u64>(c, eight);
    d = v128.add<u64>(d, eight);
  }
  return n;
}

/** The same for extended entries, which must have the first one's bitmap, too. */
function countExtendedEights(
  table: usize, most: u32, bits: u32,
  counts: usize, k: u32, wide: bool, times: u32, room: u32,
): u32 {
  const step = v128.replace_lane<u64>(v128.splat<u64>(0), 0, (<u64>1) << bits);
  const more = wide ? v128.splat<u32>(times) : v128.splat<u16>(<u16>times);
  const bound = wide ? v128.splat<u32>(room) : v128.splat<u16>(<u16>room);
  let want = bytesSwapped(v128.load(table));
  let n: u32 = 0;
  for (; n < most; n++, k += 8) {
    let differ = v128.splat<u64>(0);
    for (let i = 0; i < 8; i++, table += 16) {
      differ = v128.or(differ, v128.xor(bytesSwapped(v128.load(table)), want));
      want = v128.add<u64>(want, step);
    }
    if (v128.any_true(differ) || !addToEight(counts, k, wide, more, bound)) break;
  }
  return n;
}

/** Whether eight standard entries, or four extended ones, are all zeros. */
// @ts-ignore: decorator
@inline
function isEmpty64(at: usize): bool {
  const a = v128.or(v128.load(at), v128.load(at, 16));
  return !v128.any_true(v128.or(a, v128.or(v128.load(at, 32), v128.load(at, 48))));
}

function countAll(table: usize, entries: u32, stride: u32, tally: usize): u32 {
  const bits = load<u32>(tally);
  const dataFile = (load<u32>(tally, 4) & DATA_FILE) != 0;
  const limit = load<u32>(tally, 8);
  const counts = <usize>load<u32>(tally, 12);
  const first = load<u32>(tally, 16);
  const length = load<u32>(tally, 20);
  const most = load<u32>(tally, 24);
  const wide = load<u32>(tally, 28) == 4;
  const times = load<u32>(tally, 32);
  const seen = <usize>load<u32>(tally, 56);
  const half = seenBytes(length);
  const extended = stride == 16;
  const room = most - times;
  const unaligned = ((<u64>1) << bits) - 1;
  const perEmpty: u32 = 64 / stride;
  let allocated = load<u32>(tally, 36);
  let fragmented = load<u32>(tally, 40);
  let compressed = load<u32>(tally, 44);
  let next = load<u64>(tally, 48);
  let i: u32 = 0;
  while (i < entries) {
    const at = table + <usize>i * stride;
    const word = wordAt(at);
    const bitmap: u64 = extended ? wordAt(at + 8) : 0;
    if (word & COMPRESSED) {
      if (word & COPIED || dataFile || bitmap != 0) break;
      const host = streamHost(word, bits);
      const end = (host + streamBytes(word, host, bits) - 1) >> bits;
      if (end >= limit) break;
      const start = <u32>(host >> bits);
      let fits = true;
      for (let k = start; k <= <u32>end; k++) {
        if (k - first < length && countAt(counts, k - first, wide) > room) fits = false;
      }
      if (!fits) break;
      for (let k = start; k <= <u32>end; k++) {
        if (k - first < length) addAt(counts, k - first, wide, times);
      }
      allocated++;
      compressed++;
      fragmented++;
      i++;
      continue;
    }
    if (word & RESERVED) break;
    const host = word & HOST;
    if (host == 0 && !(dataFile && (word & COPIED) != 0 && (extended || (word & 1) == 0))) {
      if (!extended && word & 1) {
        i++;
        continue;
      }
      if (bitmap & ALLOCATED) break;
      i++;
      while (entries - i >= perEmpty && isEmpty64(table + <usize>i * stride)) i += perEmpty;
      continue;
    }
    if ((bitmap >> 32) & bitmap || host & unaligned) break;
    let units: u32 = 1;
    if (!dataFile) {
      const cluster = host >> bits;
      if (cluster >= limit) break;
      const k = <u32>cluster - first;
      if (k < length) {
        let eights: u32 = 0;
        if (entries - i >= 8 && wordAt(at + stride) == word + unaligned + 1) {
          const left = min(length - k, limit - <u32>cluster);
          const most = min(left, entries - i) >> 3;
          eights = extended
            ? countExtendedEights(at, most, bits, counts, k, wide, times, room)
            : countEights(at, most, bits, counts, k, wide, times, room);
        }
        if (eights > 0) units = eights << 3;
        else {
          if (countAt(counts, k, wide) > room) break;
          addAt(counts, k, wide, times);
        }
        if (seen != 0) note(seen, half, k, word >> 63 != 0, units);
      }
    }
    allocated += units;
    if (next != 0 && host != next) fragmented++;
    next = host + ((<u64>units) << bits);
    i += units;
  }
  store<u32>(tally, allocated, 36);
  store<u32>(tally, fragmented, 40);
  store<u32>(tally, compressed, 44);
  store<u64>(tally, next, 48);
  return i;
}

export function l2References(table: usize, entries: u32, stride: u32, tally: usize): i32 {
  if ((stride != 8 && stride != 16) || !mapped(table, <u64>entries * stride)) return MISUSE;
  if (!mapped(tally, TALLY_BYTES) || !isClusterBits(load<u32>(tally))) return MISUSE;
  const width = load<u32>(tally, 28);
  const most = load<u32>(tally, 24);
  const times = load<u32>(tally, 32);
  if ((width != 2 && width != 4) || (width == 2 && most > 0xffff)) return MISUSE;
  if (times == 0 || times > most || most == 0xffff_ffff) return MISUSE;
  if (load<u32>(tally, 8) > 0x8000_0000) return MISUSE;
  const length = <u64>load<u32>(tally, 20);
  if (length > 0x8000_0000) return MISUSE;
  if (!mapped(<usize>load<u32>(tally, 12), length * width)) return MISUSE;
  const seen = <usize>load<u32>(tally, 56);
  if (seen != 0 && !mapped(seen, <u64>seenBytes(<u32>length) << 1)) return MISUSE;
  return <i32>countAll(table, entries, stride, tally);
}
