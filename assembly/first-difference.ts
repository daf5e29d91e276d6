// Where do two buffers first differ? (Kernels.firstDifference)

import { MISUSE, mapped } from './bounds';

export function firstDifference(a: usize, b: usize, bytes: u32): i32 {
  if (!mapped(a, bytes) || !mapped(b, bytes)) return MISUSE;
  let pos: u32 = 0;
  while (bytes - pos >= 64) {
    const p = a + pos;
    const q = b + pos;
    const low = v128.or(
      v128.xor(v128.load(p), v128.load(q)), v128.xor(v128.load(p, 16), v128.load(q, 16)));
    const high = v128.or(
      v128.xor(v128.load(p, 32), v128.load(q, 32)), v128.xor(v128.load(p, 48), v128.load(q, 48)));
    if (v128.any_true(v128.or(low, high))) break;
    pos += 64;
  }
  while (pos < bytes && load<u8>(a + pos) == load<u8>(b + pos)) pos++;
  return pos;
}
