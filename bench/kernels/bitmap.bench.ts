/** Dirty bitmaps: runs of a 64 KiB cluster of bits, and ranges to bits. */
import { rng } from '../../test/random.ts';
import { bytes, IN, OUT, printRaces, type Race, view } from './race.ts';

const random = rng(1);
const SIZE = 0x10000;
const RANGES = 8192;

const scan = (name: string, fill: () => void): Race => ({
  name,
  count: SIZE,
  unit: 'byte',
  fill,
  call: (kernels) => kernels.bitmapRuns(IN, 0, SIZE * 8, OUT, SIZE * 4),
});

function fillBits(patience: number): void {
  let bit = 0;
  bytes.fill(0, IN, IN + SIZE);
  for (let i = 0; i < SIZE * 8; i++) {
    if (random.oneIn(patience)) bit = random.below(2);
    bytes[IN + (i >> 3)]! |= bit << (i & 7);
  }
}

export default async function bench(): Promise<void> {
  printRaces('bitmapRuns, 64 KiB', [
    scan('clear', () => bytes.fill(0, IN, IN + SIZE)),
    scan('set', () => bytes.fill(0xff, IN, IN + SIZE)),
    scan('stretches of about 10000 bits', () => fillBits(5000)),
    scan('stretches of about 100 bits', () => fillBits(50)),
    scan('stretches of about 10 bits', () => fillBits(5)),
    scan('every other bit', () => bytes.fill(0x55, IN, IN + SIZE)),
    scan('at random', () => fillBits(1)),
  ]);
  const merge = (name: string, shift: number, patience: number): Race => ({
    name,
    count: shift < 0 ? (SIZE * 8) >> 4 : SIZE * 8,
    unit: 'bit',
    fill: () => fillBits(patience),
    call: (kernels) =>
      kernels.bitmapMerge(OUT, 0, IN, 0, shift < 0 ? (SIZE * 8) >> 4 : SIZE * 8, shift),
  });
  printRaces('bitmapMerge, 64 KiB', [
    merge('a bit for a bit', 0, 50),
    merge('sixteen bits to one', 4, 50),
    merge('one bit to sixteen', -4, 50),
  ]);
  printRaces('bitmapBits', [
    {
      name: '8192 ranges',
      count: RANGES,
      unit: 'range',
      fill: () => {
        for (let i = 0; i < RANGES; i++) {
          view.setFloat64(IN + i * 16, random.below(2 ** 40), true);
          view.setFloat64(IN + i * 16 + 8, random.below(2 ** 24), true);
        }
      },
      call: (kernels) => kernels.bitmapBits(IN, RANGES, 16, OUT),
    },
  ]);
}
