/** The XOR of XTS, a byte at a time (IEEE Std 1619, 5.2). */
import { MISUSE } from '../../../src/kernels/kernels.ts';
import { mapped } from './bounds.ts';

/** XORs sectors with their tweaks. */
export function xtsXor(memory: WebAssembly.Memory) {
  return (at: number, sectors: number, tweaks: number): number => {
    const count = sectors >>> 0;
    if (!mapped(memory, at, count * 512) || !mapped(memory, tweaks, count * 16)) return MISUSE;
    const bytes = new Uint8Array(memory.buffer);
    for (let sector = 0; sector < count; sector++) {
      const tweak = bytes.slice(tweaks + sector * 16, tweaks + sector * 16 + 16);
      for (let block = at + sector * 512; block < at + sector * 512 + 512; block += 16) {
        for (let i = 0; i < 16; i++) bytes[block + i]! ^= tweak[i]!;
        let carry = 0;
        for (let i = 0; i < 16; i++) {
          const next = tweak[i]! >> 7;
          tweak[i] = ((tweak[i]! << 1) | carry) & 0xff;
          carry = next;
        }
        if (carry) tweak[0]! ^= 0x87;
      }
    }
    return 0;
  };
}

/** XORs bytes into others. */
export function xorBytes(memory: WebAssembly.Memory) {
  return (at: number, from: number, length: number): number => {
    const count = length >>> 0;
    if (!mapped(memory, at, count) || !mapped(memory, from, count)) return MISUSE;
    const bytes = new Uint8Array(memory.buffer);
    for (let i = 0; i < count; i++) bytes[at + i]! ^= bytes[from + i]!;
    return 0;
  };
}
