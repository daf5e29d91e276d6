// Which bits of a dirty bitmap do guest ranges touch? (Kernels.bitmapBits)
//
//   in    f64 guest start, f64 length     bytes
//   out   f64 first bit,   f64 count      a bit covers 1 << granularityBits bytes
//
// Spec: "Bitmap Directory Entry", granularity_bits. All is arithmetic on doubles, two ranges at a
// time: scaling by a power of two is exact, and so are floor and ceil.

import { MISUSE, mapped } from './bounds';

/** Granularities that make sense for guest offsets below 2^63. */
// @ts-ignore: decorator
@inline const GRANULARITY_BITS_MAX: u32 = 62;

export function bitmapBits(ranges: usize, count: u32, granularityBits: u32, out: usize): i32 {
  if (granularityBits > GRANULARITY_BITS_MAX) return MISUSE;
  if (!mapped(ranges, <u64>count << 4) || !mapped(out, <u64>count << 4)) return MISUSE;
  // 2^-granularityBits, made from its exponent field.
  const scale = v128.splat<f64>(reinterpret<f64>((<u64>(1023 - granularityBits)) << 52));
  const none = v128.splat<u64>(0);
  let i: u32 = 0;
  for (; count - i >= 2; i += 2) {
    const at = <usize>i << 4;
    const a = v128.load(ranges + at);
    const b = v128.load(ranges + at, 16);
    const start = v128.shuffle<u64>(a, b, 0, 2);
    const length = v128.shuffle<u64>(a, b, 1, 3);
    const first = v128.floor<f64>(v128.mul<f64>(start, scale));
    const end = v128.ceil<f64>(v128.mul<f64>(v128.add<f64>(start, length), scale));
    // An empty range touches nothing, wherever it lies.
    const bits = v128.and(v128.sub<f64>(end, first), v128.gt<f64>(length, none));
    v128.store(out + at, v128.shuffle<u64>(first, bits, 0, 2));
    v128.store(out + at, v128.shuffle<u64>(first, bits, 1, 3), 16);
  }
  if (i < count) {
    const at = <usize>i << 4;
    const k = v128.extract_lane<f64>(scale, 0);
    const start = load<f64>(ranges + at);
    const length = load<f64>(ranges + at, 8);
    const first = floor(start * k);
    store<f64>(out + at, first);
    store<f64>(out + at, length > 0 ? ceil((start + length) * k) - first : 0, 8);
  }
  return count;
}
