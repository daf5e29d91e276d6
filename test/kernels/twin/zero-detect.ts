/** The twin of assembly/zero-detect.ts: eight bytes a step. */
import { type Kernels, MISUSE } from '../../../src/kernels/kernels.ts';
import { mapped } from './bounds.ts';

function anySet(view: DataView, at: number, bytes: number): boolean {
  const end = at + bytes;
  while (end - at >= 8) {
    if ((view.getUint32(at) | view.getUint32(at + 4)) !== 0) return true;
    at += 8;
  }
  while (at < end) {
    if (view.getUint8(at) !== 0) return true;
    at++;
  }
  return false;
}

export const dataRanges =
  (memory: WebAssembly.Memory): Kernels['dataRanges'] =>
  (at, bytes, granule, phase, out, outMax) => {
    if (granule < 512 || (granule & (granule - 1)) !== 0 || phase >= granule) return MISUSE;
    if (!mapped(memory, at, bytes) || outMax === 0 || !mapped(memory, out, outMax * 8)) {
      return MISUSE;
    }
    const view = new DataView(memory.buffer);
    let pairs = 0;
    let open = false;
    let pos = 0;
    while (pos < bytes) {
      const end = Math.min(bytes, pos === 0 ? granule - phase : pos + granule);
      if (anySet(view, at + pos, end - pos)) {
        if (!open) {
          if (pairs === outMax) break;
          view.setUint32(out + pairs * 8, pos, true);
          pairs++;
          open = true;
        }
      } else if (open) {
        view.setUint32(out + pairs * 8 - 4, pos, true);
        open = false;
      }
      pos = end;
    }
    if (open || pos < bytes) view.setUint32(out + pairs * 8 - 4, bytes, true);
    return pairs;
  };
