/** The twin of assembly/compressed-descriptor.ts. An entry is its two halves, each unsigned. */
import { type Kernels, MISUSE } from '../../../src/kernels/kernels.ts';
import { isClusterBits, mapped } from './bounds.ts';

const COMPRESSED = 0x4000_0000;

/** The host byte offset, or −1 for one that no reader may follow. */
export function streamHost(high: number, low: number, clusterBits: number): number {
  const top = high & ((1 << (38 - clusterBits)) - 1);
  if (top >= 0x20_0000 && (top >= 0x100_0000 || (low & 511) !== 0)) return -1;
  return top * 2 ** 32 + low;
}

/** The upper bound of the stored length. */
export function streamBytes(high: number, low: number, clusterBits: number): number {
  const sectors = ((high & 0x3fff_ffff) >>> (38 - clusterBits)) + 1;
  return sectors * 512 - (low & 511);
}

export const compressedDescriptors =
  (memory: WebAssembly.Memory): Kernels['compressedDescriptors'] =>
  (table, entries, stride, clusterBits, out) => {
    if (!isClusterBits(clusterBits) || (stride !== 8 && stride !== 16)) return MISUSE;
    if (!mapped(memory, table, entries * stride) || !mapped(memory, out, entries * 16)) {
      return MISUSE;
    }
    const view = new DataView(memory.buffer);
    let found = 0;
    for (let i = 0; i < entries; i++) {
      const high = view.getUint32(table + i * stride);
      const low = view.getUint32(table + i * stride + 4);
      let host = 0;
      let bytes = 0;
      let state = 0;
      if ((high & COMPRESSED) !== 0) {
        host = streamHost(high, low, clusterBits);
        if (host < 0) {
          host = 0;
          state = 2;
        } else {
          bytes = streamBytes(high, low, clusterBits);
          state = 1;
          found++;
        }
      }
      view.setFloat64(out + i * 16, host, true);
      view.setUint32(out + i * 16 + 8, bytes, true);
      view.setUint32(out + i * 16 + 12, state, true);
    }
    return found;
  };
