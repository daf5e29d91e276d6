/** The twin of assembly/refcount-get-set.ts. */
import { type Kernels, MISUSE } from '../../../src/kernels/kernels.ts';
import { mapped } from './bounds.ts';
import { entriesMapped, entryHigh, entryLow, putEntry } from './refcount-entry.ts';

export const refcountGet =
  (memory: WebAssembly.Memory): Kernels['refcountGet'] =>
  (block, first, count, order, out) => {
    if (order > 6 || !entriesMapped(memory, block, first, count, order)) return MISUSE;
    if (!mapped(memory, out, count * 8)) return MISUSE;
    const view = new DataView(memory.buffer);
    for (let i = 0; i < count; i++) {
      view.setUint32(out + i * 8, entryLow(view, block, first + i, order), true);
      view.setUint32(out + i * 8 + 4, entryHigh(view, block, first + i, order), true);
    }
    return count;
  };

export const refcountSet =
  (memory: WebAssembly.Memory): Kernels['refcountSet'] =>
  (block, first, count, order, values) => {
    if (order > 6 || !entriesMapped(memory, block, first, count, order)) return MISUSE;
    if (!mapped(memory, values, count * 8)) return MISUSE;
    const view = new DataView(memory.buffer);
    const limit = 2 ** (2 ** order);
    for (let i = 0; i < count; i++) {
      const low = view.getUint32(values + i * 8, true);
      const high = view.getUint32(values + i * 8 + 4, true);
      if (order < 6 && (high !== 0 || low >= limit)) return -1 - i;
    }
    for (let i = 0; i < count; i++) {
      const low = view.getUint32(values + i * 8, true);
      const high = view.getUint32(values + i * 8 + 4, true);
      putEntry(view, block, first + i, order, high, low);
    }
    return count;
  };
