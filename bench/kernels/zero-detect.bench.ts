/** Zero detection in 64 KiB clusters (in the cache) and in a job's 8 MiB (mostly not). */
import { rng } from '../../test/random.ts';
import { bytes, IN, OUT, printRaces, type Race } from './race.ts';

const random = rng(1);

const race = (
  name: string,
  size: number,
  granule: number,
  isData: (i: number) => boolean,
): Race => ({
  name: `${name}, granules of ${granule}`,
  count: size,
  unit: 'byte',
  fill: () => {
    bytes.fill(0, IN, IN + size);
    for (let i = 0; i < size / granule; i++) {
      if (isData(i)) bytes.fill(7, IN + i * granule, IN + (i + 1) * granule);
    }
  },
  call: (kernels) => kernels.dataRanges(IN, size, granule, 0, OUT, size / 512),
});

const cluster = 0x10000;
const job = 0x800000;

export default async function bench(): Promise<void> {
  printRaces('dataRanges', [
    race('64 KiB, zeros', cluster, 4096, () => false),
    race('64 KiB, zeros', cluster, 512, () => false),
    race('64 KiB, data', cluster, 4096, () => true),
    race('64 KiB, by turns', cluster, 4096, (i) => i % 2 === 0),
    race('64 KiB, by turns', cluster, 512, (i) => i % 2 === 0),
    race('64 KiB, at random', cluster, 512, () => random.oneIn(2)),
    race('8 MiB, zeros', job, 4096, () => false),
    race('8 MiB, data', job, 4096, () => true),
    race('8 MiB, at random', job, 4096, () => random.oneIn(2)),
  ]);
}
