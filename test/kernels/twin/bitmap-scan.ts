/** The twin of assembly/bitmap-scan.ts. Bytes without an edge are passed over whole. */
import { type Kernels, MISUSE } from '../../../src/kernels/kernels.ts';
import { mapped } from './bounds.ts';

export const bitmapRuns =
  (memory: WebAssembly.Memory): Kernels['bitmapRuns'] =>
  (bitmap, first, bits, out, outMax) => {
    const end = first + bits;
    if (end >= 2 ** 32 || !mapped(memory, bitmap, Math.ceil(end / 8))) return MISUSE;
    if (!mapped(memory, out, outMax * 8)) return MISUSE;
    const view = new DataView(memory.buffer);
    let runs = 0;
    let start = -1;
    let bit = first;
    while (bit < end) {
      const byte = view.getUint8(bitmap + Math.floor(bit / 8));
      if (bit % 8 === 0 && end - bit >= 8 && byte === (start < 0 ? 0 : 0xff)) {
        bit += 8;
        continue;
      }
      const set = ((byte >>> (bit & 7)) & 1) !== 0;
      if (set && start < 0) {
        if (runs === outMax) return runs;
        start = bit;
      } else if (!set && start >= 0) {
        view.setUint32(out + runs * 8, start, true);
        view.setUint32(out + runs * 8 + 4, bit - start, true);
        runs++;
        start = -1;
      }
      bit++;
    }
    if (start >= 0) {
      view.setUint32(out + runs * 8, start, true);
      view.setUint32(out + runs * 8 + 4, end - start, true);
      runs++;
    }
    return runs;
  };
