// The sequences section of a compressed block: decoded and carried out in one loop.
// (RFC 8878, 3.1.1.3.2 and 3.1.1.4)
//
//   number of sequences   1 byte below 128 · 2 bytes: (b0 − 128) × 256 + b1 · 255: u16 + 0x7f00
//   modes                 bits 6 – 7 literal lengths · 4 – 5 offsets · 2 – 3 match lengths
//                         each 0 predefined, 1 one symbol, 2 described here, 3 as in the last block
//   tables                in that order
//   bit stream            read backwards from the end mark: first the three states, then for each
//                         sequence offset, match length, literal length, and the next three states
//
// The stream's place is one number, `place`: the address in bits of its next bit, less 56. Eight
// bytes loaded from there have that bit in their last byte. All that one sequence takes, 56 bits at
// most but for the longest codes, comes out of one such load. It reaches 8 bytes below the stream
// at the lowest, where the frame's headers are.

import {
  COUNTS, COUNTS_LOG, COUNTS_SYMBOLS, INVALID, LENGTHS, LENGTHS_LOG, LITERALS_AT,
  LITERALS_COUNT, MATCHES, MATCHES_LOG, OFFSETS, OFFSETS_LOG, OVERLONG, REPEAT_0, REPEAT_1,
  REPEAT_2, TABLES_KEPT,
} from './zstd-scratch';
import { buildTable, readCounts } from './zstd-fse';

// What each code means, as a state word without its next state: baseline << 32 | extra bits.
const LENGTH_MEANINGS: usize = memory.data<u32>([
  0, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14,
  0, 15, 1, 16, 1, 18, 1, 20, 1, 22, 2, 24, 2, 28, 3, 32, 3, 40, 4, 48, 6, 64, 7, 128, 8, 256,
  9, 512, 10, 1024, 11, 2048, 12, 4096, 13, 8192, 14, 16384, 15, 32768, 16, 65536,
]);
const MATCH_MEANINGS: usize = memory.data<u32>([
  0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15, 0, 16, 0, 17,
  0, 18, 0, 19, 0, 20, 0, 21, 0, 22, 0, 23, 0, 24, 0, 25, 0, 26, 0, 27, 0, 28, 0, 29, 0, 30, 0, 31,
  0, 32, 0, 33, 0, 34, 1, 35, 1, 37, 1, 39, 1, 41, 2, 43, 2, 47, 3, 51, 3, 59, 4, 67, 4, 83, 5, 99,
  7, 131, 8, 259, 9, 515, 10, 1027, 11, 2051, 12, 4099, 13, 8195, 14, 16387, 15, 32771, 16, 65539,
]);
const OFFSET_MEANINGS: usize = memory.data<u32>([
  0, 1, 1, 2, 2, 4, 3, 8, 4, 16, 5, 32, 6, 64, 7, 128, 8, 256, 9, 512, 10, 1024, 11, 2048, 12, 4096,
  13, 8192, 14, 16384, 15, 32768, 16, 65536, 17, 131072, 18, 0x40000, 19, 0x80000, 20, 0x100000,
  21, 0x200000, 22, 0x400000, 23, 0x800000, 24, 0x1000000, 25, 0x2000000, 26, 0x4000000,
  27, 0x8000000, 28, 0x10000000, 29, 0x20000000, 30, 0x40000000, 31, 0x80000000,
]);

// Normalised counts of the predefined tables; 2^6, 2^6 and 2^5 states. (RFC 8878, 3.1.1.3.2.2)
const LENGTH_COUNTS: usize = memory.data<i8>([
  4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
  -1, -1, -1, -1,
]);
const MATCH_COUNTS: usize = memory.data<i8>([
  1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
  1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
]);
const OFFSET_COUNTS: usize = memory.data<i8>([
  1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
]);

// Match distances below 16: which of the bytes before the match each of the next 16 repeats, and
// the smallest multiple of the distance that is no less than 16.
const PATTERNS: usize = memory.data<u8>([
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1,
  0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0,
  0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3,
  0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0,
  0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3,
  0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 0, 1,
  0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3, 4, 5, 6,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 1, 2,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0, 1,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0,
]);
const STRIDES: usize = memory.data<u8>([
  0, 16, 16, 18, 16, 20, 18, 21, 16, 18, 20, 22, 24, 26, 28, 30,
]);

/** Sets up one of the three tables. @returns the bytes that its description takes, or INVALID */
function readTable(
  at: usize, end: usize, mode: u32, table: usize, tableLog: usize, meanings: usize,
  codeMax: u32, logMax: u32, counts: usize, countsSymbols: u32, countsLog: u32,
): i32 {
  if (mode == 0) {
    for (let i: usize = 0; i < countsSymbols; i++) {
      store<i16>(COUNTS + (i << 1), load<i8>(counts + i));
    }
    buildTable(table, countsSymbols, countsLog, meanings);
    store<u32>(tableLog, countsLog);
    return 0;
  }
  if (mode == 1) {
    if (at >= end) return INVALID;
    const code: u32 = load<u8>(at);
    if (code > codeMax) return INVALID;
    store<u64>(table, load<u64>(meanings + (<usize>code << 3)));
    store<u32>(tableLog, 0);
    return 1;
  }
  if (mode == 2) {
    const bytes = readCounts(at, end, codeMax, logMax);
    if (bytes < 0) return INVALID;
    const log = load<u32>(COUNTS_LOG);
    buildTable(table, load<u32>(COUNTS_SYMBOLS), log, meanings);
    store<u32>(tableLog, log);
    return bytes;
  }
  return load<u32>(TABLES_KEPT) ? 0 : INVALID;
}

// The next 64 bits or less (57 at least) of the stream, the next of all on top.
// @ts-ignore: decorator
@inline
function wordAt(place: i64): u64 {
  return load<u64>(<usize>(place >> 3)) << (~place & 7);
}

// The top `bits` (0 – 63) of a word. Shifts look at the low six bits of their count alone.
// @ts-ignore: decorator
@inline
function top(word: u64, bits: u64): u64 {
  return (word >> 1) >> ~bits;
}

// @ts-ignore: decorator
@inline
function low(word: u64, bits: u64): u64 {
  return word & ~(<u64>-1 << bits);
}

/**
 * Decodes the section in [at, end) and writes the block's bytes at `out`. Matches reach back to
 * `frame` and over `window` bytes. At most `blockMax` bytes come out; up to `outEnd` may be written.
 * @returns the bytes that the block gave, or a negative DecodeError
 */
export function runSequences(
  at: usize, end: usize, out: usize, outEnd: usize, blockMax: u32, frame: usize, window: u32,
): i32 {
  let literal: usize = load<u32>(LITERALS_AT);
  const literalEnd: usize = literal + load<u32>(LITERALS_COUNT);
  let op: usize = out;
  // A block that wants more than this is wrong, or there is no place for it.
  const room: u32 = <u32>(outEnd - out);
  const opMax: usize = out + min(room, blockMax);
  const tooMuch: i32 = room <= blockMax ? OVERLONG : INVALID;

  if (at >= end) return INVALID;
  let count: u32 = load<u8>(at);
  at++;
  if (count >= 128) {
    if (count < 255) {
      if (at >= end) return INVALID;
      count = ((count - 128) << 8) + load<u8>(at);
      at++;
    } else {
      if (at + 2 > end) return INVALID;
      count = <u32>load<u16>(at) + 0x7f00;
      at += 2;
    }
  }
  if (count == 0) {
    if (at != end) return INVALID;
  } else {
    if (at >= end) return INVALID;
    const modes: u32 = load<u8>(at);
    at++;
    if (modes & 3) return INVALID;
    let bytes = readTable(
      at, end, modes >> 6, LENGTHS, LENGTHS_LOG, LENGTH_MEANINGS, 35, 9, LENGTH_COUNTS, 36, 6,
    );
    if (bytes < 0) return INVALID;
    at += bytes;
    bytes = readTable(
      at, end, (modes >> 4) & 3, OFFSETS, OFFSETS_LOG, OFFSET_MEANINGS, 31, 8, OFFSET_COUNTS, 29, 5,
    );
    if (bytes < 0) return INVALID;
    at += bytes;
    bytes = readTable(
      at, end, (modes >> 2) & 3, MATCHES, MATCHES_LOG, MATCH_MEANINGS, 52, 9, MATCH_COUNTS, 53, 6,
    );
    if (bytes < 0) return INVALID;
    at += bytes;
    store<u32>(TABLES_KEPT, 1);

    if (at >= end) return INVALID;
    const mark: u32 = load<u8>(end - 1);
    if (mark == 0) return INVALID;
    const placeMin: i64 = (<i64>at << 3) - 57; // where the stream is used up
    let place: i64 = (<i64>end << 3) - 57 - (clz(mark) - 23);
    if (place < placeMin) return INVALID;
    let word = wordAt(place);
    let bits: u64 = load<u32>(LENGTHS_LOG);
    let length: usize = <usize>top(word, bits) << 3;
    word <<= bits;
    place -= bits;
    bits = load<u32>(OFFSETS_LOG);
    let offset: usize = <usize>top(word, bits) << 3;
    word <<= bits;
    place -= bits;
    bits = load<u32>(MATCHES_LOG);
    let match: usize = <usize>top(word, bits) << 3;
    place -= bits;
    if (place < placeMin) return INVALID;
    word = wordAt(place);

    let repeat0: u32 = load<u32>(REPEAT_0);
    let repeat1: u32 = load<u32>(REPEAT_1);
    let repeat2: u32 = load<u32>(REPEAT_2);

    // Up to here whole vectors may be stored, and matches that reach no lower than this need no
    // other look at the window.
    const opWild: usize = min(opMax, outEnd - min(room, 64));
    const reachable: usize = max(frame, <u32>(opMax - frame) > window ? opMax - window : frame);
    do {
      const lengthState = load<u64>(LENGTHS + length);
      const matchState = load<u64>(MATCHES + match);
      const offsetState = load<u64>(OFFSETS + offset);
      let sum = lengthState + matchState + offsetState;
      let extra: u64;
      if ((sum & 0xff) > 30) {
        // Too long for one word: take the offset by itself.
        const restBits = lengthState + matchState;
        const high = top(word, offsetState);
        place -= offsetState & 0xff;
        if (place < placeMin) return INVALID;
        extra = (high << restBits) | top(wordAt(place), restBits);
        place -= restBits & 0xff;
        if (place < placeMin) return INVALID;
        word = wordAt(place);
        sum &= 0xff00;
      } else {
        extra = top(word, sum);
        word <<= sum;
      }
      const literals: u32 = <u32>(lengthState >> 32) + <u32>low(extra, lengthState);
      extra >>= lengthState;
      const bytes: u32 = <u32>(matchState >> 32) + <u32>low(extra, matchState);
      extra >>= matchState;
      const value: u32 = <u32>(offsetState >> 32) + <u32>extra;

      // The last sequence is followed by no states.
      if (--count == 0) sum &= 0xff;
      const nextBits: u64 = sum >> 8;
      let next: u32 = <u32>top(word, nextBits) << 3;
      offset = (<u32>(offsetState >> 16) & 0xffff) + (next & ((8 << <u32>(offsetState >> 8)) - 8));
      next >>= <u32>(offsetState >> 8);
      match = (<u32>(matchState >> 16) & 0xffff) + (next & ((8 << <u32>(matchState >> 8)) - 8));
      next >>= <u32>(matchState >> 8);
      length = (<u32>(lengthState >> 16) & 0xffff) + (next & -8);
      place -= (sum & 0xff) + (nextBits & 0xff);
      if (place < placeMin) return INVALID;
      word = wordAt(place);

      let distance: u32;
      if (value > 3) {
        distance = value - 3;
        repeat2 = repeat1;
        repeat1 = repeat0;
        repeat0 = distance;
      } else {
        const which: u32 = value - <u32>(literals != 0);
        if (which == 0) {
          distance = repeat0;
        } else {
          distance = which == 1 ? repeat1 : which == 2 ? repeat2 : repeat0 - 1;
          if (which != 1) repeat2 = repeat1;
          repeat1 = repeat0;
          repeat0 = distance;
        }
      }

      // Literals.
      const start: usize = op + literals;
      const stop: usize = start + bytes;
      if (
        <usize>literals > literalEnd - literal || <i32>(literals + bytes) > <i32>(opWild - op)
        || distance - 1 >= <u32>(start - reachable)
      ) {
        if (<usize>literals > literalEnd - literal) return INVALID;
        if (distance - 1 >= min(<u32>(op - frame) + literals, window)) return INVALID;
        if (literals + bytes > <u32>(opMax - op)) return tooMuch;
        memory.copy(op, literal, literals);
        literal += literals;
        op = start;
        for (; op < stop; op++) store<u8>(op, load<u8>(op - distance));
        continue;
      }
      v128.store(op, v128.load(literal));
      if (literals > 16) {
        let i: usize = 16;
        do {
          v128.store(op + i, v128.load(literal + i));
          v128.store(op + i, v128.load(literal + i, 16), 16);
          i += 32;
        } while (i < <usize>literals);
      }
      literal += literals;
      op = start;
      // Match.
      let from: usize = op - distance;
      if (distance < 16) {
        // The first vector repeats the pattern; the rest copies over a multiple of the distance.
        v128.store(op, v128.swizzle(v128.load(from), v128.load(PATTERNS + (<usize>distance << 4))));
        from = op - load<u8>(STRIDES + <usize>distance);
      } else {
        v128.store(op, v128.load(from));
      }
      if (bytes > 16) {
        from += 16;
        op += 16;
        do {
          v128.store(op, v128.load(from));
          v128.store(op, v128.load(from, 16), 16);
          from += 32;
          op += 32;
        } while (op < stop);
      }
      op = stop;
    } while (count);
    if (place != placeMin) return INVALID;
    store<u32>(REPEAT_0, repeat0);
    store<u32>(REPEAT_1, repeat1);
    store<u32>(REPEAT_2, repeat2);
  }
  const rest: usize = literalEnd - literal;
  if (rest > opMax - op) return tooMuch;
  memory.copy(op, literal, rest);
  return <i32>(op + rest - out);
}
