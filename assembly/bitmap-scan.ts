// The runs of set bits of a dirty bitmap: what changed. (Kernels.bitmapRuns)
//
//   bit i of the bitmap is bit i % 8, from the lowest, of byte i / 8
//
// Spec: "Bitmap Data". A little-endian load of eight bytes puts 64 bits in order; mask-runs.ts
// takes the runs from such words. Stretches where nothing begins or ends, most of a bitmap, are
// passed
// over 64 bytes at a time.

import { MISUSE, mapped } from './bounds';
import { closeRun, scanWord } from './mask-runs';

/** How many blocks of 64 bytes from `at` have all bits equal to those of `same` (0 or all ones). */
// @ts-ignore: decorator
@inline
function sameBlocks(at: usize, blocks: u32, same: v128): u32 {
  let n: u32 = 0;
  for (; n < blocks; n++) {
    const here = at + (<usize>n << 6);
    const a = v128.or(v128.xor(v128.load(here), same), v128.xor(v128.load(here, 16), same));
    const b = v128.or(v128.xor(v128.load(here, 32), same), v128.xor(v128.load(here, 48), same));
    if (v128.any_true(v128.or(a, b))) break;
  }
  return n;
}

export function bitmapRuns(bitmap: usize, first: u32, bits: u32, out: usize, outMax: u32): i32 {
  const last = <u64>first + bits;
  if (last >> 32 != 0 || !mapped(bitmap, (last + 7) >> 3)) return MISUSE;
  if (!mapped(out, <u64>outMax << 3)) return MISUSE;
  if (bits == 0 || outMax == 0) return 0;
  const end = first + bits;
  const edgeMax = outMax << 1;
  let edges: u32 = 0;
  // Whole bytes; the bits before the first are masked out.
  let bit = first & ~7;
  let mask: u64 = (~(<u64>0)) << (first & 7);
  while (end - bit >= 64) {
    const word = load<u64>(bitmap + (bit >> 3)) & mask;
    mask = ~(<u64>0);
    const before = edges;
    edges = scanWord(word, bit, out, edges, edgeMax);
    bit += 64;
    if (edges != before) {
      if (edges == edgeMax) return outMax;
      continue;
    }
    if (end - bit >= 512) {
      const same = v128.splat<i32>(0 - (edges & 1));
      bit += sameBlocks(bitmap + (bit >> 3), (end - bit) >> 9, same) << 9;
    }
  }
  if (bit != end) {
    let word: u64 = 0;
    for (let at: u32 = 0; at < end - bit; at += 8) {
      word |= <u64>load<u8>(bitmap + ((bit + at) >> 3)) << at;
    }
    // Bits from the end on read as clear, which closes a run that reaches it.
    word &= mask & ~((~(<u64>0)) << (end - bit));
    edges = scanWord(word, bit, out, edges, edgeMax);
    if (edges == edgeMax) return outMax;
  }
  return closeRun(end, out, edges);
}
