// Raw deflate (RFC 1951) into a buffer of known size. (Kernels.inflate)
//
// The bit buffer is kept two places high: `bits & mask` is then a byte offset into a table of u32
// entries, and no shift stands between the buffer and the load that everything waits for.
//
//   bits    0–1 spent bits, 2 … avail-1 the next bits of the stream, above them the same or 0
//   avail   low 6 bits: how many bits of `bits` count, the two spent ones among them; the rest is
//           carry, so that a whole table entry can be subtracted
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

// DecodeError
// @ts-ignore: decorator
@inline const TRUNCATED: i32 = -1;
// @ts-ignore: decorator
@inline const SHORT: i32 = -2;
// @ts-ignore: decorator
@inline const INVALID: i32 = -3;

// @ts-ignore: decorator
@inline const MATCH: u64 = 1 << 6;
// @ts-ignore: decorator
@inline const EXCEPTION: u64 = 1 << 7;

// What an exception is: the bits 8–23 of its entry. Links hold an offset, and none is this low.
// @ts-ignore: decorator
@inline const END_OF_BLOCK: u32 = 0;
// @ts-ignore: decorator
@inline const FORBIDDEN: u32 = 1;

// Twelve bits rather than eleven are 2 % faster: more pairs fit, and the 16 KiB are still at home
// in the first-level cache. Of the distances, one in five hundred has more than its eight bits.
// @ts-ignore: decorator
@inline const LITLEN_BITS: u32 = 12;
// @ts-ignore: decorator
@inline const LITLEN_MASK: u64 = ((1 << 12) - 1) << 2;
// @ts-ignore: decorator
@inline const DIST_BITS: u32 = 8;
// @ts-ignore: decorator
@inline const DIST_MASK: u64 = ((1 << 8) - 1) << 2;
// Subtables are as large as the longest code word (15 bits) asks for. That wastes room, but a
// link then needs no size of its own.
// @ts-ignore: decorator
@inline const LITLEN_SUB_MASK: u64 = ((1 << 3) - 1) << 2;
// @ts-ignore: decorator
@inline const DIST_SUB_MASK: u64 = ((1 << 7) - 1) << 2;

// The scratch area. A subtable serves at least two symbols: 143 and 15 of them at most.
// @ts-ignore: decorator
@inline const LITLEN: usize = SCRATCH; // 4096 entries, one symbol each, then 143 subtables of 8
// @ts-ignore: decorator
@inline const PAIRS: usize = SCRATCH + 0x5200; // 4096 entries
// @ts-ignore: decorator
@inline const DIST: usize = SCRATCH + 0x9200; // 256 entries, then 15 subtables of 128
// @ts-ignore: decorator
@inline const LENGTHS: usize = SCRATCH + 0xb400; // u8 per symbol: bits of its code word
// @ts-ignore: decorator
@inline const SORTED: usize = SCRATCH + 0xb600; // u16: the symbols by length, then by value
// @ts-ignore: decorator
@inline const CODES: usize = SCRATCH + 0xb900; // u16: their code words, first bit lowest
// @ts-ignore: decorator
@inline const COUNTS: usize = SCRATCH + 0xbc00; // u16 per length: symbols that have it
// @ts-ignore: decorator
@inline const PLACES: usize = SCRATCH + 0xbc20; // u16 per length: where they start in SORTED
// @ts-ignore: decorator
@inline const PRECODE: usize = SCRATCH + 0xbc40; // 128 of u8: symbol in 0–4, bits in 5–7
// @ts-ignore: decorator
@inline const READER: usize = SCRATCH + 0xbcc0; // u64 bits, u64 avail, u32 at: between functions

// Where the lengths of the code length code stand in a header.
const PRECODE_ORDER = memory.data<u8>([
  16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
]);

// Row d - 1 turns the d bytes before a match of distance d < 16 into the 16 that it starts with.
const REPEAT = memory.data<u8>([
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1,
  0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0,
  0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3,
  0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0,
  0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3,
  0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 0, 1,
  0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3, 4, 5, 6,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 1, 2,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0, 1,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0,
]);
// Element d - 1: the largest multiple of d up to 16, so that the pattern stays in step.
const STRIDE = memory.data<u8>([16, 16, 15, 16, 15, 12, 14, 16, 9, 10, 11, 12, 13, 14, 15]);

// ---- Tables

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
function sortSymbols(lengths: usize, symbols: u32): i32 {
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
function nextCode(code: u32, length: u32): u32 {
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

function buildLitlen(symbols: u32): bool {
  if (!buildTable(LENGTHS, symbols, LITLEN, LITLEN_BITS, 3, false)) return false;
  buildPairs();
  return true;
}

function buildDist(lengths: usize, symbols: u32): bool {
  return buildTable(lengths, symbols, DIST, DIST_BITS, 7, true);
}

// The code of the code word lengths: at most 7 bits, and nothing but a complete code will do.
function buildPrecode(): bool {
  if (sortSymbols(LENGTHS, 19) != 0) return false;
  let i: u32 = load<u16>(COUNTS);
  let code: u32 = 0;
  for (let length: u32 = 1; length <= 7; length++) {
    const end = i + load<u16>(COUNTS + (<usize>length << 1));
    for (; i < end; i++) {
      const entry = load<u16>(SORTED + (<usize>i << 1)) | (length << 5);
      for (let slot = code; slot < 128; slot += 1 << length) store<u8>(PRECODE + slot, entry);
      code = nextCode(code, length);
    }
  }
  return true;
}

function fixedTables(): void {
  memory.fill(LENGTHS, 8, 288);
  memory.fill(LENGTHS + 144, 9, 112);
  memory.fill(LENGTHS + 256, 7, 24);
  memory.fill(LENGTHS + 288, 5, 32);
  buildLitlen(288);
  buildDist(LENGTHS + 288, 32);
}

// ---- Reading

// Did the stream take bits that lie behind the input's end? Those that are in hand count back.
// @ts-ignore: decorator
@inline
function overrun(at: usize, avail: u64, srcEnd: usize): bool {
  return at - <usize>(((avail & 63) - 2) >> 3) > srcEnd;
}

// Reads the header of a dynamic block (what follows its three bits) and builds its tables.
// Returns 0 or a DecodeError.
function readDynamicHeader(srcEnd: usize): i32 {
  let bits = load<u64>(READER);
  let avail = load<u64>(READER, 8);
  let at: usize = load<u32>(READER, 16);

  const litlens = <u32>((bits >> 2) & 31) + 257;
  const dists = <u32>((bits >> 7) & 31) + 1;
  const precodes = <u32>((bits >> 12) & 15) + 4;
  bits >>= 14;
  avail -= 14;
  if (overrun(at, avail, srcEnd)) return TRUNCATED;
  if (litlens > 286 || dists > 30) return INVALID;

  memory.fill(LENGTHS, 0, 19);
  for (let i: u32 = 0; i < precodes; i++) {
    if ((avail & 63) < 5) {
      bits |= load<u64>(at) << avail;
      at += <usize>((~avail >> 3) & 7);
      avail |= 56;
    }
    store<u8>(LENGTHS + load<u8>(PRECODE_ORDER + i), <u8>((bits >> 2) & 7));
    bits >>= 3;
    avail -= 3;
  }
  if (overrun(at, avail, srcEnd)) return TRUNCATED;
  if (!buildPrecode()) return INVALID;

  const total = litlens + dists;
  let have: u32 = 0;
  while (have < total) {
    bits |= load<u64>(at) << avail;
    at += <usize>((~avail >> 3) & 7);
    avail |= 56;
    const entry: u32 = load<u8>(PRECODE + <usize>((bits >> 2) & 127));
    const symbol = entry & 31;
    const length: u64 = entry >> 5;
    bits >>= length;
    avail -= length;
    if (symbol < 16) {
      if (overrun(at, avail, srcEnd)) return TRUNCATED;
      store<u8>(LENGTHS + have++, symbol);
      continue;
    }
    let repeat: u32 = 0;
    let value: u8 = 0;
    if (symbol == 16) {
      repeat = 3 + <u32>((bits >> 2) & 3);
      bits >>= 2;
      avail -= 2;
      if (have) value = load<u8>(LENGTHS + have - 1);
    } else if (symbol == 17) {
      repeat = 3 + <u32>((bits >> 2) & 7);
      bits >>= 3;
      avail -= 3;
    } else {
      repeat = 11 + <u32>((bits >> 2) & 127);
      bits >>= 7;
      avail -= 7;
    }
    if (overrun(at, avail, srcEnd)) return TRUNCATED;
    if ((symbol == 16 && have == 0) || have + repeat > total) return INVALID;
    const end = have + repeat;
    for (; have < end; have += 16) v128.store(LENGTHS + have, i8x16.splat(value));
    have = end;
  }
  store<u64>(READER, bits);
  store<u64>(READER, avail, 8);
  store<u32>(READER, at, 16);
  if (load<u8>(LENGTHS + 256) == 0) return INVALID;
  return buildLitlen(litlens) && buildDist(LENGTHS + litlens, dists) ? 0 : INVALID;
}

// The length at the end of an entry, of which `was` has the bits.
// @ts-ignore: decorator
@inline
function lengthOf(entry: u64, was: u64): usize {
  const extra = (was & ~(<u64>-4 << entry)) >> (entry >> 24);
  return (<usize>(entry >> 16) & 255) + <usize>extra + 3;
}

// @ts-ignore: decorator
@inline
function distanceOf(entry: u64, was: u64): usize {
  return <usize>(entry >> 16) + <usize>((was & ~(<u64>-4 << entry)) >> (entry >> 8));
}

// Copies a match of up to 258 bytes; writes up to 31 bytes more than that.
// @ts-ignore: decorator
@inline
function copyMatch(to: usize, distance: usize, length: usize): void {
  const end = to + length;
  let from = to - distance;
  if (distance >= 16) {
    v128.store(to, v128.load(from));
    v128.store(to, v128.load(from, 16), 16);
    while (to + 32 < end) {
      to += 32;
      from += 32;
      v128.store(to, v128.load(from));
      v128.store(to, v128.load(from, 16), 16);
    }
  } else {
    const pattern = v128.swizzle(v128.load(from), v128.load(REPEAT + ((distance - 1) << 4)));
    const stride: usize = load<u8>(STRIDE + distance - 1);
    do {
      v128.store(to, pattern);
      to += stride;
    } while (to < end);
  }
}

export function inflate(src: usize, srcBytes: u32, dst: usize, dstBytes: u32): i32 {
  if (dstBytes == 0) return 0;
  const srcEnd = src + srcBytes;
  const dstEnd = dst + dstBytes;
  // The quick loop runs where whatever one turn reads and writes has room.
  const quickSrcEnd = srcEnd + 8;
  const quickDstEnd = dstEnd - min<u32>(dstBytes, 304);
  let at = src;
  let to = dst;
  let bits: u64 = 0;
  let avail: u64 = 2;
  let tablesAreFixed = false;
  let isLast = false;

  while (!isLast) {
    // A block's header.
    bits |= load<u64>(at) << avail;
    at += <usize>((~avail >> 3) & 7);
    avail |= 56;
    isLast = (bits & 4) != 0;
    const kind = <u32>((bits >> 3) & 3);
    bits >>= 3;
    avail -= 3;
    if (overrun(at, avail, srcEnd)) return TRUNCATED;

    if (kind == 0) {
      at -= <usize>(((avail & 63) - 2) >> 3);
      bits = 0;
      avail = 2;
      if (srcEnd - at < 4) return TRUNCATED;
      const length: usize = load<u16>(at);
      if (length != (load<u16>(at, 2) ^ 0xffff)) return INVALID;
      at += 4;
      const wanted = min(length, dstEnd - to);
      if (srcEnd - at < wanted) return TRUNCATED;
      memory.copy(to, at, wanted);
      at += wanted;
      to += wanted;
      if (to == dstEnd) return dstBytes;
      continue;
    }
    if (kind == 3) return INVALID;
    if (kind == 2) {
      tablesAreFixed = false;
      store<u64>(READER, bits);
      store<u64>(READER, avail, 8);
      store<u32>(READER, at, 16);
      const error = readDynamicHeader(srcEnd);
      if (error) return error;
      bits = load<u64>(READER);
      avail = load<u64>(READER, 8);
      at = load<u32>(READER, 16);
    } else if (!tablesAreFixed) {
      fixedTables();
      tablesAreFixed = true;
    }

    // The quick loop. Bits in hand, at least: 54 after a refill, three entries of the pair table
    // take 41 with a length and 36 without, or 44 by way of a subtable; eight find a distance.
    // The refills are where a table load is under way that does not wait for them.
    bits |= load<u64>(at) << avail;
    at += <usize>((~avail >> 3) & 7);
    avail |= 56;
    let stop: u32 = -1; // END_OF_BLOCK, FORBIDDEN, or anything above: go on
    while (to < quickDstEnd && at <= quickSrcEnd) {
      let entry: u64 = load<u32>(<usize>(bits & LITLEN_MASK), PAIRS);
      bits |= load<u64>(at) << avail;
      at += <usize>((~avail >> 3) & 7);
      avail |= 56;
      store<u16>(to, <u16>(entry >> 8));
      to += <usize>(entry >> 30);
      let was = bits;
      bits >>= entry;
      avail -= entry;
      if (!(entry & MATCH)) {
        entry = load<u32>(<usize>(bits & LITLEN_MASK), PAIRS);
        store<u16>(to, <u16>(entry >> 8));
        to += <usize>(entry >> 30);
        was = bits;
        bits >>= entry;
        avail -= entry;
        if (!(entry & MATCH)) {
          entry = load<u32>(<usize>(bits & LITLEN_MASK), PAIRS);
          store<u16>(to, <u16>(entry >> 8));
          to += <usize>(entry >> 30);
          was = bits;
          bits >>= entry;
          avail -= entry;
          if (!(entry & MATCH)) continue;
        }
      }
      if (entry & EXCEPTION) {
        stop = (<u32>entry >> 8) & 0xffff;
        if (stop <= FORBIDDEN) break;
        entry = load<u32>(<usize>(bits & LITLEN_SUB_MASK) + <usize>stop, LITLEN);
        store<u16>(to, <u16>(entry >> 8));
        to += <usize>(entry >> 30);
        was = bits;
        bits >>= entry;
        avail -= entry;
        if (!(entry & MATCH)) continue;
        if (entry & EXCEPTION) {
          stop = END_OF_BLOCK;
          break;
        }
      }
      let dist: u64 = load<u32>(<usize>(bits & DIST_MASK), DIST);
      bits |= load<u64>(at) << avail;
      at += <usize>((~avail >> 3) & 7);
      avail |= 56;
      const length = lengthOf(entry, was);
      was = bits;
      bits >>= dist;
      avail -= dist;
      if (dist & EXCEPTION) {
        stop = <u32>dist >> 16;
        if (stop == FORBIDDEN) break;
        dist = load<u32>(<usize>(bits & DIST_SUB_MASK) + <usize>stop, DIST);
        was = bits;
        bits >>= dist;
        avail -= dist;
      }
      const distance = distanceOf(dist, was);
      if (distance > to - dst) {
        stop = FORBIDDEN;
        break;
      }
      copyMatch(to, distance, length);
      to += length;
    }

    // The careful loop: one symbol a turn, nothing written that is not output.
    while (stop > FORBIDDEN) {
      bits |= load<u64>(at) << avail;
      at += <usize>((~avail >> 3) & 7);
      avail |= 56;
      let entry: u64 = load<u32>(<usize>(bits & LITLEN_MASK), LITLEN);
      let was = bits;
      bits >>= entry;
      avail -= entry;
      if (entry & EXCEPTION) {
        stop = (<u32>entry >> 8) & 0xffff;
        if (stop <= FORBIDDEN) break;
        entry = load<u32>(<usize>(bits & LITLEN_SUB_MASK) + <usize>stop, LITLEN);
        was = bits;
        bits >>= entry;
        avail -= entry;
        if (entry & EXCEPTION) {
          stop = END_OF_BLOCK;
          break;
        }
      }
      if (overrun(at, avail, srcEnd)) return TRUNCATED;
      if (!(entry & MATCH)) {
        store<u8>(to++, <u8>(entry >> 8));
        if (to == dstEnd) return dstBytes;
        continue;
      }
      const length = lengthOf(entry, was);
      let dist: u64 = load<u32>(<usize>(bits & DIST_MASK), DIST);
      was = bits;
      bits >>= dist;
      avail -= dist;
      if (dist & EXCEPTION) {
        stop = <u32>dist >> 16;
        if (stop == FORBIDDEN) break;
        dist = load<u32>(<usize>(bits & DIST_SUB_MASK) + <usize>stop, DIST);
        was = bits;
        bits >>= dist;
        avail -= dist;
      }
      if (overrun(at, avail, srcEnd)) return TRUNCATED;
      const distance = distanceOf(dist, was);
      if (distance > to - dst) return INVALID;
      const end = to + min(length, dstEnd - to);
      while (to < end) {
        store<u8>(to, load<u8>(to - distance));
        to++;
      }
      if (to == dstEnd) return dstBytes;
    }

    // What the slack behind the input made us decode is no finding.
    if (overrun(at, avail, srcEnd)) return TRUNCATED;
    if (stop == FORBIDDEN) return INVALID;
  }
  return SHORT;
}
