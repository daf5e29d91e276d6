// Finds matches: where do the bytes at a position stand before it, at most 4095 back?
//
// Positions with the same hash of four bytes form a chain, latest first. Three bytes alone have
// one place, the latest: a match of three pays only where it is near. Positions are kept as their
// low 16 bits. What is taken for one of this window and is none does no harm, because bytes are
// compared where the match would lie.

import { CHAIN, HEADS3, HEADS4 } from './deflate-scratch';

/** QEMU's reader has a window of 4096 bytes. (zlib's encoder stays 262 below it.) */
// @ts-ignore: decorator
@inline export const DIST_MAX: u32 = 4095;

// @ts-ignore: decorator
@inline const FACTOR4: u32 = 0x9e3779b1;
// @ts-ignore: decorator
@inline const FACTOR3: u32 = 0x1e35a7bd;

/** Bits of the four-byte hash: enough for a window, no more than there are positions. */
export function hashBits(srcBytes: u32): u32 {
  return min<u32>(13, max<u32>(8, 32 - clz(srcBytes)));
}

/** Makes the tables empty. @param bits of the four-byte hash; that of three has one less */
export function clearMatches(bits: u32): void {
  // No position in reach of the first 4 KiB, and of others only by chance.
  memory.fill(HEADS4, 0x80, 2 << bits);
  memory.fill(HEADS3, 0x80, 1 << bits);
}

// @ts-ignore: decorator
@inline
function head4(word: u32, shift: u32): usize {
  return HEADS4 + <usize>(((word * FACTOR4) >> shift) << 1);
}

// @ts-ignore: decorator
@inline
function head3(word: u32, shift: u32): usize {
  return HEADS3 + <usize>((((word << 8) * FACTOR3) >> (shift + 1)) << 1);
}

// @ts-ignore: decorator
@inline
function chainOf(pos: u32): usize {
  return CHAIN + <usize>((pos & 4095) << 1);
}

/** How many bytes at `a` and `b` are equal, from `length` on and up to `limit`. */
// @ts-ignore: decorator
@inline
export function matchLength(a: usize, b: usize, length: u32, limit: u32): u32 {
  while (length < limit) {
    const differ = load<u64>(a + length) ^ load<u64>(b + length);
    if (differ != 0) return min(limit, length + (<u32>ctz(differ) >> 3));
    length += 8;
  }
  return limit;
}

/** Makes a position known. Four bytes of it are input. */
// @ts-ignore: decorator
@inline
export function insertPosition(src: usize, pos: u32, shift: u32): void {
  const word = load<u32>(src + pos);
  const head = head4(word, shift);
  store<u16>(chainOf(pos), load<u16>(head));
  store<u16>(head, <u16>pos);
  store<u16>(head3(word, shift), <u16>pos);
}

/**
 * Makes a position known, and finds the longest match there. The nearest of the longest, that is.
 * @param best only longer ones count; 2 at least
 * @param depth how many candidates are looked at
 * @param nice a length that ends the search, at most `limit`
 * @param limit bytes that are left, 258 at most and 4 at least
 * @returns length << 16 | distance, or 0
 */
export function findMatch(
  src: usize, pos: u32, best: u32, depth: u32, nice: u32, limit: u32, shift: u32,
): u32 {
  const at = src + pos;
  const word = load<u32>(at);
  const head = head4(word, shift);
  const near = head3(word, shift);
  const first: u32 = load<u16>(head);
  const reach = min(pos, DIST_MAX);
  let found: u32 = 0;
  store<u16>(chainOf(pos), <u16>first);
  store<u16>(head, <u16>pos);
  if (best < 3) {
    const distance = (pos - load<u16>(near)) & 0xffff;
    if (distance - 1 < reach && (load<u32>(at - distance) ^ word) << 8 == 0) {
      found = (3 << 16) | distance;
    }
    best = 3;
  }
  store<u16>(near, <u16>pos);
  let distance = (pos - first) & 0xffff;
  while (distance - 1 < reach) {
    const from = at - distance;
    // The last byte of a longer match tells the most; four of them are as cheap.
    if (load<u32>(from + best - 3) == load<u32>(at + best - 3) && load<u32>(from) == word) {
      const length = matchLength(at, from, 4, limit);
      if (length > best) {
        best = length;
        found = (length << 16) | distance;
        if (length >= nice) break;
      }
    }
    if (--depth == 0) break;
    distance = (pos - load<u16>(chainOf(pos - distance))) & 0xffff;
  }
  return found;
}
