// Carrying out sequences: literals, then a match, again and again. (RFC 8878, 3.1.1.4)
//
// Copies go by 16 bytes and run over the end of what they copy, which the next one overwrites. So
// the last 64 bytes of the output, and whatever else is out of the ordinary, go byte by byte.

import { INVALID, LITERALS_AT, LITERALS_END, OVERLONG, SEQUENCES } from './zstd-scratch';

// Match distances below 16: which of the bytes before the match each of the next 16 repeats, and
// the smallest multiple of the distance that is no less than 16.
const PATTERNS: usize = memory.data<u8>([
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
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
const STRIDES: usize = memory.data<u8>([
  0, 16, 16, 18, 16, 20, 18, 21, 16, 18, 20, 22, 24, 26, 28, 30,
]);

// One test after another: joined by || they become sums of flags, dearer than the branches.
// @ts-ignore: decorator
@inline
function isPlain(
  literals: u32, literalsLeft: usize, bytes: i32, room: i32, distance: u32, reach: u32,
): bool {
  if (<usize>literals > literalsLeft) return false;
  if (bytes > room) return false;
  return distance - 1 < reach; // 0 becomes too large
}

/**
 * Carries out the sequences up to `end`, writing from `out` to `opMax` at most; whole vectors up
 * to `opWild`, 64 bytes before the end of the output at least. Matches reach back to `frame` and
 * over `window` bytes; down to `reachable` both are sure to be kept to.
 * @returns the bytes written, or INVALID, or OVERLONG where they are more than `opMax` allows
 */
export function carryOut(
  end: usize, out: usize, opMax: usize, opWild: usize, frame: usize, reachable: usize, window: u32,
): i32 {
  let op = out;
  let literal: usize = load<u32>(LITERALS_AT);
  const literalEnd: usize = load<u32>(LITERALS_END);
  for (let at = SEQUENCES; at != end; at += 16) {
    const literals: u32 = load<u32>(at);
    const bytes: u32 = load<u32>(at, 4);
    const distance: u32 = load<u32>(at, 8);
    const start: usize = op + literals;
    const stop: usize = start + bytes;
    if (!isPlain(
      literals, literalEnd - literal, literals + bytes, <i32>(opWild - op), distance,
      <u32>(start - reachable),
    )) {
      if (<usize>literals > literalEnd - literal) return INVALID;
      if (distance - 1 >= min(<u32>(start - frame), window)) return INVALID;
      if (<usize>(literals + bytes) > opMax - op) return OVERLONG;
      memory.copy(op, literal, literals);
      literal += literals;
      op = start;
      // A long match at the end of the output is the rule where a cluster ends in zeros: by vectors
      // that stay inside, over a multiple of the distance where that is short.
      let back: usize = distance;
      if (distance < 16) {
        back = load<u8>(<usize>distance, STRIDES);
        const edge = min(stop, op + back);
        for (; op < edge; op++) store<u8>(op, load<u8>(op - distance));
      }
      for (; op + 16 <= stop; op += 16) v128.store(op, v128.load(op - back));
      for (; op < stop; op++) store<u8>(op, load<u8>(op - distance));
      continue;
    }

    v128.store(op, v128.load(literal));
    if (literals > 16) {
      let i: usize = 16;
      do {
        v128.store(op + i, v128.load(literal + i));
        v128.store(op + i, v128.load(literal + i, 16), 16);
        i += 32;
      } while (i < <usize>literals);
    }
    literal += literals;

    let from: usize = start - distance;
    if (distance < 16) {
      // The first vector repeats the pattern; the rest copies over a multiple of the distance.
      v128.store(start, v128.swizzle(v128.load(from), v128.load(<usize>distance << 4, PATTERNS)));
      from = start - load<u8>(<usize>distance, STRIDES);
    } else {
      v128.store(start, v128.load(from));
    }
    v128.store(start, v128.load(from, 16), 16);
    if (bytes > 32) {
      op = start + 32;
      do {
        from += 32;
        v128.store(op, v128.load(from));
        v128.store(op, v128.load(from, 16), 16);
        op += 32;
      } while (op < stop);
    }
    op = stop;
  }
  store<u32>(LITERALS_AT, literal);
  return <i32>(op - out);
}
