// Raw deflate (RFC 1951) into a buffer of known size. (Kernels.inflate)
//
// A pair of symbols at a time where there is room (inflate-tables.ts has what the entries are), one
// at a time at the ends of input and output.

import { INVALID, READER, SHORT, TRUNCATED, overrun } from './inflate-bits';
import { readDynamicHeader } from './inflate-header';
import {
  DIST, DIST_MASK, DIST_SUB_MASK, END_OF_BLOCK, EXCEPTION, FORBIDDEN, LITLEN, LITLEN_MASK,
  LITLEN_SUB_MASK, MATCH, PAIRS, fixedTables,
} from './inflate-tables';
import { PATTERNS } from './match-patterns';

// Element d - 1: the largest multiple of d up to 16, so that the pattern stays in step.
const STRIDE = memory.data<u8>([16, 16, 15, 16, 15, 12, 14, 16, 9, 10, 11, 12, 13, 14, 15]);

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
    const pattern = v128.swizzle(v128.load(from), v128.load(distance << 4, PATTERNS));
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
