// The 64-bit big-endian words that metadata tables are made of.
//
// WebAssembly has no byte swap. On a scalar it costs a dozen shifts and masks, so single words go
// through a vector too. There a swizzle by a constant is one instruction; the shuffle that says the
// same is not, because V8 recognises the pattern and expands it to shifts.

// @ts-ignore: decorator
@inline
export function bytesSwapped(pair: v128): v128 {
  return v128.swizzle(pair, i8x16(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8));
}

/** The two words at `at`. */
// @ts-ignore: decorator
@inline
export function wordPairAt(at: usize): v128 {
  return bytesSwapped(v128.load(at));
}

/** The word at `at`; reads no further. */
// @ts-ignore: decorator
@inline
export function wordAt(at: usize): u64 {
  return v128.extract_lane<u64>(bytesSwapped(v128.load_zero<u64>(at)), 0);
}

/** Two words below 2^63 as doubles: the halves become mantissas of different exponents. */
// @ts-ignore: decorator
@inline
export function doublesOf(words: v128): v128 {
  const two84 = v128.splat<u64>(0x4530_0000_0000_0000);
  const two52 = v128.splat<u64>(0x4330_0000_0000_0000);
  const both = v128.splat<f64>(19342813118337666422669312.0); // 2^84 + 2^52
  const high = v128.or(v128.shr<u64>(words, 32), two84);
  const low = v128.or(v128.and(words, v128.splat<u64>(0xffff_ffff)), two52);
  return v128.add<f64>(v128.sub<f64>(high, both), low);
}
