// The cheapest way through a chunk, as far as one can tell: of all matches at all positions those
// are taken that make the fewest bits, by what symbols cost in the parse before. That is done for
// the whole chunk first, which tells where blocks should start, and then for each block again and
// again, with its own costs.

import { costsFrom, guessCounts } from './deflate-costs';
import {
  CHOICES, COSTS, DIST_COSTS, LENGTH_COSTS, LITERAL_COSTS, MATCHES, MATCH_STARTS, SEQUENCES,
} from './deflate-scratch';
import { putLiteral, putMatch, storeRecord } from './deflate-parse';
import {
  BYTES, clearCounts, FROM, SEGMENT, segment, SEQUENCES_END,
} from './deflate-segments';
import { MATCH_MAX } from './deflate-symbols';
import { findAll } from './deflate-tree';

// At positions that a match this long covers no matches are looked for.
// @ts-ignore: decorator
@inline const LONG_MATCH: u32 = 130;

// @ts-ignore: decorator
@inline
function startOf(index: u32): usize {
  return MATCH_STARTS + (<usize>index << 2);
}

// @ts-ignore: decorator
@inline
function costAt(index: u32): usize {
  return COSTS + (<usize>index << 2);
}

/** Collects the matches at all positions of a chunk. */
export function collectMatches(
  src: usize, from: u32, end: u32, srcBytes: u32, depth: u32,
): void {
  let to = MATCHES;
  let covered = from;
  for (let pos = from; pos < end; pos++) {
    store<u32>(startOf(pos - from), <u32>to);
    const limit = min(MATCH_MAX, srcBytes - pos);
    if (limit < 4) continue;
    const next = findAll(src, pos, depth, limit, to);
    if (pos < covered) continue;
    if (next > to) {
      const length = load<u32>(next - 4) >> 20;
      if (length >= LONG_MATCH) covered = pos + length;
    }
    to = next;
  }
  store<u32>(startOf(end - from), <u32>to);
}

// Finds the cheapest way from `a` to `b`; both count from the chunk's start.
function choose(chunk: usize, a: u32, b: u32): void {
  store<u32>(costAt(b), 0);
  let matchesEnd: usize = load<u32>(startOf(b));
  for (let i = b; i > a;) {
    i--;
    const literal = load<u32>(LITERAL_COSTS + (<usize>load<u8>(chunk + i) << 2));
    let best = literal + load<u32>(costAt(i + 1));
    let choice: u32 = 0;
    let match: usize = load<u32>(startOf(i));
    const end = matchesEnd;
    matchesEnd = match;
    let length: u32 = 3;
    for (; match < end; match += 4) {
      const entry = load<u32>(match);
      const longest = min(entry >> 20, b - i);
      const dist = load<u32>(DIST_COSTS + (<usize>((entry >> 12) & 31) << 2));
      for (; length <= longest; length++) {
        const cost =
          dist + load<u32>(LENGTH_COSTS + (<usize>length << 2)) + load<u32>(costAt(i + length));
        choice = select<u32>((length << 20) | (entry & 0xfff), choice, cost < best);
        best = min(best, cost);
      }
    }
    store<u32>(costAt(i), best);
    store<u32>(CHOICES + (<usize>i << 2), choice);
  }
}

// Puts the way from `a` on into a record, until `until` is reached. Returns the position reached.
function follow(
  record: usize, src: usize, from: u32, a: u32, until: u32, sequences: usize,
): u32 {
  clearCounts(record);
  let run: u32 = 0;
  let i = a;
  let to = sequences;
  while (i < until) {
    const choice = load<u32>(CHOICES + (<usize>i << 2));
    if (choice == 0) {
      putLiteral(record, src + from + i);
      run++;
      i++;
      continue;
    }
    const length = choice >> 20;
    putMatch(to, record, run, length, choice & 0xfff);
    to += 8;
    run = 0;
    i += length;
  }
  storeRecord(record, from + a, from + i, sequences, to, run);
  return i;
}

/**
 * Parses a chunk whose matches were collected.
 * @param passes over all of it, the first with guessed costs
 * @returns the number of segments
 */
export function parseOptimal(src: usize, from: u32, end: u32, passes: u32): u32 {
  const bytes = end - from;
  const all = segment(0);
  clearCounts(all);
  guessCounts(all, src + from, bytes);
  for (let pass: u32 = 1; pass < passes; pass++) {
    costsFrom(all);
    choose(src + from, 0, bytes);
    follow(all, src, from, 0, bytes, SEQUENCES);
  }
  costsFrom(all);
  choose(src + from, 0, bytes);
  let count: u32 = 0;
  let sequences = SEQUENCES;
  for (let i: u32 = 0; i < bytes;) {
    const record = segment(count++);
    const until = bytes - i < SEGMENT + SEGMENT / 2 ? bytes : i + SEGMENT;
    i = follow(record, src, from, i, until, sequences);
    sequences = load<u32>(record, SEQUENCES_END);
  }
  return count;
}

/** Parses a block of the chunk at `from` anew, `passes` times. */
export function refineBlock(record: usize, src: usize, from: u32, passes: u32): void {
  const a = load<u32>(record, FROM) - from;
  const b = a + load<u32>(record, BYTES);
  for (; passes > 0; passes--) {
    costsFrom(record);
    choose(src + from, a, b);
    follow(record, src, from, a, b, SEQUENCES);
  }
}
