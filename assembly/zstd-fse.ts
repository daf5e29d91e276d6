// Finite-state entropy tables: reading their description, laying them out. (RFC 8878, 4.1)
//
// One state is 16 bytes, and has all that a step needs without further arithmetic:
//
//   byte 0   u8    bias − all bits that a step takes, those below and the extra ones
//        1   u8    bias + bits that the next state takes
//        2   u16   next state before those bits are added, times 16: an offset into the table
//        4   u32   what the symbol stands for: baseline of a length or offset, or a Huffman weight
//        8   u16   mask of the next state's bits, times 16
//       10   u8    extra bits
//       11   u8    1 for the first symbol, which is the literal length 0
//       12   u32   mask of the extra bits
//
// The biases are such that the sum of three such bytes 0, and byte 1 alone, are shift counts.

import {
  COUNTS, COUNTS_LOG, COUNTS_SYMBOLS, INVALID, LOW, MEANINGS, NEXT, ROW, SPREAD,
} from './zstd-scratch';

/** Zeros `bytes`, a multiple of 16. For few of them it beats the instruction, which is a call. */
export function clear(at: usize, bytes: usize): void {
  for (let i: usize = 0; i < bytes; i += 16) v128.store(at + i, v128.splat<u64>(0));
}

/**
 * Reads a table description of at most `end - at` bytes into COUNTS, COUNTS_LOG, COUNTS_SYMBOLS.
 * @returns the bytes it takes, or INVALID
 */
export function readCounts(at: usize, end: usize, symbolMax: u32, logMax: u32): i32 {
  clear(COUNTS, 512);
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
    store<i16>(<usize>symbol << 1, <i16>count, COUNTS);
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
 * Lays out the table that COUNTS describes. `extraBits` has a byte for each symbol; the baselines
 * follow from them, for a symbol's values begin where those of the one before end: the first at
 * `first`, and all from the third on `gap` later. `bias` is as it stands in the first two bytes of
 * a state.
 */
export function buildTable(
  table: usize, symbols: u32, log: u32, extraBits: usize, first: u32, gap: u32, bias: u32,
): void {
  const size: u32 = 1 << log;
  const mask: u32 = size - 1;
  const step: u32 = (size >> 1) + (size >> 3) + 3;
  // The symbols in a row, each as often as it has states; those of less than one state apart.
  let row: usize = ROW;
  let high: u32 = size;
  let baseline: u32 = first;
  for (let s: u32 = 0; s < symbols; s++) {
    const count: i32 = load<i16>(<usize>s << 1, COUNTS);
    const extra: u32 = load<u8>(extraBits + s);
    const taken: u32 = bias - extra;
    const marks: u32 = (<u32>(s == 0) << 24) + (extra << 16);
    // Less what the loop below adds too much.
    const meaning: usize = <usize>s << 4;
    store<u64>(meaning, (<u64>baseline << 32) + taken - (<u64>size << 20), MEANINGS);
    store<u64>(meaning, (<u64>((1 << extra) - 1) << 32) + marks - 16, MEANINGS + 8);
    baseline += (1 << extra) + (s == 1 ? gap : 0);
    if (count < 0) {
      high--;
      store<u8>(high, s, LOW);
      store<u16>(<usize>s << 1, 1, NEXT);
    } else {
      store<u16>(<usize>s << 1, count, NEXT);
      const sixteen = v128.splat<u8>(<u8>s);
      v128.store(row, sixteen);
      for (let i: i32 = 16; i < count; i += 16) v128.store(row + i, sixteen);
      row += count;
    }
  }
  // Each to where its step leads, but for the places of the rare ones.
  let position: u32 = 0;
  row = ROW;
  for (let i: u32 = 0; i < size; i++) {
    store<u8>(position, load<u8>(row), SPREAD);
    row += <usize>(position < high);
    position = (position + step) & mask;
  }
  for (; high < size; high++) store<u8>(high, load<u8>(high, LOW), SPREAD);
  const spare: u32 = 31 - log;
  const end: usize = table + (<usize>size << 4);
  for (let at = table, state: usize = 0; at < end; at += 16, state++) {
    const s: usize = load<u8>(state, SPREAD);
    const next: u32 = load<u16>(s << 1, NEXT);
    store<u16>(s << 1, next + 1, NEXT);
    const bits: u32 = clz(next) - spare;
    const taken: u32 = (bits << 8) - bits;
    store<u64>(at, load<u64>(s << 4, MEANINGS) + (<u64>next << (bits + 20)) + taken);
    store<u64>(at, load<u64>(s << 4, MEANINGS + 8) + (<u64>16 << bits), 8);
  }
}
