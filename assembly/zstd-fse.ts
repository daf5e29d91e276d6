// Finite-state entropy tables: reading their description, laying them out. (RFC 8878, 4.1)
//
// One state is one u64, so that a step costs one load:
//
//   0 – 7    bits that follow the symbol (extra bits of a length or offset)
//   8 – 15   bits that the next state takes from the stream
//  16 – 31   next state before those bits are added, times 8: an offset into the table
//  32 – 63   what the symbol stands for: baseline of a length or offset, or a Huffman weight
//
// The low two bytes of three such words may be added up without a carry: the sums are the numbers
// of bits that a whole sequence takes.

import {
  COUNTS, COUNTS_LOG, COUNTS_SYMBOLS, INVALID, NEXT, SPREAD,
} from './zstd-scratch';

/**
 * Reads a table description of at most `end - at` bytes into COUNTS, COUNTS_LOG, COUNTS_SYMBOLS.
 * @returns the bytes it takes, or INVALID
 */
export function readCounts(at: usize, end: usize, symbolMax: u32, logMax: u32): i32 {
  memory.fill(COUNTS, 0, 512);
  const bitsEnd: u32 = <u32>(end - at) << 3;
  if (bitsEnd == 0) return INVALID;
  const log: u32 = (load<u8>(at) & 15) + 5;
  if (log > logMax) return INVALID;
  let bit: u32 = 4;
  let left: i32 = 1 << log; // states not given to a symbol yet
  let symbol: u32 = 0;
  while (left > 0) {
    // What is read here stays within the slack: no step takes more than 10 bits.
    if (symbol > symbolMax || bit > bitsEnd) return INVALID;
    const window: u32 = load<u32>(at + (bit >> 3)) >> (bit & 7);
    // A value from 0 to left + 1: the low ones take one bit less.
    const width: u32 = 32 - clz(left + 1);
    const half: i32 = 1 << (width - 1);
    const spare: i32 = (half << 1) - 2 - left;
    let value: i32 = window & (half - 1);
    if (value < spare) {
      bit += width - 1;
    } else {
      value = window & ((half << 1) - 1);
      if (value >= half) value -= spare;
      bit += width;
    }
    const count = value - 1; // −1 is a probability below one state; it takes one all the same
    store<i16>(COUNTS + (<usize>symbol << 1), <i16>count);
    symbol++;
    left -= count < 0 ? 1 : count;
    if (count == 0) {
      let run: u32;
      do {
        if (symbol > symbolMax || bit > bitsEnd) return INVALID;
        run = (load<u32>(at + (bit >> 3)) >> (bit & 7)) & 3;
        bit += 2;
        symbol += run;
      } while (run == 3);
    }
  }
  if (bit > bitsEnd) return INVALID;
  store<u32>(COUNTS_LOG, log);
  store<u32>(COUNTS_SYMBOLS, symbol);
  return (bit + 7) >> 3;
}

/**
 * Lays out the table that COUNTS describes. `meanings` has a state word without its next state for
 * each symbol; 0 for the table of Huffman weights, whose symbols stand for themselves.
 */
export function buildTable(table: usize, symbols: u32, log: u32, meanings: usize): void {
  const size: u32 = 1 << log;
  const mask: u32 = size - 1;
  const step: u32 = (size >> 1) + (size >> 3) + 3;
  let high: u32 = mask; // states above hold the symbols of less than one state
  for (let s: u32 = 0; s < symbols; s++) {
    let count: i32 = load<i16>(COUNTS + (<usize>s << 1));
    if (count < 0) {
      count = 1;
      store<u8>(SPREAD + high, s);
      high--;
    }
    store<u16>(NEXT + (<usize>s << 1), count);
  }
  let position: u32 = 0;
  if (high == mask) {
    for (let s: u32 = 0; s < symbols; s++) {
      for (let n: i32 = load<i16>(COUNTS + (<usize>s << 1)); n > 0; n--) {
        store<u8>(SPREAD + position, s);
        position = (position + step) & mask;
      }
    }
  } else {
    for (let s: u32 = 0; s < symbols; s++) {
      for (let n: i32 = load<i16>(COUNTS + (<usize>s << 1)); n > 0; n--) {
        store<u8>(SPREAD + position, s);
        do position = (position + step) & mask; while (position > high);
      }
    }
  }
  for (let state: u32 = 0; state < size; state++) {
    const s: usize = load<u8>(SPREAD + state);
    const next: u32 = load<u16>(NEXT + (s << 1));
    store<u16>(NEXT + (s << 1), next + 1);
    const bits: u32 = log - 31 + clz(next);
    const meaning: u64 = meanings ? load<u64>(meanings + (s << 3)) : <u64>s << 32;
    store<u64>(
      table + (<usize>state << 3),
      meaning | <u64>((((next << bits) - size) << 19) | (bits << 8)),
    );
  }
}
