// Writes the sequences section of a compressed block, each table the cheapest way. (RFC 8878,
// 3.1.1.3.2; the section is drawn in zstd-sequences.ts)

import {
  costOf, describe, firstState, IMPOSSIBLE, LAST, LAST_LOG, layOut, layOutSingle, normalise, NORMAL,
  STEPS, tableLog, TEXT,
} from './zstd-encode-fse';
import {
  CODES, LENGTH_FIELD, MATCH_FIELD, OFFSET_FIELD, SEQUENCES,
} from './zstd-encode-scratch';
import { LENGTH_CODES_MAX, MATCH_CODES_MAX, OFFSET_CODES_MAX } from './zstd-sequence-store';

// Of literal lengths, offsets and match lengths: log2 of the predefined states, and their counts.
const LENGTH_NORMAL: usize = memory.data<i16>([
  4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
  -1, -1, -1, -1,
]);
const OFFSET_NORMAL: usize = memory.data<i16>([
  1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
  0, 0, 0,
]);
const MATCH_NORMAL: usize = memory.data<i16>([
  1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
  1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
]);
const LENGTH_LOG: u32 = 6;
const OFFSET_LOG: u32 = 5;
const MATCH_LOG: u32 = 6;
const LENGTH_LOG_MAX: u32 = 9;
const OFFSET_LOG_MAX: u32 = 8;
const MATCH_LOG_MAX: u32 = 9;

/** Extra bits of each literal-length code, and of each match-length code. */
export const EXTRA_BITS: usize = memory.data<u8>([
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12,
  13, 14, 15, 16,
]);
export const MATCH_EXTRA_BITS: usize = memory.data<u8>([
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
]);

const PREDEFINED: u32 = 0;
const SINGLE: u32 = 1;
const DESCRIBED: u32 = 2;
const REPEATED: u32 = 3;

// How the field's table goes into the block; the table is laid out.
// @returns the mode in bits 0 – 1, log2 of the states in 2 – 7, bytes of TEXT above
function chooseTable(
  field: usize, symbols: u32, total: u32, usual: usize, usualLog: u32, logMax: u32,
): u32 {
  let kinds: u32 = 0;
  let end: u32 = 0;
  for (let s: u32 = 0; s < symbols; s++) {
    if (load<u32>(field + (<usize>s << 2)) == 0) continue;
    kinds++;
    end = s + 1;
  }
  let mode = PREDEFINED;
  let log = usualLog;
  let cost = costOf(field, end, usual, usualLog);
  const lastLog = load<u32>(field, LAST_LOG);
  if (lastLog) {
    const again = costOf(field, end, field + LAST, lastLog);
    if (again < cost) {
      cost = again;
      mode = REPEATED;
      log = lastLog;
    }
  }
  let text: u32 = 0;
  if (kinds == 1) {
    if (<u32>(8 << 8) < cost) {
      store<u8>(field, <u8>(end - 1), TEXT);
      store<u32>(field, 0, LAST_LOG);
      layOutSingle(field, end - 1);
      return SINGLE | (1 << 8);
    }
  } else {
    const freshLog = tableLog(total, kinds, logMax);
    normalise(field, end, total, freshLog);
    text = describe(field + NORMAL, end, freshLog, field + TEXT);
    if (costOf(field, end, field + NORMAL, freshLog) + (text << 11) < cost) {
      store<u32>(field, freshLog, LAST_LOG);
      memory.fill(field + LAST, 0, 128);
      memory.copy(field + LAST, field + NORMAL, end << 1);
      layOut(field, end, field + NORMAL, freshLog);
      return DESCRIBED | (freshLog << 2) | (text << 8);
    }
  }
  if (mode == PREDEFINED) {
    // A later block could repeat it, but would then rather name it again.
    store<u32>(field, 0, LAST_LOG);
    layOut(field, symbols, usual, usualLog);
  }
  return mode | (log << 2);
}

function putText(field: usize, choice: u32, to: usize): usize {
  const bytes = choice >> 8;
  memory.copy(to, field + TEXT, bytes);
  return to + bytes;
}

/**
 * Writes `count` sequences to `to`, giving up past `limit` (there is slack of 64 bytes behind it,
 * and room for the tables).
 * @returns where the section ends, or 0
 */
export function writeSequences(count: u32, to: usize, limit: usize): usize {
  let out = to;
  if (count < 128) {
    store<u8>(out, <u8>count);
    out += 1;
  } else if (count < 0x7f00) {
    store<u16>(out, <u16>((count >> 8) | 128 | (count << 8)));
    out += 2;
  } else {
    store<u8>(out, 255);
    store<u16>(out, <u16>(count - 0x7f00), 1);
    out += 3;
  }
  if (count == 0) return out;
  const length = chooseTable(
    LENGTH_FIELD, LENGTH_CODES_MAX, count, LENGTH_NORMAL, LENGTH_LOG, LENGTH_LOG_MAX,
  );
  const offset = chooseTable(
    OFFSET_FIELD, OFFSET_CODES_MAX, count, OFFSET_NORMAL, OFFSET_LOG, OFFSET_LOG_MAX,
  );
  const match = chooseTable(
    MATCH_FIELD, MATCH_CODES_MAX, count, MATCH_NORMAL, MATCH_LOG, MATCH_LOG_MAX,
  );
  store<u8>(out, <u8>(((length & 3) << 6) | ((offset & 3) << 4) | ((match & 3) << 2)));
  out = putText(LENGTH_FIELD, length, out + 1);
  out = putText(OFFSET_FIELD, offset, out);
  out = putText(MATCH_FIELD, match, out);
  return writeBits(count, out, limit, (length >> 2) & 63, (offset >> 2) & 63, (match >> 2) & 63);
}

// @ts-ignore: decorator
@inline
function mask(bits: u64): u64 {
  return (<u64>1 << bits) - 1;
}

// The bit stream: from the last sequence to the first, so that it can be read backwards.
function writeBits(
  count: u32, to: usize, limit: usize, lengthLog: u64, offsetLog: u64, matchLog: u64,
): usize {
  let out = to;
  let acc: u64 = 0;
  let bits: u64 = 0;
  const last = load<u32>(<usize>(count - 1) << 2, CODES);
  let lengthState = firstState(LENGTH_FIELD, last & 0xff);
  let offsetState = firstState(OFFSET_FIELD, last >> 16);
  let matchState = firstState(MATCH_FIELD, (last >> 8) & 0xff);
  for (let i: usize = count - 1; ; i--) {
    const codes = load<u32>(i << 2, CODES);
    const lengthAt: usize = codes & 0xff;
    const matchAt: usize = (codes >> 8) & 0xff;
    const offsetAt: usize = codes >> 16;
    const sequence = load<u64>(i << 3, SEQUENCES);
    const lengthBits: u64 = load<u8>(EXTRA_BITS + lengthAt);
    const matchBits: u64 = load<u8>(MATCH_EXTRA_BITS + matchAt);
    const offsetBits: u64 = offsetAt;
    // 7 bits at most are left from before, and the first two take 31 at most.
    acc |= (sequence & mask(lengthBits)) << bits;
    bits += lengthBits;
    acc |= ((sequence >> 18) & mask(matchBits)) << bits;
    bits += matchBits;
    if (bits + offsetBits > 37) {
      store<u64>(out, acc);
      out += <usize>(bits >> 3);
      acc >>= bits & 0x38;
      bits &= 7;
    }
    acc |= ((sequence >> 36) & mask(offsetBits)) << bits;
    bits += offsetBits;
    if (i == 0) break;
    // The step to the sequence before: 26 bits at most.
    const before = load<u32>(i << 2, CODES - 4);
    const offsetStep = load<u64>(<usize>(before >> 16) << 3, OFFSET_FIELD + STEPS);
    let taken: u64 = (offsetState + <u64><u32>offsetStep) >> 16;
    acc |= (offsetState & mask(taken)) << bits;
    bits += taken;
    offsetState = load<u16>(<usize>(offsetStep >> 32) + (<usize>(offsetState >> taken) << 1));
    const matchStep = load<u64>(<usize>((before >> 8) & 0xff) << 3, MATCH_FIELD + STEPS);
    taken = (matchState + <u64><u32>matchStep) >> 16;
    acc |= (matchState & mask(taken)) << bits;
    bits += taken;
    matchState = load<u16>(<usize>(matchStep >> 32) + (<usize>(matchState >> taken) << 1));
    const lengthStep = load<u64>(<usize>(before & 0xff) << 3, LENGTH_FIELD + STEPS);
    taken = (lengthState + <u64><u32>lengthStep) >> 16;
    acc |= (lengthState & mask(taken)) << bits;
    bits += taken;
    lengthState = load<u16>(<usize>(lengthStep >> 32) + (<usize>(lengthState >> taken) << 1));
    store<u64>(out, acc);
    out += <usize>(bits >> 3);
    acc >>= bits & 0x38;
    bits &= 7;
    if (out > limit) return 0;
  }
  store<u64>(out, acc);
  out += <usize>(bits >> 3);
  acc >>= bits & 0x38;
  bits &= 7;
  acc |= (matchState & mask(matchLog)) << bits;
  bits += matchLog;
  acc |= (offsetState & mask(offsetLog)) << bits;
  bits += offsetLog;
  acc |= (lengthState & mask(lengthLog)) << bits;
  bits += lengthLog;
  acc |= <u64>1 << bits;
  store<u64>(out, acc);
  return out + <usize>((bits + 8) >> 3);
}
