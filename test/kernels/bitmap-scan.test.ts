/** Runs of set bits. The TypeScript twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MISUSE } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { agree, arm, bound, bytes, IN, memory, OUT, pairsAt } from './guarded.ts';

for (const [build, kernels] of bound) {
  const test = suite(`bitmapRuns, ${build}`);
  const runs = (first: number, bits: number, outMax = 100) => {
    arm(outMax * 8);
    return pairsAt(kernels.bitmapRuns(IN, first, bits, OUT, outMax));
  };

  test('bit 0 is the lowest of byte 0', () => {
    bytes.set([0b0000_0001, 0b1000_0000, 0b0000_0011], IN);
    assert.equal(runs(0, 24), [
      [0, 1],
      [15, 3],
    ]);
  });

  test('an empty bitmap has no runs, a full one has one', () => {
    for (const bits of [0, 1, 7, 8, 63, 64, 65, 511, 512, 513, 640, 5000]) {
      for (const first of [0, 1, 7, 8, 63, 64, 65]) {
        bytes.fill(0, IN, IN + 1000);
        assert.equal(runs(first, bits), []);
        bytes.fill(0xff, IN, IN + 1000);
        assert.equal(runs(first, bits), bits === 0 ? [] : [[first, bits]]);
      }
    }
  });

  test('finds each bit alone, set among clear ones and clear among set ones', () => {
    for (let bit = 0; bit < 1300; bit++) {
      bytes.fill(0, IN, IN + 170);
      bytes[IN + (bit >> 3)] = 1 << (bit & 7);
      assert.equal(runs(0, 1300), [[bit, 1]]);
      bytes.fill(0xff, IN, IN + 170);
      bytes[IN + (bit >> 3)] = ~(1 << (bit & 7));
      const around = [
        [0, bit],
        [bit + 1, 1299 - bit],
      ];
      assert.equal(
        runs(0, 1300),
        around.filter(([, length]) => length !== 0),
      );
    }
  });

  test('looks at nothing outside of the range', () => {
    bytes.fill(0xff, IN, IN + 100);
    assert.equal(runs(13, 100), [[13, 100]]);
  });

  test('stops at outMax, with the last run whole', () => {
    bytes.fill(0, IN, IN + 100);
    bytes.fill(0xff, IN + 1, IN + 20);
    bytes.fill(0xff, IN + 30, IN + 40);
    bytes[IN + 50] = 0x55;
    assert.equal(runs(0, 800, 0), []);
    assert.equal(runs(0, 800, 1), [[8, 152]]);
    assert.equal(runs(0, 800, 3)[2], [400, 1]);
    assert.is(runs(0, 800).length, 6);
  });

  test('refuses wrong arguments, and touches nothing', () => {
    arm(8);
    const size = memory.buffer.byteLength;
    assert.is(kernels.bitmapRuns(IN - 8, 0, 8, OUT, 1), MISUSE);
    assert.is(kernels.bitmapRuns(size - 1, 0, 9, OUT, 1), MISUSE);
    assert.is(kernels.bitmapRuns(size - 1, 8, 1, OUT, 1), MISUSE);
    assert.is(kernels.bitmapRuns(IN, 0xffff_ffff, 1, OUT, 1), MISUSE);
    assert.is(kernels.bitmapRuns(IN, 0, 8, size - 8, 2), MISUSE);
    assert.is(kernels.bitmapRuns(IN, 0, 8, 0x10000, 1), MISUSE);
    assert.ok(bytes.subarray(OUT, OUT + 8).every((byte) => byte === 0xa5));
  });

  test('reads a bitmap that ends with the memory', () => {
    const size = memory.buffer.byteLength;
    for (let length = 1; length < 200; length++) {
      bytes.fill(0xff, size - length, size);
      assert.is(kernels.bitmapRuns(size - length, 0, length * 8, OUT, 1), 1);
      assert.equal(pairsAt(1), [[0, length * 8]]);
    }
  });

  test.run();
}

const test = suite('bitmapRuns, twin and kernel agree');

test('on random bitmaps', () => {
  const random = rng();
  for (let round = 0; round < 6000; round++) {
    const first = random.below(random.oneIn(2) ? 20 : 2000);
    const bits = random.below(random.oneIn(2) ? 200 : 4000);
    const at = IN + random.below(17);
    const patience = 1 + random.below(random.oneIn(2) ? 10 : 200);
    let byte = 0;
    for (let i = 0; i < (first + bits) / 8; i++) {
      if (random.oneIn(patience)) byte = random.pick([0, 0xff, random.u32() & 0xff]);
      bytes[at + i] = byte;
    }
    const outMax = random.oneIn(3) ? random.below(8) : bits;
    agree(`SEED=${SEED} round ${round}`, outMax * 8, (k, out) =>
      k.bitmapRuns(at, first, bits, out, outMax),
    );
  }
});

test.run();
