/** Guest ranges to bitmap bits. The TypeScript twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MISUSE } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { agree, arm, bound, bytes, IN, memory, OUT, view } from './guarded.ts';

type Range = readonly [number, number];

function putRanges(at: number, ranges: readonly Range[]): void {
  ranges.forEach(([start, length], i) => {
    view.setFloat64(at + i * 16, start, true);
    view.setFloat64(at + i * 16 + 8, length, true);
  });
}

for (const [build, kernels] of bound) {
  const test = suite(`bitmapBits, ${build}`);
  const bits = (granularityBits: number, ...ranges: Range[]) => {
    putRanges(IN, ranges);
    arm(ranges.length * 16);
    const count = kernels.bitmapBits(IN, ranges.length, granularityBits, OUT);
    assert.is(count, ranges.length);
    return ranges.map((_, i) => [
      view.getFloat64(OUT + i * 16, true),
      view.getFloat64(OUT + i * 16 + 8, true),
    ]);
  };

  test('a range touches each bit that it shares a byte with', () => {
    for (let g = 9; g <= 31; g++) {
      const G = 2 ** g;
      // biome-ignore format: a table
      const ranges = [
        [[0, G], [0, 1]],
        [[0, 1], [0, 1]],
        [[G - 1, 1], [0, 1]],
        [[G - 1, 2], [0, 2]],
        [[G, 5 * G], [1, 5]],
        [[3 * G + 1, 5 * G], [3, 6]],
      ] as const;
      assert.equal(
        bits(g, ...ranges.map(([range]) => range)),
        ranges.map(([, expected]) => expected),
      );
      for (const [range, expected] of ranges) assert.equal(bits(g, range), [expected]);
    }
  });

  test('an empty range touches none, wherever it lies', () => {
    assert.equal(bits(16, [0, 0], [5, 0], [65536, 0]), [
      [0, 0],
      [0, 0],
      [1, 0],
    ]);
  });

  test('is exact up to the largest disk, and at every granularity', () => {
    assert.equal(bits(9, [2 ** 61 - 512, 512], [0, 2 ** 61]), [
      [2 ** 52 - 1, 1],
      [0, 2 ** 52],
    ]);
    assert.equal(bits(0, [7, 9]), [[7, 9]]);
    assert.equal(bits(62, [2 ** 61, 2 ** 61]), [[0, 1]]);
  });

  test('may work in place', () => {
    const ranges: Range[] = [
      [65535, 2],
      [131072, 65536],
      [7, 1],
    ];
    const expected = bits(16, ...ranges);
    putRanges(IN, ranges);
    assert.is(kernels.bitmapBits(IN, 3, 16, IN), 3);
    const got = ranges.map((_, i) => [
      view.getFloat64(IN + i * 16, true),
      view.getFloat64(IN + i * 16 + 8, true),
    ]);
    assert.equal(got, expected);
  });

  test('refuses wrong arguments, and touches nothing', () => {
    arm(16);
    const size = memory.buffer.byteLength;
    assert.is(kernels.bitmapBits(IN, 1, 63, OUT), MISUSE);
    assert.is(kernels.bitmapBits(IN - 8, 1, 16, OUT), MISUSE);
    assert.is(kernels.bitmapBits(size - 16, 2, 16, OUT), MISUSE);
    assert.is(kernels.bitmapBits(IN, 2, 16, size - 16), MISUSE);
    assert.is(kernels.bitmapBits(IN, 0xffff_ffff, 16, OUT), MISUSE);
    assert.ok(bytes.subarray(OUT, OUT + 16).every((byte) => byte === 0xa5));
  });

  test.run();
}

const test = suite('bitmapBits, twin and kernel agree');

test('on random ranges', () => {
  const random = rng();
  for (let round = 0; round < 3000; round++) {
    const count = random.below(9);
    const at = IN + random.below(17);
    const ranges = Array.from({ length: count }, (): Range => {
      const unit = random.pick([1, 512]);
      const most = 2 ** (1 + random.below(51));
      return [random.below(most) * unit, random.oneIn(5) ? 0 : random.below(most) * unit];
    });
    putRanges(at, ranges);
    const granularityBits = random.below(33);
    agree(`SEED=${SEED} round ${round}`, count * 16, (k, out) =>
      k.bitmapBits(at, count, granularityBits, out),
    );
  }
});

test('on any bits at all, nothing traps', () => {
  const random = rng();
  const kernels = bound[0]![1];
  for (let round = 0; round < 300; round++) {
    for (let i = 0; i < 64; i += 4) view.setUint32(IN + i, random.u32());
    assert.is(kernels.bitmapBits(IN, 4, random.below(63), OUT), 4);
  }
});

test.run();
