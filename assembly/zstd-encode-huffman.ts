// Huffman trees and streams for writing. (RFC 8878, 4.2)
//
// A code word is a u64: the code in the top bits, its length in the lowest six. A stream is made in
// a 64-bit word into which codes are shifted from the top, so that neither a mask nor a second
// shift is needed: what a length leaves at the bottom falls out before it could do harm.

import {
  describe, firstState, layOut, normalise, NORMAL, STEPS, tableLog,
} from './zstd-encode-fse';
import {
  CODE_WORDS, DESCRIPTION, DESCRIPTION_BYTES, HISTOGRAMS, LENGTHS, LENGTHS_MAX, PLACES, SORTED,
  SORTING, TREE, WEIGHTS, WEIGHT_FIELD,
} from './zstd-encode-scratch';

/** Longest code that the format allows. */
const BITS_MAX: u32 = 11;
const WEIGHT_LOG_MAX: u32 = 6;
const BYTE_VALUES: usize = 256;

/** Counts the byte values into the first of HISTOGRAMS. @returns how often the commonest occurs */
export function countBytes(at: usize, bytes: u32): u32 {
  // Four tables, so that equal neighbours need not wait for each other.
  memory.fill(HISTOGRAMS, 0, 4096);
  const end: usize = at + bytes;
  for (; at + 8 <= end; at += 8) {
    const word = load<u64>(at);
    bump(HISTOGRAMS, <u32>word & 255);
    bump(HISTOGRAMS + 1024, <u32>(word >> 8) & 255);
    bump(HISTOGRAMS + 2048, <u32>(word >> 16) & 255);
    bump(HISTOGRAMS + 3072, <u32>(word >> 24) & 255);
    bump(HISTOGRAMS, <u32>(word >> 32) & 255);
    bump(HISTOGRAMS + 1024, <u32>(word >> 40) & 255);
    bump(HISTOGRAMS + 2048, <u32>(word >> 48) & 255);
    bump(HISTOGRAMS + 3072, <u32>(word >> 56));
  }
  for (; at < end; at++) bump(HISTOGRAMS, load<u8>(at));
  let most = v128.splat<u32>(0);
  for (let i: usize = HISTOGRAMS; i < HISTOGRAMS + 1024; i += 16) {
    const sum = v128.add<u32>(
      v128.add<u32>(v128.load(i), v128.load(i, 1024)),
      v128.add<u32>(v128.load(i, 2048), v128.load(i, 3072)),
    );
    v128.store(i, sum);
    most = v128.max<u32>(most, sum);
  }
  return max(
    max(v128.extract_lane<u32>(most, 0), v128.extract_lane<u32>(most, 1)),
    max(v128.extract_lane<u32>(most, 2), v128.extract_lane<u32>(most, 3)),
  );
}

// @ts-ignore: decorator
@inline
function bump(table: usize, value: u32): void {
  const at = table + (<usize>value << 2);
  store<u32>(at, load<u32>(at) + 1);
}

/** Bits of all counted bytes under the code lengths at `lengths`; 2^32 − 1 where one has none. */
export function bitsUnder(lengths: usize): u32 {
  let bits: u32 = 0;
  for (let s: usize = 0; s < BYTE_VALUES; s++) {
    const count = load<u32>(s << 2, HISTOGRAMS);
    const length: u32 = load<u8>(lengths + s);
    if (count != 0 && length == 0) return 0xffffffff;
    bits += count * length;
  }
  return bits;
}

// The byte values that occur, rarest first, as count × 256 + value. Counts are halved where one
// would not fit two bytes. @returns how many there are
function sortByCount(most: u32): u32 {
  const shift: u32 = <u32>(most > 0xffff) + <u32>(most > 0x1ffff);
  memory.fill(PLACES, 0, 2048);
  let kinds: u32 = 0;
  for (let s: u32 = 0; s < 256; s++) {
    const count = load<u32>(<usize>s << 2, HISTOGRAMS);
    if (count == 0) continue;
    const key: u32 = (max(count >> shift, 1) << 8) | s;
    store<u32>(<usize>kinds << 2, key, SORTED);
    bump(PLACES, (key >> 8) & 255);
    bump(PLACES + 1024, key >> 16);
    kinds++;
  }
  let low: u32 = 0;
  let high: u32 = 0;
  for (let i: usize = 0; i < 1024; i += 4) {
    const inLow = load<u32>(i, PLACES);
    const inHigh = load<u32>(i, PLACES + 1024);
    store<u32>(i, low, PLACES);
    store<u32>(i, high, PLACES + 1024);
    low += inLow;
    high += inHigh;
  }
  const end: usize = <usize>kinds << 2;
  for (let i: usize = 0; i < end; i += 4) {
    const key = load<u32>(i, SORTED);
    const place: usize = ((key >> 8) & 255) << 2;
    const to = load<u32>(place, PLACES);
    store<u32>(place, to + 1, PLACES);
    store<u32>(<usize>to << 2, key, SORTING);
  }
  for (let i: usize = 0; i < end; i += 4) {
    const key = load<u32>(i, SORTING);
    const place: usize = (key >> 16) << 2;
    const to = load<u32>(place, PLACES + 1024);
    store<u32>(place, to + 1, PLACES + 1024);
    store<u32>(<usize>to << 2, key, SORTED);
  }
  return kinds;
}

// @ts-ignore: decorator
@inline
function node(i: i32): u32 {
  return load<u32>(<usize>i << 2, TREE);
}

// @ts-ignore: decorator
@inline
function setNode(i: i32, value: u32): void {
  store<u32>(<usize>i << 2, value, TREE);
}

// Moffat and Katajainen's: from sorted counts to code lengths in place, the longest first.
function findLengths(n: i32): void {
  for (let i: i32 = 0; i < n; i++) setNode(i, load<u32>(<usize>i << 2, SORTED) >> 8);
  setNode(0, node(0) + node(1));
  let root: i32 = 0;
  let leaf: i32 = 2;
  for (let next: i32 = 1; next < n - 1; next++) {
    let sum: u32;
    if (leaf >= n || node(root) < node(leaf)) {
      sum = node(root);
      setNode(root++, next);
    } else {
      sum = node(leaf++);
    }
    if (leaf >= n || (root < next && node(root) < node(leaf))) {
      sum += node(root);
      setNode(root++, next);
    } else {
      sum += node(leaf++);
    }
    setNode(next, sum);
  }
  setNode(n - 2, 0);
  for (let next: i32 = n - 3; next >= 0; next--) setNode(next, node(node(next)) + 1);
  let available: i32 = 1;
  let used: i32 = 0;
  let depth: u32 = 0;
  let next: i32 = n - 1;
  root = n - 2;
  while (available > 0) {
    while (root >= 0 && node(root) == depth) {
      used++;
      root--;
    }
    for (; available > used; available--) setNode(next--, depth);
    available = used << 1;
    depth++;
    used = 0;
  }
}

/**
 * Makes the tree of the counted bytes, of which at least two values occur: LENGTHS, LENGTHS_MAX.
 * @param most how often the commonest occurs
 */
export function buildTree(most: u32): void {
  const n = sortByCount(most);
  findLengths(n);
  // How many codes have each length, none longer than allowed. @see PLACES, free by now
  const numbers: usize = PLACES;
  memory.fill(numbers, 0, 64);
  let filled: u32 = 0; // of 1 << BITS_MAX places for codes
  for (let i: u32 = 0; i < n; i++) {
    const length = min(node(i), BITS_MAX);
    bump(numbers, length);
    filled += 1 << (BITS_MAX - length);
  }
  // One code less of full length and another a bit longer, until they fit.
  for (; filled > 1 << BITS_MAX; filled--) {
    let length: u32 = BITS_MAX - 1;
    while (load<u32>(numbers + (<usize>length << 2)) == 0) length--;
    const at: usize = numbers + (<usize>length << 2);
    store<u32>(at, load<u32>(at) - 1);
    store<u32>(at + 4, load<u32>(at + 4) + 2);
    const full: usize = numbers + (<usize>BITS_MAX << 2);
    store<u32>(full, load<u32>(full) - 1);
  }
  memory.fill(LENGTHS, 0, 256);
  let longest: u32 = BITS_MAX;
  while (load<u32>(numbers + (<usize>longest << 2)) == 0) longest--;
  store<u32>(LENGTHS_MAX, longest);
  let i: usize = SORTED;
  for (let length = longest; length > 0; length--) {
    for (let left = load<u32>(numbers + (<usize>length << 2)); left > 0; left--, i += 4) {
      store<u8>(<usize>load<u8>(i), <u8>length, LENGTHS);
    }
  }
}

/** The code words of the lengths at `lengths`, the longest of which is `longest`. */
export function makeCodeWords(lengths: usize, longest: u32): void {
  // The longest codes come first, each length in the order of the symbols.
  const places: usize = PLACES;
  memory.fill(places, 0, 64);
  for (let s: usize = 0; s < BYTE_VALUES; s++) bump(places, load<u8>(lengths + s));
  let next: u32 = 0;
  for (let length = longest; length > 0; length--) {
    const at = places + (<usize>length << 2);
    const numbers = load<u32>(at);
    store<u32>(at, next);
    next = (next + numbers) >> 1;
  }
  for (let s: usize = 0; s < BYTE_VALUES; s++) {
    const length: u32 = load<u8>(lengths + s);
    const at = places + (<usize>length << 2);
    const code = load<u32>(at);
    store<u32>(at, code + 1);
    store<u64>(s << 3, ((<u64>code << 1) << (63 - length)) | length, CODE_WORDS);
  }
}

/**
 * Describes the tree in LENGTHS: DESCRIPTION, DESCRIPTION_BYTES.
 * @returns whether it can be described
 */
export function describeTree(): bool {
  const longest = load<u32>(LENGTHS_MAX);
  memory.fill(WEIGHT_FIELD, 0, 64);
  let last: u32 = 255;
  while (load<u8>(<usize>last, LENGTHS) == 0) last--;
  // The last weight goes without saying.
  for (let s: u32 = 0; s < last; s++) {
    const length: u32 = load<u8>(<usize>s, LENGTHS);
    const weight = length ? longest + 1 - length : 0;
    store<u8>(<usize>s, <u8>weight, WEIGHTS);
    bump(WEIGHT_FIELD, weight);
  }
  const coded = codeWeights(last);
  const plain = (last + 1) >> 1;
  if (coded && (coded < plain || last > 128)) {
    store<u8>(DESCRIPTION, <u8>coded);
    store<u32>(DESCRIPTION_BYTES, coded + 1);
    return true;
  }
  if (last > 128) return false;
  store<u8>(DESCRIPTION, <u8>(127 + last));
  store<u8>(<usize>last, 0, WEIGHTS);
  for (let i: usize = 0; i < plain; i++) {
    const pair = (load<u8>(i << 1, WEIGHTS) << 4) | load<u8>(i << 1, WEIGHTS + 1);
    store<u8>(i, <u8>pair, DESCRIPTION + 1);
  }
  store<u32>(DESCRIPTION_BYTES, plain + 1);
  return true;
}

// Puts the entropy-coded weights behind the description's first byte.
// @returns their bytes; 0 where there are too many, or too few weights, or all are equal
function codeWeights(count: u32): u32 {
  let kinds: u32 = 0;
  let symbols: u32 = 0;
  for (let w: u32 = 0; w <= BITS_MAX + 1; w++) {
    if (load<u32>(WEIGHT_FIELD + (<usize>w << 2)) == 0) continue;
    kinds++;
    symbols = w + 1;
  }
  if (kinds < 2 || count < 3) return 0;
  const log = tableLog(count, kinds, WEIGHT_LOG_MAX);
  normalise(WEIGHT_FIELD, symbols, count, log);
  const to: usize = DESCRIPTION + 1;
  let out: usize = to + describe(WEIGHT_FIELD + NORMAL, symbols, log, to);
  layOut(WEIGHT_FIELD, symbols, WEIGHT_FIELD + NORMAL, log);
  // Two states take turns, from the last weight to the first.
  let at: usize = count - 1;
  let mine = firstState(WEIGHT_FIELD, load<u8>(at, WEIGHTS));
  let other = firstState(WEIGHT_FIELD, load<u8>(at - 1, WEIGHTS));
  let acc: u64 = 0;
  let bits: u64 = 0;
  for (at--; at > 0;) {
    at--;
    const step = load<u64>(WEIGHT_FIELD + (<usize>load<u8>(at, WEIGHTS) << 3), STEPS);
    const taken: u64 = (mine + <u64><u32>step) >> 16 & 63;
    acc |= (mine & ((<u64>1 << taken) - 1)) << bits;
    bits += taken;
    const next: u64 = load<u16>(<usize>(step >> 32) + (<usize>(mine >> taken) << 1));
    mine = other;
    other = next;
    store<u64>(out, acc);
    out += <usize>(bits >> 3);
    acc >>= bits & 0x38;
    bits &= 7;
    if (out - to > 127) return 0;
  }
  // The state of the second weight goes first: the reader begins with that of the first.
  const mask: u64 = (1 << log) - 1;
  acc |= ((mine & mask) << bits) | ((other & mask) << (bits + log)) | (<u64>1 << (bits + 2 * log));
  store<u64>(out, acc);
  const bytes = <u32>(out - to) + <u32>((bits + 2 * log + 8) >> 3);
  return bytes < 128 ? bytes : 0;
}

/** Writes the bytes from `at` as one stream. @returns where it ends */
export function writeStream(at: usize, bytes: u32, to: usize): usize {
  let acc: u64 = 0;
  let count: u64 = 0;
  let from: usize = at + bytes;
  for (let odd = bytes & 3; odd > 0; odd--) {
    from--;
    const word = codeWord(from, 0);
    acc = (acc >> word) | word;
    count += word & 63;
  }
  while (from > at) {
    // Up to 33 bits of three in `acc` already; 44 and 7 in all.
    from -= 4;
    const d = codeWord(from, 3);
    const c = codeWord(from, 2);
    const b = codeWord(from, 1);
    const a = codeWord(from, 0);
    const dc = (d >> c) | c;
    const ba = (b >> a) | a;
    if (count > 12) {
      store<u64>(to, acc >> (64 - count));
      to += <usize>(count >> 3);
      count &= 7;
    }
    const first = (d & 63) + (c & 63);
    const second = (b & 63) + (a & 63);
    acc = (acc >> first) | (dc & ~<u64>63);
    acc = (acc >> second) | (ba & ~<u64>63);
    count += first + second;
  }
  acc = (acc >> 1) | (<u64>1 << 63);
  count++;
  store<u64>(to, acc >> (64 - count));
  return to + <usize>((count + 7) >> 3);
}

// @ts-ignore: decorator
@inline
function codeWord(at: usize, offset: usize): u64 {
  return load<u64>(<usize>load<u8>(at + offset) << 3, CODE_WORDS);
}
