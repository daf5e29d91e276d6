// ORs one dirty bitmap into another, whose bits may stand for more guest bytes or for fewer.
// (Kernels.bitmapMerge)
//
//   shift   0   a bit for a bit
//         > 0   1 << shift bits of the source make one of the target
//         < 0   a bit of the source makes 1 << -shift of the target
//
// Bit i of a bitmap is bit i % 8, from the lowest, of byte i / 8. Most of a bitmap is clear: 64
// source bytes without a bit are passed over at once.

import { MISUSE, mapped } from './bounds';

/** Shifts between granularities of 512 bytes and 2 GiB. */
// @ts-ignore: decorator
@inline const SHIFT_MAX: i32 = 22;

/** Sets bits [from, to). */
// @ts-ignore: decorator
@inline
function setBits(bitmap: usize, from: u64, to: u64): void {
  const first = bitmap + <usize>(from >> 3);
  const last = bitmap + <usize>((to - 1) >> 3);
  const head: u32 = 0xff << (<u32>from & 7);
  const tail: u32 = 0xff >> (7 - (<u32>(to - 1) & 7));
  if (first == last) {
    store<u8>(first, load<u8>(first) | (head & tail));
    return;
  }
  store<u8>(first, load<u8>(first) | head);
  if (last - first > 1) memory.fill(first + 1, 0xff, last - first - 1);
  store<u8>(last, load<u8>(last) | tail);
}

/** Up to 64 source bits from `bit`, which starts a byte; the rest of the word is clear. */
// @ts-ignore: decorator
@inline
function wordOf(src: usize, bit: u32, end: u32): u64 {
  const at = src + (bit >> 3);
  if (end - bit >= 64) return load<u64>(at);
  let word: u64 = 0;
  for (let i: u32 = 0; i < end - bit; i += 8) word |= <u64>load<u8>(at + (i >> 3)) << i;
  return word & ~((~(<u64>0)) << (end - bit));
}

// @ts-ignore: decorator
@inline
function clear64(at: usize): bool {
  const a = v128.or(v128.load(at), v128.load(at, 16));
  return !v128.any_true(v128.or(a, v128.or(v128.load(at, 32), v128.load(at, 48))));
}

/** A bit for a bit, both from the start of a byte. */
function mergeSame(dst: usize, src: usize, bits: u32): bool {
  let any = v128.splat<u64>(0);
  let at: u32 = 0;
  for (; bits - at >= 128; at += 128) {
    const here = v128.load(src + (at >> 3));
    any = v128.or(any, here);
    v128.store(dst + (at >> 3), v128.or(v128.load(dst + (at >> 3)), here));
  }
  let found = v128.any_true(any);
  for (; at < bits; at += 8) {
    const left = bits - at;
    const keep: u32 = left >= 8 ? 0xff : 0xff >> (8 - left);
    const byte = <u32>load<u8>(src + (at >> 3)) & keep;
    if (byte != 0) found = true;
    store<u8>(dst + (at >> 3), load<u8>(dst + (at >> 3)) | byte);
  }
  return found;
}

/** Bits of other sizes: word by word of the source, set bit by set bit. */
function mergeScaled(
  dst: usize, dstFirst: u64, src: usize, srcFirst: u32, srcBits: u32, shift: i32,
): bool {
  const end = srcFirst + srcBits;
  let found = false;
  let mask: u64 = (~(<u64>0)) << (srcFirst & 7);
  for (let bit = srcFirst & ~7; bit < end; bit += 64) {
    if (end - bit >= 512 && clear64(src + (bit >> 3))) {
      // The loop adds the last of the eight words.
      bit += 448;
      mask = ~(<u64>0);
      continue;
    }
    let word = wordOf(src, bit, end) & mask;
    mask = ~(<u64>0);
    found = found || word != 0;
    while (word != 0) {
      const from = <u64>(bit + <u32>ctz<u64>(word) - srcFirst);
      const rest = ~(word >> ctz<u64>(word));
      const length = min<u64>(rest == 0 ? 64 : ctz<u64>(rest), 64 - ctz<u64>(word));
      const to = from + length;
      if (shift > 0) setBits(dst, dstFirst + (from >> shift), dstFirst + ((to - 1) >> shift) + 1);
      else setBits(dst, dstFirst + (from << -shift), dstFirst + (to << -shift));
      const passed = ctz<u64>(word) + length;
      word = passed >= 64 ? 0 : word & ((~(<u64>0)) << passed);
    }
  }
  return found;
}

export function bitmapMerge(
  dst: usize, dstFirst: u32, src: usize, srcFirst: u32, srcBits: u32, shift: i32,
): i32 {
  if (shift > SHIFT_MAX || shift < -SHIFT_MAX) return MISUSE;
  const srcEnd = <u64>srcFirst + srcBits;
  if (srcEnd >> 32 != 0 || !mapped(src, (srcEnd + 7) >> 3)) return MISUSE;
  const scaled: u64 = shift > 0
    ? (<u64>srcBits + ((<u64>1) << shift) - 1) >> shift
    : <u64>srcBits << -shift;
  const dstEnd = <u64>dstFirst + scaled;
  if (dstEnd >> 32 != 0 || !mapped(dst, (dstEnd + 7) >> 3)) return MISUSE;
  if (srcBits == 0) return 0;
  if (shift == 0 && ((dstFirst | srcFirst) & 7) == 0) {
    return <i32>mergeSame(dst + (dstFirst >> 3), src + (srcFirst >> 3), srcBits);
  }
  return <i32>mergeScaled(dst, dstFirst, src, srcFirst, srcBits, shift);
}
