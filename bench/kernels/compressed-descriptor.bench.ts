/** Compressed-cluster descriptors, 8192 entries. */
import { rng } from '../../test/random.ts';
import { IN, OUT, printRaces, type Race, view } from './race.ts';

const COUNT = 8192;
const random = rng(1);

const race = (name: string, stride: number, compressed: () => boolean): Race => ({
  name,
  count: COUNT,
  unit: 'entry',
  fill: () => {
    for (let i = 0; i < COUNT; i++) {
      view.setUint32(IN + i * stride, (compressed() ? 0x4000_0000 : 0) + random.below(4096));
      view.setUint32(IN + i * stride + 4, random.u32());
    }
  },
  call: (kernels) => kernels.compressedDescriptors(IN, COUNT, stride, 16, OUT),
});

export default async function bench(): Promise<void> {
  printRaces('compressedDescriptors, 8192 entries', [
    race('all compressed', 8, () => true),
    race('none compressed', 8, () => false),
    race('compressed or not, at random', 8, () => random.oneIn(2)),
    race('all compressed, extended entries', 16, () => true),
  ]);
}
