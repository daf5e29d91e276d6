/** Merging bitmaps. The TypeScript twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MISUSE } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { agree, arm, bound, bytes, IN, memory, OUT } from './guarded.ts';

for (const [build, kernels] of bound) {
  const test = suite(`bitmapMerge, ${build}`);
  const merge = (src: number[], bits: number, shift: number, length: number) => {
    arm(length);
    bytes.fill(0, OUT, OUT + length);
    bytes.set(src, IN);
    const found = kernels.bitmapMerge(OUT, 0, IN, 0, bits, shift);
    return [found, ...bytes.slice(OUT, OUT + length)];
  };

  test('a bit for a bit: what was set stays, what is set comes', () => {
    bytes.set([0b0001, 0b1000_0000, 0xff], IN);
    bytes.set([0b0100, 0b0000_0001, 0], OUT);
    assert.is(kernels.bitmapMerge(OUT, 0, IN, 0, 20, 0), 1);
    assert.equal([...bytes.slice(OUT, OUT + 3)], [0b0101, 0b1000_0001, 0x0f]);
  });

  test('several bits make one, and one makes several', () => {
    assert.equal(merge([0b0001_0010], 8, 1, 1), [1, 0b0101]);
    assert.equal(merge([0, 0b1000_0000], 16, 4, 1), [1, 1]);
    assert.equal(merge([0b101], 3, -2, 2), [1, 0b0000_1111, 0b1111]);
    assert.equal(merge([0b10], 2, -10, 256), [1, ...Array(128).fill(0), ...Array(128).fill(255)]);
  });

  test('says whether there was anything to merge', () => {
    assert.is(merge([0, 0, 0], 24, 0, 3)[0], 0);
    assert.is(merge([0, 0, 0x80], 23, 0, 3)[0], 0);
    assert.is(merge([0, 0, 0x80], 24, 3, 3)[0], 1);
    assert.is(merge([1], 0, 0, 1)[0], 0);
  });

  test('refuses wrong arguments, and touches nothing', () => {
    arm(8);
    const size = memory.buffer.byteLength;
    assert.is(kernels.bitmapMerge(OUT, 0, IN, 0, 8, 23), MISUSE);
    assert.is(kernels.bitmapMerge(OUT, 0, IN, 0, 8, -23), MISUSE);
    assert.is(kernels.bitmapMerge(OUT, 0, size - 1, 0, 9, 0), MISUSE);
    assert.is(kernels.bitmapMerge(size - 1, 0, IN, 0, 9, 0), MISUSE);
    assert.is(kernels.bitmapMerge(size - 1, 0, IN, 0, 3, -2), MISUSE);
    assert.is(kernels.bitmapMerge(OUT, 0xffff_ffff, IN, 0, 1, 0), MISUSE);
    assert.is(kernels.bitmapMerge(OUT, 0, IN, 0, 1 << 15, -22), MISUSE);
    assert.ok(bytes.subarray(OUT, OUT + 8).every((byte) => byte === 0xa5));
  });

  test.run();
}

const test = suite('bitmapMerge, twin and kernel agree');

test('on random bitmaps', () => {
  const random = rng();
  for (let round = 0; round < 3000; round++) {
    const srcBytes = random.pick([1, 9, 40, 200, 1000]);
    bytes.fill(0, IN, IN + srcBytes);
    for (let i = random.below(6); i > 0; i--) {
      const at = random.below(srcBytes);
      bytes.fill(random.pick([0xff, 1, 0x80, 0]), IN + at, IN + at + random.below(srcBytes - at));
      bytes[IN + at] = random.below(256);
    }
    const srcFirst = random.oneIn(2) ? 0 : random.below(Math.min(70, srcBytes * 8));
    const srcBits = random.below(srcBytes * 8 - srcFirst + 1);
    const shift = random.pick([0, 0, 1, 2, 5, 6, 7, 9, 12, 22, -1, -2, -3, -5]);
    const dstFirst = random.oneIn(2) ? 0 : random.below(100);
    const room = Math.ceil((dstFirst + srcBits / 2 ** shift) / 8) + 8;
    const before = Uint8Array.from({ length: room }, () => random.pick([0, 0, random.below(256)]));
    agree(
      `SEED=${SEED} round ${round} shift ${shift}`,
      room,
      (k, out) => k.bitmapMerge(out, dstFirst, IN, srcFirst, srcBits, shift),
      () => bytes.set(before, OUT),
    );
  }
});

test.run();
