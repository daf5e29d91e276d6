/** Standard L2 tables to runs. The TypeScript twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { L2Flags, MISUSE, RUN_BYTES } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { agree, arm, bound, bytes, IN, memory, OUT, put, view } from './guarded.ts';
import { runsAt } from './run-record.ts';

const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const { version2, dataFile } = L2Flags;

for (const [build, kernels] of bound) {
  const test = suite(`l2Runs, ${build}`);

  for (let bits = 9; bits <= 21; bits++) {
    const C = 1n << BigInt(bits);
    const c = 2 ** bits;
    const runs = (entries: bigint[], flags = 0, outMax = 20) => {
      put(IN, ...entries);
      arm(outMax * RUN_BYTES);
      return runsAt(kernels.l2Runs(IN, entries.length, bits, flags, OUT, outMax));
    };

    test(`${c}: an empty table has no runs`, () => {
      assert.equal(runs([]), []);
    });

    test(`${c}: unallocated entries join, whatever COPIED says`, () => {
      assert.equal(runs([0n, 0n, COPIED, 0n, 0n, COPIED, COPIED]), [['unallocated', 7, 0, 0]]);
    });

    test(`${c}: data joins where the host offsets follow each other`, () => {
      assert.equal(runs([5n * C, (6n * C) | COPIED, 7n * C, 9n * C, 9n * C, 8n * C]), [
        ['data', 3, 5 * c, 0],
        ['data', 1, 9 * c, 0],
        ['data', 1, 9 * c, 0],
        ['data', 1, 8 * c, 0],
      ]);
    });

    test(`${c}: zeros join with a place by place, without one by kind`, () => {
      assert.equal(runs([1n, 1n | COPIED, C | 1n, (2n * C) | 1n | COPIED, (4n * C) | 1n, 1n]), [
        ['zero', 2, 0, 0],
        ['zero', 2, c, 0],
        ['zero', 1, 4 * c, 0],
        ['zero', 1, 0, 0],
      ]);
    });

    test(`${c}: kinds do not join, though offsets follow`, () => {
      assert.equal(runs([C, (2n * C) | 1n, 3n * C, 0n, 1n]), [
        ['data', 1, c, 0],
        ['zero', 1, 2 * c, 0],
        ['data', 1, 3 * c, 0],
        ['unallocated', 1, 0, 0],
        ['zero', 1, 0, 0],
      ]);
    });

    test(`${c}: each reserved bit alone is corrupt, in every kind of entry`, () => {
      const reserved = [1, 2, 3, 4, 5, 6, 7, 8, 56, 57, 58, 59, 60, 61];
      for (let bit = 9; bit < bits; bit++) reserved.push(bit);
      for (const bit of reserved) {
        for (const entry of [0n, 1n, 4n * C, (4n * C) | 1n | COPIED]) {
          const bad = entry | (1n << BigInt(bit));
          const expected = [
            ['unallocated', 1, 0, 0],
            ['corrupt', 1, 0, 0],
            ['corrupt', 1, 0, 0],
            ['unallocated', 1, 0, 0],
          ];
          assert.equal(runs([0n, bad, bad, 0n]), expected, `bit ${bit}`);
        }
      }
    });

    test(`${c}: the zero flag is reserved in version 2`, () => {
      assert.equal(runs([0n, 1n, C | 1n, C], version2), [
        ['unallocated', 1, 0, 0],
        ['corrupt', 1, 0, 0],
        ['corrupt', 1, 0, 0],
        ['data', 1, c, 0],
      ]);
    });

    test(`${c}: a reserved bit is no continuation of the highest offset`, () => {
      const last = (1n << 56n) - C;
      for (const zero of [0n, 1n]) {
        const kind = zero ? 'zero' : 'data';
        const entries = [3n, 2n, 1n, 0n].map((n) => (last - n * C) | zero);
        for (let n = 0; n < 9; n++) entries.push(((1n << 56n) + BigInt(n) * C) | zero);
        assert.equal(runs(entries).slice(0, 2), [
          [kind, 4, 2 ** 56 - 4 * c, 0],
          ['corrupt', 1, 0, 0],
        ]);
        assert.is(runs(entries).length, 10);
      }
    });

    test(`${c}: in a data file COPIED tells offset 0 from nowhere`, () => {
      assert.equal(runs([COPIED, C, 2n * C, 0n, 0n, COPIED, 0n, 1n | COPIED, C | 1n], dataFile), [
        ['data', 3, 0, 0],
        ['unallocated', 2, 0, 0],
        ['data', 1, 0, 0],
        ['unallocated', 1, 0, 0],
        ['zero', 1, 0, 0],
        ['zero', 1, c, 0],
      ]);
    });

    const x = BigInt(70 - bits);
    test(`${c}: compressed entries stand alone, with the upper bound of their length`, () => {
      const most = (1n << (62n - x)) - 1n;
      const entries = [
        COMPRESSED | 512n,
        COMPRESSED | 512n,
        COMPRESSED | COPIED | 777n | (1n << x),
        COMPRESSED | (most << x) | 1023n,
      ];
      assert.equal(runs(entries), [
        ['compressed', 1, 512, 512],
        ['compressed', 1, 512, 512],
        ['compressed', 1, 777, 2 * 512 - 265],
        ['compressed', 1, 1023, (Number(most) + 1) * 512 - 511],
      ]);
    });

    test(`${c}: a stream's offset that a double cannot hold, or from 2^56 on, is corrupt`, () => {
      const offsets = [
        2n ** 53n - 1n,
        2n ** 53n,
        2n ** 53n + 512n,
        2n ** 53n + 1n,
        2n ** 55n + 511n,
      ];
      offsets.push(2n ** 56n - 512n, 2n ** 56n, 2n ** 56n + 512n, 2n ** 60n);
      for (const host of offsets) {
        if (host >= 1n << x) continue;
        const good = host < 2n ** 53n || (host % 512n === 0n && host < 2n ** 56n);
        const expected = good
          ? ['compressed', 1, Number(host), 512 - Number(host % 512n)]
          : ['corrupt', 1, 0, 0];
        assert.equal(runs([COMPRESSED | host]), [expected], `host ${host}`);
      }
    });

    test(`${c}: a compressed entry in an image with a data file is corrupt`, () => {
      assert.equal(runs([COMPRESSED | 512n], dataFile), [['corrupt', 1, 0, 0]]);
    });

    test(`${c}: stops at outMax, with the last run whole`, () => {
      const entries = [C, 2n * C, 0n, 0n, 1n, 1n, 1n];
      assert.equal(runs(entries, 0, 0), []);
      assert.equal(runs(entries, 0, 1), [['data', 2, c, 0]]);
      assert.equal(runs(entries, 0, 2).length, 2);
      assert.equal(runs(entries, 0, 3)[2], ['zero', 3, 0, 0]);
    });
  }

  test('long runs end at the highest offset too', () => {
    const runs = (entries: bigint[]) => {
      put(IN, ...entries);
      arm(20 * RUN_BYTES);
      return runsAt(kernels.l2Runs(IN, entries.length, 16, 0, OUT, 20));
    };
    for (let length = 50; length < 250; length++) {
      for (const zero of [0n, 1n]) {
        const entries = Array.from(
          { length: length + 9 },
          (_, i) => ((1n << 56n) + (BigInt(i - length) << 16n)) | zero,
        );
        const expected = [zero ? 'zero' : 'data', length, 2 ** 56 - length * 65536, 0];
        assert.equal(runs(entries), [expected, ...new Array(9).fill(['corrupt', 1, 0, 0])]);
      }
    }
  });

  test('refuses wrong arguments, and touches nothing', () => {
    arm(RUN_BYTES);
    const size = memory.buffer.byteLength;
    assert.is(kernels.l2Runs(IN, 1, 8, 0, OUT, 1), MISUSE);
    assert.is(kernels.l2Runs(IN, 1, 22, 0, OUT, 1), MISUSE);
    assert.is(kernels.l2Runs(IN - 8, 1, 16, 0, OUT, 1), MISUSE);
    assert.is(kernels.l2Runs(size - 8, 2, 16, 0, OUT, 1), MISUSE);
    assert.is(kernels.l2Runs(IN, 0xffff_ffff, 16, 0, OUT, 1), MISUSE);
    assert.is(kernels.l2Runs(IN, 1, 16, 0, size - RUN_BYTES, 2), MISUSE);
    assert.is(kernels.l2Runs(IN, 1, 16, 0, 0x10000, 1), MISUSE);
    assert.ok(bytes.subarray(OUT, OUT + RUN_BYTES).every((byte) => byte === 0xa5));
    put(size - 8, 0n);
    assert.is(kernels.l2Runs(size - 8, 1, 16, 0, OUT, 1), 1);
  });

  test('reads a table that ends with the memory', () => {
    const size = memory.buffer.byteLength;
    for (let entries = 1; entries < 150; entries++) {
      const table = size - entries * 8;
      bytes.fill(0, table, size);
      for (const flags of [0, dataFile]) {
        assert.is(kernels.l2Runs(table, entries, 16, flags, OUT, 3), 1);
        assert.equal(runsAt(1), [['unallocated', entries, 0, 0]]);
      }
    }
  });

  test.run();
}

const test = suite('l2Runs, twin and kernel agree');

test('on every length and break point of a run', () => {
  const random = rng();
  for (const step of [0, 0x10000]) {
    for (let count = 0; count <= 40; count++) {
      for (let hole = 0; hole <= count; hole++) {
        for (let i = 0; i < count; i++) {
          view.setUint32(IN + i * 8, random.oneIn(2) ? 0x8000_0000 : 0);
          view.setUint32(IN + i * 8 + 4, (i === hole ? 0x70000 : 0) + i * step);
        }
        agree(`SEED=${SEED} ${count}/${hole}`, 42 * RUN_BYTES, (k, out) =>
          k.l2Runs(IN, count, 16, 0, out, 42),
        );
      }
    }
  }
});

test('on crowds of entries that do not join', () => {
  const random = rng();
  for (let round = 0; round < 2000; round++) {
    const bits = 9 + random.below(13);
    const flags = random.pick([0, 0, L2Flags.dataFile, L2Flags.version2]);
    const entries = 60 + random.below(200);
    // Streams, scattered data, data and holes or zeros by turns; now and then something else.
    const mode = random.below(4);
    const oddEntry = random.oneIn(2) ? 1 + random.below(entries) : 1000;
    for (let i = 0; i < entries; i++) {
      let host = 2 ** bits * (1 + random.below(2 ** (random.oneIn(9) ? 34 : 20)));
      if (mode === 0) host = 2 ** 62 + random.below(2 ** random.pick([48, 49])) * 512;
      if (mode > 1 && i % 2 === 0) host = mode - 2;
      let high = Math.floor(host / 2 ** 32);
      if (i % oddEntry === oddEntry - 1) high ^= 1 << random.below(31);
      view.setUint32(IN + i * 8, high);
      view.setUint32(IN + i * 8 + 4, host);
      if (mode === 0) view.setUint8(IN + i * 8 + 7, random.below(256));
    }
    const outMax = random.oneIn(3) ? entries - random.below(60) : entries;
    agree(`SEED=${SEED} round ${round}`, outMax * RUN_BYTES, (k, out) =>
      k.l2Runs(IN, entries, bits, flags, out, outMax),
    );
  }
});

test('on random tables', () => {
  const random = rng();
  for (let round = 0; round < 6000; round++) {
    const bits = 9 + random.below(13);
    const C = 2 ** bits;
    const flags = random.below(4);
    const at = IN + random.below(17);
    const entries = random.below(random.oneIn(8) ? 200 : 24);
    // How long the table keeps doing the same; 1 changes its mind at every entry.
    const patience = 1 + random.below(20);
    let mode = random.below(7);
    let next = random.oneIn(6) ? 2 ** 56 - C * random.below(30) : C * random.below(4);
    for (let i = 0; i < entries; i++) {
      if (random.oneIn(patience)) mode = random.below(7);
      let high = 0;
      let low = 0;
      if (mode === 1 || mode === 2) {
        if (random.oneIn(30)) next = C * random.below(2 ** 35);
        high = Math.floor(next / 2 ** 32);
        low = (next % 2 ** 32) + (mode - 1);
        next += C;
      } else if (mode === 3) low = 1;
      else if (mode === 4) {
        high = random.u32();
        low = random.u32();
      } else if (mode === 5) {
        high = (0x4000_0000 | (random.u32() & random.u32())) >>> 0;
        low = random.oneIn(2) ? random.u32() : (random.u32() & ~511) >>> 0;
      }
      if (random.oneIn(3)) high = (high ^ 0x8000_0000) >>> 0;
      if (random.oneIn(60)) low = (low ^ (1 << random.below(32))) >>> 0;
      if (random.oneIn(60)) high = (high ^ (1 << random.below(32))) >>> 0;
      view.setUint32(at + i * 8, high);
      view.setUint32(at + i * 8 + 4, low);
    }
    const outMax = random.oneIn(3) ? random.below(6) : entries;
    agree(`SEED=${SEED} round ${round}`, outMax * RUN_BYTES, (k, out) =>
      k.l2Runs(at, entries, bits, flags, out, outMax),
    );
  }
});

test.run();
