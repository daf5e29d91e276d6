/** The twin of assembly/refcount-entry.ts. An entry is its two halves: high is 0 below 64 bits. */
import { mapped } from './bounds.ts';

export function entriesMapped(
  memory: WebAssembly.Memory,
  block: number,
  first: number,
  count: number,
  order: number,
): boolean {
  const end = first + count;
  return end < 2 ** 32 && mapped(memory, block, Math.ceil((end * 2 ** order) / 8));
}

/** The low 32 bits of an entry. */
export function entryLow(view: DataView, block: number, index: number, order: number): number {
  if (order === 6) return view.getUint32(block + index * 8 + 4);
  if (order === 5) return view.getUint32(block + index * 4);
  if (order === 4) return view.getUint16(block + index * 2);
  if (order === 3) return view.getUint8(block + index);
  const shift = (index & ((1 << (3 - order)) - 1)) << order;
  return (view.getUint8(block + (index >>> (3 - order))) >>> shift) & ((1 << (1 << order)) - 1);
}

/** The high 32 bits of an entry. */
export function entryHigh(view: DataView, block: number, index: number, order: number): number {
  return order === 6 ? view.getUint32(block + index * 8) : 0;
}

/** Writes an entry; the value fits. */
export function putEntry(
  view: DataView,
  block: number,
  index: number,
  order: number,
  high: number,
  low: number,
): void {
  if (order === 6) {
    view.setUint32(block + index * 8, high);
    view.setUint32(block + index * 8 + 4, low);
  } else if (order === 5) view.setUint32(block + index * 4, low);
  else if (order === 4) view.setUint16(block + index * 2, low);
  else if (order === 3) view.setUint8(block + index, low);
  else {
    const at = block + (index >>> (3 - order));
    const shift = (index & ((1 << (3 - order)) - 1)) << order;
    const mask = ((1 << (1 << order)) - 1) << shift;
    view.setUint8(at, (view.getUint8(at) & ~mask) | (low << shift));
  }
}
