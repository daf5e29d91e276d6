/**
 * L2 tables to runs: the tables of one 64 KiB cluster, 8192 entries (4096 extended ones), and the
 * smallest that there are: 64 entries in 512-byte clusters, 1024 extended ones in 16 KiB. Of these
 * there are as many as make 8192 entries, one after the other: a processor that is shown one small
 * table again and again knows by heart what comes next, which no image lets it.
 */
import { RUN_BYTES } from '../../src/kernels/kernels.ts';
import { rng } from '../../test/random.ts';
import { IN, OUT, printRaces, type Race, view } from './race.ts';

const BITS = 16;
const C = 2 ** BITS;

/** What entry `i` is: its two halves. */
type Table = (i: number) => readonly [high: number, low: number];

const at = (host: number) => [0x8000_0000 + Math.floor(host / 2 ** 32), host % 2 ** 32] as const;

const random = rng(1);
/** Stretches of about `length` entries of one kind each. */
function mixed(length: number): Table {
  let kind = 0;
  let next = C;
  return () => {
    if (random.oneIn(length)) {
      kind = random.below(4);
      next = C * (1 + random.below(1e6));
    }
    if (kind === 0) return [0, 0];
    if (kind === 1) return [0, 1];
    next += C;
    return kind === 2 ? at(next) : [0x4000_0000 + random.below(4096), random.u32()];
  };
}

const tables: Record<string, Table> = {
  'all unallocated': () => [0, 0],
  'all zero': () => [0, 1],
  'one contiguous range': (i) => at((i + 5) * C),
  'contiguous by 64': (i) => at((i + 5 + 9 * (i >> 6)) * C),
  'contiguous by 8': (i) => at((i + 5 + 9 * (i >> 3)) * C),
  'data and holes by turns': (i) => (i & 1 ? at((i + 5) * C) : [0, 0]),
  'scattered data': () => at(C * (1 + random.below(1e6))),
  'data or hole, at random': (i) => (random.oneIn(2) ? at((i + 5) * C) : [0, 0]),
  'all compressed': () => [0x4000_0000 + random.below(4096), random.u32()],
  'all kinds, stretches of about 100': mixed(100),
  'all kinds, stretches of about 10': mixed(10),
  'all kinds, entry by entry': mixed(1),
};

/** Entries of all tables of a row. */
const STANDARD = 8192;
const EXTENDED = 4096;

/** @param count entries of one table */
const standard = (count: number) =>
  Object.entries(tables).map(
    ([name, table]): Race => ({
      name,
      count: STANDARD,
      unit: 'entry',
      fill: () => {
        for (let i = 0; i < STANDARD; i++) {
          const [high, low] = table(i);
          view.setUint32(IN + i * 8, high);
          view.setUint32(IN + i * 8 + 4, low);
        }
      },
      call: (kernels) => {
        let runs = 0;
        for (let i = 0; i < STANDARD; i += count) {
          runs += kernels.l2Runs(IN + i * 8, count, BITS, 0, OUT, count);
        }
        return runs;
      },
    }),
  );

/** The two halves of the subcluster bitmap. */
const maps: Record<string, (i: number) => readonly [zero: number, allocated: number]> = {
  whole: () => [0, 0xffff_ffff],
  'half full': () => [0, 0x0000_ffff],
  'zeros and data': (i) => (i & 1 ? [0xff00, 0xffff_00ff] : [0, 0xffff_ffff]),
  'bits at random': () => {
    const allocated = random.u32();
    return [(random.u32() & ~allocated) >>> 0, allocated];
  },
};

const extendedTables: [string, Table, keyof typeof maps][] = [
  ['all unallocated', tables['all unallocated']!, 'whole'],
  ['one contiguous range', tables['one contiguous range']!, 'whole'],
  ['contiguous by 8', tables['contiguous by 8']!, 'whole'],
  ['scattered data', tables['scattered data']!, 'whole'],
  ['data and holes by turns', tables['data and holes by turns']!, 'whole'],
  ['all compressed', tables['all compressed']!, 'whole'],
  ['half of each cluster', tables['one contiguous range']!, 'half full'],
  ['zeros in every other cluster', tables['one contiguous range']!, 'zeros and data'],
  ['all kinds, stretches of about 10', mixed(10), 'whole'],
  ['subclusters at random', tables['one contiguous range']!, 'bits at random'],
];

/** @param count entries of one table */
const extended = (count: number) =>
  extendedTables.map(
    ([name, table, map]): Race => ({
      name,
      count: EXTENDED,
      unit: 'entry',
      fill: () => {
        for (let i = 0; i < EXTENDED; i++) {
          const [high, low] = table(i);
          const none = (high === 0 && low <= 1) || (high & 0x4000_0000) !== 0;
          const [zero, allocated] = none ? [0, 0] : maps[map]!(i);
          view.setUint32(IN + i * 16, high);
          view.setUint32(IN + i * 16 + 4, (low & ~1) >>> 0);
          view.setUint32(IN + i * 16 + 8, low === 1 && none ? 0xffff_ffff : zero);
          view.setUint32(IN + i * 16 + 12, allocated);
        }
      },
      call: (kernels) => {
        let runs = 0;
        for (let i = 0; i < EXTENDED; i += count) {
          runs += kernels.l2ExtendedRuns(IN + i * 16, 0, count * 32, BITS, 0, OUT, count * 32);
        }
        return runs;
      },
    }),
  );

export default async function bench(): Promise<void> {
  if (OUT - IN < EXTENDED * 32 * RUN_BYTES) throw new Error('no room');
  printRaces('l2Runs, 8192 entries', standard(STANDARD));
  printRaces('l2Runs, 64 entries', standard(64));
  printRaces('l2ExtendedRuns, 4096 entries', extended(EXTENDED));
  printRaces('l2ExtendedRuns, 1024 entries', extended(1024));
}
