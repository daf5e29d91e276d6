// COPIED flags of L2 entries, rebuilt from refcounts. (Kernels.l2CopiedFlags)
//
//   63   COPIED: the refcount of the entry's cluster is exactly one
//
// Entries are big-endian, so the flag is the highest bit of an entry's first byte. The entries of
// one call refer to clusters that follow each other, and so do their refcounts.

import { MISUSE, mapped } from './bounds';
import { ORDER_MAX, entriesMapped, entryGet } from './refcount-entry';

// @ts-ignore: decorator
@inline
function setFlags(
  table: usize, count: u32, stride: u32, block: usize, first: u32, order: u32,
): i32 {
  let changed: i32 = 0;
  for (let i: u32 = 0; i < count; i++, table += stride) {
    const before: u32 = load<u8>(table);
    const copied = <u32>(entryGet(block, first + i, order) == 1);
    const after = (before & 0x7f) | (copied << 7);
    changed += <i32>(before != after);
    store<u8>(table, <u8>after);
  }
  return changed;
}

export function l2CopiedFlags(
  table: usize, count: u32, stride: u32, block: usize, first: u32, order: u32,
): i32 {
  if (order > ORDER_MAX || !entriesMapped(block, first, count, order)) return MISUSE;
  if ((stride != 8 && stride != 16) || !mapped(table, <u64>count * stride)) return MISUSE;
  switch (order) {
    case 0: return setFlags(table, count, stride, block, first, 0);
    case 1: return setFlags(table, count, stride, block, first, 1);
    case 2: return setFlags(table, count, stride, block, first, 2);
    case 3: return setFlags(table, count, stride, block, first, 3);
    case 4: return setFlags(table, count, stride, block, first, 4);
    case 5: return setFlags(table, count, stride, block, first, 5);
    default: return setFlags(table, count, stride, block, first, 6);
  }
}
