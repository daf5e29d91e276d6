// The sequences section of a compressed block. (RFC 8878, 3.1.1.3.2)
//
//   number of sequences   1 byte below 128 · 2 bytes: (b0 − 128) × 256 + b1 · 255: u16 + 0x7f00
//   modes                 bits 6 – 7 literal lengths · 4 – 5 offsets · 2 – 3 match lengths
//                         each 0 predefined, 1 one symbol, 2 described here, 3 as in the last block
//   tables                in that order
//   bit stream            read backwards from the end mark: first the three states, then for each
//                         sequence offset, match length, literal length, and the next three states
//
// Sequences are decoded in batches, each of which is then carried out (zstd-execute.ts). Two small
// loops beat one large: decoding waits for loads and hardly ever branches the wrong way, copying
// is the other way round, and neither needs more registers than there are.
//
// The stream's place is one number, `place`: the address in bits of its next bit, less 56. Eight
// bytes loaded from there have that bit in their last byte, and what a sequence takes comes out of
// one such load but for the longest codes. It reaches 8 bytes below the stream at the lowest, where
// the frame's headers are.

import {
  COUNTS, COUNTS_LOG, COUNTS_SYMBOLS, INVALID, LENGTHS, LENGTHS_LOG, LENGTH_STATE, LITERALS_AT,
  LITERALS_END, MATCHES, MATCHES_LOG, MATCH_STATE, OFFSETS, OFFSETS_LOG, OFFSET_STATE, OVERLONG,
  PLACE, PLACE_MIN, REPEAT_0, REPEAT_1, REPEAT_2, SEQUENCES, TABLES_KEPT,
} from './zstd-scratch';
import { buildTable, clear, readCounts } from './zstd-fse';
import { carryOut } from './zstd-execute';

// What is to know of each of the three fields:
//
//   0   last code · 1 most table bits · 2 baseline of the first code
//   3   two biases · 5 mark (zstd-fse.ts says what of)
//   6   log2 of the number of predefined states · 7 symbols that these have
//   8   extra bits of each code, then the predefined states' normalised counts
//
// The biases of the three add up to 127 − 4 and 4. A word less its lowest bit, shifted right by
// 63 − n, gives its top n bits, and only the low six bits of a shift count matter; so does one
// shifted by 127 − n. The 4 are four bits more than the sequence has: they leave the fields of the
// next states times 16, which is what the states' masks are made for.
const LENGTH_FIELD: usize = memory.data<i8>([
  35, 9, 0, 39, 4, 0x40, 6, 36,
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12,
  13, 14, 15, 16,
  4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
  -1, -1, -1, -1,
]);
const MATCH_FIELD: usize = memory.data<i8>([
  52, 9, 3, 40, 0, 0x40, 6, 53,
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
  1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
  1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
]);
const OFFSET_FIELD: usize = memory.data<i8>([
  31, 8, 1, 44, 0, 0, 5, 29,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
  27, 28, 29, 30, 31,
  1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
]);

/** Sequences to a batch: few enough to stay in the first cache beside tables and literals. */
const BATCH: u32 = 256;

/** Sets up one of the three tables. @returns the bytes that its description takes, or INVALID */
function readTable(
  at: usize, end: usize, mode: u32, field: usize, table: usize, tableLog: usize,
): i32 {
  const codeMax: u32 = load<u8>(field);
  const extraBits: usize = field + 8;
  let bytes: i32 = 0;
  let log: u32 = load<u8>(field, 6);
  let symbols: u32 = load<u8>(field, 7);
  if (mode == 0) {
    const counts: usize = extraBits + codeMax + 1;
    for (let i: usize = 0; i < symbols; i++) store<i16>(i << 1, load<i8>(counts + i), COUNTS);
  } else if (mode == 1) {
    if (at >= end) return INVALID;
    const code: u32 = load<u8>(at);
    if (code > codeMax) return INVALID;
    // A table of one state, which takes no bits.
    clear(COUNTS, 128);
    store<i16>(<usize>code << 1, 1, COUNTS);
    log = 0;
    symbols = code + 1;
    bytes = 1;
  } else if (mode == 2) {
    bytes = readCounts(at, end, codeMax, load<u8>(field, 1));
    if (bytes < 0) return INVALID;
    log = load<u32>(COUNTS_LOG);
    symbols = load<u32>(COUNTS_SYMBOLS);
  } else {
    return load<u32>(TABLES_KEPT) ? 0 : INVALID;
  }
  const bias: u32 = load<u16>(field, 3);
  const mark: u32 = <u32>load<u8>(field, 5) << 8;
  buildTable(table, symbols, log, extraBits, load<u8>(field, 2), bias, mark);
  store<u32>(tableLog, log);
  return bytes;
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

/** Reads the three first states of the stream in [at, end). False where it holds no such thing. */
function openStream(at: usize, end: usize): bool {
  if (at >= end) return false;
  const mark: u32 = load<u8>(end - 1);
  if (mark == 0) return false;
  const placeMin: i64 = (<i64>at << 3) - 57; // where the stream is used up
  let place: i64 = (<i64>end << 3) - 57 - (clz(mark) - 23);
  if (place < placeMin) return false;
  let word = wordAt(place);
  const lengthBits: u64 = load<u32>(LENGTHS_LOG);
  const offsetBits: u64 = load<u32>(OFFSETS_LOG);
  const matchBits: u64 = load<u32>(MATCHES_LOG);
  store<u32>(LENGTH_STATE, <u32>top(word, lengthBits) << 4);
  word <<= lengthBits;
  store<u32>(OFFSET_STATE, <u32>top(word, offsetBits) << 4);
  word <<= offsetBits;
  store<u32>(MATCH_STATE, <u32>top(word, matchBits) << 4);
  place -= lengthBits + offsetBits + matchBits;
  store<i64>(PLACE, place);
  store<i64>(PLACE_MIN, placeMin);
  return place >= placeMin;
}

/**
 * Decodes the next `count` sequences into SEQUENCES, 16 bytes each: u32 literals, u32 bytes of the
 * match, u32 its distance. `last` says that no others follow.
 * @returns where it stopped: after all of them, or where the stream ran out
 */
function decodeSequences(count: u32, last: bool): usize {
  const placeMin = load<i64>(PLACE_MIN);
  let place = load<i64>(PLACE);
  let length: usize = load<u32>(LENGTH_STATE);
  let match: usize = load<u32>(MATCH_STATE);
  let offset: usize = load<u32>(OFFSET_STATE);
  let repeat0: u32 = load<u32>(REPEAT_0);
  let repeat1: u32 = load<u32>(REPEAT_1);
  let repeat2: u32 = load<u32>(REPEAT_2);
  let to: usize = SEQUENCES;
  const end: usize = SEQUENCES + (<usize>count << 4);
  let sum: u32; // of the states' first two bytes
  do {
    const word = wordAt(place);
    const matchBits: u32 = load<u16>(match, MATCHES);
    const offsetBits: u32 = load<u16>(offset, OFFSETS);
    const bothBits: u32 = matchBits + offsetBits;
    sum = bothBits + <u32>load<u16>(length, LENGTHS);
    // From the top: extra bits of offset, match length, literal length; states of literal length,
    // match length, offset; four bits too many.
    let all = (word >> 1) >> sum;
    let extra = all >> (sum >> 8);
    let literals: u32;
    let bytes: u32;
    if ((sum & 0xc000) == 0) {
      // Short lengths: no extra bits but the offset's.
      literals = load<u8>(length, LENGTHS + 4);
      bytes = load<u8>(match, MATCHES + 4);
    } else {
      if ((sum & 0xff) < 127 - 61) {
        // Too long for one word: take the offset and the match length by themselves.
        const alone: u32 = <u32>load<u8>(match, MATCHES + 10) + load<u8>(offset, OFFSETS + 10);
        const rest: u32 = 127 - (sum & 0xff) - alone;
        if (place - alone < placeMin) {
          place = placeMin - 64; // below, however many bits the end gives back
          to += 16;
          break;
        }
        all = top(wordAt(place - alone), rest);
        const nextBits: u32 = (sum >> 8) & 63;
        extra = (top(word, alone) << (rest - nextBits)) | (all >> nextBits);
      }
      literals = load<u32>(length, LENGTHS + 4)
        + (<u32>extra & load<u32>(length, LENGTHS + 12));
      extra >>= load<u8>(length, LENGTHS + 10);
      bytes = load<u32>(match, MATCHES + 4) + (<u32>extra & load<u32>(match, MATCHES + 12));
      extra >>= load<u8>(match, MATCHES + 10);
    }
    place += <i64>(sum & 0xff) - 127 + 4;
    const value: u32 = load<u32>(offset, OFFSETS + 4) + <u32>extra;

    // 0, 1 and 2 are the repeated offsets, 3 the first of them less one. Only where `value` is
    // above 3 it is an offset of its own; that it then looks like 3 and more moves them right.
    const which: u32 = value - <u32>(literals != 0);
    let distance: u32 = select<u32>(repeat2, repeat0 - 1, which == 2);
    distance = select<u32>(repeat1, distance, which == 1);
    distance = select<u32>(repeat0, distance, which == 0);
    distance = select<u32>(value - 3, distance, value > 3);
    repeat2 = select<u32>(repeat1, repeat2, which > 1);
    repeat1 = select<u32>(repeat0, repeat1, which > 0);
    repeat0 = distance;
    store<u32>(to, literals);
    store<u32>(to, bytes, 4);
    store<u32>(to, distance, 8);

    length = <u32>load<u16>(length, LENGTHS + 2)
      + (<u32>(all >> (bothBits >> 8)) & load<u16>(length, LENGTHS + 8));
    match = <u32>load<u16>(match, MATCHES + 2)
      + (<u32>(all >> (offsetBits >> 8)) & load<u16>(match, MATCHES + 8));
    offset = <u32>load<u16>(offset, OFFSETS + 2) + (<u32>all & load<u16>(offset, OFFSETS + 8));
    to += 16;
    if (place < placeMin) break;
  } while (to != end);
  // The last sequence is followed by no states.
  if (last && to == end) place += ((sum >> 8) & 63) - 4;
  // The one that the stream was too short for does not count.
  if (place < placeMin) to -= 16;
  store<i64>(PLACE, place);
  store<u32>(LENGTH_STATE, length);
  store<u32>(MATCH_STATE, match);
  store<u32>(OFFSET_STATE, offset);
  store<u32>(REPEAT_0, repeat0);
  store<u32>(REPEAT_1, repeat1);
  store<u32>(REPEAT_2, repeat2);
  return to;
}

/** Sets up the tables and the stream in [at, end), which follow the modes at `at`. */
function openSection(at: usize, end: usize): bool {
  if (at >= end) return false;
  const modes: u32 = load<u8>(at);
  if (modes & 3) return false;
  at++;
  let bytes = readTable(at, end, modes >> 6, LENGTH_FIELD, LENGTHS, LENGTHS_LOG);
  if (bytes < 0) return false;
  at += bytes;
  bytes = readTable(at, end, (modes >> 4) & 3, OFFSET_FIELD, OFFSETS, OFFSETS_LOG);
  if (bytes < 0) return false;
  at += bytes;
  bytes = readTable(at, end, (modes >> 2) & 3, MATCH_FIELD, MATCHES, MATCHES_LOG);
  if (bytes < 0) return false;
  store<u32>(TABLES_KEPT, 1);
  return openStream(at + bytes, end);
}

/**
 * Decodes the section in [at, end) and writes the block's bytes at `out`. Matches reach back to
 * `frame` and over `window` bytes. At most `blockMax` bytes come out; up to `outEnd`
 * may be written.
 * @returns the bytes that the block gave, or a negative DecodeError
 */
export function runSequences(
  at: usize, end: usize, out: usize, outEnd: usize, blockMax: u32, frame: usize, window: u32,
): i32 {
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

  // A block that wants more than this is wrong, or there is no place for it.
  const room: u32 = <u32>(outEnd - out);
  const opMax: usize = out + min(room, blockMax);
  const tooMuch: i32 = room <= blockMax ? OVERLONG : INVALID;
  let op: usize = out;
  if (count == 0) {
    if (at != end) return INVALID;
  } else {
    if (!openSection(at, end)) return INVALID;
    // Up to here whole vectors may be stored, and matches that reach no lower than this need no
    // other look at the window.
    const opWild: usize = min(opMax, outEnd - min(room, 64));
    const reachable: usize = <u32>(opMax - frame) > window ? opMax - window : frame;
    do {
      const batch = min(count, BATCH);
      count -= batch;
      const decoded = decodeSequences(batch, count == 0);
      const made = carryOut(decoded, op, opMax, opWild, frame, reachable, window);
      if (made < 0) return made == OVERLONG ? tooMuch : INVALID;
      op += made;
      if (decoded != SEQUENCES + (<usize>batch << 4)) return INVALID;
    } while (count);
    if (load<i64>(PLACE) != load<i64>(PLACE_MIN)) return INVALID;
  }
  const literal: usize = load<u32>(LITERALS_AT);
  const rest: usize = <usize>load<u32>(LITERALS_END) - literal;
  if (rest > opMax - op) return tooMuch;
  memory.copy(op, literal, rest);
  return <i32>(op + rest - out);
}
