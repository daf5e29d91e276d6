// Finding matches fast: one table of places by the hash of four bytes, each place tried once.

import {
  HEADS, LITERALS, LITERAL_COUNT, REPEAT_0, REPEAT_1, REPEAT_2, SEQUENCES, SEQUENCE_COUNT,
} from './zstd-encode-scratch';
import { storeSequence } from './zstd-sequence-store';

const PRIME: u32 = 2654435761;

/** Bytes of the end of a block in which no match begins, for what is read there goes beyond it. */
const TAIL: usize = 32;

/** How many bytes from `a` are as those from `b`, which lies before it; `a` ends at `end`. */
// @ts-ignore: decorator
@inline
export function matchLength(a: usize, b: usize, end: usize): usize {
  const start = a;
  while (a + 16 <= end) {
    const same = v128.bitmask<i8>(v128.eq<i8>(v128.load(a), v128.load(b)));
    if (same != 0xffff) return a - start + ctz(~same);
    a += 16;
    b += 16;
  }
  while (a < end && load<u8>(a) == load<u8>(b)) {
    a++;
    b++;
  }
  return a - start;
}

// Up to 15 bytes more than asked for are copied.
// @ts-ignore: decorator
@inline
function copyLiterals(to: usize, from: usize, bytes: usize): void {
  v128.store(to, v128.load(from));
  for (let i: usize = 16; i < bytes; i += 16) v128.store(to + i, v128.load(from + i));
}

// @ts-ignore: decorator
@inline
function slot<T>(word: u32, mask: usize): usize {
  // The highest bits of the product are the best: as many of them as the largest table needs.
  const bits: u32 = sizeof<T>() == 2 ? 18 : 15;
  return HEADS + ((<usize>((word * PRIME) >> bits) & mask) << alignof<T>());
}

// @ts-ignore: decorator
@inline
function remember<T>(base: usize, at: usize, mask: usize): void {
  store<T>(slot<T>(load<u32>(at), mask), <T>(at - base));
}

/**
 * Parses the block from `start` to `end` of the frame that begins at `base`.
 * T is wide enough for a place in the frame; `mask` is the number of slots less one.
 */
export function parseFast<T>(base: usize, start: usize, end: usize, mask: usize, lazy: bool): void {
  let repeat0: usize = load<u32>(REPEAT_0);
  let repeat1: usize = load<u32>(REPEAT_1);
  let repeat2: usize = load<u32>(REPEAT_2);
  let literals: usize = LITERALS;
  let sequence: usize = SEQUENCES;
  let anchor = start;
  let at = start + <usize>(start == base);
  const limit = end - TAIL;
  if (end - start > TAIL) {
    while (at < limit) {
      const word = load<u64>(at);
      const place = slot<T>(<u32>word, mask);
      let from = base + <usize>load<T>(place);
      store<T>(place, <T>(at - base));
      const found = load<u32>(from) == <u32>word;
      const again = load<u32>(at + 1 - repeat0) == <u32>(word >> 8);
      if (!(<u32>found | <u32>again)) {
        at += 1 + ((at - anchor) >> 7);
        continue;
      }
      let length: usize;
      if (again) {
        length = 4 + matchLength(at + 5, at + 5 - repeat0, end);
        let best = length;
        if (found) {
          const other: usize = 4 + matchLength(at + 4, from + 4, end);
          if (other > length + 2) best = other;
        }
        if (best == length) {
          at++;
          from = at - repeat0;
        }
        length = best;
      } else {
        length = 4 + matchLength(at + 4, from + 4, end);
        if (lazy) {
          const next = <u32>(word >> 8);
          const place = slot<T>(next, mask);
          const nextFrom = base + <usize>load<T>(place);
          store<T>(place, <T>(at + 1 - base));
          if (load<u32>(nextFrom) == next) {
            const other: usize = 4 + matchLength(at + 5, nextFrom + 4, end);
            if (other > length) {
              at++;
              from = nextFrom;
              length = other;
            }
          }
        }
      }
      while (at > anchor && from > base && load<u8>(at - 1) == load<u8>(from - 1)) {
        at--;
        from--;
        length++;
      }
      const offset = at - from;
      const run = at - anchor;
      let value: u32 = <u32>offset + 3;
      if (offset == repeat0) {
        if (run) value = 1;
        // Else it cannot be named, and pushes what is the same already.
        else {
          repeat2 = repeat1;
          repeat1 = repeat0;
        }
      } else if (offset == repeat1) {
        value = run ? 2 : 1;
        repeat1 = repeat0;
        repeat0 = offset;
      } else {
        if (offset == repeat2) value = run ? 3 : 2;
        repeat2 = repeat1;
        repeat1 = repeat0;
        repeat0 = offset;
      }
      copyLiterals(literals, anchor, run);
      literals += run;
      storeSequence(sequence, <u32>run, <u32>length - 3, value);
      sequence += 8;
      const begun = at;
      at += length;
      anchor = at;
      if (at >= limit) break;
      remember<T>(base, begun + 2, mask);
      remember<T>(base, at - 2, mask);
      while (load<u32>(at) == load<u32>(at - repeat1)) {
        length = 4 + matchLength(at + 4, at + 4 - repeat1, end);
        const swap = repeat1;
        repeat1 = repeat0;
        repeat0 = swap;
        storeSequence(sequence, 0, <u32>length - 3, 1);
        sequence += 8;
        remember<T>(base, at, mask);
        at += length;
        anchor = at;
        if (at >= limit) break;
      }
    }
  }
  memory.copy(literals, anchor, end - anchor);
  literals += end - anchor;
  store<u32>(LITERAL_COUNT, <u32>(literals - LITERALS));
  store<u32>(SEQUENCE_COUNT, <u32>(sequence - SEQUENCES) >> 3);
  store<u32>(REPEAT_0, <u32>repeat0);
  store<u32>(REPEAT_1, <u32>repeat1);
  store<u32>(REPEAT_2, <u32>repeat2);
}
