/** What a check does with tables: L2 tables of 64 KiB, refcount blocks of 64 KiB. */
import { Tally } from '../../src/kernels/kernels.ts';
import { rng } from '../../test/random.ts';
import { bytes, IN, OUT, printRaces, type Race, view } from './race.ts';

const random = rng(1);
const TALLY = IN + 0x100000;
const CLUSTERS = 65536;
const COPIED = 0x8000_0000;
/** As `l2CopiedMismatch` takes it: no window comes after this one. */
const LAST_WINDOW = 4;

/** Puts a table whose entries come in runs of `run` neighbouring clusters. */
function fillTable(stride: number, run: number): void {
  bytes.fill(0, OUT, OUT + CLUSTERS * 2);
  let cluster = 1;
  for (let at = 0; at < 65536; at += stride) {
    if ((at / stride) % run === 0) cluster = 1 + random.below(CLUSTERS - run - 2);
    view.setUint32(IN + at, COPIED + (cluster >>> 16));
    view.setUint32(IN + at + 4, (cluster << 16) >>> 0);
    if (stride === 16) {
      view.setUint32(IN + at + 8, 0);
      view.setUint32(IN + at + 12, 0xffff_ffff);
    }
    cluster++;
  }
  for (const [field, value] of [
    [Tally.clusterBits, 16],
    [Tally.flags, 0],
    [Tally.limit, CLUSTERS],
    [Tally.counts, OUT],
    [Tally.first, 0],
    [Tally.length, CLUSTERS],
    [Tally.most, 0xffff],
    [Tally.width, 2],
    [Tally.times, 1],
    [Tally.seen, 0],
  ] as const) {
    view.setUint32(TALLY + field, value, true);
  }
}

const references = (name: string, stride: number, run: number): Race => ({
  name,
  count: 65536 / stride,
  unit: 'entry',
  fill: () => fillTable(stride, run),
  call: (kernels) => {
    // So often that counts would be full.
    bytes.fill(0, OUT, OUT + CLUSTERS * 2);
    return kernels.l2References(IN, 65536 / stride, stride, TALLY);
  },
});

const flags = (name: string, run: number): Race => ({
  name,
  count: 8192,
  unit: 'entry',
  fill: () => {
    fillTable(8, run);
    bytes.fill(0xff, OUT, OUT + CLUSTERS / 8 + 2);
  },
  call: (kernels) => kernels.l2CopiedMismatch(IN, 8192, 8, 16, LAST_WINDOW, OUT, 0, CLUSTERS),
});

const countOf = (order: number) => Math.min(32768, (0x10000 * 8) / 2 ** order);

const compare = (order: number): Race => ({
  name: `${2 ** order} bits`,
  count: countOf(order),
  unit: 'entry',
  fill: () => {
    bytes.fill(0, IN, IN + 0x10000);
    bytes.fill(0, OUT, OUT + 0x20000);
  },
  call: (kernels) => kernels.refcountCompare(IN, 0, countOf(order), order, OUT, order > 4 ? 4 : 2),
});

const ones = (order: number): Race => ({
  name: `${2 ** order} bits`,
  count: countOf(order),
  unit: 'entry',
  fill: () => {
    for (let i = 0; i < 0x10000; i++) bytes[IN + i] = random.below(2);
  },
  call: (kernels) => kernels.refcountOnes(IN, countOf(order), order, OUT),
});

export default async function bench(): Promise<void> {
  printRaces('l2References', [
    references('one run', 8, 8192),
    references('runs of 100', 8, 100),
    references('at random', 8, 1),
    references('extended, one run', 16, 4096),
    references('extended, at random', 16, 1),
  ]);
  printRaces('l2CopiedMismatch', [flags('one run', 8192), flags('at random', 1)]);
  const orders = [0, 1, 2, 3, 4, 5, 6];
  printRaces('refcountCompare', orders.map(compare));
  printRaces('refcountOnes', orders.map(ones));
}
