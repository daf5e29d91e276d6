// What every kernel asks before it touches anything: do the buffers lie in the caller's arena?
//
// A kernel's bytes come from anywhere, its pointers from our own code. A wrong pointer is a bug of
// ours, and it must show as a refused call rather than as a trap or as damage to a neighbour.

import { SCRATCH_END } from './layout';

/** Returned, with nothing read or written, for arguments that no correct caller passes. */
// @ts-ignore: decorator
@inline export const MISUSE: i32 = i32.MIN_VALUE;

/** Whether `bytes` from `at` lie in the arena: at or above its start, inside the memory. */
// @ts-ignore: decorator
@inline
export function mapped(at: usize, bytes: u64): bool {
  return at >= SCRATCH_END && <u64>at + bytes <= <u64>(<u32>memory.size()) << 16;
}

/** The cluster sizes of the format, 512 bytes to 2 MiB. */
// @ts-ignore: decorator
@inline
export function isClusterBits(bits: u32): bool {
  return bits - 9 <= 12;
}
