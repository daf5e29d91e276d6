/** The twin of assembly/bitmap-offset.ts. */
import { type Kernels, MISUSE } from '../../../src/kernels/kernels.ts';
import { mapped } from './bounds.ts';

export const bitmapBits =
  (memory: WebAssembly.Memory): Kernels['bitmapBits'] =>
  (ranges, count, granularityBits, out) => {
    if (granularityBits > 62) return MISUSE;
    if (!mapped(memory, ranges, count * 16) || !mapped(memory, out, count * 16)) return MISUSE;
    const view = new DataView(memory.buffer);
    const scale = 2 ** -granularityBits;
    for (let i = 0; i < count; i++) {
      const start = view.getFloat64(ranges + i * 16, true);
      const length = view.getFloat64(ranges + i * 16 + 8, true);
      const first = Math.floor(start * scale);
      const end = length > 0 ? Math.ceil((start + length) * scale) : first;
      view.setFloat64(out + i * 16, first, true);
      view.setFloat64(out + i * 16 + 8, end - first, true);
    }
    return count;
  };
