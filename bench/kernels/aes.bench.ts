/** AES of 64 KiB and the XOR of XTS around it. What Node does itself is not raced here. */
import { AES_SCHEDULE_BYTES } from '../../src/kernels/kernels.ts';
import { bytes, IN, OUT, printRaces, type Race } from './race.ts';

const SIZE = 0x10000;

/** The schedule is each side's own: it is made before every call, at some microseconds. */
const cipher = (name: 'aesEncrypt' | 'aesDecrypt', keyBytes: number): Race => ({
  name: `${name}, ${keyBytes * 8}-bit key`,
  count: SIZE,
  unit: 'byte',
  fill: () => bytes.fill(7, IN, IN + SIZE),
  call: (kernels) => {
    const rounds = kernels.aesExpandKey(IN, keyBytes, IN + 64);
    return kernels[name](IN + 64, rounds, OUT, SIZE / 16);
  },
});

export default async function bench(): Promise<void> {
  printRaces('AES, 64 KiB', [
    cipher('aesEncrypt', 16),
    cipher('aesEncrypt', 32),
    cipher('aesDecrypt', 16),
    cipher('aesDecrypt', 32),
    {
      name: 'xtsXor',
      count: SIZE,
      unit: 'byte',
      fill: () => bytes.fill(7, IN, IN + SIZE),
      call: (kernels) => kernels.xtsXor(OUT, SIZE / 512, IN + AES_SCHEDULE_BYTES),
    },
    {
      name: 'xorBytes',
      count: SIZE,
      unit: 'byte',
      fill: () => bytes.fill(7, IN, IN + SIZE),
      call: (kernels) => kernels.xorBytes(OUT, IN, SIZE),
    },
  ]);
}
