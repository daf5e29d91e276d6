/** Extended L2 entries to runs of subclusters. The twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { L2Flags, MISUSE, RUN_BYTES } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { agree, arm, bound, bytes, IN, memory, OUT, put, view } from './guarded.ts';
import { runsAt } from './run-record.ts';

const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const ALL = 0xffff_ffffn;
const { dataFile } = L2Flags;

/** The second word: which subclusters are allocated, and which read as zeros. */
const bitmap = (allocated: bigint, zero = 0n) => (zero << 32n) | allocated;

for (const [build, kernels] of bound) {
  const test = suite(`l2ExtendedRuns, ${build}`);

  for (let bits = 9; bits <= 21; bits++) {
    const C = 1n << BigInt(bits);
    const c = 2 ** bits;
    const s = c / 32;
    const runs = (words: bigint[], options: { [name: string]: number } = {}) => {
      const { first = 0, flags = 0, outMax = 100 } = options;
      const { count = words.length * 16 - first } = options;
      put(IN, ...words);
      arm(outMax * RUN_BYTES);
      return runsAt(kernels.l2ExtendedRuns(IN, first, count, bits, flags, OUT, outMax));
    };

    test(`${c}: no subclusters, no runs`, () => {
      assert.equal(runs([0n, 0n], { count: 0 }), []);
    });

    test(`${c}: whole clusters of data join where they follow each other`, () => {
      const words = [C, ALL, (2n * C) | COPIED, ALL, 3n * C, ALL, 5n * C, ALL, 5n * C, ALL];
      assert.equal(runs(words), [
        ['data', 96, c, 0],
        ['data', 32, 5 * c, 0],
        ['data', 32, 5 * c, 0],
      ]);
    });

    test(`${c}: holes join by kind alone, in clusters with a place and without`, () => {
      assert.equal(runs([0n, 0n, C, 0n, COPIED, 0n, 7n * C, 0n, C, 0n, 0n, 0n]), [
        ['unallocated', 192, 0, 0],
      ]);
    });

    test(`${c}: zeros join by place where there is one, else by kind`, () => {
      const zeros = bitmap(0n, ALL);
      const words = [0n, zeros, COPIED, zeros, C, zeros, 2n * C, zeros, C, zeros];
      assert.equal(runs(words), [
        ['zero', 64, 0, 0],
        ['zero', 64, c, 0],
        ['zero', 32, c, 0],
      ]);
    });

    test(`${c}: each subcluster has its own kind and place`, () => {
      const word = bitmap(0b0000_0110n, 0b1101_0000n);
      assert.equal(runs([4n * C, word]), [
        ['unallocated', 1, 0, 0],
        ['data', 2, 4 * c + s, 0],
        ['unallocated', 1, 0, 0],
        ['zero', 1, 4 * c + 4 * s, 0],
        ['unallocated', 1, 0, 0],
        ['zero', 2, 4 * c + 6 * s, 0],
        ['unallocated', 24, 0, 0],
      ]);
      assert.equal(runs([0n, bitmap(0n, 0b110n)], { count: 4 }), [
        ['unallocated', 1, 0, 0],
        ['zero', 2, 0, 0],
        ['unallocated', 1, 0, 0],
      ]);
    });

    test(`${c}: a run goes on from the last subclusters of one entry into the next`, () => {
      const words = [C, 0xffff_0000n, 2n * C, 0xffn, 3n * C, bitmap(0n, ALL)];
      assert.equal(runs(words), [
        ['unallocated', 16, 0, 0],
        ['data', 24, c + 16 * s, 0],
        ['unallocated', 24, 0, 0],
        ['zero', 32, 3 * c, 0],
      ]);
    });

    test(`${c}: reads any range of subclusters`, () => {
      const words = [C, ALL, 2n * C, ALL];
      for (let first = 0; first < 32; first++) {
        for (const count of [1, 2, 31, 32, 33, 64 - first]) {
          if (first + count > 64) continue;
          assert.equal(runs(words, { first, count }), [['data', count, c + first * s, 0]]);
        }
      }
    });

    test(`${c}: each reserved bit alone makes the cluster corrupt`, () => {
      const reserved = [0, 1, 2, 3, 4, 5, 6, 7, 8, 56, 57, 58, 59, 60, 61];
      for (let bit = 9; bit < bits; bit++) reserved.push(bit);
      for (const bit of reserved) {
        for (const [word, map] of [
          [0n, 0n],
          [4n * C, ALL],
          [(4n * C) | COPIED, 1n],
        ] as const) {
          const bad = word | (1n << BigInt(bit));
          assert.equal(
            runs([0n, 0n, bad, map, bad, map, 0n, 0n], { first: 1 }),
            [
              ['unallocated', 31, 0, 0],
              ['corrupt', 32, 0, 0],
              ['corrupt', 32, 0, 0],
              ['unallocated', 32, 0, 0],
            ],
            `bit ${bit}`,
          );
        }
      }
    });

    test(`${c}: an offset inside of a cluster is corrupt, though it follows the last run`, () => {
      if (bits < 14) return; // smaller clusters have subclusters below 512 bytes
      assert.equal(runs([C, 1n, C + (C >> 5n), ALL], { count: 33, first: 0 }).slice(0, 1), [
        ['data', 1, c, 0],
      ]);
      const half = C >> 1n;
      assert.equal(runs([C, 0xffffn << 16n, 2n * C, 0xffffn, 2n * C + half, ALL]), [
        ['unallocated', 16, 0, 0],
        ['data', 32, c + c / 2, 0],
        ['unallocated', 16, 0, 0],
        ['corrupt', 32, 0, 0],
      ]);
      // The last run ends in the middle of a cluster, because the range began there.
      assert.equal(runs([C, 0xffffn, C + half, ALL], { count: 48 }).at(-1), ['corrupt', 16, 0, 0]);
    });

    test(`${c}: a reserved bit is no continuation of the highest offset`, () => {
      const last = (1n << 56n) - C;
      assert.equal(runs([last - C, ALL, last, ALL, 1n << 56n, ALL, (1n << 56n) + C, ALL]), [
        ['data', 64, 2 ** 56 - 2 * c, 0],
        ['corrupt', 32, 0, 0],
        ['corrupt', 32, 0, 0],
      ]);
    });

    test(`${c}: a subcluster that is both allocated and zero makes its cluster corrupt`, () => {
      for (let bit = 0n; bit < 32n; bit++) {
        const one = 1n << bit;
        const expected = [['corrupt', 32, 0, 0]];
        assert.equal(runs([C, bitmap(one, one)]), expected);
        assert.equal(runs([C, bitmap(ALL, one)]), expected);
      }
    });

    test(`${c}: an allocated subcluster of a cluster without a place is corrupt`, () => {
      for (let bit = 0n; bit < 32n; bit++) {
        assert.equal(runs([0n, 1n << bit]), [['corrupt', 32, 0, 0]]);
        assert.equal(runs([COPIED, 1n << bit]), [['corrupt', 32, 0, 0]]);
        assert.equal(runs([0n, 1n << bit], { flags: dataFile }), [['corrupt', 32, 0, 0]]);
      }
    });

    test(`${c}: in a data file COPIED tells offset 0 from nowhere`, () => {
      const flags = dataFile;
      assert.equal(runs([COPIED, ALL, C, ALL], { flags }), [['data', 64, 0, 0]]);
      assert.equal(runs([COPIED, bitmap(1n, 6n), C, ALL], { flags }), [
        ['data', 1, 0, 0],
        ['zero', 2, 0, 0],
        ['unallocated', 29, 0, 0],
        ['data', 32, c, 0],
      ]);
    });

    test(`${c}: compressed clusters stand alone`, () => {
      const x = BigInt(70 - bits);
      const words = [COMPRESSED | 777n, 0n, COMPRESSED | COPIED | 777n | (1n << x), 0n, 0n, 0n];
      assert.equal(runs(words, { first: 3, count: 29 + 32 + 5 }), [
        ['compressed', 29, 777, 247],
        ['compressed', 32, 777, 759],
        ['unallocated', 5, 0, 0],
      ]);
    });

    test(`${c}: a compressed cluster with subcluster bits, or with a data file, is corrupt`, () => {
      const corrupt = [['corrupt', 32, 0, 0]];
      for (let bit = 0n; bit < 64n; bit++) {
        assert.equal(runs([COMPRESSED | 512n, 1n << bit]), corrupt, `bit ${bit}`);
      }
      assert.equal(runs([COMPRESSED | 512n, 0n], { flags: dataFile }), corrupt);
      if (bits <= 14) {
        const inexact = 2n ** 53n + 1n;
        assert.equal(runs([COMPRESSED | inexact, 0n]), corrupt);
      }
    });

    test(`${c}: stops at outMax, with the last run whole`, () => {
      const words = [C, ALL, 2n * C, 0xfffn, 0n, 0n, 0n, bitmap(0n, ALL)];
      assert.equal(runs(words, { outMax: 0 }), []);
      assert.equal(runs(words, { outMax: 1 }), [['data', 44, c, 0]]);
      assert.equal(runs(words, { outMax: 2 })[1], ['unallocated', 52, 0, 0]);
      assert.equal(runs(words, { outMax: 3 })[2], ['zero', 32, 0, 0]);
    });
  }

  test('refuses wrong arguments, and touches nothing', () => {
    arm(RUN_BYTES);
    const size = memory.buffer.byteLength;
    assert.is(kernels.l2ExtendedRuns(IN, 0, 1, 8, 0, OUT, 1), MISUSE);
    assert.is(kernels.l2ExtendedRuns(IN, 0, 1, 22, 0, OUT, 1), MISUSE);
    assert.is(kernels.l2ExtendedRuns(IN, 32, 1, 16, 0, OUT, 1), MISUSE);
    assert.is(kernels.l2ExtendedRuns(IN - 16, 0, 1, 16, 0, OUT, 1), MISUSE);
    assert.is(kernels.l2ExtendedRuns(size - 16, 1, 32, 16, 0, OUT, 1), MISUSE);
    assert.is(kernels.l2ExtendedRuns(IN, 31, 0xffff_ffff, 16, 0, OUT, 1), MISUSE);
    assert.is(kernels.l2ExtendedRuns(IN, 0, 1, 16, 0, size - RUN_BYTES, 2), MISUSE);
    assert.is(kernels.l2ExtendedRuns(IN, 0, 1, 16, 0, 0x10000, 1), MISUSE);
    assert.ok(bytes.subarray(OUT, OUT + RUN_BYTES).every((byte) => byte === 0xa5));
    put(size - 16, 0n, 0n);
    assert.is(kernels.l2ExtendedRuns(size - 16, 0, 32, 16, 0, OUT, 1), 1);
  });

  test('reads a table that ends with the memory', () => {
    const size = memory.buffer.byteLength;
    for (let entries = 1; entries < 20; entries++) {
      const table = size - entries * 16;
      for (let i = 0; i < entries; i++) put(table + i * 16, BigInt(i + 1) << 16n, ALL);
      assert.is(kernels.l2ExtendedRuns(table, 0, entries * 32, 16, 0, OUT, 3), 1);
      assert.equal(runsAt(1), [['data', entries * 32, 65536, 0]]);
    }
  });

  test.run();
}

const test = suite('l2ExtendedRuns, twin and kernel agree');

test('on random tables', () => {
  const random = rng();
  for (let round = 0; round < 6000; round++) {
    const bits = 9 + random.below(13);
    const C = 2 ** bits;
    const flags = random.pick([0, 0, L2Flags.dataFile, L2Flags.version2]);
    const at = IN + random.below(17);
    const entries = 1 + random.below(random.oneIn(8) ? 60 : 10);
    const patience = 1 + random.below(20);
    let mode = random.below(6);
    let next = random.oneIn(6) ? 2 ** 56 - C * random.below(10) : C * random.below(4);
    let zero = 0;
    let allocated = 0;
    for (let i = 0; i < entries; i++) {
      if (random.oneIn(patience)) {
        mode = random.below(6);
        const a = random.pick([0, 0xffff_ffff, random.u32(), 2 ** random.below(33) - 1]);
        zero = random.pick([0, 0, ~a, random.u32() & ~a]) >>> 0;
        allocated = a >>> 0;
      }
      let high = 0;
      let low = 0;
      if (mode < 3) {
        if (random.oneIn(30)) next = C * random.below(2 ** 35);
        high = Math.floor(next / 2 ** 32);
        low = next % 2 ** 32;
        // Now and then in the middle of a cluster, where the run before could end.
        next += random.oneIn(30) ? (C / 32) * random.below(64) : C;
      } else if (mode === 3) {
        high = random.u32();
        low = random.u32();
      } else if (mode === 4) {
        high = (0x4000_0000 | (random.u32() & random.u32())) >>> 0;
        low = random.u32();
        if (!random.oneIn(4)) zero = allocated = 0;
      } else if (random.oneIn(2)) allocated = 0;
      if (random.oneIn(3)) high = (high ^ 0x8000_0000) >>> 0;
      if (random.oneIn(60)) low = (low ^ (1 << random.below(32))) >>> 0;
      if (random.oneIn(60)) high = (high ^ (1 << random.below(32))) >>> 0;
      view.setUint32(at + i * 16, high);
      view.setUint32(at + i * 16 + 4, low);
      view.setUint32(at + i * 16 + 8, zero);
      view.setUint32(at + i * 16 + 12, allocated);
    }
    const first = random.below(32);
    const count = random.oneIn(2) ? entries * 32 - first : random.below(entries * 32 - first + 1);
    const outMax = random.oneIn(3) ? random.below(6) : count;
    agree(`SEED=${SEED} round ${round}`, outMax * RUN_BYTES, (k, out) =>
      k.l2ExtendedRuns(at, first, count, bits, flags, out, outMax),
    );
  }
});

test.run();
