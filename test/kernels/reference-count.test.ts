/** Counting what L2 tables refer to. The TypeScript twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { L2Flags, MISUSE, Tally } from '../../src/kernels/kernels.ts';
import { type Random, rng, SEED } from '../random.ts';
import { agree, bound, bytes, IN, memory, OUT, put, view } from './guarded.ts';

const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
/** Where counts are, in the area of outputs, and the tally and flags seen behind them. */
const COUNTS = 2048;

/** What a tally is set to. */
interface Setting {
  readonly clusterBits: number;
  readonly flags: number;
  readonly limit: number;
  readonly first: number;
  readonly length: number;
  readonly most: number;
  readonly width: 2 | 4;
  readonly times: number;
}

const PLAIN: Setting = {
  clusterBits: 16,
  flags: 0,
  limit: 100,
  first: 0,
  length: 100,
  most: 0xffff,
  width: 2,
  times: 1,
};

/** Sizes of the output: counts, both bitmaps of flags, the tally. */
function layout({ length, width }: Setting) {
  const seen = COUNTS;
  const tally = seen + 2 * (Math.floor(length / 8) + 4);
  assert.ok(length * width <= COUNTS);
  return { seen, tally, size: tally + Tally.bytes };
}

function arrange(out: number, setting: Setting, noted = true): number {
  const { seen, tally, size } = layout(setting);
  bytes.fill(0, out, out + size);
  const at = out + tally;
  for (const [field, value] of [
    [Tally.clusterBits, setting.clusterBits],
    [Tally.flags, setting.flags],
    [Tally.limit, setting.limit],
    [Tally.counts, out],
    [Tally.first, setting.first],
    [Tally.length, setting.length],
    [Tally.most, setting.most],
    [Tally.width, setting.width],
    [Tally.times, setting.times],
    [Tally.seen, noted ? out + seen : 0],
  ] as const) {
    view.setUint32(at + field, value, true);
  }
  return at;
}

for (const [build, kernels] of bound) {
  const test = suite(`l2References, ${build}`);
  const run = (words: bigint[], change: Partial<Setting> = {}, stride: 8 | 16 = 8) => {
    const setting = { ...PLAIN, ...change };
    put(IN, ...words);
    const tally = arrange(OUT, setting);
    const done = kernels.l2References(IN, (words.length * 8) / stride, stride, tally);
    const counted: [number, number][] = [];
    for (let i = 0; i < setting.length; i++) {
      const at = OUT + i * setting.width;
      const count = setting.width === 2 ? view.getUint16(at, true) : view.getUint32(at, true);
      if (count > 0) counted.push([setting.first + i, count]);
    }
    const field = (at: number) => view.getUint32(tally + at, true);
    const tallies = [field(Tally.allocated), field(Tally.fragmented), field(Tally.compressed)];
    return { done, counted, tallies };
  };
  const entry = (cluster: number) => COPIED | (BigInt(cluster) << 16n);

  test('counts plain clusters, kept ones among them, and nothing else', () => {
    const words = [entry(5), 0n, 1n, entry(7) | 1n, entry(5)];
    const { done, counted, tallies } = run(words);
    assert.is(done, 5);
    assert.equal(counted, [
      [5, 2],
      [7, 1],
    ]);
    assert.equal(tallies, [3, 2, 0]);
  });

  test('runs of every length and break count each cluster once', () => {
    for (let length = 0; length < 40; length++) {
      const words = Array.from({ length }, (_, i) => entry(3 + i + (i > length / 2 ? 10 : 0)));
      for (const width of [2, 4] as const) {
        const { done, counted } = run(words, { width });
        assert.is(done, length);
        assert.is(counted.length, length);
        assert.ok(counted.every(([, count]) => count === 1));
      }
    }
  });

  test('a compressed stream counts every cluster that it may touch', () => {
    // 62 − 8 bits of offset; two sectors, across the border of clusters 3 and 4.
    const word = COMPRESSED | (1n << 54n) | ((4n << 16n) - 1n);
    assert.equal(run([word]).counted, [
      [3, 1],
      [4, 1],
    ]);
    assert.equal(run([word]).tallies, [1, 1, 1]);
  });

  test('stops at what there is something to say about', () => {
    const odd = [
      entry(5) | 2n,
      entry(5) | (1n << 56n),
      entry(5) | 512n,
      entry(100),
      COMPRESSED | COPIED | (4n << 16n),
      COMPRESSED | (100n << 16n),
    ];
    for (const word of odd) {
      const { done, counted } = run([entry(2), word, entry(3)]);
      assert.is(done, 1, word.toString(16));
      assert.equal(counted, [[2, 1]]);
    }
    assert.is(run([COMPRESSED | (4n << 16n)], { flags: L2Flags.dataFile }).done, 0);
  });

  test('extended entries: subclusters that cannot be, and those that can', () => {
    assert.is(run([entry(5), 0xffff_ffffn], {}, 16).done, 1);
    assert.is(run([entry(5), 0x1_0000_0001n], {}, 16).done, 0);
    assert.is(run([0n, 1n], {}, 16).done, 0);
    assert.is(run([0n, 1n << 32n], {}, 16).done, 1);
    assert.is(run([COMPRESSED | (4n << 16n), 1n], {}, 16).done, 0);
  });

  test('a full count stops, with nothing of the entry counted', () => {
    const words = Array.from({ length: 9 }, (_, i) => entry(5 + i));
    const { done, counted } = run([entry(12), entry(12), ...words], { most: 2 });
    assert.is(done, 2 + 7);
    assert.equal(counted.at(-1), [12, 2]);
    assert.is(run([entry(12)], { most: 3, times: 3 }).done, 1);
  });

  test('clusters outside of the window are not counted, and do not stop', () => {
    const words = Array.from({ length: 30 }, (_, i) => entry(5 + i));
    const { done, counted, tallies } = run(words, { first: 10, length: 7 });
    assert.is(done, 30);
    assert.equal(
      counted.map(([cluster]) => cluster),
      [10, 11, 12, 13, 14, 15, 16],
    );
    assert.equal(tallies, [30, 0, 0]);
  });

  test('flags are noted: with COPIED, and without', () => {
    put(IN, entry(3), 6n << 16n, ...Array.from({ length: 8 }, (_, i) => entry(9 + i)));
    const tally = arrange(OUT, PLAIN);
    assert.is(kernels.l2References(IN, 10, 8, tally), 10);
    const { seen } = layout(PLAIN);
    const half = Math.floor(PLAIN.length / 8) + 4;
    assert.is(view.getUint32(OUT + seen, true), (1 << 3) | (0xff << 9));
    assert.is(view.getUint32(OUT + seen + half, true), 1 << 6);
  });

  test('refuses wrong arguments, and touches nothing', () => {
    put(IN, entry(3));
    const size = memory.buffer.byteLength;
    const call = (change: Partial<Setting>, stride = 8, table = IN, entries = 1) =>
      kernels.l2References(table, entries, stride, arrange(OUT, { ...PLAIN, ...change }));
    assert.is(call({}, 9), MISUSE);
    assert.is(call({}, 8, size - 4), MISUSE);
    assert.is(call({}, 8, IN, 0xffff_ffff), MISUSE);
    assert.is(call({ clusterBits: 8 }), MISUSE);
    assert.is(call({ clusterBits: 22 }), MISUSE);
    assert.is(call({ times: 0 }), MISUSE);
    assert.is(call({ times: 2, most: 1 }), MISUSE);
    assert.is(call({ most: 0x10000 }), MISUSE);
    assert.is(call({ limit: 2 ** 31 + 1 }), MISUSE);
    assert.is(kernels.l2References(IN, 1, 8, size - 8), MISUSE);
    const tally = arrange(OUT, PLAIN);
    view.setUint32(tally + Tally.length, size, true);
    assert.is(kernels.l2References(IN, 1, 8, tally), MISUSE);
    assert.ok(bytes.subarray(OUT, OUT + COUNTS).every((byte) => byte === 0));
  });

  test.run();
}

/** A table of runs, holes and single entries of all kinds. */
function randomWords(next: Random, entries: number, stride: number, bits: number): bigint[] {
  const words: bigint[] = [];
  const size = 1n << BigInt(bits);
  while (words.length < (entries * stride) / 8) {
    const kind = next.below(24);
    let host = BigInt(next.below(130)) * size;
    const flags = (next.oneIn(4) ? 0n : COPIED) | (next.oneIn(12) && stride === 8 ? 1n : 0n);
    const bitmap = next.oneIn(20)
      ? (BigInt(next.u32()) << 32n) | BigInt(next.u32())
      : next.pick([0xffff_ffffn, 0n, 0xffn, 0xff00_0000_00ffn]);
    for (let run = next.pick([1, 2, 9, 30]); run > 0; run--) {
      let word = 0n;
      if (kind < 16) word = host | flags;
      else if (kind === 16) word = 1n;
      else if (kind < 19) word = COMPRESSED | (host + BigInt(next.below(1 << bits)));
      else if (kind === 19) word = (BigInt(next.u32()) << 32n) | BigInt(next.u32());
      if (kind === 17) word |= BigInt(next.below(1 << (bits - 8))) << BigInt(70 - bits);
      if (next.oneIn(200)) word ^= 1n << BigInt(next.below(64));
      host += size;
      words.push(word);
      if (stride === 16) words.push(word === 0n && !next.oneIn(30) ? 0n : bitmap);
    }
  }
  return words;
}

const test = suite('l2References, twin and kernel agree');

test('on random tables', () => {
  const next = rng();
  for (let round = 0; round < 3000; round++) {
    const stride = next.pick([8, 8, 16]);
    const clusterBits = 9 + next.below(13);
    const width = next.pick([2, 4] as const);
    const most = next.pick([1, 2, 3, 15, 255, 0xffff, width === 4 ? 0xffff_fffe : 0xffff]);
    const length = next.pick([0, 1, 7, 60, 200]);
    const setting: Setting = {
      clusterBits,
      flags: next.oneIn(6) ? L2Flags.dataFile : 0,
      limit: next.pick([0, 20, 100, 128, 2 ** 31]),
      first: next.pick([0, 0, 8, 30]),
      length,
      most,
      width,
      times: 1 + next.below(Math.min(most, 3)),
    };
    const entries = 1 + next.below(120);
    put(IN, ...randomWords(next, entries, stride, clusterBits));
    const noted = next.oneIn(2);
    const fill = next.u32();
    agree(`SEED=${SEED} round ${round}`, layout(setting).size, (kernels, out) => {
      const tally = arrange(out, setting, noted);
      const random = rng(fill);
      for (let i = 0; i < length; i++) {
        const count = random.oneIn(3) ? Math.max(0, most - random.below(3)) : 0;
        if (width === 2) view.setUint16(out + i * 2, count, true);
        else view.setUint32(out + i * 4, count, true);
      }
      // All odd entries are stepped over, so that what follows is compared, too.
      let done = 0;
      let odd = 0;
      while (done < entries) {
        done += kernels.l2References(IN + done * stride, entries - done, stride, tally);
        if (done < entries) odd = odd * 31 + done;
        done++;
      }
      return odd | 0;
    });
  }
});

test.run();
