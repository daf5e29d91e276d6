// A parse that looks up to two places ahead for a better match before it takes one.

import {
  LITERALS, LITERAL_COUNT, PLAIN, REPEAT_0, REPEAT_1, REPEAT_2, SEQUENCE_COUNT,
} from './zstd-encode-scratch';
import { insertChain, longestMatch } from './zstd-match-chain';
import { copyLiterals, matchBack, matchLength } from './zstd-match-fast';
import { storeSequence } from './zstd-sequence-store';

/** Bytes at the end of a block in which no match begins. */
const TAIL: usize = 10;
/** A length from which on nothing better is looked for. */
const ENOUGH: usize = 64;

/** What a match is worth, in quarters of a byte: its length less what its offset costs. */
// @ts-ignore: decorator
@inline
function worth(length: usize, offset: usize): i32 {
  return <i32>(length << 2) - <i32>(32 - clz(<u32>offset));
}

/** Parses the block from `start` to `end` of PLAIN; each search tries `depth` places. */
export function parseLazy(start: usize, end: usize, mask: usize, depth: u32): void {
  let repeat0: usize = load<u32>(REPEAT_0);
  let repeat1: usize = load<u32>(REPEAT_1);
  let literals: usize = LITERALS;
  let index: usize = 0;
  let anchor = start;
  let next = start; // the first place that is not in its chain yet
  let ahead = start + <usize>(start == 0);
  const limit = end - TAIL;
  while (end - start > TAIL && ahead < limit) {
    // The best of three places at most; each time something better is found it starts again.
    let at: usize = 0;
    let length: usize = 0;
    let offset: usize = 0;
    let value: i32 = 0;
    for (let left = 3; left > 0 && ahead < limit; left--) {
      let better = false;
      if (load<u32>(ahead, PLAIN) == load<u32>(ahead - repeat0, PLAIN) && ahead > anchor) {
        const long = matchLength(ahead, ahead - repeat0, end);
        const gain = <i32>(long << 2);
        if (gain > value + 1) {
          at = ahead;
          length = long;
          offset = repeat0;
          value = gain;
          better = true;
        }
      }
      insertChain(next, ahead, mask);
      next = ahead;
      const found = longestMatch(ahead, end, 3, depth, mask);
      if (found) {
        const long: usize = <usize>(found & 0xffffffff);
        const gain = worth(long, <usize>(found >> 32));
        // One more literal costs some.
        if (gain > value + (length ? 4 : -100)) {
          at = ahead;
          length = long;
          offset = <usize>(found >> 32);
          value = gain;
          better = true;
        }
      }
      if (length == 0 || length >= ENOUGH) break;
      ahead++;
      if (better) left = 3;
    }
    if (length == 0) {
      ahead += 1 + ((ahead - anchor) >> 8);
      continue;
    }
    const back = matchBack(at, at - offset, min(at - anchor, at - offset));
    at -= back;
    length += back;
    const run = at - anchor;
    let name: u32 = <u32>offset + 3;
    if (offset == repeat0) {
      // Without literals it cannot be named, and pushes out the third.
      if (run) name = 1;
      else {
        store<u32>(REPEAT_2, <u32>repeat1);
        repeat1 = repeat0;
      }
    } else {
      if (offset == repeat1) {
        name = run ? 2 : 1;
      } else {
        if (offset == load<u32>(REPEAT_2)) name = run ? 3 : 2;
        store<u32>(REPEAT_2, <u32>repeat1);
      }
      repeat1 = repeat0;
      repeat0 = offset;
    }
    copyLiterals(literals, anchor, run);
    literals += run;
    storeSequence(index, <u32>run, <u32>length - 3, name);
    index++;
    at += length;
    while (at < limit && load<u32>(at, PLAIN) == load<u32>(at - repeat1, PLAIN)) {
      length = matchLength(at, at - repeat1, end);
      const swap = repeat1;
      repeat1 = repeat0;
      repeat0 = swap;
      storeSequence(index, 0, <u32>length - 3, 1);
      index++;
      at += length;
    }
    anchor = at;
    ahead = at;
  }
  // What no search has asked for, the next block's may.
  if (next < limit && end - start > TAIL) insertChain(next, limit, mask);
  memory.copy(literals, PLAIN + anchor, end - anchor);
  literals += end - anchor;
  store<u32>(LITERAL_COUNT, <u32>(literals - LITERALS));
  store<u32>(SEQUENCE_COUNT, <u32>index);
  store<u32>(REPEAT_0, <u32>repeat0);
  store<u32>(REPEAT_1, <u32>repeat1);
}
