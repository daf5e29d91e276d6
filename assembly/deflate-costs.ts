// What symbols would cost, for the parser that looks for the cheapest way: 256ths of a bit, extra
// bits included, from how often each came up in a parse before.

import { countOne } from './deflate-segments';
import { DIST_COSTS, LENGTH_COSTS, LITERAL_COSTS } from './deflate-scratch';
import { DIST_COUNTS } from './deflate-segments';
import {
  distExtraBits, DIST_SYMBOLS, lengthBase, lengthExtraBits, LENGTH_SYMBOLS,
} from './deflate-symbols';
import { log2 } from './deflate-entropy';

// @ts-ignore: decorator
@inline const UNIT: f32 = 256;
// No code word is shorter or, about, longer.
// @ts-ignore: decorator
@inline const COST_MAX: f32 = 14 * 256;
// @ts-ignore: decorator
@inline const COST_MIN: f32 = 200;

function logOf(x: f32): f32 {
  return f32x4.extract_lane(log2(f32x4.splat(x)), 0);
}

// log2 of all frequencies of a code; half a bit for what did not come up. Twice, to stay above 1.
function logTotal(counts: usize, symbols: u32): f32 {
  let total: f32 = 0;
  for (let i: u32 = 0; i < symbols; i++) total += <f32>load<u32>(counts + (<usize>i << 2));
  return logOf(max<f32>(total * 2, 1));
}

function costOf(counts: usize, symbol: u32, total: f32): u32 {
  const count = <f32>load<u32>(counts + (<usize>symbol << 2));
  const cost = (total - logOf(max<f32>(count * 2, 1))) * UNIT;
  return <u32>max<f32>(min<f32>(cost, COST_MAX), COST_MIN);
}

/** Takes the costs from the frequencies of a record. */
export function costsFrom(record: usize): void {
  const total = logTotal(record, 288);
  for (let literal: u32 = 0; literal < 256; literal++) {
    store<u32>(LITERAL_COSTS + (<usize>literal << 2), costOf(record, literal, total));
  }
  for (let i: u32 = 0; i < LENGTH_SYMBOLS; i++) {
    const extra = lengthExtraBits(i);
    const cost = costOf(record, 257 + i, total) + (extra << 8);
    const base = lengthBase(i);
    for (let length = base; length < base + (<u32>1 << extra); length++) {
      store<u32>(LENGTH_COSTS + (<usize>length << 2), cost);
    }
  }
  const dists = record + DIST_COUNTS;
  const distTotal = logTotal(dists, DIST_SYMBOLS);
  for (let symbol: u32 = 0; symbol < DIST_SYMBOLS; symbol++) {
    const cost = costOf(dists, symbol, distTotal) + (distExtraBits(symbol) << 8);
    store<u32>(DIST_COSTS + (<usize>symbol << 2), cost);
  }
}

/** Fills a record with frequencies as they may be, before anything was parsed. */
export function guessCounts(record: usize, src: usize, bytes: u32): void {
  for (const end = src + bytes; src < end; src++) countOne(record + (<usize>load<u8>(src) << 2));
  const matches = bytes >> 1;
  for (let i: u32 = 0; i < LENGTH_SYMBOLS; i++) {
    store<u32>(record + (<usize>(257 + i) << 2), (matches >> (2 + i / 3)) + 1);
  }
  for (let symbol: u32 = 0; symbol < 24; symbol++) {
    store<u32>(record + DIST_COUNTS + (<usize>symbol << 2), symbol + 2);
  }
}
