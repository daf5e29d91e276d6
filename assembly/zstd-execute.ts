// Carrying out sequences: literals, then a match, again and again. (RFC 8878, 3.1.1.4)
//
// Copies go by 16 bytes and run over the end of what they copy, which the next one overwrites. So
// the last 64 bytes of the output, and whatever else is out of the ordinary, go another way, out of
// the loop: what it does not hold needs no registers there.

import { PATTERNS } from './match-patterns';
import {
  INVALID, LITERALS_AT, LITERALS_END, OUTPUT_AT, OVERLONG, SEQUENCES,
} from './zstd-scratch';

// The smallest multiple of a distance that is no less than 16.
const STRIDES: usize = memory.data<u8>([
  0, 16, 16, 18, 16, 20, 18, 21, 16, 18, 20, 22, 24, 26, 28, 30,
]);

/** Addresses up to here stay in order when the longest sequence is added. */
const ADDRESS_MAX: usize = 0xfff00000;

/**
 * Carries out sequences from `at` on, up to `end` or to one that is out of the ordinary: literals
 * beyond `literalMax`, output beyond `opWild`, a match below `reachable`.
 * @returns where it stopped
 */
function carryMany(
  at: usize, end: usize, literalMax: usize, opWild: usize, reachable: usize,
): usize {
  let op: usize = load<u32>(OUTPUT_AT);
  let literal: usize = load<u32>(LITERALS_AT);
  for (; at != end; at += 16) {
    const distance = load<u32>(at);
    const start: usize = op + load<u32>(at, 4);
    const literalNext: usize = literal + load<u32>(at, 4);
    const stop: usize = start + load<u32>(at, 8);
    // One test after another: joined by || they become sums of flags, dearer than the branches.
    if (literalNext > literalMax) break;
    if (stop > opWild) break;
    if (distance - 1 >= <u32>(start - reachable)) break; // 0 becomes too large

    v128.store(op, v128.load(literal));
    if (op + 16 < start) {
      do {
        op += 16;
        literal += 16;
        v128.store(op, v128.load(literal));
        op += 16;
        literal += 16;
        v128.store(op, v128.load(literal));
      } while (op + 16 < start);
    }
    literal = literalNext;

    let from: usize = start - distance;
    if (distance < 16) {
      // The first vector repeats the pattern; the rest copies over a multiple of the distance.
      v128.store(start, v128.swizzle(v128.load(from), v128.load(<usize>distance << 4, PATTERNS)));
      from = start - load<u8>(<usize>distance, STRIDES);
    } else {
      v128.store(start, v128.load(from));
    }
    v128.store(start, v128.load(from, 16), 16);
    if (start + 32 < stop) {
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
  store<u32>(OUTPUT_AT, <u32>op);
  store<u32>(LITERALS_AT, <u32>literal);
  return at;
}

/** Carries out one sequence, whatever it is. @returns 0, or INVALID, or OVERLONG */
function carryOne(at: usize, opMax: usize, frame: usize, window: u32): i32 {
  let op: usize = load<u32>(OUTPUT_AT);
  const literal: usize = load<u32>(LITERALS_AT);
  const distance = load<u32>(at);
  const literals = load<u32>(at, 4);
  const bytes = load<u32>(at, 8);
  const start: usize = op + literals;
  if (<usize>literals > load<u32>(LITERALS_END) - <u32>literal) return INVALID;
  if (distance - 1 >= min(<u32>(start - frame), window)) return INVALID;
  if (<usize>(literals + bytes) > opMax - op) return OVERLONG;
  memory.copy(op, literal, literals);
  store<u32>(LITERALS_AT, <u32>literal + literals);
  op = start;
  // A long match at the end of the output is the rule where a cluster ends in zeros: by vectors
  // that stay inside, over a multiple of the distance where that is short.
  const stop: usize = start + bytes;
  let back: usize = distance;
  if (distance < 16) {
    back = load<u8>(<usize>distance, STRIDES);
    const edge = min(stop, op + back);
    for (; op < edge; op++) store<u8>(op, load<u8>(op - distance));
  }
  for (; op + 16 <= stop; op += 16) v128.store(op, v128.load(op - back));
  for (; op < stop; op++) store<u8>(op, load<u8>(op - distance));
  store<u32>(OUTPUT_AT, <u32>stop);
  return 0;
}

/**
 * Carries out the sequences up to `end`, writing to `opMax` at most; whole vectors up to `opWild`,
 * 64 bytes before the end of the output at least. Matches reach back to `frame` and over `window`
 * bytes; down to `reachable` both are sure to be kept to.
 * @returns 0, or INVALID, or OVERLONG where the bytes are more than `opMax` allows
 */
export function carryOut(
  end: usize, opMax: usize, opWild: usize, frame: usize, reachable: usize, window: u32,
): i32 {
  const literalMax: usize = min<usize>(load<u32>(LITERALS_END), ADDRESS_MAX);
  const wild = min(opWild, ADDRESS_MAX);
  // Called from two places so that the compiler does not put the loop into this function.
  let at = carryMany(SEQUENCES, end, literalMax, wild, reachable);
  while (at != end) {
    const failed = carryOne(at, opMax, frame, window);
    if (failed) return failed;
    at = carryMany(at + 16, end, literalMax, wild, reachable);
  }
  return 0;
}
