// The literals section of a compressed block. (RFC 8878, 3.1.1.3.1)
//
//   byte 0, bits 0 – 1   0 raw, 1 one byte repeated, 2 Huffman with a tree, 3 with the last tree
//           bits 2 – 3   how long the header is
//
//   raw, repeated   0, 2: size in bits 3 – 7 · 1: 12 bits from bit 4 · 3: 20 bits from bit 4
//   Huffman         0, 1: two sizes of 10 bits from bit 4 · 2: of 14 bits · 3: of 18 bits
//                   (what comes out, what is stored); 0 is one stream, the others are four

import {
  HUFFMAN_BITS, INVALID, LITERALS, LITERALS_AT, LITERALS_END, OVERLONG,
} from './zstd-scratch';
import { decodeFourStreams, decodeStream, readTree } from './zstd-huffman';

/**
 * Makes the block's literals ready at LITERALS_AT, LITERALS_COUNT. The block gives at most
 * `blockMax` bytes, for `room` of which there is place.
 * @returns the bytes that the section takes, or a negative DecodeError
 */
export function readLiterals(at: usize, end: usize, blockMax: u32, room: u32): i32 {
  const kind: u32 = load<u8>(at) & 3;
  const form: u32 = (load<u8>(at) >> 2) & 3;
  if (kind < 2) {
    const bytes: u32 = form == 1 ? 2 : form == 3 ? 3 : 1;
    const count: u32 = form == 1 ? load<u16>(at) >> 4
      : form == 3 ? (load<u32>(at) & 0xffffff) >> 4
      : load<u8>(at) >> 3;
    const stored: u32 = kind ? 1 : count;
    if (bytes + stored > <u32>(end - at)) return INVALID;
    if (count > blockMax) return INVALID;
    if (count > room) return OVERLONG;
    let literals: usize = at + bytes; // in place
    if (kind) {
      literals = LITERALS;
      memory.fill(LITERALS, load<u8>(at + bytes), count);
    }
    store<u32>(LITERALS_AT, literals);
    store<u32>(LITERALS_END, literals + count);
    return bytes + stored;
  }

  if (at + 5 > end) return INVALID; // no such section in a block this short
  const header: u64 = load<u64>(at) >> 4;
  const width: u32 = form < 2 ? 10 : form == 2 ? 14 : 18;
  const mask: u32 = (1 << width) - 1;
  const count: u32 = <u32>header & mask;
  const stored: u32 = <u32>(header >> width) & mask;
  const bytes: u32 = form < 2 ? 3 : form + 2;
  if (bytes + stored > <u32>(end - at)) return INVALID;
  if (count > blockMax) return INVALID;
  if (count > room) return OVERLONG;
  let from: usize = at + bytes;
  const to: usize = from + stored;
  if (kind == 2) {
    const tree = readTree(from, to);
    if (tree < 0) return INVALID;
    from += tree;
  } else if (load<u32>(HUFFMAN_BITS) == 0) {
    return INVALID;
  }
  if (form == 0) {
    if (!decodeStream(from, to, LITERALS, count)) return INVALID;
  } else {
    if (count < 6 || !decodeFourStreams(from, to, LITERALS, count)) return INVALID;
  }
  store<u32>(LITERALS_AT, <u32>LITERALS);
  store<u32>(LITERALS_END, LITERALS + count);
  return bytes + stored;
}
