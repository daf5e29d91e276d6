/** The twin of assembly/copied-flags.ts. */
import { type Kernels, MISUSE } from '../../../src/kernels/kernels.ts';
import { mapped } from './bounds.ts';
import { entriesMapped, entryHigh, entryLow } from './refcount-entry.ts';

const COPIED = 0x8000_0000;

export const l2CopiedFlags =
  (memory: WebAssembly.Memory): Kernels['l2CopiedFlags'] =>
  (table, count, stride, block, first, order) => {
    if (order > 6 || !entriesMapped(memory, block, first, count, order)) return MISUSE;
    if ((stride !== 8 && stride !== 16) || !mapped(memory, table, count * stride)) return MISUSE;
    const view = new DataView(memory.buffer);
    let changed = 0;
    for (let i = 0; i < count; i++) {
      const at = table + i * stride;
      const one =
        entryLow(view, block, first + i, order) === 1 &&
        entryHigh(view, block, first + i, order) === 0;
      const before = view.getUint32(at);
      const after = ((before & ~COPIED) | (one ? COPIED : 0)) >>> 0;
      if (after === before) continue;
      view.setUint32(at, after);
      changed++;
    }
    return changed;
  };
