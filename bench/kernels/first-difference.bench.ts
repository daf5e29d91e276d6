/** Comparing clusters that are the same, and that differ at their end. */
import { bytes, IN, printRaces, type Race } from './race.ts';

const CLUSTER = 0x10000;
const OTHER = IN + 0x800000;

const race = (name: string, size: number, differ: boolean): Race => ({
  name,
  count: size,
  unit: 'byte',
  fill: () => {
    bytes.fill(7, IN, IN + size);
    bytes.fill(7, OTHER, OTHER + size);
    if (differ) bytes[OTHER + size - 1] = 8;
  },
  call: (kernels) => kernels.firstDifference(IN, OTHER, size),
});

export default async function bench(): Promise<void> {
  printRaces('firstDifference', [
    race('64 KiB, the same', CLUSTER, false),
    race('64 KiB, differing at the end', CLUSTER, true),
    race('8 MiB, the same', 0x800000, false),
  ]);
}
