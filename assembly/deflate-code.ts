// Huffman codes of limited length: from frequencies to code word lengths, and from those to the
// code words of RFC 1951.

import {
  DIGITS, LENGTH_COUNTS, NEXT_WORDS, NODES, SORTED, SORTING,
} from './deflate-scratch';

// @ts-ignore: decorator
@inline
function counter(index: u32): usize {
  return DIGITS + (<usize>index << 2);
}

// Sorts `count` keys at SORTING by eight bits of them; the result stands at SORTED.
function sortByDigit(count: u32, shift: u32): void {
  memory.fill(DIGITS, 0, 1024);
  const end = SORTING + (<usize>count << 2);
  for (let key = SORTING; key < end; key += 4) {
    const digit = counter((load<u32>(key) >> shift) & 255);
    store<u32>(digit, load<u32>(digit) + 4);
  }
  let place: u32 = 0;
  for (let digit = DIGITS; digit < DIGITS + 1024; digit += 4) {
    const size = load<u32>(digit);
    store<u32>(digit, place);
    place += size;
  }
  for (let from = SORTING; from < end; from += 4) {
    const key = load<u32>(from);
    const digit = counter((key >> shift) & 255);
    const to = load<u32>(digit);
    store<u32>(digit, to + 4);
    store<u32>(SORTED + to, key);
  }
}

// Puts the symbols that come up into SORTED, the rarest first. Returns how many there are.
function sortSymbols(counts: usize, symbols: u32): u32 {
  let used: u32 = 0;
  let all: u32 = 0;
  for (let symbol: u32 = 0; symbol < symbols; symbol++) {
    const count = load<u32>(counts + (<usize>symbol << 2));
    if (count == 0) continue;
    all |= count;
    store<u32>(SORTING + (<usize>used << 2), (count << 9) | symbol);
    used++;
  }
  sortByDigit(used, 9);
  for (let shift: u32 = 17; shift < 32 && all >> (shift - 9) > 0; shift += 8) {
    memory.copy(SORTING, SORTED, used << 2);
    sortByDigit(used, shift);
  }
  return used;
}

// @ts-ignore: decorator
@inline
function node(index: u32): usize {
  return NODES + (<usize>index << 2);
}

// @ts-ignore: decorator
@inline
function lengthCount(length: u32): usize {
  return LENGTH_COUNTS + (<usize>length << 2);
}

// Joins the two lightest again and again. Inner nodes come out lightest first; each holds its
// weight until it is joined, then the index of its parent.
function buildTree(used: u32): void {
  let leaf: u32 = 0;
  let root: u32 = 0;
  let leafWeight = load<u32>(SORTED) >> 9;
  for (let next: u32 = 0; next < used - 1; next++) {
    let weight: u32 = 0;
    for (let side = 0; side < 2; side++) {
      if (leaf < used && (root == next || leafWeight <= load<u32>(node(root)))) {
        weight += leafWeight;
        leaf++;
        leafWeight = load<u32>(SORTED + (<usize>leaf << 2)) >> 9;
      } else {
        weight += load<u32>(node(root));
        store<u32>(node(root++), next);
      }
    }
    store<u32>(node(next), weight);
  }
}

// Counts how many code words there are of each length, none above `limit`: those that the tree
// has longer are made as long as the limit, and others longer for it until they fit.
function countLengths(used: u32, limit: u32): void {
  memory.fill(LENGTH_COUNTS, 0, 16 * 4);
  // From the root: each node holds its depth instead. A node turns one leaf into two, one deeper.
  let overfull: u32 = 0;
  store<u32>(node(used - 2), 0);
  store<u32>(lengthCount(1), 2);
  for (let i = <i32>used - 3; i >= 0; i--) {
    const depth = load<u32>(node(load<u32>(node(i)))) + 1;
    store<u32>(node(i), depth);
    const length = min(depth, limit);
    const deeper = min(depth + 1, limit);
    store<u32>(lengthCount(length), load<u32>(lengthCount(length)) - 1);
    store<u32>(lengthCount(deeper), load<u32>(lengthCount(deeper)) + 2);
    if (depth >= limit) overfull++;
  }
  // A leaf at the limit stood for one: now there are `overfull` more of them than fit.
  while (overfull > 0) {
    let length = limit - 1;
    while (load<u32>(lengthCount(length)) == 0) length--;
    // One leaf of this length makes room below it for as many as its subtree has.
    store<u32>(lengthCount(length), load<u32>(lengthCount(length)) - 1);
    store<u32>(lengthCount(length + 1), load<u32>(lengthCount(length + 1)) + 2);
    store<u32>(lengthCount(limit), load<u32>(lengthCount(limit)) - 1);
    overfull--;
  }
}

/**
 * Finds the lengths of a code: none above `limit`, 0 for symbols that do not come up. Two symbols
 * have code words at least, so that the code is complete: not every reader takes another.
 * @param counts u32 per symbol, below 2^23
 * @param lengths u8 per symbol
 */
export function codeLengths(counts: usize, symbols: u32, limit: u32, lengths: usize): void {
  memory.fill(lengths, 0, symbols);
  const used = sortSymbols(counts, symbols);
  if (used < 2) {
    const only = used == 0 ? 0 : load<u32>(SORTED) & 511;
    store<u8>(lengths, 1);
    store<u8>(lengths + max<u32>(only, 1), 1);
    return;
  }
  buildTree(used);
  countLengths(used, limit);
  let at = SORTED;
  for (let length = limit; length > 0; length--) {
    for (let left = load<u32>(lengthCount(length)); left > 0; left--) {
      store<u8>(lengths + (load<u32>(at) & 511), <u8>length);
      at += 4;
    }
  }
}

// @ts-ignore: decorator
@inline
function reversed(bits: u32): u32 {
  bits = ((bits & 0x5555) << 1) | ((bits >> 1) & 0x5555);
  bits = ((bits & 0x3333) << 2) | ((bits >> 2) & 0x3333);
  bits = ((bits & 0x0f0f) << 4) | ((bits >> 4) & 0x0f0f);
  return ((bits & 0xff) << 8) | (bits >> 8);
}

/**
 * Finds the code words.
 * @param words per symbol: u32, the code word, first bit lowest, and from bit 24 on its length
 */
export function codeWords(lengths: usize, symbols: u32, words: usize): void {
  memory.fill(LENGTH_COUNTS, 0, 16 * 4);
  for (let symbol: u32 = 0; symbol < symbols; symbol++) {
    const count = lengthCount(load<u8>(lengths + symbol));
    store<u32>(count, load<u32>(count) + 1);
  }
  store<u32>(LENGTH_COUNTS, 0);
  let word: u32 = 0;
  for (let length: u32 = 1; length < 16; length++) {
    word = (word + load<u32>(lengthCount(length - 1))) << 1;
    store<u32>(NEXT_WORDS + (<usize>length << 2), word);
  }
  for (let symbol: u32 = 0; symbol < symbols; symbol++) {
    const length: u32 = load<u8>(lengths + symbol);
    if (length == 0) {
      store<u32>(words + (<usize>symbol << 2), 0);
      continue;
    }
    const next = NEXT_WORDS + (<usize>length << 2);
    const code = load<u32>(next);
    store<u32>(next, code + 1);
    store<u32>(words + (<usize>symbol << 2), (reversed(code) >> (16 - length)) | (length << 24));
  }
}
