/** The checks of assembly/bounds.ts. */
import { ARENA_BASE } from '../../../src/kernels/kernels.ts';

export function mapped(memory: WebAssembly.Memory, at: number, bytes: number): boolean {
  return at >= ARENA_BASE && at + bytes <= memory.buffer.byteLength;
}

export function isClusterBits(bits: number): boolean {
  return bits >= 9 && bits <= 21;
}
