// The tables that inflate.ts decodes with, out of the lengths of code words. (RFC 1951, 3.2.2)
//
// A literal/length entry. Shift counts wrap at 64, so the low six bits and, behind a shift, the
// six from bit 24 on serve as counts without being masked out.
//
//   0–5    bits to take from the buffer: code words and extra bits
//   6      MATCH: a length ends the entry (or, with bit 7, it is exceptional)
//   7      EXCEPTION: end of block, forbidden code, or link to a subtable
//   8–15   first literal
//   16–23  second literal, or length - 3; an exception has in 8–23 which one it is
//   24–29  2 + bits of the code words: where the extra bits start in `bits`; 63 in an exception
//   30–31  number of literals, 0–2
//
// A distance entry:
//
//   0–5    bits to take · 7 EXCEPTION · 8–13 as 24–29 above · 16–31 distance, or byte offset
//
// An entry of the pair table has two literals, or a literal and a length, wherever both code words
// fit its index: that halves the look-ups and, above all, the branches nobody can predict.

import { SCRATCH } from './layout';

// @ts-ignore: decorator
@inline export const MATCH: u64 = 1 << 6;
// @ts-ignore: decorator
@inline export const EXCEPTION: u64 = 1 << 7;

// What an exception is: the bits 8–23 of its entry. Links hold an offset, and none is this low.
// @ts-ignore: decorator
@inline export const END_OF_BLOCK: u32 = 0;
// @ts-ignore: decorator
@inline export const FORBIDDEN: u32 = 1;

// Twelve bits rather than eleven are 2 % faster: more pairs fit, and the 16 KiB are still at home
// in the first-level cache. Of the distances, one in five hundred has more than its eight bits.
// @ts-ignore: decorator
@inline export const LITLEN_BITS: u32 = 12;
// @ts-ignore: decorator
@inline export const LITLEN_MASK: u64 = ((1 << 12) - 1) << 2;
// @ts-ignore: decorator
@inline export const DIST_BITS: u32 = 8;
// @ts-ignore: decorator
@inline export const DIST_MASK: u64 = ((1 << 8) - 1) << 2;
// Subtables are as large as the longest code word (15 bits) asks for. That wastes room, but a
// link then needs no size of its own.
// @ts-ignore: decorator
@inline export const LITLEN_SUB_MASK: u64 = ((1 << 3) - 1) << 2;
// @ts-ignore: decorator
@inline export const DIST_SUB_MASK: u64 = ((1 << 7) - 1) << 2;

// The scratch area. A subtable serves at least two symbols: 143 and 15 of them at most.
/** 4096 entries, one symbol each, then 143 subtables of 8. */
// @ts-ignore: decorator
@inline export const LITLEN: usize = SCRATCH;
// @ts-ignore: decorator
@inline export const PAIRS: usize = SCRATCH + 0x5200; // 4096 entries
// @ts-ignore: decorator
@inline export const DIST: usize = SCRATCH + 0x9200; // 256 entries, then 15 subtables of 128
// @ts-ignore: decorator
@inline export const LENGTHS: usize = SCRATCH + 0xb400; // u8 per symbol: bits of its code word
// @ts-ignore: decorator
@inline export const SORTED: usize = SCRATCH + 0xb600; // u16: the symbols by length, then by value
// @ts-ignore: decorator
@inline export const CODES: usize = SCRATCH + 0xb900; // u16: their code words, first bit lowest
// @ts-ignore: decorator
@inline export const COUNTS: usize = SCRATCH + 0xbc00; // u16 per length: symbols that have it
// @ts-ignore: decorator
@inline export const PLACES: usize = SCRATCH + 0xbc20; // u16 per length: where they start in SORTED

// @ts-ignore: decorator
@inline
function exception(which: u32, length: u32): u32 {
  return (63 << 24) | (which << 8) | <u32>MATCH | <u32>EXCEPTION | length;
}

// The entry of a literal/length symbol whose code word ends `length` bits into the look-up.
function litlenEntry(symbol: u32, length: u32): u32 {
  const taken = ((2 + length) << 24) | length;
  if (symbol < 256) return (1 << 30) | (symbol << 16) | (symbol << 8) | taken;
  if (symbol == 256) return exception(END_OF_BLOCK, length);
  const i = symbol - 257;
  if (i < 8) return (i << 16) | <u32>MATCH | taken;
  if (i == 28) return (255 << 16) | <u32>MATCH | taken;
  if (i > 28) return exception(FORBIDDEN, length);
  const extra = (i >> 2) - 1;
  return (((4 + (i & 3)) << extra) << 16) | <u32>MATCH | (taken + extra);
}

// The same for a distance symbol.
function distEntry(symbol: u32, length: u32): u32 {
  const taken = ((2 + length) << 8) | length;
  if (symbol < 4) return ((symbol + 1) << 16) | taken;
  if (symbol > 29) return (FORBIDDEN << 16) | <u32>EXCEPTION | length;
  const extra = (symbol >> 1) - 1;
  return ((((2 + (symbol & 1)) << extra) + 1) << 16) | (taken + extra);
}

// Sorts the symbols by the lengths of their code words. Returns how many code words of 15 bits
// are left unused, or a negative number if there are more code words than fit.
export function sortSymbols(lengths: usize, symbols: u32): i32 {
  v128.store(COUNTS, i64x2.splat(0));
  v128.store(COUNTS, i64x2.splat(0), 16);
  for (let i: u32 = 0; i < symbols; i++) {
    const count = COUNTS + (<usize>load<u8>(lengths + i) << 1);
    store<u16>(count, load<u16>(count) + 1);
  }
  let unused: i32 = 1;
  let place: u32 = load<u16>(COUNTS);
  for (let length: u32 = 1; length <= 15; length++) {
    const count: u32 = load<u16>(COUNTS + (<usize>length << 1));
    store<u16>(PLACES + (<usize>length << 1), place);
    place += count;
    unused = (unused << 1) - count;
    if (unused < 0) return unused;
  }
  store<u16>(PLACES, 0);
  for (let i: u32 = 0; i < symbols; i++) {
    const next = PLACES + (<usize>load<u8>(lengths + i) << 1);
    const to: u32 = load<u16>(next);
    store<u16>(SORTED + (<usize>to << 1), i);
    store<u16>(next, to + 1);
  }
  return unused;
}

// The code word after `code` among those of `length` bits, first bit lowest. (The last one is
// followed by itself.)
// @ts-ignore: decorator
@inline
export function nextCode(code: u32, length: u32): u32 {
  const zeros = code ^ ((1 << length) - 1);
  if (zeros == 0) return code;
  const bit: u32 = 1 << (31 - clz(zeros));
  return (code & (bit - 1)) | bit;
}

// Builds a two-level table from code word lengths; false if they make no code that zlib accepts.
// The first level grows by doubling: a slot's entry is right for all indices that continue it.
// @ts-ignore: decorator
@inline
function buildTable(
  lengths: usize, symbols: u32, table: usize, tableBits: u32, subBits: u32, isDist: bool,
): bool {
  const unused = sortSymbols(lengths, symbols);
  if (unused < 0) return false;
  let i: u32 = load<u16>(COUNTS);
  if (unused > 0) {
    // Not every bit string is a code word: allowed with a single code word, of one bit, and for
    // distances with none.
    const used = symbols - i;
    const isSingle = used == 1 && load<u16>(COUNTS, 2) == 1;
    if (!isSingle && !(isDist && used == 0)) return false;
    const none: u32 = isDist ? distEntry(30, 1) : exception(FORBIDDEN, 1);
    let entry = none;
    if (used == 1) {
      const symbol: u32 = load<u16>(SORTED + (<usize>i << 1));
      entry = isDist ? distEntry(symbol, 1) : litlenEntry(symbol, 1);
    }
    for (let slot: usize = 0; slot < (4 << tableBits); slot += 8) {
      store<u32>(table + slot, entry);
      store<u32>(table + slot, none, 4);
    }
    return true;
  }
  let code: u32 = 0;
  let length: u32 = 1;
  for (; length <= tableBits; length++) {
    const half: usize = 2 << length;
    if (length <= 3) {
      for (let slot: usize = 0; slot < half; slot += 4) {
        store<u32>(table + half + slot, load<u32>(table + slot));
      }
    } else {
      for (let slot: usize = 0; slot < half; slot += 16) {
        v128.store(table + half + slot, v128.load(table + slot));
      }
    }
    const end = i + load<u16>(COUNTS + (<usize>length << 1));
    for (; i < end; i++) {
      const symbol: u32 = load<u16>(SORTED + (<usize>i << 1));
      if (!isDist) store<u16>(CODES + (<usize>i << 1), code);
      store<u32>(
        table + (<usize>code << 2),
        isDist ? distEntry(symbol, length) : litlenEntry(symbol, length),
      );
      code = nextCode(code, length);
    }
  }
  let prefix: u32 = -1;
  let links: u32 = (4 << tableBits) - (4 << subBits);
  for (; length <= 15; length++) {
    const end = i + load<u16>(COUNTS + (<usize>length << 1));
    for (; i < end; i++) {
      const symbol: u32 = load<u16>(SORTED + (<usize>i << 1));
      if ((code & ((1 << tableBits) - 1)) != prefix) {
        prefix = code & ((1 << tableBits) - 1);
        links += 4 << subBits;
        store<u32>(
          table + (<usize>prefix << 2),
          isDist ? (links << 16) | <u32>EXCEPTION | tableBits : exception(links, tableBits),
        );
      }
      const rest = length - tableBits;
      const entry = isDist ? distEntry(symbol, rest) : litlenEntry(symbol, rest);
      for (let sub = code >> tableBits; sub < (<u32>1 << subBits); sub += 1 << rest) {
        store<u32>(table + links + (<usize>sub << 2), entry);
      }
      code = nextCode(code, length);
    }
  }
  return true;
}

// Makes PAIRS of LITLEN: behind every literal, whatever symbol still fits the index. The entries
// that may follow a literal stand side by side, in the order in which their pairs do.
function buildPairs(): void {
  memory.copy(PAIRS, LITLEN, 4 << LITLEN_BITS);
  let i: u32 = load<u16>(COUNTS);
  let shortest: u32 = 1;
  while (shortest < LITLEN_BITS && !load<u16>(COUNTS + (<usize>shortest << 1))) shortest++;
  const others = i32x4.splat(~0xff00);
  const longest = LITLEN_BITS - max<u32>(shortest, 2);
  for (let length = shortest; length <= longest; length++) {
    const end = i + load<u16>(COUNTS + (<usize>length << 1));
    // Of the second: 2 + bits of its code word.
    const fits = i32x4.splat(2 + LITLEN_BITS - length);
    const step: usize = 4 << length;
    for (; i < end; i++) {
      if (load<u16>(SORTED + (<usize>i << 1)) > 255) continue;
      let to = PAIRS + (<usize>load<u16>(CODES + (<usize>i << 1)) << 2);
      const entry = load<u32>(to);
      const alone = i32x4.splat(entry);
      const first = i32x4.splat((entry & ~0xff0000) - (2 << 24));
      let from = LITLEN;
      const fromEnd = LITLEN + (<usize>4 << (LITLEN_BITS - length));
      while (from < fromEnd) {
        const second = v128.load(from);
        const bits = v128.and(i32x4.shr_u(second, 24), i32x4.splat(63));
        const pair = v128.bitselect(
          i32x4.add(first, v128.and(second, others)), alone, i32x4.le_s(bits, fits),
        );
        v128.store_lane<u32>(to, pair, 0);
        v128.store_lane<u32>(to + step, pair, 1);
        v128.store_lane<u32>(to + step * 2, pair, 2);
        v128.store_lane<u32>(to + step * 3, pair, 3);
        to += step * 4;
        from += 16;
      }
    }
  }
}

/** Makes LITLEN and PAIRS of the code word lengths in LENGTHS; false where they make no code. */
export function buildLitlen(symbols: u32): bool {
  if (!buildTable(LENGTHS, symbols, LITLEN, LITLEN_BITS, 3, false)) return false;
  buildPairs();
  return true;
}

/** The same for DIST. */
export function buildDist(lengths: usize, symbols: u32): bool {
  return buildTable(lengths, symbols, DIST, DIST_BITS, 7, true);
}

/** The tables of blocks that bring none. */
export function fixedTables(): void {
  memory.fill(LENGTHS, 8, 288);
  memory.fill(LENGTHS + 144, 9, 112);
  memory.fill(LENGTHS + 256, 7, 24);
  memory.fill(LENGTHS + 288, 5, 32);
  buildLitlen(288);
  buildDist(LENGTHS + 288, 32);
}
