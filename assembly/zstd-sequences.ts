// The sequences section of a compressed block. (RFC 8878, 3.1.1.3.2)
//
//   number of sequences   1 byte below 128 · 2 bytes: (b0 − 128) × 256 + b1 · 255: u16 + 0x7f00
//   modes                 bits 6 – 7 literal lengths · 4 – 5 offsets · 2 – 3 match lengths
//                         each 0 predefined, 1 one symbol, 2 described here, 3 as in the last block
//   tables                in that order
//   bit stream            read backwards from the end mark: first the three states, then for each
//                         sequence offset, match length, literal length, and the next three states
//
// Sequences are decoded in batches (zstd-sequence-batch.ts), each of which is then carried out
// (zstd-execute.ts).

import {
  COUNTS, COUNTS_LOG, COUNTS_SYMBOLS, INVALID, LENGTHS, LENGTHS_LOG, LITERALS_AT, LITERALS_END,
  MATCHES, MATCHES_LOG, OFFSETS, OFFSETS_LOG, OUTPUT_AT, OVERLONG, PLACE, PLACE_MIN, SEQUENCES,
  TABLES_KEPT,
} from './zstd-scratch';
import { buildTable, clear, readCounts } from './zstd-fse';
import { carryOut } from './zstd-execute';
import { decodeBatch, openStream } from './zstd-sequence-batch';

// What is to know of each of the three fields:
//
//   0   last code · 1 most table bits · 2 baseline of the first code
//   3   two biases · 5 gap before the third code (zstd-fse.ts says what of)
//   6   log2 of the number of predefined states · 7 symbols that these have
//   8   extra bits of each code, then the predefined states' normalised counts
//
// The first biases of the three add up to 128 − 4. A word shifted right by 64 − n is its top n
// bits, and only the low six bits of a shift count matter; so it is when shifted by 128 − n. The 4
// are four bits more than the sequence has: they leave the fields of the next states times 16,
// which is what the states' masks are made for. To get at the extra bits they are to be shifted out
// behind the last of these fields, that of the literal length.
//
// An offset's values are 0, 1 and 2 for the repeated ones, and what the format says (3 above the
// distance) from 4 on: 3 is what 2 means where there are no literals.
const LENGTH_FIELD: usize = memory.data<i8>([
  35, 9, 0, 40, 4, 0, 6, 36,
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12,
  13, 14, 15, 16,
  4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
  -1, -1, -1, -1,
]);
const MATCH_FIELD: usize = memory.data<i8>([
  52, 9, 3, 40, 0, 0, 6, 53,
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
  1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
  1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
]);
const OFFSET_FIELD: usize = memory.data<i8>([
  31, 8, 0, 44, 0, 1, 5, 29,
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
  buildTable(table, symbols, log, extraBits, load<u8>(field, 2), load<u8>(field, 5), bias);
  store<u32>(tableLog, log);
  return bytes;
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
    store<u32>(OUTPUT_AT, <u32>out);
    do {
      const batch = min(count, BATCH);
      count -= batch;
      const decoded = decodeBatch(batch, count == 0);
      const failed = carryOut(decoded, opMax, opWild, frame, reachable, window);
      if (failed) return failed == OVERLONG ? tooMuch : INVALID;
      if (decoded != SEQUENCES + (<usize>batch << 4)) return INVALID;
    } while (count);
    op = load<u32>(OUTPUT_AT);
    if (load<i64>(PLACE) != load<i64>(PLACE_MIN)) return INVALID;
  }
  const literal: usize = load<u32>(LITERALS_AT);
  const rest: usize = <usize>load<u32>(LITERALS_END) - literal;
  if (rest > opMax - op) return tooMuch;
  memory.copy(op, literal, rest);
  return <i32>(op + rest - out);
}
