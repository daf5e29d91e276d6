// Plain bytes to one Zstandard frame. (Kernels.zstdEncode; RFC 8878)
//
//   frame    magic 0xfd2fb528 · header · blocks; no checksum, as QEMU writes it
//   header   single segment: the window is the content. Content size in 1, 2 (less 256) or 4 bytes
//   block    u24: bit 0 last · 1 – 2 kind (raw, one byte repeated, compressed) · 3 – 23 size

import { mapped, MISUSE } from './bounds';
import { LAST_LOG } from './zstd-encode-fse';
import { countBytes } from './zstd-encode-huffman';
import { writeLiterals } from './zstd-encode-literals';
import {
  BLOCK, BLOCK_BYTES_MAX, HEADS, KEPT_MAX, LENGTH_FIELD, LITERAL_COUNT, MATCH_FIELD, OFFSET_FIELD,
  PLAIN, REPEAT_0, REPEAT_1, REPEAT_2, SEQUENCE_COUNT,
} from './zstd-encode-scratch';
import { writeSequences } from './zstd-encode-sequences';
import { clearChains } from './zstd-match-chain';
import { parseFast } from './zstd-match-fast';
import { parseLazy } from './zstd-parse-lazy';
import { parseOptimal } from './zstd-parse-optimal';
import { clearCounts } from './zstd-sequence-store';

const MAGIC: u32 = 0xfd2fb528;
/** Longest content: positions and offsets of more do not fit their fields. */
const CONTENT_BYTES_MAX: u32 = 0x200000;

/** Up to so many bytes, and in frames of several blocks, matches of four are as good as any. */
const SHORT_BYTES: u32 = 0x4000;
/** Up to so many two bytes tell a place. */
const NARROW_BYTES: u32 = 0x10000;
const enum Width { short, narrow, wide }

const LEVEL_MIN: i32 = 1;
const LEVEL_MAX: i32 = 9;
/** The first levels that search chains, and that price what they find. */
const LAZY_LEVEL: i32 = 4;
const OPTIMAL_LEVEL: i32 = 7;

const RAW: u32 = 0;
const REPEATED: u32 = 1;
const COMPRESSED: u32 = 2;

function writeHeader(bytes: u32, to: usize): void {
  store<u32>(to, MAGIC);
  if (bytes < 256) {
    store<u8>(to, 0x20, 4);
    store<u8>(to, <u8>bytes, 5);
  } else if (bytes < 65536 + 256) {
    store<u8>(to, 0x60, 4);
    store<u16>(to, <u16>(bytes - 256), 5);
  } else {
    store<u8>(to, 0xa0, 4);
    store<u32>(to, bytes, 5);
  }
}

function writeBlockHeader(kind: u32, size: u32, last: bool, to: usize): void {
  const word = <u32>last | (kind << 1) | (size << 3);
  store<u16>(to, <u16>word);
  store<u8>(to, <u8>(word >> 16), 2);
}

// Whether all bytes are as the first.
function isRun(at: usize, bytes: u32): bool {
  if (bytes > 1 && load<u8>(at) != load<u8>(at, 1)) return false;
  const first = v128.splat<u8>(load<u8>(at));
  const end: usize = at + bytes;
  for (; at + 16 <= end; at += 16) {
    if (v128.any_true(v128.xor(v128.load(at), first))) return false;
  }
  const byte = v128.extract_lane<u8>(first, 0);
  for (; at < end; at++) if (load<u8>(at) != byte) return false;
  return true;
}

function forgetTables(): void {
  store<u32>(KEPT_MAX, 0);
  store<u32>(LENGTH_FIELD, 0, LAST_LOG);
  store<u32>(OFFSET_FIELD, 0, LAST_LOG);
  store<u32>(MATCH_FIELD, 0, LAST_LOG);
}

// Whether all byte values are about as common: there may be copies, but little else to gain.
function isNoise(start: usize, end: usize): bool {
  const bytes = <u32>(end - start);
  return countBytes(PLAIN + start, bytes) <= (bytes >> 8) + (bytes >> 9) + 6;
}

//   level   1 – 2 greedy · 3 looks one place ahead · 4 – 6 chains of 4, 8, 16 places
//           7 – 9 near-optimal: chains of 16, 64, 128 places, priced twice, twice, three times
function parse(
  start: usize, end: usize, mask: usize, level: i32, width: Width,
): void {
  const patience: usize = level == 1 ? 5 : 8;
  if (level >= OPTIMAL_LEVEL && !isNoise(start, end)) {
    const depth: u32 = level == 7 ? 16 : level == 8 ? 64 : 128;
    parseOptimal(start, end, mask, depth, level == 9 ? 3 : 2);
  } else if (level >= LAZY_LEVEL) {
    parseLazy(start, end, mask, 1 << (min(level, 6) - 2));
  } else if (width == Width.short) {
    parseFast<u16, u32>(start, end, mask, patience, level == 3);
  } else if (width == Width.narrow) {
    parseFast<u16, u64>(start, end, mask, patience, level == 3);
  } else {
    parseFast<u32, u32>(start, end, mask, patience, level == 3);
  }
}

export function zstdEncode(src: usize, srcBytes: u32, dst: usize, dstMax: u32, level: i32): i32 {
  level = max(LEVEL_MIN, min(LEVEL_MAX, level));
  if (!mapped(src, srcBytes) || !mapped(dst, dstMax) || srcBytes > CONTENT_BYTES_MAX) return MISUSE;
  const headerBytes: u32 = srcBytes < 256 ? 6 : srcBytes < 65536 + 256 ? 7 : 9;
  if (dstMax < headerBytes) return 0;
  writeHeader(srcBytes, dst);
  let out: usize = dst + headerBytes;
  const outEnd: usize = dst + dstMax;
  const end: usize = src + srcBytes;

  store<u32>(REPEAT_0, 1);
  store<u32>(REPEAT_1, 4);
  store<u32>(REPEAT_2, 8);
  forgetTables();
  memory.copy(PLAIN, src, srcBytes);
  v128.store(PLAIN + srcBytes, v128.splat<u64>(0));
  v128.store(PLAIN + srcBytes, v128.splat<u64>(0), 16);
  const narrow = srcBytes <= NARROW_BYTES;
  const width = srcBytes <= SHORT_BYTES ? Width.short : narrow ? Width.narrow : Width.wide;
  const chained = level >= LAZY_LEVEL;
  const slotsMax: u32 = narrow && !chained ? 0x8000 : 0x10000;
  const slots: u32 = min<u32>(slotsMax, 1 << (32 - clz(srcBytes >> 1 | 15)));
  if (chained) clearChains(slots - 1);
  else memory.fill(HEADS, 0, slots << (narrow ? 1 : 2));
  const blockMax: u32 = chained ? BLOCK_BYTES_MAX >> 1 : BLOCK_BYTES_MAX;

  let at: usize = src;
  do {
    const bytes: u32 = <u32>min<usize>(end - at, blockMax);
    const last = at + bytes == end;
    const room: u32 = <u32>(outEnd - out);
    if (room < 3) return 0;
    let size: u32 = 0;
    let kind: u32 = COMPRESSED;
    if (at != src && isRun(at, bytes)) {
      // Not the first: readers before 1.4.4 take such a frame for damaged.
      kind = REPEATED;
    } else if (bytes > 0) {
      const repeat0 = load<u32>(REPEAT_0);
      const repeat1 = load<u32>(REPEAT_1);
      const repeat2 = load<u32>(REPEAT_2);
      const from = at - src;
      clearCounts();
      parse(from, from + bytes, slots - 1, level, width);
      const behind = writeLiterals(load<u32>(LITERAL_COUNT), BLOCK);
      const blockEnd = writeSequences(load<u32>(SEQUENCE_COUNT), behind, BLOCK + bytes);
      size = blockEnd ? <u32>(blockEnd - BLOCK) : bytes;
      if (size >= bytes) {
        size = 0;
        // The reader sees nothing of what was found.
        store<u32>(REPEAT_0, repeat0);
        store<u32>(REPEAT_1, repeat1);
        store<u32>(REPEAT_2, repeat2);
        forgetTables();
      }
    }
    if (kind == REPEATED) {
      if (room < 4) return 0;
      writeBlockHeader(REPEATED, bytes, last, out);
      store<u8>(out, load<u8>(at), 3);
      out += 4;
    } else if (size) {
      if (room < size + 3) return 0;
      writeBlockHeader(COMPRESSED, size, last, out);
      memory.copy(out + 3, BLOCK, size);
      out += 3 + size;
    } else {
      if (room < bytes + 3) return 0;
      writeBlockHeader(RAW, bytes, last, out);
      memory.copy(out + 3, at, bytes);
      out += 3 + bytes;
    }
    at += bytes;
  } while (at < end);
  return <i32>(out - dst);
}
