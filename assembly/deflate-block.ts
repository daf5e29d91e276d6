// Writes one block, in whichever way is the shortest: stored, with the fixed code, or with a code
// of its own.

import { codeLengths, codeWords } from './deflate-code';
import { planHeader, writeHeader } from './deflate-header';
import { DIST_WORDS, LENGTHS, MATCH_WORDS, WORDS, WRITER } from './deflate-scratch';
import {
  BYTES, countOne, DIST_COUNTS, FROM, SEQUENCES_END, SEQUENCES_FROM,
} from './deflate-segments';
import {
  distBase, distExtraBits, DIST_SYMBOLS, END_OF_BLOCK, lengthBase, lengthExtraBits, LENGTH_SYMBOLS,
} from './deflate-symbols';
import { beginBlock, bitsToAlign, endBlock, hasRoom, putBits } from './deflate-writer';

// Four literals fit behind the seven bits that wait.
// @ts-ignore: decorator
@inline const LITLEN_LIMIT: u32 = 14;
// @ts-ignore: decorator
@inline const DIST_LIMIT: u32 = 15;
// @ts-ignore: decorator
@inline const STORED_MAX: u32 = 65535;

// @ts-ignore: decorator
@inline const FIXED: u32 = 1;
// @ts-ignore: decorator
@inline const DYNAMIC: u32 = 2;

function fixedLengths(): void {
  memory.fill(LENGTHS, 8, 144);
  memory.fill(LENGTHS + 144, 9, 112);
  memory.fill(LENGTHS + 256, 7, 24);
  memory.fill(LENGTHS + 280, 8, 8);
  memory.fill(LENGTHS + 288, 5, 32);
}

// Bits of the block's symbols, by the lengths at LENGTHS, without extra bits.
function symbolBits(record: usize): u32 {
  let bits: u32 = 0;
  for (let i: usize = 0; i < 320; i++) bits += load<u32>(record + (i << 2)) * load<u8>(LENGTHS + i);
  return bits;
}

// The same of the fixed code.
function fixedBits(record: usize): u32 {
  let bits: u32 = 0;
  for (let i: usize = 0; i < 320; i++) {
    const length: u32 = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : i < 288 ? 8 : 5;
    bits += load<u32>(record + (i << 2)) * length;
  }
  return bits;
}

function extraBits(record: usize): u32 {
  let bits: u32 = 0;
  for (let i: u32 = 8; i < LENGTH_SYMBOLS - 1; i++) {
    bits += load<u32>(record + (<usize>(END_OF_BLOCK + 1 + i) << 2)) * lengthExtraBits(i);
  }
  for (let i: u32 = 4; i < DIST_SYMBOLS; i++) {
    bits += load<u32>(record + DIST_COUNTS + (<usize>i << 2)) * distExtraBits(i);
  }
  return bits;
}

// The words of matches, extra bits included: for each length the bits, and their number from bit
// 24 on; for each distance symbol the code word, its length from bit 16 on, the number of extra
// bits from bit 24 on, and the symbol's first distance from bit 32 on.
function matchWords(): void {
  for (let i: u32 = 0; i < LENGTH_SYMBOLS; i++) {
    const word = load<u32>(WORDS + (<usize>(END_OF_BLOCK + 1 + i) << 2));
    const extra = lengthExtraBits(i);
    const base = lengthBase(i);
    const length = word >> 24;
    const entry = (word & 0xffff) | ((length + extra) << 24);
    for (let value: u32 = 0; value < <u32>1 << extra; value++) {
      store<u32>(MATCH_WORDS + (<usize>(base + value) << 2), entry | (value << length));
    }
  }
  for (let i: u32 = 0; i < DIST_SYMBOLS; i++) {
    const word = load<u32>(WORDS + (<usize>(288 + i) << 2));
    const entry = (word & 0xffff) | ((word >> 24) << 16) | (distExtraBits(i) << 24);
    store<u64>(DIST_WORDS + (<usize>i << 3), (<u64>distBase(i) << 32) | <u64>entry);
  }
}

// Writes sequences, then the end of the block. `from` is the address of their first byte.
function writeSequences(record: usize, from: usize): void {
  let bits = load<u64>(WRITER);
  let count: u64 = load<u32>(WRITER, 8);
  let to: usize = load<u32>(WRITER, 12);
  let sequence: usize = load<u32>(record, SEQUENCES_FROM);
  const sequencesEnd: usize = load<u32>(record, SEQUENCES_END);
  while (sequence < sequencesEnd) {
    const first = load<u32>(sequence);
    const second = load<u32>(sequence, 4);
    sequence += 8;
    const literalsEnd = from + (first & 0xfffff);
    while (from + 4 <= literalsEnd) {
      for (let i: usize = 0; i < 4; i++) {
        const word = load<u32>(WORDS + (<usize>load<u8>(from + i) << 2));
        bits |= <u64>(word & 0xffff) << count;
        count += word >> 24;
      }
      from += 4;
      store<u64>(to, bits);
      to += <usize>count >> 3;
      bits >>= count & 0x38;
      count &= 7;
    }
    while (from < literalsEnd) {
      const word = load<u32>(WORDS + (<usize>load<u8>(from) << 2));
      bits |= <u64>(word & 0xffff) << count;
      count += word >> 24;
      from++;
    }
    store<u64>(to, bits);
    to += <usize>count >> 3;
    bits >>= count & 0x38;
    count &= 7;
    const length = first >> 20;
    if (length == 0) continue;
    // 7 bits that wait, 19 of the length, 15 and 10 of the distance.
    const word = load<u32>(MATCH_WORDS + (<usize>length << 2));
    bits |= <u64>(word & 0xffffff) << count;
    count += word >> 24;
    const dist = load<u64>(DIST_WORDS + (<usize>(second >> 16) << 3));
    bits |= (dist & 0xffff) << count;
    count += (dist >> 16) & 0xff;
    bits |= <u64>((second & 0xffff) - <u32>(dist >> 32)) << count;
    count += (dist >> 24) & 0xff;
    store<u64>(to, bits);
    to += <usize>count >> 3;
    bits >>= count & 0x38;
    count &= 7;
    from += length;
  }
  store<u64>(WRITER, bits);
  store<u32>(WRITER, <u32>count, 8);
  store<u32>(WRITER, <u32>to, 12);
  const end = load<u32>(WORDS + (<usize>END_OF_BLOCK << 2));
  putBits(end & 0xffff, end >> 24);
}

// Writes bytes as they are, in as many blocks as that takes.
function writeStored(from: usize, bytes: u32, isLast: u32): void {
  while (true) {
    const take = min(bytes, STORED_MAX);
    putBits(bytes == take ? isLast : 0, 3);
    putBits(0, bitsToAlign());
    putBits(take | (~take << 16), 32);
    const to: usize = load<u32>(WRITER, 12);
    memory.copy(to, from, take);
    store<u32>(WRITER, <u32>to + take, 12);
    from += take;
    bytes -= take;
    if (bytes == 0) return;
  }
}

// Bits of them as that many blocks.
function storedBits(bytes: u32): u32 {
  const blocks = bytes == 0 ? 1 : (bytes + STORED_MAX - 1) / STORED_MAX;
  // The first one starts anywhere, the others behind a whole byte.
  const align = (5 - load<u32>(WRITER, 8)) & 7;
  return 3 + align + 32 + (blocks - 1) * 40 + bytes * 8;
}

/**
 * Writes what a record (deflate-segments.ts) tells of.
 * @returns whether it had room
 */
export function writeBlock(record: usize, src: usize, isLast: bool): bool {
  const from = src + load<u32>(record, FROM);
  const bytes = load<u32>(record, BYTES);
  countOne(record + (<usize>END_OF_BLOCK << 2));
  codeLengths(record, 288, LITLEN_LIMIT, LENGTHS);
  codeLengths(record + DIST_COUNTS, 32, DIST_LIMIT, LENGTHS + 288);
  const extra = extraBits(record);
  const stored = storedBits(bytes);
  const fixed = 3 + fixedBits(record) + extra;
  const dynamic = 3 + planHeader() + symbolBits(record) + extra;

  const bits = min(stored, min(fixed, dynamic));
  if (!hasRoom(bits)) return false;
  const stage = beginBlock(bits);
  if (bits == stored) {
    writeStored(from, bytes, <u32>isLast);
  } else {
    if (bits == fixed) {
      putBits(<u32>isLast | (FIXED << 1), 3);
      fixedLengths();
    } else {
      putBits(<u32>isLast | (DYNAMIC << 1), 3);
      writeHeader();
    }
    codeWords(LENGTHS, 288, WORDS);
    codeWords(LENGTHS + 288, 32, WORDS + 288 * 4);
    matchWords();
    writeSequences(record, from);
  }
  endBlock(stage);
  return true;
}
