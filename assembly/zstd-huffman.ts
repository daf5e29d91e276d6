// Huffman-coded literals: the tree, its table, one or four backward streams. (RFC 8878, 4.2)
//
// The table is two arrays of bytes, indexed by the next bits of a stream: SYMBOLS and CODE_BITS,
// the length of the symbol's code. (One array of pairs would cost a shift for each symbol.)
//
// A stream is read from its end in a 64-bit word whose top bits come next. The word's lowest bit
// is set when it is loaded: the zeros below it tell, at any time, how many bits were taken.
// Seven bytes or less go at a time, so a word starts at most 8 bytes before its stream; there lie
// the headers of the frame, or the stream before: never less than `src`.

import {
  CODE_BITS, COUNTS_LOG, COUNTS_SYMBOLS, HUFFMAN_BITS, INVALID, NEXT, RANKED, SYMBOLS, WEIGHT_FSE,
  WEIGHTS, ZEROS,
} from './zstd-scratch';
import { buildTable, clear, readCounts } from './zstd-fse';

/** The table has at least this many index bits, whatever the tree: the fast loop shifts by it. */
const TABLE_BITS: u32 = 11;
/** Deepest tree. The RFC writes 11; the reference decoder takes 12. */
const TREE_BITS_MAX: u32 = 12;

// Bits of a stream below its end mark: the top bit set in its last byte, which is not 0.
// @ts-ignore: decorator
@inline
function markBits(last: u32): u32 {
  return clz(last) - 23;
}

/** Weights under FSE: two states take turns until the stream has not enough bits for one. */
function readCodedWeights(at: usize, end: usize): i32 {
  const header = readCounts(at, end, 255, 6);
  if (header < 0) return INVALID;
  const log = load<u32>(COUNTS_LOG);
  clear(ZEROS, 256);
  buildTable(WEIGHT_FSE, load<u32>(COUNTS_SYMBOLS), log, ZEROS, 0, 0, 64);
  const start: usize = at + header;
  if (start >= end) return INVALID;
  const last: u32 = load<u8>(end - 1);
  if (last == 0) return INVALID;
  // `left` bits of the stream are still to come: what a step takes lies right above the rest.
  let left: i32 = (<i32>(end - start) << 3) - markBits(last);
  left -= log << 1;
  if (left < 0) return INVALID;
  const first: u32 = load<u32>(start + (left >> 3)) >> (left & 7);
  const stateMask: u32 = (16 << log) - 16;
  let now: usize = ((first >> log) << 4) & stateMask;
  let other: usize = (first << 4) & stateMask;
  for (let count: i32 = 0; count < 254; count++) {
    store<u8>(count, load<u8>(now, WEIGHT_FSE + 4), WEIGHTS);
    left -= <i32>load<u8>(now, WEIGHT_FSE + 1);
    if (left < 0) {
      store<u8>(count, load<u8>(other, WEIGHT_FSE + 4), WEIGHTS + 1);
      return count + 2;
    }
    const value: u32 = (load<u32>(start + (left >> 3)) >> (left & 7)) << 4;
    const next: usize = <u32>load<u16>(now, WEIGHT_FSE + 2)
      + (value & load<u16>(now, WEIGHT_FSE + 8));
    now = other;
    other = next;
  }
  return INVALID;
}

/**
 * Makes the table from the weights of all symbols but the last, which has what is left of the code
 * space. A symbol of weight w fills 2^(w − 1) slots of a tree's 2^depth; light symbols come first.
 */
function buildCodes(symbols: u32): bool {
  // Per weight: how many symbols, then where the next of them goes in RANKED.
  v128.store(NEXT, v128.splat<u16>(0));
  v128.store(NEXT, v128.splat<u16>(0), 16);
  let total: u32 = 0;
  for (let s: u32 = 0; s < symbols; s++) {
    const weight: u32 = load<u8>(WEIGHTS + s);
    if (weight > TREE_BITS_MAX) return false;
    const slot: usize = NEXT + (<usize>weight << 1);
    store<u16>(slot, load<u16>(slot) + 1);
    total += (1 << weight) >> 1;
  }
  if (total == 0) return false;
  const depth: u32 = 32 - clz(total);
  const rest: u32 = (1 << depth) - total;
  if (depth > TREE_BITS_MAX || rest & (rest - 1)) return false;
  const weight: u32 = ctz(rest) + 1;
  store<u8>(WEIGHTS + symbols, weight);
  store<u16>(NEXT + (<usize>weight << 1), load<u16>(NEXT + (<usize>weight << 1)) + 1);
  // The longest codes come in pairs.
  const longest: u32 = load<u16>(NEXT, 2);
  if (longest < 2 || longest & 1) return false;

  let rank: u32 = 0;
  for (let w: usize = 0; w <= depth; w++) {
    const count: u32 = load<u16>(NEXT + (w << 1));
    store<u16>(NEXT + (w << 1), rank);
    rank += count;
  }
  for (let s: u32 = 0; s <= symbols; s++) {
    const slot: usize = NEXT + (<usize>load<u8>(WEIGHTS + s) << 1);
    const at: u32 = load<u16>(slot);
    store<u16>(slot, at + 1);
    store<u8>(RANKED + at, s);
  }

  const bits: u32 = max(depth, TABLE_BITS);
  let at: usize = 0;
  let ranked: usize = RANKED + load<u16>(NEXT);
  for (let w: u32 = 1; w <= depth; w++) {
    const end: usize = RANKED + load<u16>(NEXT + (<usize>w << 1));
    const length: u32 = depth + 1 - w;
    const slots: usize = 1 << (bits - length);
    // Vectors may run over the end of what they fill: the next weight's slots overwrite it.
    const lengths = v128.splat<u8>(<u8>length);
    for (let i = at, stop = at + slots * (end - ranked); i < stop; i += 16) {
      v128.store(i, lengths, CODE_BITS);
    }
    if (slots <= 16) {
      for (; ranked < end; ranked++, at += slots) {
        v128.store(at, v128.splat<u8>(load<u8>(ranked)), SYMBOLS);
      }
    } else {
      for (; ranked < end; ranked++) {
        const sixteen = v128.splat<u8>(load<u8>(ranked));
        const stop = at + slots;
        for (; at < stop; at += 16) v128.store(at, sixteen, SYMBOLS);
      }
    }
  }
  store<u32>(HUFFMAN_BITS, bits);
  return true;
}

/**
 * Reads a tree description and builds its table.
 * @returns the bytes it takes, or INVALID
 */
export function readTree(at: usize, end: usize): i32 {
  if (at >= end) return INVALID;
  const header: u32 = load<u8>(at);
  let count: i32;
  let bytes: u32;
  if (header >= 128) {
    count = header - 127;
    bytes = (count + 1) >> 1;
    if (at + 1 + bytes > end) return INVALID;
    for (let i: u32 = 0; i < bytes; i++) {
      const pair: u32 = load<u8>(at + 1 + i);
      store<u16>(WEIGHTS + (i << 1), (pair >> 4) | ((pair & 15) << 8));
    }
  } else {
    bytes = header;
    if (at + 1 + bytes > end) return INVALID;
    count = readCodedWeights(at + 1, at + 1 + bytes);
    if (count < 0) return INVALID;
  }
  return buildCodes(count) ? 1 + bytes : INVALID;
}

// One symbol into `to`; gives the word without its code.
// @ts-ignore: decorator
@inline
function symbol(word: u64, to: usize): u64 {
  const code: usize = <usize>(word >> (64 - TABLE_BITS));
  store<u8>(to, load<u8>(code, SYMBOLS));
  return word << load<u8>(code, CODE_BITS);
}

// @ts-ignore: decorator
@inline
function refilled(at: usize, taken: u64): u64 {
  return (load<u64>(at) | 1) << (taken & 7);
}

/** Decodes the rest of a stream with care. False where it does not end with its first bit. */
function finishStream(start: usize, at: usize, word: u64, op: usize, opEnd: usize): bool {
  const shift: u64 = 64 - load<u32>(HUFFMAN_BITS);
  let taken = ctz(word);
  while (op < opEnd) {
    at -= <usize>(taken >> 3);
    // The bits left are 8 × (at + 8 − start) − (taken & 7).
    if (at + 8 < start) return false;
    word = refilled(at, taken);
    const stop = min(op + 4, opEnd);
    for (; op < stop; op++) {
      const code: usize = <usize>(word >> shift);
      store<u8>(op, load<u8>(code, SYMBOLS));
      word <<= load<u8>(code, CODE_BITS);
    }
    taken = ctz(word);
  }
  return at + 8 == start + <usize>(taken >> 3) && (taken & 7) == 0;
}

/** Decodes `count` symbols from the one stream in [start, end) to `to`. */
export function decodeStream(start: usize, end: usize, to: usize, count: u32): bool {
  if (start >= end) return false;
  const last: u32 = load<u8>(end - 1);
  if (last == 0) return false;
  const word = (load<u64>(end - 8) | 1) << markBits(last);
  return finishStream(start, end - 8, word, to, to + count);
}

/** Decodes `count` symbols, at least 6, from the four streams in [start, end), sizes in front. */
export function decodeFourStreams(start: usize, end: usize, to: usize, count: u32): bool {
  if (start + 10 > end) return false;
  const start0: usize = start + 6;
  const start1: usize = start0 + load<u16>(start);
  const start2: usize = start1 + load<u16>(start, 2);
  const start3: usize = start2 + load<u16>(start, 4);
  if (start3 >= end || start1 == start0 || start2 == start1 || start3 == start2) return false;
  let last0: u32 = load<u8>(start1 - 1);
  let last1: u32 = load<u8>(start2 - 1);
  let last2: u32 = load<u8>(start3 - 1);
  let last3: u32 = load<u8>(end - 1);
  if (last0 == 0 || last1 == 0 || last2 == 0 || last3 == 0) return false;
  let at0: usize = start1 - 8;
  let at1: usize = start2 - 8;
  let at2: usize = start3 - 8;
  let at3: usize = end - 8;
  let word0 = (load<u64>(at0) | 1) << markBits(last0);
  let word1 = (load<u64>(at1) | 1) << markBits(last1);
  let word2 = (load<u64>(at2) | 1) << markBits(last2);
  let word3 = (load<u64>(at3) | 1) << markBits(last3);
  const segment: usize = (count + 3) >> 2;
  let op: usize = to;
  if (load<u32>(HUFFMAN_BITS) == TABLE_BITS) {
    const opEnd: usize = to + count - 3 * segment; // where the last, shortest segment's turn ends
    for (;;) {
      // Rounds that can run without a look at the bounds: each takes at most 7 bytes of a stream.
      const bytes = min(
        min(at0 + 8 - start0, at1 + 8 - start1),
        min(at2 + 8 - start2, at3 + 8 - start3),
      );
      let rounds: usize = min((opEnd - op) / 5, bytes / 7);
      if (rounds == 0) break;
      do {
        const op1 = op + segment;
        const op2 = op1 + segment;
        const op3 = op2 + segment;
        word0 = symbol(word0, op); word1 = symbol(word1, op1);
        word2 = symbol(word2, op2); word3 = symbol(word3, op3);
        word0 = symbol(word0, op + 1); word1 = symbol(word1, op1 + 1);
        word2 = symbol(word2, op2 + 1); word3 = symbol(word3, op3 + 1);
        word0 = symbol(word0, op + 2); word1 = symbol(word1, op1 + 2);
        word2 = symbol(word2, op2 + 2); word3 = symbol(word3, op3 + 2);
        word0 = symbol(word0, op + 3); word1 = symbol(word1, op1 + 3);
        word2 = symbol(word2, op2 + 3); word3 = symbol(word3, op3 + 3);
        word0 = symbol(word0, op + 4); word1 = symbol(word1, op1 + 4);
        word2 = symbol(word2, op2 + 4); word3 = symbol(word3, op3 + 4);
        const taken0 = ctz(word0);
        const taken1 = ctz(word1);
        const taken2 = ctz(word2);
        const taken3 = ctz(word3);
        at0 -= <usize>(taken0 >> 3);
        at1 -= <usize>(taken1 >> 3);
        at2 -= <usize>(taken2 >> 3);
        at3 -= <usize>(taken3 >> 3);
        word0 = refilled(at0, taken0);
        word1 = refilled(at1, taken1);
        word2 = refilled(at2, taken2);
        word3 = refilled(at3, taken3);
        op += 5;
      } while (--rounds);
    }
  }
  const done: usize = op - to;
  return finishStream(start0, at0, word0, op, to + segment)
    && finishStream(start1, at1, word1, op + segment, to + 2 * segment)
    && finishStream(start2, at2, word2, op + 2 * segment, to + 3 * segment)
    && finishStream(start3, at3, word3, to + 3 * segment + done, to + count);
}
