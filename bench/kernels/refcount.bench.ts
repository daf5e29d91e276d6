/** Refcount blocks of 64 KiB at every width, at most 32768 entries at a time. */
import { rng } from '../../test/random.ts';
import { bytes, IN, OUT, printRaces, type Race, view } from './race.ts';

const random = rng(1);
const VALUES = IN + 0x700000;
const orders = [0, 1, 2, 3, 4, 5, 6];
const countOf = (order: number) => Math.min(32768, (0x10000 * 8) / 2 ** order);

/** Fills a block: each byte is kept from the last one, but for one in `patience`. */
function fillBlock(patience: number): void {
  let byte = 1;
  for (let i = 0; i < 0x10000; i++) {
    if (random.oneIn(patience)) byte = random.oneIn(2) ? 0 : 1 + random.below(255);
    bytes[IN + i] = byte;
  }
}

const get = (order: number): Race => ({
  name: `${2 ** order} bits`,
  count: countOf(order),
  unit: 'entry',
  fill: () => fillBlock(8),
  call: (kernels) => kernels.refcountGet(IN, 0, countOf(order), order, OUT),
});

const set = (order: number): Race => ({
  name: `${2 ** order} bits`,
  count: countOf(order),
  unit: 'entry',
  fill: () => {
    for (let i = 0; i < countOf(order); i++) {
      view.setUint32(VALUES + i * 8, random.below(2), true);
      view.setUint32(VALUES + i * 8 + 4, 0, true);
    }
  },
  call: (kernels) => kernels.refcountSet(OUT, 0, countOf(order), order, VALUES),
});

const add = (order: number): Race => ({
  name: `${2 ** order} bits`,
  count: countOf(order),
  unit: 'entry',
  // Up by one and down again, so that every round finds the same.
  fill: () => bytes.fill(order === 6 ? 0x11 : 0x55, IN, IN + 0x10000),
  call: (kernels) =>
    kernels.refcountAdd(IN, 0, countOf(order), order, 1) +
    kernels.refcountAdd(IN, 0, countOf(order), order, -1),
});

const flags = (order: number): Race => ({
  name: `${2 ** order} bits`,
  count: 8192,
  unit: 'entry',
  fill: () => fillBlock(8),
  call: (kernels) => kernels.l2CopiedFlags(OUT, 8192, 8, IN, 0, order),
});

const scan = (order: number, name: string, fill: () => void): Race => ({
  name: `${2 ** order} bits, ${name}`,
  count: countOf(order),
  unit: 'entry',
  fill,
  call: (kernels) => kernels.refcountFreeRuns(IN, 0, countOf(order), order, OUT, countOf(order)),
});

export default async function bench(): Promise<void> {
  printRaces('refcountGet', orders.map(get));
  printRaces('refcountSet', orders.map(set));
  printRaces('refcountAdd, twice', orders.slice(1).map(add));
  printRaces('l2CopiedFlags', orders.map(flags));
  printRaces('refcountFreeRuns', [
    ...orders.map((order) => scan(order, 'full', () => bytes.fill(0xff, IN, IN + 0x10000))),
    ...orders.map((order) => scan(order, 'free', () => bytes.fill(0, IN, IN + 0x10000))),
    ...orders.map((order) => scan(order, 'long runs', () => fillBlock(2 ** order * 20))),
    ...orders.map((order) => scan(order, 'at random', () => fillBlock(1))),
  ]);
}
