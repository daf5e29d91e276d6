// What literals and sequences will cost, in 1/256 bits, by how often each occurred in an earlier
// parse of the block.
//
//   0x0000  1 KiB  LITERAL_PRICE  u32 per byte value
//   0x0400  512    LENGTH_PRICE   u32 per literal-length code, its extra bits included
//   0x0600  512    OFFSET_PRICE   u32 per offset code, its extra bits included
//   0x0800  512    MATCH_PRICE    u32 per match-length code, its extra bits included
//   0x0a00  2 KiB  MATCH_PRICES   u32 per match length, up to PRICED_MAX; and slack

import { log2 } from './log2';
import { countBytes } from './zstd-encode-huffman';
import {
  HISTOGRAMS, LENGTH_FIELD, LITERALS, LITERAL_COUNT, MATCH_FIELD, OFFSET_FIELD, PLAIN, PRICES,
} from './zstd-encode-scratch';
import { EXTRA_BITS, MATCH_EXTRA_BITS } from './zstd-encode-sequences';
import {
  LENGTH_CODES_MAX, lengthCode, MATCH_CODES_MAX, matchCode, OFFSET_CODES_MAX,
} from './zstd-sequence-store';

const LITERAL_PRICE: usize = PRICES;
const LENGTH_PRICE: usize = PRICES + 0x400;
const OFFSET_PRICE: usize = PRICES + 0x600;
const MATCH_PRICE: usize = PRICES + 0x800;
/** Prices of match lengths one by one: element 0 is that of length 0, which there is not. */
export const MATCH_PRICES: usize = PRICES + 0xa00;
export const PRICED_MAX: usize = 500;

/** Longest code of a literal, in 1/256 bits. */
const LITERAL_PRICE_MAX: u32 = 11 << 8;

// @ts-ignore: decorator
@inline
export function literalPrice(at: usize): u32 {
  return load<u32>(<usize>load<u8>(at, PLAIN) << 2, LITERAL_PRICE);
}

// @ts-ignore: decorator
@inline
export function lengthPrice(length: u32): u32 {
  return load<u32>(<usize>lengthCode(length) << 2, LENGTH_PRICE);
}

// @ts-ignore: decorator
@inline
export function matchPrice(length: u32): u32 {
  return load<u32>(<usize>matchCode(length - 3) << 2, MATCH_PRICE);
}

// @ts-ignore: decorator
@inline
export function offsetPrice(value: u32): u32 {
  return load<u32>(<usize>(31 - clz(value)) << 2, OFFSET_PRICE);
}

function priceLiterals(): void {
  let total: u32 = 0;
  for (let s: usize = 0; s < 1024; s += 4) total += load<u32>(s, HISTOGRAMS);
  // What did not occur may do so; it costs as much as the rarest.
  const whole = log2(total + 1);
  for (let s: usize = 0; s < 1024; s += 4) {
    const count = load<u32>(s, HISTOGRAMS);
    const price = count ? whole - log2(count) : LITERAL_PRICE_MAX;
    store<u32>(s, min(max(price, 128), LITERAL_PRICE_MAX), LITERAL_PRICE);
  }
}

function priceCodes(field: usize, codes: u32, extraBits: usize, to: usize): void {
  let total: u32 = 0;
  for (let s: usize = 0; s < codes; s++) total += load<u32>(field + (s << 2));
  const whole = log2((total << 1) + codes);
  for (let s: usize = 0; s < codes; s++) {
    const count = load<u32>(field + (s << 2));
    const extra: u32 = extraBits ? load<u8>(extraBits + s) : <u32>s;
    store<u32>(to + (s << 2), whole - log2((count << 1) + 1) + (extra << 8));
  }
}

function listMatchPrices(): void {
  for (let length: usize = 3; length <= PRICED_MAX; length++) {
    store<u32>(length << 2, matchPrice(<u32>length), MATCH_PRICES);
  }
}

/** Prices before anything is known but the bytes from `start` to `end`. */
export function guessPrices(start: usize, end: usize): void {
  countBytes(PLAIN + start, <u32>(end - start));
  priceLiterals();
  for (let s: usize = 0; s < LENGTH_CODES_MAX; s++) {
    const price: u32 = <u32>(3 << 8) + (<u32>s << 6) + (<u32>load<u8>(EXTRA_BITS + s) << 8);
    store<u32>(s << 2, price, LENGTH_PRICE);
  }
  for (let s: usize = 0; s < OFFSET_CODES_MAX; s++) {
    store<u32>(s << 2, <u32>(4 << 8) + (<u32>s << 8), OFFSET_PRICE);
  }
  for (let s: usize = 0; s < MATCH_CODES_MAX; s++) {
    const price: u32 = <u32>(3 << 8) + (<u32>s << 5) + (<u32>load<u8>(MATCH_EXTRA_BITS + s) << 8);
    store<u32>(s << 2, price, MATCH_PRICE);
  }
  listMatchPrices();
}

/** Prices by what the last parse stored. */
export function learnPrices(): void {
  countBytes(LITERALS, load<u32>(LITERAL_COUNT));
  priceLiterals();
  priceCodes(LENGTH_FIELD, LENGTH_CODES_MAX, EXTRA_BITS, LENGTH_PRICE);
  priceCodes(OFFSET_FIELD, OFFSET_CODES_MAX, 0, OFFSET_PRICE);
  priceCodes(MATCH_FIELD, MATCH_CODES_MAX, MATCH_EXTRA_BITS, MATCH_PRICE);
  listMatchPrices();
}
