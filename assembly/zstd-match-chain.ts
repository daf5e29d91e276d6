// Finding matches thoroughly: all places with the same hash of four bytes in a chain, the latest
// first, and the last place of each three bytes.
//
// A head or link is a place plus one; 0 is the end.

import {
  CHAIN, FOUND, HEADS, MATCHES, MATCHES_END, PLAIN, SHORT_HEADS,
} from './zstd-encode-scratch';
import { matchLength } from './zstd-match-fast';

const PRIME: u32 = 2654435761;
/** A match this long is good enough: what begins inside of it is not looked for. */
export const NICE_LENGTH: u32 = 128;

/** Forgets all places; `mask` is the number of slots less one. */
export function clearChains(mask: u32): void {
  memory.fill(HEADS, 0, (mask + 1) << 2);
  memory.fill(SHORT_HEADS, 0, (mask + 1) << 2);
}

// @ts-ignore: decorator
@inline
function slot(word: u32, mask: usize): usize {
  return (<usize>((word * PRIME) >> 16) & mask) << 2;
}

/** Puts the places from `next` up to `at` into their chains. */
export function insertChain(next: usize, at: usize, mask: usize): void {
  for (; next < at; next++) {
    const head = slot(load<u32>(next, PLAIN), mask);
    store<u32>(next << 2, load<u32>(head, HEADS), CHAIN);
    store<u32>(head, <u32>next + 1, HEADS);
  }
}

/**
 * The longest match for `at` among `depth` places of its chain, and longer than `least` (>= 3).
 * All places before `at` are in their chains.
 * @returns the length in the low half, 0 if there is none, and the offset in the high half
 */
export function longestMatch(at: usize, end: usize, least: usize, depth: u32, mask: usize): u64 {
  let best = least;
  let offset: usize = 0;
  let from: usize = load<u32>(slot(load<u32>(at, PLAIN), mask), HEADS);
  while (from != 0 && depth-- > 0) {
    from--;
    if (load<u32>(from + best, PLAIN - 3) == load<u32>(at + best, PLAIN - 3)) {
      const length = matchLength(at, from, end);
      if (length > best) {
        best = length;
        offset = at - from;
        if (at + length >= end) break;
      }
    }
    from = load<u32>(from << 2, CHAIN);
  }
  return offset ? <u64>best | (<u64>offset << 32) : 0;
}

/**
 * Lists what may be of use of the matches of every place from `start` to `end`: those that are
 * longer than all nearer ones. FOUND has where each place's begin in MATCHES.
 */
export function collectMatches(start: usize, end: usize, depthMax: u32, mask: usize): void {
  let to = MATCHES;
  let found = FOUND;
  let rest: usize = 0; // bytes left of a match that was long enough
  for (let at = start; at < end; at++, found += 4) {
    store<u32>(found, <u32>to);
    if (at + 8 > end) continue;
    const word = load<u32>(at, PLAIN);
    const head = slot(word, mask);
    const shortHead = slot(word << 8, mask);
    let from: usize = load<u32>(head, HEADS);
    const near: usize = load<u32>(shortHead, SHORT_HEADS);
    store<u32>(at << 2, <u32>from, CHAIN);
    store<u32>(head, <u32>at + 1, HEADS);
    store<u32>(shortHead, <u32>at + 1, SHORT_HEADS);
    if (rest > 0) {
      rest--;
      continue;
    }
    if (to + (64 << 3) > MATCHES_END) continue;
    let best: usize = 3;
    if (near != 0 && !((load<u32>(near, PLAIN - 1) ^ word) & 0xffffff)) {
      best = matchLength(at, near - 1, end);
      store<u64>(to, <u64>best | (<u64>(at + 1 - near) << 32));
      to += 8;
    }
    const last = to + (56 << 3);
    let depth = depthMax;
    while (from != 0 && depth-- > 0) {
      from--;
      if (load<u32>(from + best, PLAIN - 3) == load<u32>(at + best, PLAIN - 3)) {
        const length = matchLength(at, from, end);
        if (length > best) {
          best = length;
          store<u64>(to, <u64>length | (<u64>(at - from) << 32));
          to += 8;
          if (at + length >= end || to == last) break;
        }
      }
      from = load<u32>(from << 2, CHAIN);
    }
    if (best >= NICE_LENGTH) rest = best - 1;
  }
  store<u32>(found, <u32>to);
}
