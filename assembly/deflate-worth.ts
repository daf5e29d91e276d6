// Which short matches are worth it? A match costs its length's and its distance's code words and
// extra bits; what it saves are literals, and those are cheap where few values come up.

import { log2, sum } from './deflate-entropy';
import { DIGITS, REACHES } from './deflate-scratch';
import { distBase, DIST_SYMBOLS } from './deflate-symbols';

// Bits of the code words of a length and of a distance, about.
// @ts-ignore: decorator
@inline const MATCH_BITS: f32 = 9;
// Lengths that are worth it at any distance, from here on.
// @ts-ignore: decorator
@inline const LONG: u32 = 16;
// Fewer literals tell nothing.
// @ts-ignore: decorator
@inline const LITERALS_MIN: f32 = 64;

/** Whether a match (length << 16 | distance) saves bits; 0 does not. */
// @ts-ignore: decorator
@inline
export function isWorth(match: u32): bool {
  return (match & 0xffff) < load<u16>(REACHES + <usize>(min(match >> 16, LONG) << 1));
}

/** Decides anew, from the frequencies of literals (u32 each). */
export function weighMatches(counts: usize): void {
  let total = f32x4.splat(0);
  let logs = f32x4.splat(0);
  const one = f32x4.splat(1);
  for (let at: usize = 0; at < 1024; at += 16) {
    const numbers = f32x4.convert_i32x4_u(v128.load(counts + at));
    total = f32x4.add(total, numbers);
    logs = f32x4.add(logs, f32x4.mul(numbers, log2(f32x4.max(numbers, one))));
  }
  const literals = sum(total);
  if (literals < LITERALS_MIN) return;
  const logTotal = f32x4.extract_lane(log2(f32x4.splat(literals)), 0);
  const literalBits = max<f32>(logTotal - sum(logs) / literals, 0.5);
  for (let length: u32 = 3; length < LONG; length++) {
    const extra = <i32>(<f32>length * literalBits - MATCH_BITS);
    // The symbols 2 * extra + 2 and + 3 have so many extra bits.
    const symbol = min(<i32>DIST_SYMBOLS, 2 * extra + 4);
    const reach = extra < 0 ? 0 : symbol > 24 ? 4097 : distBase(symbol);
    store<u16>(REACHES + <usize>(length << 1), <u16>reach);
  }
}

/** Decides for the first time, from the first bytes of the input. */
export function startWeighing(src: usize, bytes: u32): void {
  memory.fill(REACHES, 0, 6);
  for (let length: u32 = 3; length <= LONG; length++) {
    store<u16>(REACHES + <usize>(length << 1), 4097);
  }
  memory.fill(DIGITS, 0, 1024);
  for (const end = src + min<u32>(bytes, 2048); src < end; src++) {
    const count = DIGITS + (<usize>load<u8>(src) << 2);
    store<u32>(count, load<u32>(count) + 1);
  }
  weighMatches(DIGITS);
}
