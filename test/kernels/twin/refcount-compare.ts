/** The twin of assembly/refcount-compare.ts. */
import { type Kernels, MISUSE } from '../../../src/kernels/kernels.ts';
import { mapped } from './bounds.ts';
import { entriesMapped, entryHigh, entryLow } from './refcount-entry.ts';

export const refcountCompare =
  (memory: WebAssembly.Memory): Kernels['refcountCompare'] =>
  (block, first, count, order, counts, width) => {
    if (order > 6 || !entriesMapped(memory, block, first, count, order)) return MISUSE;
    if ((width !== 2 && width !== 4) || !mapped(memory, counts, count * width)) return MISUSE;
    const view = new DataView(memory.buffer);
    for (let i = 0; i < count; i++) {
      const at = counts + i * width;
      const counted = width === 4 ? view.getUint32(at, true) : view.getUint16(at, true);
      if (entryLow(view, block, first + i, order) !== counted) return i;
      if (entryHigh(view, block, first + i, order) !== 0) return i;
    }
    return count;
  };

export const refcountOnes =
  (memory: WebAssembly.Memory): Kernels['refcountOnes'] =>
  (block, count, order, out) => {
    if (order > 6 || count % 16 !== 0) return MISUSE;
    if (!entriesMapped(memory, block, 0, count, order)) return MISUSE;
    if (!mapped(memory, out, count / 8)) return MISUSE;
    const view = new DataView(memory.buffer);
    for (let i = 0; i < count; i += 8) {
      let byte = 0;
      for (let bit = 0; bit < 8; bit++) {
        const high = entryHigh(view, block, i + bit, order);
        if (high === 0 && entryLow(view, block, i + bit, order) === 1) byte |= 1 << bit;
      }
      view.setUint8(out + i / 8, byte);
    }
    return count;
  };
