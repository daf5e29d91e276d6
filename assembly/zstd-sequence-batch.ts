// A batch of sequences out of their bit stream. (RFC 8878, 3.1.1.3.2 and 3.1.1.5)
//
//   SEQUENCES   16 bytes each: u32 distance of the match · u32 literals · u32 bytes of the match
//
// Decoding is a loop of its own, and so is carrying out: each has just enough registers. It waits
// for loads and shifts, one behind the other from a state to the next, so all else stays out of
// their way: no branch hangs on what a sequence is, and whether the stream is used up is asked once
// for all of a batch. Reading on below the stream is harmless, for no read comes below the arena
// by more than the 2 KiB of a batch.
//
// The stream's place is one number, `place`: the address in bits of its next bit, less 56. Eight
// bytes loaded from there have that bit in their last byte, and what a sequence takes comes out of
// one such load but for the longest codes.

import {
  HISTORY, LENGTHS, LENGTHS_LOG, LENGTH_STATE, MATCHES, MATCHES_LOG, MATCH_STATE, OFFSETS,
  OFFSETS_LOG, OFFSET_STATE, PLACE, PLACE_MIN, SEQUENCES,
} from './zstd-scratch';

// What an offset does to the repeated ones. They stand in lanes 0 to 2, its own distance in lane 3;
// lane 0 becomes the distance. Rows 0 to 3 are the values of repeated ones, and one row further on
// where there are no literals; rows 4 and 5 are a distance of its own. What is then added is
// nothing but in row 3: one less than the first.
const MOVES: usize = memory.data<u8>([
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
  4, 5, 6, 7, 0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15,
  8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15,
  0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15,
  12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15,
  12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15,
]);
const ADDED: usize = memory.data<i32>([
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
]);

/** What one word is sure to hold. */
const WORD_BITS: u32 = 57;
/** The sum of the states' first bytes, less the bits that they stand for. */
const ALL_BITS: u32 = 128 - 4;

// The next bits of the stream, WORD_BITS at least, the next of all on top.
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

/** The history after an offset of `value`; `isBare` is 1 where there are no literals. */
// @ts-ignore: decorator
@inline
function remember(history: v128, value: u32, isBare: u32): v128 {
  const move: usize = <usize>(select<u32>(4, value, value > 4) + isBare) << 4;
  const four = v128.replace_lane<u32>(history, 3, value - 3);
  const moved = v128.swizzle(four, v128.load(move, MOVES));
  return v128.add<i32>(moved, v128.load(move, ADDED));
}

// @ts-ignore: decorator
@inline
function storeSequence(to: usize, history: v128, literals: u32, bytes: u32): void {
  v128.store(to, history);
  store<u32>(to, literals, 4);
  store<u32>(to, bytes, 8);
}

/** Reads the three first states of the stream in [at, end). False where it holds no such thing. */
export function openStream(at: usize, end: usize): bool {
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
 * Decodes sequences to `to` and on, up to `end` or to one whose bits are too many for one word.
 * @returns where it stopped, or 0, having changed nothing but SEQUENCES, if the stream ran out
 */
function decodeMany(to: usize, end: usize): usize {
  let place = load<i64>(PLACE);
  let length: usize = load<u32>(LENGTH_STATE);
  let match: usize = load<u32>(MATCH_STATE);
  let offset: usize = load<u32>(OFFSET_STATE);
  let history = v128.load(HISTORY);
  while (to != end) {
    const word = wordAt(place);
    const sum = <u32>load<u8>(match, MATCHES) + <u32>load<u8>(offset, OFFSETS)
      + <u32>load<u8>(length, LENGTHS);
    if (sum < ALL_BITS - WORD_BITS) break;
    place += <i64>sum - ALL_BITS;
    // From the top: extra bits of offset, match length, literal length; states of literal length,
    // match length, offset; four bits too many.
    const offsetBits = word >> sum;
    const matchBits = offsetBits >> load<u8>(offset, OFFSETS + 1);
    const lengthBits = matchBits >> load<u8>(match, MATCHES + 1);
    let extra = lengthBits >> load<u8>(length, LENGTHS + 1);
    const literals = load<u32>(length, LENGTHS + 4)
      + (<u32>extra & load<u32>(length, LENGTHS + 12));
    extra >>= load<u8>(length, LENGTHS + 10);
    const bytes = load<u32>(match, MATCHES + 4) + (<u32>extra & load<u32>(match, MATCHES + 12));
    extra >>= load<u8>(match, MATCHES + 10);
    const value = load<u32>(offset, OFFSETS + 4) + <u32>extra;
    history = remember(history, value, load<u8>(length, LENGTHS + 11));
    storeSequence(to, history, literals, bytes);
    length = <u32>load<u16>(length, LENGTHS + 2)
      + (<u32>lengthBits & load<u16>(length, LENGTHS + 8));
    match = <u32>load<u16>(match, MATCHES + 2)
      + (<u32>matchBits & load<u16>(match, MATCHES + 8));
    offset = <u32>load<u16>(offset, OFFSETS + 2)
      + (<u32>offsetBits & load<u16>(offset, OFFSETS + 8));
    to += 16;
  }
  if (place < load<i64>(PLACE_MIN)) return 0;
  store<i64>(PLACE, place);
  store<u32>(LENGTH_STATE, length);
  store<u32>(MATCH_STATE, match);
  store<u32>(OFFSET_STATE, offset);
  v128.store(HISTORY, history);
  return to;
}

/** The next `bits` (0 – 31) of the stream. */
function take(bits: u32): u32 {
  const place = load<i64>(PLACE);
  store<i64>(PLACE, place - bits);
  return <u32>top(wordAt(place), bits);
}

/**
 * Decodes one sequence to `to`, field by field; the last of all is followed by no states.
 * @returns whether the stream was long enough
 */
function decodeOne(to: usize, last: bool): bool {
  const length: usize = LENGTHS + load<u32>(LENGTH_STATE);
  const match: usize = MATCHES + load<u32>(MATCH_STATE);
  const offset: usize = OFFSETS + load<u32>(OFFSET_STATE);
  const value = load<u32>(offset, 4) + take(load<u8>(offset, 10));
  const bytes = load<u32>(match, 4) + take(load<u8>(match, 10));
  const literals = load<u32>(length, 4) + take(load<u8>(length, 10));
  const history = remember(v128.load(HISTORY), value, load<u8>(length, 11));
  v128.store(HISTORY, history);
  storeSequence(to, history, literals, bytes);
  if (!last) {
    // A mask says how many bits a state takes, 4 bits to the left.
    const lengthBits = take(popcnt<u32>(load<u16>(length, 8)));
    store<u32>(LENGTH_STATE, load<u16>(length, 2) + (lengthBits << 4));
    const matchBits = take(popcnt<u32>(load<u16>(match, 8)));
    store<u32>(MATCH_STATE, load<u16>(match, 2) + (matchBits << 4));
    const offsetBits = take(popcnt<u32>(load<u16>(offset, 8)));
    store<u32>(OFFSET_STATE, load<u16>(offset, 2) + (offsetBits << 4));
  }
  return load<i64>(PLACE) >= load<i64>(PLACE_MIN);
}

/**
 * Decodes the next `count` sequences into SEQUENCES. `last` says that no others follow.
 * @returns where it stopped: after all of them, or where the stream ran out
 */
export function decodeBatch(count: u32, last: bool): usize {
  const end: usize = SEQUENCES + (<usize>count << 4);
  const many: usize = last ? end - 16 : end;
  let to: usize = SEQUENCES;
  for (;;) {
    const stop = decodeMany(to, many);
    if (stop == 0) break;
    if (stop == end) return end;
    if (!decodeOne(stop, stop == many)) return stop;
    to = stop + 16;
    if (to == end) return end;
  }
  // All of these but the one that the stream was too short for are still to be carried out.
  while (to != many && decodeOne(to, false)) to += 16;
  return to;
}
