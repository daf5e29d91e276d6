// Finite-state entropy tables for writing: choosing counts, describing them, laying them out,
// and the step of one symbol. (RFC 8878, 4.1)
//
// A field has all that concerns one kind of symbols:
//
//   0x000  256   COUNTS  u32 per symbol: how often it occurs
//   0x100  128   NORMAL  i16 per symbol: states it gets in the table in the making; −1 is one
//   0x180  128   LAST    the same of the table that the last block had
//   0x200  512   STEPS   8 bytes per symbol: see below
//   0x400  1 KiB STATES  u16: the next states, those of one symbol in a row
//   0x800  256   TEXT    the description of the table in the making
//   0x900  u32   LAST_LOG  log2 of the states of the last table; 0 where there is none to repeat
//
// A step from `state` on symbol s takes bits = (state + delta) >> 16 of it, and the next state is
// the u16 at place + 2 × (state >> bits):
//
//   0  u32  delta · 4  u32  place
//
// States are kept with the table's size added, as the decoder's are not.

import { log2 } from './log2';
import { NEXT, SPREAD } from './zstd-encode-scratch';

export const NORMAL: usize = 0x100;
export const LAST: usize = 0x180;
export const STEPS: usize = 0x200;
export const STATES: usize = 0x400;
export const TEXT: usize = 0x800;
export const LAST_LOG: usize = 0x900;

/** Costs no real one reaches: of what cannot be done. */
export const IMPOSSIBLE: u32 = 0x7fffffff;

// From which remainder (in 1/256) a share is rounded up: where the cost is the same either way.
const ROUND_UP: usize = memory.data<u8>([0, 106, 115, 119, 121, 123, 124, 124]);

/** log2 of the states that suit `total` symbols of `kinds` kinds. */
export function tableLog(total: u32, kinds: u32, logMax: u32): u32 {
  const enough: i32 = 30 - clz(total - 1); // half as many states as symbols
  const needed: i32 = 33 - clz(kinds - 1);
  return min(max(max(min(<i32>logMax, enough), needed), 5), <i32>logMax);
}

/** Shares out `1 << log` states among the symbols by how often they occur. */
export function normalise(field: usize, symbols: u32, total: u32, log: u32): void {
  const scale: u64 = (<u64>1 << (log + 40)) / total;
  let left: i32 = 1 << log;
  for (let s: usize = 0; s < symbols; s++) {
    const count = load<u32>(field + (s << 2));
    let share: u32 = 0;
    if (count) {
      const exact: u32 = <u32>((<u64>count * scale) >> 32); // 8 bits behind the point
      share = exact >> 8;
      if (share == 0) share = 1;
      else share += <u32>((exact & 255) > load<u8>(ROUND_UP + min(share, 7)));
      left -= share;
    }
    store<i16>(field + (s << 1), <i16>share, NORMAL);
  }
  // What is too much or too little goes where it costs least.
  while (left != 0) {
    let best: usize = 0;
    let bestWeight: u32 = left > 0 ? 0 : 0xffffffff;
    for (let s: usize = 0; s < symbols; s++) {
      const count = load<u32>(field + (s << 2));
      if (count == 0) continue;
      const share: u32 = load<i16>(field + (s << 1), NORMAL);
      if (left > 0) {
        const weight = (count << 10) / ((share << 1) + 1);
        if (weight > bestWeight) {
          bestWeight = weight;
          best = s;
        }
      } else if (share > 1) {
        const weight = (count << 10) / ((share << 1) - 1);
        if (weight < bestWeight) {
          bestWeight = weight;
          best = s;
        }
      }
    }
    const step = left > 0 ? 1 : -1;
    const at = field + (best << 1);
    store<i16>(at, <i16>(load<i16>(at, NORMAL) + step), NORMAL);
    left -= step;
  }
}

/** What the field's symbols cost with the counts at `normal`, in 1/256 bits. */
export function costOf(field: usize, symbols: u32, normal: usize, log: u32): u32 {
  let cost: u32 = 0;
  for (let s: usize = 0; s < symbols; s++) {
    const count = load<u32>(field + (s << 2));
    if (count == 0) continue;
    const share: i32 = load<i16>(normal + (s << 1));
    if (share == 0) return IMPOSSIBLE;
    cost += count * ((log << 8) - (share < 0 ? 0 : log2(share)));
  }
  return cost;
}

/** Writes the table's description to `to`. @returns its bytes */
export function describe(normal: usize, symbols: u32, log: u32, to: usize): u32 {
  let out = to;
  let acc: u64 = log - 5;
  let bits: u64 = 4;
  let remaining: i32 = (1 << log) + 1;
  let threshold: i32 = 1 << log;
  let width: u64 = log + 1;
  let zeroBefore = false;
  for (let s: u32 = 0; s < symbols && remaining > 1;) {
    if (zeroBefore) {
      let run: u32 = 0;
      while (s < symbols && load<i16>(normal + (<usize>s << 1)) == 0) {
        s++;
        run++;
      }
      if (s == symbols) break;
      for (; run >= 3; run -= 3) {
        acc |= <u64>3 << bits;
        bits += 2;
        store<u64>(out, acc);
        out += <usize>(bits >> 3);
        acc >>= bits & 0x38;
        bits &= 7;
      }
      acc |= <u64>run << bits;
      bits += 2;
    }
    let count: i32 = load<i16>(normal + (<usize>s << 1));
    s++;
    const spare: i32 = (threshold << 1) - 1 - remaining;
    remaining -= count < 0 ? 1 : count;
    count++;
    zeroBefore = count == 1;
    if (count >= threshold) count += spare;
    acc |= <u64>count << bits;
    bits += width - <u64>(count < spare);
    while (remaining < threshold) {
      width--;
      threshold >>= 1;
    }
    store<u64>(out, acc);
    out += <usize>(bits >> 3);
    acc >>= bits & 0x38;
    bits &= 7;
  }
  store<u64>(out, acc);
  return <u32>(out - to) + <u32>((bits + 7) >> 3);
}

/** Lays out the table of the counts at `normal` in the field's STATES and STEPS. */
export function layOut(field: usize, symbols: u32, normal: usize, log: u32): void {
  const size: u32 = 1 << log;
  const mask: u32 = size - 1;
  const step: u32 = (size >> 1) + (size >> 3) + 3;
  let high: u32 = size;
  let total: u32 = 0;
  for (let s: u32 = 0; s < symbols; s++) {
    const share: i32 = load<i16>(normal + (<usize>s << 1));
    const at: usize = field + (<usize>s << 3);
    store<u16>(<usize>s << 1, <u16>total, NEXT);
    if (share == 0) continue;
    if (share < 0) {
      high--;
      store<u8>(high, <u8>s, SPREAD);
    }
    const count: u32 = share < 0 ? 1 : share;
    const bits: u32 = count == 1 ? log : log - (31 - clz(count - 1));
    store<u32>(at, (bits << 16) - (count << bits), STEPS);
    store<u32>(at, <u32>(field + STATES) + ((total - count) << 1), STEPS + 4);
    total += count;
  }
  let position: u32 = 0;
  for (let s: u32 = 0; s < symbols; s++) {
    for (let i: i32 = load<i16>(normal + (<usize>s << 1)); i > 0; i--) {
      store<u8>(position, <u8>s, SPREAD);
      do position = (position + step) & mask; while (position >= high);
    }
  }
  for (let u: u32 = 0; u < size; u++) {
    const s: usize = <usize>load<u8>(u, SPREAD) << 1;
    const next: u32 = load<u16>(s, NEXT);
    store<u16>(s, <u16>(next + 1), NEXT);
    store<u16>(field + (<usize>next << 1), <u16>(size + u), STATES);
  }
}

/** Makes the field's table one of a single state, which takes no bits. */
export function layOutSingle(field: usize, symbol: u32): void {
  store<u16>(field, 0, STATES);
  store<u64>(field + (<usize>symbol << 3), <u64>(field + STATES) << 32, STEPS);
}

/** The first state: one from which the symbol takes the fewest bits. */
// @ts-ignore: decorator
@inline
export function firstState(field: usize, symbol: u32): u64 {
  const step = load<u64>(field + (<usize>symbol << 3), STEPS);
  const delta: u32 = <u32>step;
  const bits: u32 = (delta + 0x8000) >> 16;
  const value: u32 = (bits << 16) - delta;
  return load<u16>(<usize>(step >> 32) + (<usize>(value >> bits) << 1));
}
