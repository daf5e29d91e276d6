/** The twin of assembly/refcount-add.ts. */
import { type Kernels, MISUSE } from '../../../src/kernels/kernels.ts';
import { entriesMapped, entryHigh, entryLow, putEntry } from './refcount-entry.ts';

const WORD = 2 ** 32;

export const refcountAdd =
  (memory: WebAssembly.Memory): Kernels['refcountAdd'] =>
  (block, first, count, order, delta) => {
    if (order > 6 || !entriesMapped(memory, block, first, count, order)) return MISUSE;
    if (count >= 2 ** 31 || (delta !== 1 && delta !== -1)) return MISUSE;
    const view = new DataView(memory.buffer);
    const lowMax = order >= 5 ? WORD - 1 : 2 ** (2 ** order) - 1;
    const highMax = order === 6 ? WORD - 1 : 0;
    for (let i = 0; i < count; i++) {
      const low = entryLow(view, block, first + i, order);
      const high = entryHigh(view, block, first + i, order);
      if (low === 0 && high === 0) return -1 - i;
      if (delta === 1 && low === lowMax && high === highMax) return -1 - i;
    }
    for (let i = 0; i < count; i++) {
      const low = entryLow(view, block, first + i, order) + delta;
      const carry = low === WORD ? 1 : low < 0 ? -1 : 0;
      const high = entryHigh(view, block, first + i, order) + carry;
      putEntry(view, block, first + i, order, high, low >>> 0);
    }
    return count;
  };
