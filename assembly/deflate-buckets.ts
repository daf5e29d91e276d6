// Finds matches, fast: a bucket of the four latest positions for each hash of four bytes.
//
// All four are compared with no branch between them, sixteen bytes each: what that costs is less
// than one branch that is predicted wrongly, and a search along a chain has two of those. A fifth
// candidate is the latest position of the same three bytes.

import { DIST_MAX, matchLength } from './deflate-matches';
import { BUCKETS, NEAR } from './deflate-scratch';

// @ts-ignore: decorator
@inline const FACTOR4: u32 = 0x9e3779b1;
// @ts-ignore: decorator
@inline const FACTOR3: u32 = 0x1e35a7bd;

// The least that `better` makes of three bytes.
// @ts-ignore: decorator
@inline const SHORTEST: u32 = (0xf << 12) - 0xfff;

/** Bits of the four-byte hash; that of three bytes has one more. */
export function bucketBits(srcBytes: u32): u32 {
  return min<u32>(14, max<u32>(6, 30 - clz(srcBytes)));
}

/** Makes the tables empty. */
export function clearBuckets(bits: u32): void {
  memory.fill(BUCKETS, 0x80, 8 << bits);
  memory.fill(NEAR, 0x80, 4 << bits);
}

// @ts-ignore: decorator
@inline
function bucketOf(word: u32, shift: u32): usize {
  return BUCKETS + <usize>(((word * FACTOR4) >> shift) << 3);
}

// @ts-ignore: decorator
@inline
function nearOf(word: u32, shift: u32): usize {
  return NEAR + <usize>((((word << 8) * FACTOR3) >> (shift - 1)) << 1);
}

/** Makes a position known. Four bytes of it are input. */
// @ts-ignore: decorator
@inline
export function addToBucket(src: usize, pos: u32, shift: u32): void {
  const word = load<u32>(src + pos);
  const bucket = bucketOf(word, shift);
  store<u64>(bucket, (load<u64>(bucket) << 16) | <u64>(pos & 0xffff));
  store<u16>(nearOf(word, shift), <u16>pos);
}

// The better of `best` and the match at a candidate: the longer one, then the nearer. As a number:
// all bits set up to that of its length, << 12, less distance - 1.
// @ts-ignore: decorator
@inline
function better(best: u32, here: v128, at: usize, pos: u32, candidate: u32, reach: u32): u32 {
  const distance = (pos - 1 - candidate) & 0xffff;
  // Whatever the candidate, this is memory: the scratch area lies before the input.
  const equal = i8x16.bitmask(i8x16.eq(v128.load(at - 1 - distance), here));
  // A select would do as well, and be slower.
  const inReach = <u32>(<i32>(distance - reach) >> 31);
  return max<u32>(best, (((equal ^ (equal + 1)) << 12) - distance) & inReach);
}

// The longest among the candidates, whatever its length. Three bytes at least.
function longest(at: usize, pos: u32, bucket: u64, near: u32, reach: u32, limit: u32): u32 {
  let best: u32 = 2;
  let found: u32 = 0;
  for (let i = 0; i < 5; i++) {
    const distance = (pos - (i < 4 ? <u32>bucket : near)) & 0xffff;
    bucket >>= 16;
    if (distance - 1 >= reach) continue;
    const length = matchLength(at, at - distance, 0, limit);
    if (length > best) {
      best = length;
      found = (length << 16) | distance;
    }
  }
  return found;
}

/**
 * Makes a position known, and finds the longest match there among the candidates.
 * @param limit bytes that are left, 258 at most and 4 at least
 * @returns length << 16 | distance, or 0
 */
// @ts-ignore: decorator
@inline
export function searchBucket(src: usize, pos: u32, limit: u32, shift: u32): u32 {
  const at = src + pos;
  const word = load<u32>(at);
  const here = v128.load(at);
  const place = bucketOf(word, shift);
  const nearPlace = nearOf(word, shift);
  const bucket = load<u64>(place);
  const near: u32 = load<u16>(nearPlace);
  store<u64>(place, (bucket << 16) | <u64>(pos & 0xffff));
  store<u16>(nearPlace, <u16>pos);
  const reach = min(pos, DIST_MAX);
  // What follows the input must not decide.
  if (limit < 16) return longest(at, pos, bucket, near, reach, limit);
  let best = better(0, here, at, pos, near, reach);
  best = better(best, here, at, pos, <u32>bucket, reach);
  best = better(best, here, at, pos, <u32>(bucket >> 16), reach);
  best = better(best, here, at, pos, <u32>(bucket >> 32), reach);
  best = better(best, here, at, pos, <u32>(bucket >> 48), reach);
  if (best < SHORTEST) return 0;
  const length = 31 - clz((best + 0xfff) >> 12);
  if (length == 16) return longest(at, pos, bucket, near, reach, limit);
  return (length << 16) | ((-best & 0xfff) + 1);
}
