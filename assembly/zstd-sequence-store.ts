// The sequences that a parse finds, and the codes that stand for them. (RFC 8878, 3.1.1.3.2.1)
//
// One sequence is a u64 in SEQUENCES:
//
//   bits 0 – 17 literal length · 18 – 35 match length − 3 · 36 – 63 offset value
//
// where an offset value of 1 – 3 names one of the last offsets and others are offset + 3. Its
// three codes are a u32 in CODES: byte 0 literal length, 1 match length, 2 offset.

import { CODES, LENGTH_FIELD, MATCH_FIELD, OFFSET_FIELD, SEQUENCES } from './zstd-encode-scratch';

/** Codes of literal lengths below 64, and of match lengths below 131. */
const LENGTH_CODES: usize = memory.data<u8>([
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 16, 17, 17, 18, 18, 19, 19, 20, 20,
  20, 20, 21, 21, 21, 21, 22, 22, 22, 22, 22, 22, 22, 22, 23, 23, 23, 23, 23, 23, 23, 23, 24,
  24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24,
]);
const MATCH_CODES: usize = memory.data<u8>([
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
  26, 27, 28, 29, 30, 31, 32, 32, 33, 33, 34, 34, 35, 35, 36, 36, 36, 36, 37, 37, 37, 37, 38,
  38, 38, 38, 38, 38, 38, 38, 39, 39, 39, 39, 39, 39, 39, 39, 40, 40, 40, 40, 40, 40, 40, 40,
  40, 40, 40, 40, 40, 40, 40, 40, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41,
  41, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42,
  42, 42, 42, 42, 42, 42, 42, 42, 42, 42,
]);

/** Most codes there are of literal lengths, offsets and match lengths. */
export const LENGTH_CODES_MAX: u32 = 36;
export const OFFSET_CODES_MAX: u32 = 32;
export const MATCH_CODES_MAX: u32 = 53;

/** Code of a literal length. */
// @ts-ignore: decorator
@inline
export function lengthCode(length: u32): u32 {
  return length < 64 ? load<u8>(LENGTH_CODES + length) : 50 - clz(length);
}

/** Code of a match length, of which three are taken off. */
// @ts-ignore: decorator
@inline
export function matchCode(length: u32): u32 {
  return length < 128 ? load<u8>(MATCH_CODES + length) : 67 - clz(length);
}

/** Code of an offset value. */
// @ts-ignore: decorator
@inline
export function offsetCode(value: u32): u32 {
  return 31 - clz(value);
}

/** Starts a block: no sequences, no codes counted. */
export function clearCounts(): void {
  memory.fill(LENGTH_FIELD, 0, 256);
  memory.fill(OFFSET_FIELD, 0, 256);
  memory.fill(MATCH_FIELD, 0, 256);
}

/** Stores sequence `index`, its codes and that they occur; three are taken off the match length. */
// @ts-ignore: decorator
@inline
export function storeSequence(index: usize, literals: u32, match: u32, offsetValue: u32): void {
  store<u64>(
    index << 3, <u64>literals | (<u64>match << 18) | (<u64>offsetValue << 36), SEQUENCES,
  );
  const length: usize = lengthCode(literals);
  const long: usize = matchCode(match);
  const offset: usize = offsetCode(offsetValue);
  store<u32>(index << 2, length | (long << 8) | (offset << 16), CODES);
  store<u32>(length << 2, load<u32>(length << 2, LENGTH_FIELD) + 1, LENGTH_FIELD);
  store<u32>(offset << 2, load<u32>(offset << 2, OFFSET_FIELD) + 1, OFFSET_FIELD);
  store<u32>(long << 2, load<u32>(long << 2, MATCH_FIELD) + 1, MATCH_FIELD);
}
