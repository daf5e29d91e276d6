/** The twin of assembly/copied-mismatch.ts. */
import { type Kernels, L2Flags, MISUSE } from '../../../src/kernels/kernels.ts';
import { isClusterBits, mapped } from './bounds.ts';

const COMPRESSED = 0x4000_0000;
const LAST_WINDOW = 4;

export const l2CopiedMismatch =
  (memory: WebAssembly.Memory): Kernels['l2CopiedMismatch'] =>
  (table, entries, stride, clusterBits, flags, ones, first, length) => {
    if ((stride !== 8 && stride !== 16) || !isClusterBits(clusterBits)) return MISUSE;
    if (!mapped(memory, table, entries * stride)) return MISUSE;
    if (!mapped(memory, ones, Math.floor(length / 8) + 2)) return MISUSE;
    const view = new DataView(memory.buffer);
    const isOne = (k: number) => ((view.getUint8(ones + (k >>> 3)) >> (k & 7)) & 1) === 1;
    for (let i = 0; i < entries; i++) {
      const high = view.getUint32(table + i * stride);
      const low = view.getUint32(table + i * stride + 4);
      const host = (high & 0xff_ffff) * 2 ** 32 + ((low & 0xffff_fe00) >>> 0);
      const copied = high >>> 31 === 1;
      if (high & COMPRESSED || host === 0) continue;
      if (flags & L2Flags.dataFile) {
        if (!copied) return i;
        continue;
      }
      const k = Math.floor(host / 2 ** clusterBits) - first;
      if (k < 0) continue;
      if (k < length ? isOne(k) !== copied : copied && (flags & LAST_WINDOW) !== 0) return i;
    }
    return entries;
  };
