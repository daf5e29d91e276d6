// Finding matches fast: one table of places by the hash of the next bytes, each place tried once.

import {
  HEADS, LITERALS, LITERAL_COUNT, PLAIN, REPEAT_0, REPEAT_1, REPEAT_2, SEQUENCE_COUNT,
} from './zstd-encode-scratch';
import { storeSequence } from './zstd-sequence-store';

const PRIME_FOUR: u64 = 2654435761;
const PRIME_FIVE: u64 = 889523592379;

/** Bytes of a match that none is looked for instead of. */
const LONG: usize = 32;

/** Bytes at the end of a block in which no match begins. */
const TAIL: usize = 10;

/** How many bytes from `a` are as those from `b`, which lies before it; `a` ends at `end`. */
// @ts-ignore: decorator
@inline
export function matchLength(a: usize, b: usize, end: usize): usize {
  let length: usize = 0;
  do {
    const same = v128.bitmask<i8>(
      v128.eq<i8>(v128.load(a + length, PLAIN), v128.load(b + length, PLAIN)),
    );
    if (same != 0xffff) {
      length += ctz(~same);
      break;
    }
    length += 16;
  } while (a + length < end);
  return min(length, end - a);
}

/** How many bytes before `a` are as those before `b`, at most `room`. */
// @ts-ignore: decorator
@inline
export function matchBack(a: usize, b: usize, room: usize): usize {
  let length: usize = <usize>(clz(load<u64>(a, PLAIN - 8) ^ load<u64>(b, PLAIN - 8)) >> 3);
  if (length < 8) return min(length, room);
  while (length < room && load<u8>(a - length, PLAIN - 1) == load<u8>(b - length, PLAIN - 1)) {
    length++;
  }
  return min(length, room);
}

/** Copies literals, and up to 15 bytes more than asked for. */
// @ts-ignore: decorator
@inline
export function copyLiterals(to: usize, from: usize, bytes: usize): void {
  v128.store(to, v128.load(from, PLAIN));
  for (let i: usize = 16; i < bytes; i += 16) v128.store(to + i, v128.load(from + i, PLAIN));
}

// @ts-ignore: decorator
@inline
function slot<T, B>(word: u64, mask: usize): usize {
  // The highest bits of the product are the best: as many of them as the largest table needs.
  const bits: u64 = sizeof<T>() == 2 ? (sizeof<B>() == 8 ? 49 : 50) : 48;
  const product =
    sizeof<B>() == 8 ? (word << 24) * PRIME_FIVE : (word << 32) * PRIME_FOUR;
  return (<usize>(product >> bits) & mask) << alignof<T>();
}

// @ts-ignore: decorator
@inline
function remember<T, B>(at: usize, mask: usize): void {
  store<T>(slot<T, B>(load<u64>(at, PLAIN), mask), <T>at, HEADS);
}

/**
 * Parses the block from `start` to `end` of PLAIN. T is wide enough for a place there; `mask` is
 * the number of slots less one. B tells how many bytes are hashed: five if it has 64 bits, else
 * four; of five few matches are of four, which cost a sequence each and save little. After
 * 2^`patience` bytes without a match only every other place is tried, and so on; `lazy` tries the
 * next place, too, before a short match is taken.
 */
export function parseFast<T, B>(
  start: usize, end: usize, mask: usize, patience: usize, lazy: bool,
): void {
  let repeat0: usize = load<u32>(REPEAT_0);
  let repeat1: usize = load<u32>(REPEAT_1);
  let literals: usize = LITERALS;
  let index: usize = 0;
  let anchor = start;
  let at = start + <usize>(start == 0);
  const limit = end - TAIL;
  if (end - start > TAIL) {
    while (at < limit) {
      const word = load<u64>(at, PLAIN);
      const place = slot<T, B>(word, mask);
      let from: usize = load<T>(place, HEADS);
      store<T>(place, <T>at, HEADS);
      const found = load<u32>(from, PLAIN) == <u32>word;
      const again = load<u32>(at - repeat0, PLAIN + 1) == <u32>(word >> 8);
      if (!(<u32>found | <u32>again)) {
        at += 1 + ((at - anchor) >> patience);
        continue;
      }
      let length: usize;
      if (again) {
        length = matchLength(at + 1, at + 1 - repeat0, end);
        let best = length;
        if (found) {
          const other = matchLength(at, from, end);
          if (other > length + 1) best = other;
        }
        if (best == length) {
          at++;
          from = at - repeat0;
        }
        length = best;
      } else {
        length = matchLength(at, from, end);
        if (lazy && length < LONG) {
          const next = <u32>(word >> 8);
          const place = slot<T, B>(word >> 8, mask);
          const nextFrom: usize = load<T>(place, HEADS);
          store<T>(place, <T>(at + 1), HEADS);
          if (load<u32>(nextFrom, PLAIN) == next) {
            const other = matchLength(at + 1, nextFrom, end);
            if (other > length) {
              at++;
              from = nextFrom;
              length = other;
            }
          }
        }
      }
      const back = matchBack(at, from, min(at - anchor, from));
      at -= back;
      from -= back;
      length += back;
      const offset = at - from;
      const run = at - anchor;
      let value: u32 = <u32>offset + 3;
      if (offset == repeat0) {
        // Without literals it cannot be named, and pushes out the third.
        if (run) value = 1;
        else {
          store<u32>(REPEAT_2, <u32>repeat1);
          repeat1 = repeat0;
        }
      } else {
        if (offset == repeat1) {
          value = run ? 2 : 1;
        } else {
          if (offset == load<u32>(REPEAT_2)) value = run ? 3 : 2;
          store<u32>(REPEAT_2, <u32>repeat1);
        }
        repeat1 = repeat0;
        repeat0 = offset;
      }
      copyLiterals(literals, anchor, run);
      literals += run;
      storeSequence(index, <u32>run, <u32>length - 3, value);
      index++;
      const begun = at;
      at += length;
      anchor = at;
      if (at >= limit) break;
      remember<T, B>(begun + 2, mask);
      remember<T, B>(at - 3, mask);
      remember<T, B>(at - 2, mask);
      remember<T, B>(at - 1, mask);
      while (load<u32>(at, PLAIN) == load<u32>(at - repeat1, PLAIN)) {
        length = matchLength(at, at - repeat1, end);
        const swap = repeat1;
        repeat1 = repeat0;
        repeat0 = swap;
        storeSequence(index, 0, <u32>length - 3, 1);
        index++;
        remember<T, B>(at, mask);
        at += length;
        anchor = at;
        if (at >= limit) break;
      }
    }
  }
  memory.copy(literals, PLAIN + anchor, end - anchor);
  literals += end - anchor;
  store<u32>(LITERAL_COUNT, <u32>(literals - LITERALS));
  store<u32>(SEQUENCE_COUNT, <u32>index);
  store<u32>(REPEAT_0, <u32>repeat0);
  store<u32>(REPEAT_1, <u32>repeat1);
}
