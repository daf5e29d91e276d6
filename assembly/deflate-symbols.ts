// How deflate says lengths and distances (RFC 1951, 3.2.5): a symbol and extra bits.

/** The longest match; and the shortest, three bytes, is the first of the tables. */
// @ts-ignore: decorator
@inline export const MATCH_MAX: u32 = 258;
/** Symbol of the end of a block; match lengths follow it. */
// @ts-ignore: decorator
@inline export const END_OF_BLOCK: u32 = 256;
/** Symbols of lengths and of distances. */
// @ts-ignore: decorator
@inline export const LENGTH_SYMBOLS: u32 = 29;
// @ts-ignore: decorator
@inline export const DIST_SYMBOLS: u32 = 30;

// Element `length - 3`: which of the 29 length symbols says it.
const LENGTH_INDEX = memory.data<u8>([
  0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 12, 12, 13, 13, 13, 13, 14, 14, 14,
  14, 15, 15, 15, 15, 16, 16, 16, 16, 16, 16, 16, 16, 17, 17, 17, 17, 17, 17, 17, 17, 18, 18, 18,
  18, 18, 18, 18, 18, 19, 19, 19, 19, 19, 19, 19, 19, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20,
  20, 20, 20, 20, 20, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 22, 22, 22,
  22, 22, 22, 22, 22, 22, 22, 22, 22, 22, 22, 22, 22, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23,
  23, 23, 23, 23, 23, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24,
  24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25,
  25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 26, 26, 26,
  26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26,
  26, 26, 26, 26, 26, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27,
  27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 28,
]);

/** Which of the 29 length symbols says a length of 3–258. */
// @ts-ignore: decorator
@inline
export function lengthIndex(length: u32): u32 {
  return load<u8>(LENGTH_INDEX + <usize>length - 3);
}

/** Extra bits of the length symbol `index`. */
// @ts-ignore: decorator
@inline
export function lengthExtraBits(index: u32): u32 {
  return index < 8 || index == 28 ? 0 : (index >> 2) - 1;
}

/** First length that the symbol `index` says. */
// @ts-ignore: decorator
@inline
export function lengthBase(index: u32): u32 {
  if (index < 8) return 3 + index;
  if (index == 28) return 258;
  return 3 + ((4 + (index & 3)) << ((index >> 2) - 1));
}

/** The symbol of a distance of 1–32768. */
// @ts-ignore: decorator
@inline
export function distSymbol(distance: u32): u32 {
  const d = distance - 1;
  if (d < 2) return d;
  const high = 31 - clz(d);
  return (high << 1) + ((d >> (high - 1)) & 1);
}

/** Extra bits of a distance symbol. */
// @ts-ignore: decorator
@inline
export function distExtraBits(symbol: u32): u32 {
  return symbol < 2 ? 0 : (symbol >> 1) - 1;
}

/** First distance that a symbol says. */
// @ts-ignore: decorator
@inline
export function distBase(symbol: u32): u32 {
  return symbol < 2 ? symbol + 1 : ((2 + (symbol & 1)) << ((symbol >> 1) - 1)) + 1;
}
