// The header of a dynamic block: the lengths of its code words, run-length coded, in a code of
// their own (RFC 1951, 3.2.7).

import { codeLengths, codeWords } from './deflate-code';
import {
  HEADER, LENGTHS, PRECODE_COUNTS, PRECODE_LENGTHS, PRECODE_WORDS,
} from './deflate-scratch';
import { DIST_SYMBOLS, END_OF_BLOCK, LENGTH_SYMBOLS } from './deflate-symbols';
import { putBits } from './deflate-writer';

// @ts-ignore: decorator
@inline const SYMBOLS: u32 = 19;
// @ts-ignore: decorator
@inline const LENGTH_MAX: u32 = 7;

// In which order the lengths of the 19 code words stand.
const ORDER = memory.data<u8>([
  16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
]);

// Where the lists end, between the planning of a header and its writing. Behind ORDER's copies.
// @ts-ignore: decorator
@inline const PLAN: usize = PRECODE_WORDS + 19 * 4; // u32: literal/lengths, distances, items

// @ts-ignore: decorator
@inline
function putItem(to: usize, symbol: u32, extra: u32): usize {
  const count = PRECODE_COUNTS + (<usize>symbol << 2);
  store<u32>(count, load<u32>(count) + 1);
  store<u16>(to, <u16>(symbol | (extra << 8)));
  return to + 2;
}

// Run-length codes `total` lengths at LENGTHS into HEADER; returns the end of the items.
function runLengths(total: u32): usize {
  let to = HEADER;
  let i: u32 = 0;
  while (i < total) {
    const length: u32 = load<u8>(LENGTHS + i);
    let end = i + 1;
    while (end < total && load<u8>(LENGTHS + end) == length) end++;
    let run = end - i;
    i = end;
    if (length == 0) {
      while (run >= 11) {
        const take = min<u32>(run, 138);
        to = putItem(to, 18, take - 11);
        run -= take;
      }
      if (run >= 3) {
        to = putItem(to, 17, run - 3);
        run = 0;
      }
    } else if (run >= 4) {
      to = putItem(to, length, 0);
      run--;
      while (run >= 3) {
        // Seven as four and three, not as six and one.
        const take = run == 7 ? 4 : min<u32>(run, 6);
        to = putItem(to, 16, take - 3);
        run -= take;
      }
    }
    for (; run > 0; run--) to = putItem(to, length, 0);
  }
  return to;
}

// @ts-ignore: decorator
@inline
function extraBits(symbol: u32): u32 {
  return symbol < 16 ? 0 : symbol == 16 ? 2 : symbol == 17 ? 3 : 7;
}

/**
 * Plans the header for the code word lengths at LENGTHS: 288 of literals and lengths, then those
 * of distances.
 * @returns its bits, without the three that every block starts with
 */
export function planHeader(): u32 {
  let litlens = END_OF_BLOCK + 1 + LENGTH_SYMBOLS;
  while (litlens > 257 && load<u8>(LENGTHS + litlens - 1) == 0) litlens--;
  let dists = DIST_SYMBOLS;
  while (dists > 1 && load<u8>(LENGTHS + 288 + dists - 1) == 0) dists--;
  // Both lists in one: runs go on from the one to the other.
  const kept0 = v128.load(LENGTHS, 288);
  const kept1 = v128.load(LENGTHS, 304);
  memory.copy(LENGTHS + litlens, LENGTHS + 288, dists);
  memory.fill(PRECODE_COUNTS, 0, SYMBOLS * 4);
  const end = runLengths(litlens + dists);
  memory.fill(LENGTHS + litlens, 0, 288 - litlens);
  v128.store(LENGTHS, kept0, 288);
  v128.store(LENGTHS, kept1, 304);

  codeLengths(PRECODE_COUNTS, SYMBOLS, LENGTH_MAX, PRECODE_LENGTHS);
  let precodes = SYMBOLS;
  while (precodes > 4 && load<u8>(PRECODE_LENGTHS + load<u8>(ORDER + precodes - 1)) == 0) {
    precodes--;
  }
  let bits: u32 = 14 + 3 * precodes;
  for (let symbol: u32 = 0; symbol < SYMBOLS; symbol++) {
    const each = load<u8>(PRECODE_LENGTHS + symbol) + extraBits(symbol);
    bits += each * load<u32>(PRECODE_COUNTS + (<usize>symbol << 2));
  }
  store<u32>(PLAN, litlens);
  store<u32>(PLAN, dists, 4);
  store<u32>(PLAN, precodes, 8);
  store<u32>(PLAN, <u32>end, 12);
  return bits;
}

/** Writes the header that was planned last. */
export function writeHeader(): void {
  const precodes = load<u32>(PLAN, 8);
  const end = <usize>load<u32>(PLAN, 12);
  putBits(load<u32>(PLAN) - 257, 5);
  putBits(load<u32>(PLAN, 4) - 1, 5);
  putBits(precodes - 4, 4);
  for (let i: u32 = 0; i < precodes; i++) {
    putBits(load<u8>(PRECODE_LENGTHS + load<u8>(ORDER + i)), 3);
  }
  codeWords(PRECODE_LENGTHS, SYMBOLS, PRECODE_WORDS);
  for (let item = HEADER; item < end; item += 2) {
    const symbol: u32 = load<u8>(item);
    const word = load<u32>(PRECODE_WORDS + (<usize>symbol << 2));
    const length = word >> 24;
    putBits((word & 0xffff) | (load<u8>(item, 1) << length), length + extraBits(symbol));
  }
}
