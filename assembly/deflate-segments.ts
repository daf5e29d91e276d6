// The unit that blocks are put together from: about two KiB of the input, how they were parsed,
// and how often each symbol came up. A record:
//
//   0x000  u32 × 288  frequencies of literals, end of block, lengths
//   0x480  u32 × 32   frequencies of distances
//   0x500  u32        position of its first byte
//   0x504  u32        bytes
//   0x508  u32        address of its first sequence
//   0x50c  u32        address behind its last one
//   0x510  f32        bits as a block of its own, about
//   0x514  f32        bits saved when the next one joins it, about

import { SEGMENTS } from './deflate-scratch';

/** A segment is at least this long, but for the last. A chunk has 33 of them at most. */
// @ts-ignore: decorator
@inline export const SEGMENT: u32 = 2048;
/** Bytes of a record. */
// @ts-ignore: decorator
@inline export const RECORD: usize = 0x580;

// @ts-ignore: decorator
@inline export const DIST_COUNTS: usize = 0x480;
// @ts-ignore: decorator
@inline export const FROM: usize = 0x500;
// @ts-ignore: decorator
@inline export const BYTES: usize = 0x504;
// @ts-ignore: decorator
@inline export const SEQUENCES_FROM: usize = 0x508;
// @ts-ignore: decorator
@inline export const SEQUENCES_END: usize = 0x50c;
// @ts-ignore: decorator
@inline export const BITS: usize = 0x510;
// @ts-ignore: decorator
@inline export const SAVING: usize = 0x514;

/** Address of a record. */
// @ts-ignore: decorator
@inline
export function segment(index: u32): usize {
  return SEGMENTS + <usize>index * RECORD;
}

/** Sets the frequencies of a record to zero. */
// @ts-ignore: decorator
@inline
export function clearCounts(record: usize): void {
  memory.fill(record, 0, FROM);
}

/** Counts one more of the symbol whose frequency stands at `count`. */
// @ts-ignore: decorator
@inline
export function countOne(count: usize): void {
  store<u32>(count, load<u32>(count) + 1);
}
