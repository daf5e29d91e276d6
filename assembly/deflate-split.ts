// Where do blocks start? Segments that are better off with a common code join: again and again
// those two neighbours whose joining saves the most, until none does. What a code costs is taken
// from the entropy of its symbols, and what its header costs from how many there are.

import { log2, sum } from './deflate-entropy';
import { SEGMENTS } from './deflate-scratch';
import {
  BITS, BYTES, FROM, RECORD, SAVING, segment, SEQUENCES_END,
} from './deflate-segments';

// Bits of a header: so many, and for each symbol that comes up.
// @ts-ignore: decorator
@inline const HEADER_BITS: f32 = 200;
// @ts-ignore: decorator
@inline const SYMBOL_BITS: f32 = 3.6;

// u32: addresses of the records, in order.
// @ts-ignore: decorator
@inline const LIST: usize = SEGMENTS + 34 * RECORD;

// Bits of a block from two records (the same one twice: from that alone), extra bits left out.
function bitsOf(a: usize, b: usize): f32 {
  const alone = a == b;
  const one = f32x4.splat(1);
  let bits: f32 = HEADER_BITS;
  let used = i32x4.splat(0);
  let at: usize = 0;
  let end: usize = 288 * 4;
  while (true) {
    let total = f32x4.splat(0);
    let logs = f32x4.splat(0);
    for (; at < end; at += 16) {
      let counts = v128.load(a + at);
      if (!alone) counts = i32x4.add(counts, v128.load(b + at));
      const numbers = f32x4.convert_i32x4_u(counts);
      total = f32x4.add(total, numbers);
      logs = f32x4.add(logs, f32x4.mul(numbers, log2(f32x4.max(numbers, one))));
      used = i32x4.add(used, i32x4.ne(counts, i32x4.splat(0)));
    }
    const all = f32x4.splat(max<f32>(sum(total), 1));
    bits += sum(total) * f32x4.extract_lane(log2(all), 0) - sum(logs);
    if (end == 320 * 4) break;
    end = 320 * 4;
  }
  // Each lane that was not zero has counted one down.
  return bits + SYMBOL_BITS * -sum(f32x4.convert_i32x4_s(used));
}

/** The record of the block that stands at `index` in the list. */
// @ts-ignore: decorator
@inline
export function blockAt(index: u32): usize {
  return load<u32>(LIST + (<usize>index << 2));
}

// Finds what a block saves by joining the one behind it.
function weigh(index: u32, count: u32): void {
  const record = blockAt(index);
  if (index + 1 >= count) {
    store<f32>(record, -1, SAVING);
    return;
  }
  const next = blockAt(index + 1);
  const together = bitsOf(record, next);
  store<f32>(record, load<f32>(record, BITS) + load<f32>(next, BITS) - together, SAVING);
}

function join(index: u32, count: u32): void {
  const record = blockAt(index);
  const next = blockAt(index + 1);
  const bits = load<f32>(record, BITS) + load<f32>(next, BITS) - load<f32>(record, SAVING);
  store<f32>(record, bits, BITS);
  for (let at: usize = 0; at < FROM; at += 16) {
    v128.store(record + at, i32x4.add(v128.load(record + at), v128.load(next + at)));
  }
  store<u32>(record, load<u32>(record, BYTES) + load<u32>(next, BYTES), BYTES);
  store<u32>(record, load<u32>(next, SEQUENCES_END), SEQUENCES_END);
  const place = LIST + (<usize>index << 2) + 4;
  memory.copy(place, place + 4, (count - index - 2) << 2);
}

/**
 * Puts `count` segments together to blocks.
 * @returns how many blocks there are
 */
export function joinSegments(count: u32): u32 {
  for (let i: u32 = 0; i < count; i++) {
    store<u32>(LIST + (<usize>i << 2), <u32>segment(i));
  }
  if (count < 2) return count;
  for (let i: u32 = 0; i < count; i++) store<f32>(segment(i), bitsOf(segment(i), segment(i)), BITS);
  for (let i: u32 = 0; i < count; i++) weigh(i, count);
  while (true) {
    let best: u32 = 0;
    for (let i: u32 = 1; i < count; i++) {
      if (load<f32>(blockAt(i), SAVING) > load<f32>(blockAt(best), SAVING)) best = i;
    }
    if (load<f32>(blockAt(best), SAVING) <= 0) return count;
    join(best, count);
    count--;
    weigh(best, count);
    if (best > 0) weigh(best - 1, count);
  }
}
