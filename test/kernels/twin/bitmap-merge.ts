/** The twin of assembly/bitmap-merge.ts. */
import { type Kernels, MISUSE } from '../../../src/kernels/kernels.ts';
import { mapped } from './bounds.ts';

export const bitmapMerge =
  (memory: WebAssembly.Memory): Kernels['bitmapMerge'] =>
  (dst, dstFirst, src, srcFirst, srcBits, shift) => {
    if (shift > 22 || shift < -22) return MISUSE;
    const srcEnd = srcFirst + srcBits;
    if (srcEnd >= 2 ** 32 || !mapped(memory, src, Math.ceil(srcEnd / 8))) return MISUSE;
    const dstEnd = dstFirst + Math.ceil(srcBits / 2 ** shift);
    if (dstEnd >= 2 ** 32 || !mapped(memory, dst, Math.ceil(dstEnd / 8))) return MISUSE;
    const view = new DataView(memory.buffer);
    let found = 0;
    for (let i = 0; i < srcBits; i++) {
      const bit = srcFirst + i;
      const byte = view.getUint8(src + Math.floor(bit / 8));
      if (byte === 0 && bit % 8 === 0) {
        i += 7;
        continue;
      }
      if (((byte >>> (bit & 7)) & 1) === 0) continue;
      found = 1;
      const from = dstFirst + Math.floor(i / 2 ** shift);
      const to = shift >= 0 ? from + 1 : from + 2 ** -shift;
      for (let at = from; at < to; at++) {
        const place = dst + Math.floor(at / 8);
        view.setUint8(place, view.getUint8(place) | (1 << (at & 7)));
      }
    }
    return found;
  };
