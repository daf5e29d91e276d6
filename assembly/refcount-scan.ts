// The free runs of a refcount block: where the refcounts are 0. (Kernels.refcountFreeRuns)
//
// Sixty-four entries become one word with a bit for each that is 0, whatever the width (layout:
// refcount-entry.ts), and mask-runs.ts takes the runs from the words.

import { MISUSE, mapped } from './bounds';
import { closeRun, scanWord } from './mask-runs';
import { ORDER_MAX, byteOf, entriesMapped, entryGet, free16 } from './refcount-entry';

// @ts-ignore: decorator
@inline
function free64(at: usize, order: u32): u64 {
  if (order == 0) return ~load<u64>(at);
  // Bytes of 16 entries: 4, 8, … 128.
  const step: usize = 2 << order;
  return (
    <u64>(free16(at, order) | (free16(at + step, order) << 16)) |
    (<u64>(free16(at + 2 * step, order) | (free16(at + 3 * step, order) << 16)) << 32)
  );
}

// @ts-ignore: decorator
@inline
function freeRuns(
  block: usize, first: u32, count: u32, order: u32, out: usize, edgeMax: u32,
): u32 {
  const end = first + count;
  // Eight entries fill whole bytes at every width; those before the first are masked out.
  let index = first & ~7;
  let mask: u64 = (~(<u64>0)) << (first & 7);
  let edges: u32 = 0;
  while (end - index >= 64) {
    const word = free64(byteOf(block, index, order), order) & mask;
    edges = scanWord(word, index, out, edges, edgeMax);
    if (edges == edgeMax) return edgeMax >> 1;
    mask = ~(<u64>0);
    index += 64;
  }
  let word: u64 = 0;
  let bit: u32 = 0;
  for (; end - index - bit >= 16; bit += 16) {
    word |= <u64>free16(byteOf(block, index + bit, order), order) << bit;
  }
  for (; bit < end - index; bit++) {
    word |= <u64>(entryGet(block, index + bit, order) == 0) << bit;
  }
  // Entries from the end on read as taken, which closes a run that reaches it.
  if (bit != 0) {
    edges = scanWord(word & mask, index, out, edges, edgeMax);
    if (edges == edgeMax) return edgeMax >> 1;
  }
  return closeRun(end, out, edges);
}

export function refcountFreeRuns(
  block: usize, first: u32, count: u32, order: u32, out: usize, outMax: u32,
): i32 {
  if (order > ORDER_MAX || !entriesMapped(block, first, count, order)) return MISUSE;
  if (!mapped(out, <u64>outMax << 3)) return MISUSE;
  if (count == 0 || outMax == 0) return 0;
  const edgeMax = outMax << 1;
  switch (order) {
    case 0: return freeRuns(block, first, count, 0, out, edgeMax);
    case 1: return freeRuns(block, first, count, 1, out, edgeMax);
    case 2: return freeRuns(block, first, count, 2, out, edgeMax);
    case 3: return freeRuns(block, first, count, 3, out, edgeMax);
    case 4: return freeRuns(block, first, count, 4, out, edgeMax);
    case 5: return freeRuns(block, first, count, 5, out, edgeMax);
    default: return freeRuns(block, first, count, 6, out, edgeMax);
  }
}
