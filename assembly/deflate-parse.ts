// Cuts the input into literals and matches, position by position: the longest match at hand is
// taken (greedy), or only if the next positions have no better one (lazy).

import { addToBucket, searchBucket } from './deflate-buckets';
import { findMatch, insertPosition } from './deflate-matches';
import { CHUNK, SEQUENCES } from './deflate-scratch';
import {
  BYTES, clearCounts, countOne, DIST_COUNTS, FROM, SEGMENT, segment, SEQUENCES_END, SEQUENCES_FROM,
} from './deflate-segments';
import { distSymbol, lengthIndex, MATCH_MAX } from './deflate-symbols';
import { isWorth, startWeighing, weighMatches } from './deflate-worth';

// After this many literals in a row most positions are not searched any more.
// @ts-ignore: decorator
@inline const RUN_PATIENCE: u32 = 7;
// But never at fewer than one of these.
// @ts-ignore: decorator
@inline const STEP_MAX: u32 = 16;

/** Stores a sequence and counts its match. */
// @ts-ignore: decorator
@inline
export function putMatch(to: usize, counts: usize, run: u32, length: u32, distance: u32): void {
  const symbol = distSymbol(distance);
  store<u32>(to, run | (length << 20));
  store<u32>(to, distance | (symbol << 16), 4);
  countOne(counts + (<usize>lengthIndex(length) << 2) + 257 * 4);
  countOne(counts + DIST_COUNTS + (<usize>symbol << 2));
}

/** Counts a literal. */
// @ts-ignore: decorator
@inline
export function putLiteral(counts: usize, at: usize): void {
  countOne(counts + (<usize>load<u8>(at) << 2));
}

/**
 * Says in a record what it is about, after its last match.
 * @param run literals behind that
 */
export function storeRecord(
  record: usize, from: u32, end: u32, sequences: usize, sequencesEnd: usize, run: u32,
): void {
  if (run > 0) {
    store<u32>(sequencesEnd, run);
    store<u32>(sequencesEnd, 0, 4);
    sequencesEnd += 8;
  }
  store<u32>(record, from, FROM);
  store<u32>(record, end - from, BYTES);
  store<u32>(record, <u32>sequences, SEQUENCES_FROM);
  store<u32>(record, <u32>sequencesEnd, SEQUENCES_END);
}

// Bits of the distance, for comparing matches.
// @ts-ignore: decorator
@inline
function distBits(match: u32): u32 {
  return 31 - clz(match & 0xffff);
}

// Parses until `end` (or up to a match behind it) into a record. Returns the position reached.
// @ts-ignore: decorator
@inline
function parseWith(
  isDeep: bool,
  record: usize, src: usize, from: u32, end: u32, srcBytes: u32, sequences: usize,
  minLength: u32, depth: u32, nice: u32, lazy: u32, shift: u32,
): u32 {
  clearCounts(record);
  let pos = from;
  let run: u32 = 0;
  let stepped: u32 = 1;
  let to = sequences;
  // Positions at which four bytes can be read.
  const searchEnd: u32 = srcBytes < 4 ? 0 : min(end, srcBytes - 3);
  while (pos < searchEnd) {
    let limit = min(MATCH_MAX, srcBytes - pos);
    let match = isDeep
      ? findMatch(src, pos, minLength - 1, depth, min(nice, limit), limit, shift)
      : searchBucket(src, pos, limit, shift);
    if (!isWorth(match)) {
      // What does not match for long does not match: look at fewer of its positions.
      stepped = min(min(1 + (run >> RUN_PATIENCE), STEP_MAX), searchEnd - pos);
      run += stepped;
      putLiteral(record, src + pos++);
      for (let i = stepped; i > 1; i--) {
        if (isDeep) insertPosition(src, pos, shift);
        else addToBucket(src, pos, shift);
        putLiteral(record, src + pos++);
      }
      continue;
    }
    let length = match >> 16;
    let known: u32 = 1;
    if (stepped > 1) {
      // It may have started between the positions that were looked at.
      const distance = match & 0xffff;
      while (
        run > 0 && pos > distance && length < MATCH_MAX
        && load<u8>(src + pos - 1) == load<u8>(src + pos - 1 - distance)
      ) {
        pos--;
        run--;
        length++;
        known++;
        const count = record + (<usize>load<u8>(src + pos) << 2);
        store<u32>(count, load<u32>(count) - 1);
      }
      match = (length << 16) | distance;
      stepped = 1;
    }
    while (length < lazy && known == 1 && pos + 1 < searchEnd) {
      limit = min(MATCH_MAX, srcBytes - pos - 1);
      const next = isDeep
        ? findMatch(src, pos + 1, length - 1, depth >> 1, min(nice, limit), limit, shift)
        : searchBucket(src, pos + 1, limit, shift);
      const better = <i32>((next >> 16) - length) * 4 + <i32>(distBits(match) - distBits(next));
      // Three bytes are hardly more than their literals: the next position need not be much better.
      const enough = length < 4 ? 1 : 2;
      if (better <= enough || !isWorth(next)) {
        known = 2;
        break;
      }
      putLiteral(record, src + pos);
      pos++;
      run++;
      match = next;
      length = match >> 16;
    }
    putMatch(to, record, run, length, match & 0xffff);
    to += 8;
    run = 0;
    const next = pos + length;
    const insertEnd: u32 = srcBytes < 4 ? 0 : min(next, srcBytes - 3);
    for (let i = pos + known; i < insertEnd; i++) {
      if (isDeep) insertPosition(src, i, shift);
      else addToBucket(src, i, shift);
    }
    pos = next;
  }
  for (; pos < end; pos++) {
    putLiteral(record, src + pos);
    run++;
  }
  storeRecord(record, from, pos, sequences, to, run);
  return pos;
}

function parseDeep(
  record: usize, src: usize, from: u32, end: u32, srcBytes: u32, sequences: usize,
  minLength: u32, depth: u32, nice: u32, lazy: u32, shift: u32,
): u32 {
  return parseWith(
    true, record, src, from, end, srcBytes, sequences, minLength, depth, nice, lazy, shift,
  );
}

function parseFast(
  record: usize, src: usize, from: u32, end: u32, srcBytes: u32, sequences: usize,
  lazy: u32, shift: u32,
): u32 {
  return parseWith(false, record, src, from, end, srcBytes, sequences, 3, 0, 0, lazy, shift);
}

/**
 * Parses about a chunk, from position `from` on.
 * @param lazy matches as long as this are taken without looking further; 0 is greedy
 * @returns the number of segments
 */
export function parseChunk(
  src: usize, from: u32, srcBytes: u32, minLength: u32, depth: u32, nice: u32, lazy: u32,
  shift: u32,
): u32 {
  const end = min(from + CHUNK, srcBytes);
  startWeighing(src + from, end - from);
  let count: u32 = 0;
  let sequences = SEQUENCES;
  while (from < end) {
    const record = segment(count++);
    const segmentEnd = end - from < SEGMENT + SEGMENT / 2 ? end : from + SEGMENT;
    from = depth == 0
      ? parseFast(record, src, from, segmentEnd, srcBytes, sequences, lazy, shift)
      : parseDeep(
        record, src, from, segmentEnd, srcBytes, sequences, minLength, depth, nice, lazy, shift,
      );
    sequences = load<u32>(record, SEQUENCES_END);
    weighMatches(record);
  }
  return count;
}
