/** The twin of assembly/first-difference.ts: eight bytes a step. */
import { type Kernels, MISUSE } from '../../../src/kernels/kernels.ts';
import { mapped } from './bounds.ts';

export const firstDifference =
  (memory: WebAssembly.Memory): Kernels['firstDifference'] =>
  (a, b, bytes) => {
    if (!mapped(memory, a, bytes) || !mapped(memory, b, bytes)) return MISUSE;
    const view = new DataView(memory.buffer);
    let at = 0;
    while (bytes - at >= 8) {
      if (view.getUint32(a + at) !== view.getUint32(b + at)) break;
      if (view.getUint32(a + at + 4) !== view.getUint32(b + at + 4)) break;
      at += 8;
    }
    while (at < bytes && view.getUint8(a + at) === view.getUint8(b + at)) at++;
    return at;
  };
