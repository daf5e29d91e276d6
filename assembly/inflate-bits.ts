// The bits of a deflate stream, and where it ends.
//
// The bit buffer is kept two places high: `bits & mask` is then a byte offset into a table of u32
// entries, and no shift stands between the buffer and the load that everything waits for.
//
//   bits    0–1 spent bits, 2 … avail-1 the next bits of the stream, above them the same or 0
//   avail   low 6 bits: how many bits of `bits` count, the two spent ones among them; the rest is
//           carry, so that a whole table entry can be subtracted

import { SCRATCH } from './layout';

// DecodeError
// @ts-ignore: decorator
@inline export const TRUNCATED: i32 = -1;
// @ts-ignore: decorator
@inline export const SHORT: i32 = -2;
// @ts-ignore: decorator
@inline export const INVALID: i32 = -3;

/** What functions hand on: u64 bits, u64 avail, u32 at. */
// @ts-ignore: decorator
@inline export const READER: usize = SCRATCH + 0xbcc0;

// Did the stream take bits that lie behind the input's end? Those that are in hand count back.
// @ts-ignore: decorator
@inline
export function overrun(at: usize, avail: u64, srcEnd: usize): bool {
  return at - <usize>(((avail & 63) - 2) >> 3) > srcEnd;
}
