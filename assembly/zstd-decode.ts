// Zstandard frames to plain bytes. (Kernels.zstdDecode; RFC 8878)
//
//   frame     magic 0xfd2fb528 · header · blocks · u32 checksum where the header says so
//   header    byte 0: bits 0 – 1 width of the dictionary id (0, 1, 2, 4 bytes) · 2 checksum
//             · 3 reserved, 0 · 5 single segment · 6 – 7 width of the content size (0, 2, 4, 8;
//             1 instead of 0 for a single segment)
//             window descriptor, unless single segment: bits 0 – 2 mantissa, 3 – 7 exponent
//             dictionary id · content size (256 is added to one of 2 bytes)
//   block     u24: bit 0 last · 1 – 2 kind (raw, one byte repeated, compressed) · 3 – 23 size
//   skippable u32 magic 0x184d2a50 – 0x184d2a5f · u32 size · content

import {
  BLOCK_BYTES_MAX, CHECKSUM, HISTORY, HUFFMAN_BITS, INVALID, OVERLONG, SHORT, TABLES_KEPT,
  TRUNCATED, UNSUPPORTED,
} from './zstd-scratch';
import { readLiterals } from './zstd-literals';
import { runSequences } from './zstd-sequences';
import { xxh64Low } from './xxh64';

const MAGIC: u32 = 0xfd2fb528;
/** Frames of the formats before 0.8: 0xfd2fb522 – 0xfd2fb527. */
const LEGACY_FIRST: u32 = 0xfd2fb522;
const SKIPPABLE: u32 = 0x184d2a50;
/** The reference decoder's own limit for frames from anywhere: 2^27. */
const WINDOW_BYTES_MAX: u64 = 0x8000000;

// @ts-ignore: decorator
@inline
function runBlock(
  at: usize, end: usize, out: usize, outEnd: usize, blockMax: u32, frame: usize, window: u32,
): i32 {
  if (at + 2 > end) return INVALID;
  const bytes = readLiterals(at, end, blockMax, <u32>(outEnd - out));
  if (bytes < 0) return bytes;
  return runSequences(at + bytes, end, out, outEnd, blockMax, frame, window);
}

export function zstdDecode(src: usize, srcBytes: u32, dst: usize, dstBytes: u32): i32 {
  let at: usize = src;
  const end: usize = src + srcBytes;
  let out: usize = dst;
  const outEnd: usize = dst + dstBytes;
  while (out < outEnd) {
    if (at == end) return SHORT;
    if (end - at < 4) return TRUNCATED;
    const magic = load<u32>(at);
    if ((magic & 0xfffffff0) == SKIPPABLE) {
      if (end - at < 8 || end - at - 8 < <usize>load<u32>(at, 4)) return TRUNCATED;
      at += 8 + <usize>load<u32>(at, 4);
      continue;
    }
    if (magic != MAGIC) return magic - LEGACY_FIRST < MAGIC - LEGACY_FIRST ? UNSUPPORTED : INVALID;

    // Frame header.
    if (end - at < 5) return TRUNCATED;
    const flags: u32 = load<u8>(at, 4);
    at += 5;
    if (flags & 8) return INVALID;
    const single = (flags & 0x20) != 0;
    const idBytes: u32 = (1 << (flags & 3)) >> 1;
    const sizeBytes: u32 = flags >= 0x40 ? 1 << (flags >> 6) : <u32>single;
    if (<u32>(end - at) < <u32>!single + idBytes + sizeBytes) return TRUNCATED;
    let window: u64 = 0;
    if (!single) {
      const descriptor: u32 = load<u8>(at);
      window = <u64>1 << (10 + (descriptor >> 3));
      window += (window >> 3) * (descriptor & 7);
      at++;
    }
    if (idBytes && load<u32>(at) & (<u32>0xffffffff >> (32 - (idBytes << 3)))) return UNSUPPORTED;
    at += idBytes;
    let content: u64 = 0;
    if (sizeBytes == 1) content = load<u8>(at);
    else if (sizeBytes == 2) content = <u64>load<u16>(at) + 256;
    else if (sizeBytes == 4) content = load<u32>(at);
    else if (sizeBytes == 8) content = load<u64>(at);
    at += sizeBytes;
    if (single) window = content;
    if (window > WINDOW_BYTES_MAX) return UNSUPPORTED;
    if (content > <u64>(outEnd - out)) return OVERLONG;
    const blockMax: u32 = min(<u32>window, BLOCK_BYTES_MAX);

    // Blocks.
    const frame: usize = out;
    v128.store(HISTORY, i32x4(1, 4, 8, 0));
    store<u32>(HUFFMAN_BITS, 0);
    store<u32>(TABLES_KEPT, 0);
    let last: u32;
    do {
      if (end - at < 3) return TRUNCATED;
      const header: u32 = load<u32>(at) & 0xffffff;
      at += 3;
      last = header & 1;
      const kind: u32 = (header >> 1) & 3;
      const size: u32 = header >> 3;
      if (kind == 3 || size > blockMax) return INVALID;
      const stored: u32 = kind == 1 ? 1 : size;
      if (<u32>(end - at) < stored) return TRUNCATED;
      if (kind == 2) {
        const made = runBlock(at, at + size, out, outEnd, blockMax, frame, <u32>window);
        if (made < 0) return made;
        out += made;
      } else {
        if (size > <u32>(outEnd - out)) return OVERLONG;
        if (kind == 0) memory.copy(out, at, size);
        else memory.fill(out, load<u8>(at), size);
        out += size;
      }
      at += stored;
    } while (!last);

    if (sizeBytes && <u64>(out - frame) != content) return INVALID;
    if (flags & 4) {
      if (end - at < 4) return TRUNCATED;
      if (load<u32>(at) != xxh64Low(frame, <u32>(out - frame))) return CHECKSUM;
      at += 4;
    }
  }
  return dstBytes;
}
