/** The twin of assembly/refcount-scan.ts. */
import { type Kernels, MISUSE } from '../../../src/kernels/kernels.ts';
import { mapped } from './bounds.ts';
import { entriesMapped, entryHigh, entryLow } from './refcount-entry.ts';

export const refcountFreeRuns =
  (memory: WebAssembly.Memory): Kernels['refcountFreeRuns'] =>
  (block, first, count, order, out, outMax) => {
    if (order > 6 || !entriesMapped(memory, block, first, count, order)) return MISUSE;
    if (!mapped(memory, out, outMax * 8)) return MISUSE;
    const view = new DataView(memory.buffer);
    let runs = 0;
    let start = -1;
    for (let index = first; index < first + count; index++) {
      const free =
        entryLow(view, block, index, order) === 0 && entryHigh(view, block, index, order) === 0;
      if (free && start < 0) {
        if (runs === outMax) return runs;
        start = index;
      } else if (!free && start >= 0) {
        view.setUint32(out + runs * 8, start, true);
        view.setUint32(out + runs * 8 + 4, index - start, true);
        runs++;
        start = -1;
      }
    }
    if (start >= 0) {
      view.setUint32(out + runs * 8, start, true);
      view.setUint32(out + runs * 8 + 4, first + count - start, true);
      runs++;
    }
    return runs;
  };
