// The cheapest parse of a block by what everything is said to cost.
//
// COSTS has for each place of the block the price, in 1/256 bits, of the cheapest way found so far
// to have the bytes before it; its node has that way's last step:
//
//   0   u32  on the way back: the next place
//   4   u32  literals since the last match
//   8   u32  length of the match that ends here; 0 if a literal does
//   12  u32  offset value of that match, as the sequence has it
//   16  u32  the three repeated offsets from here on
//
// Places are settled from the first to the last: when one is reached nothing leads to it any more.

import {
  COSTS, FOUND, LITERALS, LITERAL_COUNT, NODES, PLAIN, REPEAT_0, REPEAT_1, REPEAT_2, SEQUENCE_COUNT,
} from './zstd-encode-scratch';
import { collectMatches, NICE_LENGTH } from './zstd-match-chain';
import { matchLength } from './zstd-match-fast';
import {
  guessPrices, learnPrices, lengthPrice, literalPrice, matchPrice, MATCH_PRICES, offsetPrice,
  PRICED_MAX,
} from './zstd-price';
import { clearCounts, storeSequence } from './zstd-sequence-store';

const UNREACHED: u32 = 0x7fffffff;
const MATCH_MIN: usize = 3;

// @ts-ignore: decorator
@inline
function node(i: usize): usize {
  return NODES + (i << 5);
}

// Offers a match of the given lengths to the nodes it leads to.
// @ts-ignore: decorator
@inline
function relax(
  from: usize, shortest: usize, longest: usize, price: u32, value: u32, r0: u32, r1: u32, r2: u32,
): void {
  const prices = v128.splat<u32>(price);
  for (let length = shortest; length <= longest; length += 4) {
    const costs = COSTS + ((from + length) << 2);
    const listed = length <= PRICED_MAX - 3
      ? v128.load(length << 2, MATCH_PRICES)
      : v128.splat<u32>(matchPrice(<u32>length));
    const sums = v128.add<u32>(prices, listed);
    let cheaper = v128.bitmask<i32>(v128.lt<i32>(sums, v128.load(costs)));
    if (longest - length < 3) cheaper &= (2 << <i32>(longest - length)) - 1;
    // Most of the time something else is cheaper.
    for (; cheaper; cheaper &= cheaper - 1) {
      const k: usize = ctz(cheaper);
      const sum = price + (
        length <= PRICED_MAX - 3
          ? load<u32>((length + k) << 2, MATCH_PRICES)
          : matchPrice(<u32>(length + k))
      );
      store<u32>(costs + (k << 2), sum);
      const to = node(from + length + k);
      store<u32>(to, 0, 4);
      store<u32>(to, <u32>(length + k), 8);
      store<u32>(to, value, 12);
      store<u32>(to, r0, 16);
      store<u32>(to, r1, 20);
      store<u32>(to, r2, 24);
    }
  }
}

function settle(start: usize, end: usize): void {
  const count = end - start;
  for (let i: usize = 0; i <= count; i += 4) {
    v128.store(COSTS + (i << 2), v128.splat<u32>(UNREACHED));
  }
  const first = node(0);
  store<u32>(COSTS, lengthPrice(0));
  store<u32>(first, 0, 4);
  store<u32>(first, 0, 8);
  store<u32>(first, load<u32>(REPEAT_0), 16);
  store<u32>(first, load<u32>(REPEAT_1), 20);
  store<u32>(first, load<u32>(REPEAT_2), 24);
  const free = lengthPrice(0);
  for (let i: usize = 0; i < count;) {
    const here = node(i);
    const price = load<u32>(i << 2, COSTS);
    const literals = load<u32>(here, 4);
    const r0 = load<u32>(here, 16);
    const r1 = load<u32>(here, 20);
    const r2 = load<u32>(here, 24);
    // One more literal.
    const more =
      price + literalPrice(start + i) + lengthPrice(literals + 1) - lengthPrice(literals);
    const next = here + 32;
    if (more < load<u32>(i << 2, COSTS + 4)) {
      store<u32>(i << 2, more, COSTS + 4);
      store<u32>(next, literals + 1, 4);
      store<u32>(next, 0, 8);
      v128.store(next, v128.load(here, 16), 16);
    }
    const at = start + i;
    if (count - i < MATCH_MIN) {
      i++;
      continue;
    }
    // The repeated offsets: what they are called depends on whether there are literals.
    const word = load<u32>(at, PLAIN) << 8;
    let longest: usize = MATCH_MIN - 1;
    for (let k: u32 = 0; k < 3; k++) {
      const n: u32 = literals ? k : k + 1;
      const offset: u32 = n == 0 ? r0 : n == 1 ? r1 : n == 2 ? r2 : r0 - 1;
      if (offset == 0 || <usize>offset > at) continue;
      if (load<u32>(at - offset, PLAIN) << 8 != word) continue;
      const length = matchLength(at, at - offset, end);
      if (length < MATCH_MIN) continue;
      const cost = price + free + offsetPrice(k + 1);
      const second = n == 0 ? r1 : r0;
      const third = n < 2 ? r2 : r1;
      const shortest = length >= NICE_LENGTH ? length : MATCH_MIN;
      relax(i, shortest, length, cost, k + 1, offset, second, third);
      longest = max(longest, length);
    }
    let found: usize = load<u32>(FOUND + (i << 2));
    const foundEnd: usize = load<u32>(FOUND + (i << 2), 4);
    let shortest: usize = MATCH_MIN;
    for (; found < foundEnd; found += 8) {
      const length: usize = load<u32>(found);
      const offset = load<u32>(found, 4);
      const cost = price + free + offsetPrice(offset + 3);
      if (length >= NICE_LENGTH) shortest = length;
      relax(i, shortest, length, cost, offset + 3, offset, r0, r1);
      shortest = length + 1;
      longest = max(longest, length);
    }
    i += longest >= NICE_LENGTH ? longest : 1;
  }
}

// Stores what led to the end.
function storeCheapest(start: usize, end: usize): void {
  const count = end - start;
  // Backwards first: each node on the way learns where the next one is, in place of its price.
  let i = count;
  let next: usize = 0;
  while (true) {
    const here = node(i);
    store<u32>(here, <u32>next);
    if (i == 0) break;
    next = i;
    const length: usize = load<u32>(here, 8);
    i -= max(length, 1);
  }
  clearCounts();
  let literals = LITERALS;
  let index: usize = 0;
  let run: u32 = 0;
  while (i != count) {
    const to: usize = load<u32>(node(i));
    const reached = node(to);
    const length = load<u32>(reached, 8);
    if (length == 0) {
      store<u8>(literals, load<u8>(start + i, PLAIN));
      literals++;
      run++;
    } else {
      storeSequence(index, run, length - 3, load<u32>(reached, 12));
      index++;
      run = 0;
    }
    i = to;
  }
  store<u32>(LITERAL_COUNT, <u32>(literals - LITERALS));
  store<u32>(SEQUENCE_COUNT, <u32>index);
}

/** Parses the block from `start` to `end` of PLAIN, `passes` times over the matches once found. */
export function parseOptimal(
  start: usize, end: usize, mask: usize, depth: u32, passes: u32,
): void {
  collectMatches(start, end, depth, mask);
  guessPrices(start, end);
  for (; passes > 0; passes--) {
    settle(start, end);
    storeCheapest(start, end);
    if (passes > 1) learnPrices();
  }
  const last = node(end - start);
  store<u32>(REPEAT_0, load<u32>(last, 16));
  store<u32>(REPEAT_1, load<u32>(last, 20));
  store<u32>(REPEAT_2, load<u32>(last, 24));
}
