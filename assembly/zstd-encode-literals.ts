// Writes the literals section of a compressed block, the cheapest way. (RFC 8878, 3.1.1.3.1)
//
// The header is drawn in zstd-literals.ts.

import {
  bitsUnder, buildTree, countBytes, describeTree, makeCodeWords, writeStream,
} from './zstd-encode-huffman';
import {
  DESCRIPTION, DESCRIPTION_BYTES, HISTOGRAMS, KEPT, KEPT_MAX, LENGTHS, LENGTHS_MAX, LITERALS,
} from './zstd-encode-scratch';

const RAW: u32 = 0;
const REPEATED: u32 = 1;
const WITH_TREE: u32 = 2;
const WITH_LAST_TREE: u32 = 3;

/** Fewer literals than these are one stream: four would need six more bytes to tell them apart. */
const FOUR_STREAMS_MIN: u32 = 1024;
/** A sample that tells whether many literals are worth a closer look. */
const SAMPLED_MIN: u32 = 8192;
const SAMPLE_BYTES: u32 = 4096;

function plainHeader(kind: u32, count: u32, to: usize): usize {
  if (count < 32) {
    store<u8>(to, <u8>(kind | (count << 3)));
    return to + 1;
  }
  if (count < 4096) {
    store<u16>(to, <u16>(kind | (1 << 2) | (count << 4)));
    return to + 2;
  }
  store<u32>(to, kind | (3 << 2) | (count << 4));
  return to + 3;
}

function writeRaw(count: u32, to: usize): usize {
  const at = plainHeader(RAW, count, to);
  memory.copy(at, LITERALS, count);
  return at + count;
}

// Whether the literals look like noise, from a part of them: a byte value of noise occurs no more
// often than chance lets it.
function looksLikeNoise(count: u32): bool {
  const most = countBytes(LITERALS + ((count - SAMPLE_BYTES) >> 1), SAMPLE_BYTES);
  return most <= (SAMPLE_BYTES >> 7) + 4;
}

/**
 * Writes `count` literals to `to`, where there is room for them and eight bytes more.
 * @returns where the section ends
 */
export function writeLiterals(count: u32, to: usize): usize {
  if (count == 0) return writeRaw(0, to);
  if (count >= SAMPLED_MIN && looksLikeNoise(count)) return writeRaw(count, to);
  const most = countBytes(LITERALS, count);
  if (most == count) {
    const at = plainHeader(REPEATED, count, to);
    store<u8>(at, load<u8>(LITERALS));
    return at + 1;
  }
  if (count < 8 || most <= (count >> 7) + 4 && count > 256) return writeRaw(count, to);

  // The tree of old, or a new one?
  const single = count < FOUR_STREAMS_MIN;
  const streams: u32 = single ? 1 : 4 + 6;
  let kind: u32 = WITH_TREE;
  const oldMax = load<u32>(KEPT_MAX);
  let bytes: u32 = 0xffffffff;
  if (oldMax) {
    const bits = bitsUnder(KEPT);
    if (bits != 0xffffffff) bytes = (bits >> 3) + streams;
  }
  buildTree(most);
  if (describeTree()) {
    const fresh = (bitsUnder(LENGTHS) >> 3) + streams + load<u32>(DESCRIPTION_BYTES);
    if (fresh < bytes) bytes = fresh;
    else kind = WITH_LAST_TREE;
  } else {
    kind = WITH_LAST_TREE;
  }
  if (bytes >= count - (count >> 7)) return writeRaw(count, to);

  const header: u32 = single ? 3 : max(count, bytes) < 0x4000 ? 4 : 5;
  let at: usize = to + header;
  if (kind == WITH_TREE) {
    memory.copy(at, DESCRIPTION, load<u32>(DESCRIPTION_BYTES));
    at += load<u32>(DESCRIPTION_BYTES);
    makeCodeWords(LENGTHS, load<u32>(LENGTHS_MAX));
    memory.copy(KEPT, LENGTHS, 256);
    store<u32>(KEPT_MAX, load<u32>(LENGTHS_MAX));
  } else {
    makeCodeWords(KEPT, oldMax);
  }
  if (single) {
    at = writeStream(LITERALS, count, at);
  } else {
    const part = (count + 3) >> 2;
    const sizes = at;
    at += 6;
    for (let i: u32 = 0; i < 3; i++) {
      const end = writeStream(LITERALS + i * part, part, at);
      store<u16>(sizes + (<usize>i << 1), <u16>(end - at));
      at = end;
    }
    at = writeStream(LITERALS + 3 * part, count - 3 * part, at);
  }
  const stored = <u32>(at - to) - header;
  if (header == 3) {
    const word = kind | (count << 4) | (stored << 14);
    store<u16>(to, <u16>word);
    store<u8>(to, <u8>(word >> 16), 2);
  } else if (header == 4) {
    store<u32>(to, kind | (2 << 2) | (count << 4) | (stored << 18));
  } else {
    const word: u64 = <u64>(kind | (3 << 2)) | (<u64>count << 4) | (<u64>stored << 22);
    store<u32>(to, <u32>word);
    store<u8>(to, <u8>(word >> 32), 4);
  }
  return at;
}
