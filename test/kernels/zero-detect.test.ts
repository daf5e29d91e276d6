/** Data among zeros. The TypeScript twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MISUSE } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { agree, arm, bound, bytes, IN, memory, OUT, pairsAt } from './guarded.ts';

for (const [build, kernels] of bound) {
  const test = suite(`dataRanges, ${build}`);
  const ranges = (length: number, granule: number, phase = 0, outMax = 100) => {
    arm(outMax * 8);
    return pairsAt(kernels.dataRanges(IN, length, granule, phase, OUT, outMax));
  };

  test('zeros hold no data', () => {
    bytes.fill(0, IN, IN + 70000);
    for (const length of [0, 1, 63, 64, 65, 511, 512, 513, 65536, 70000]) {
      assert.equal(ranges(length, 512), []);
      assert.equal(ranges(length, 4096, 100), []);
    }
  });

  test('each byte alone marks its granule', () => {
    const length = 3000;
    bytes.fill(0, IN, IN + length + 64);
    for (const phase of [0, 1, 100, 511]) {
      for (let at = 0; at < length; at++) {
        bytes[IN + at] = 1 << (at & 7);
        const start = Math.max(0, at - ((at + phase) % 512));
        const end = Math.min(length, at - ((at + phase) % 512) + 512);
        assert.equal(ranges(length, 512, phase), [[start, end]], `byte ${at}, phase ${phase}`);
        bytes[IN + at] = 0;
      }
    }
  });

  test('adjacent granules make one range', () => {
    bytes.fill(0, IN, IN + 8192);
    bytes[IN + 1023] = bytes[IN + 1024] = bytes[IN + 8191] = 1;
    assert.equal(ranges(8192, 512), [
      [512, 1536],
      [7680, 8192],
    ]);
  });

  test('looks at nothing outside of the buffer', () => {
    bytes.fill(0xff, IN, IN + 9000);
    bytes.fill(0, IN, IN + 1000);
    assert.equal(ranges(1000, 512), []);
    assert.equal(ranges(1001, 512), [[512, 1001]]);
  });

  test('out of room, the last pair covers the rest, unless the ranges fitted', () => {
    bytes.fill(0, IN, IN + 8192);
    bytes[IN] = bytes[IN + 2048] = bytes[IN + 4096] = 1;
    assert.equal(ranges(8192, 512, 0, 1), [[0, 8192]]);
    assert.equal(ranges(8192, 512, 0, 2), [
      [0, 512],
      [2048, 8192],
    ]);
    assert.equal(ranges(8192, 512, 0, 3)[2], [4096, 4608]);
    assert.is(ranges(8192, 512, 0, 4).length, 3);
  });

  test('refuses wrong arguments, and touches nothing', () => {
    arm(8);
    const size = memory.buffer.byteLength;
    for (const granule of [0, 256, 513, 768, 0x8000_0001]) {
      assert.is(kernels.dataRanges(IN, 4096, granule, 0, OUT, 1), MISUSE);
    }
    assert.is(kernels.dataRanges(IN, 4096, 512, 512, OUT, 1), MISUSE);
    assert.is(kernels.dataRanges(IN, 4096, 512, 0, OUT, 0), MISUSE);
    assert.is(kernels.dataRanges(IN - 1, 4096, 512, 0, OUT, 1), MISUSE);
    assert.is(kernels.dataRanges(size - 4096, 4097, 512, 0, OUT, 1), MISUSE);
    assert.is(kernels.dataRanges(IN, 0xffff_ffff, 512, 0, OUT, 1), MISUSE);
    assert.is(kernels.dataRanges(IN, 4096, 512, 0, size - 8, 2), MISUSE);
    assert.is(kernels.dataRanges(IN, 4096, 512, 0, 0x10000, 1), MISUSE);
    assert.ok(bytes.subarray(OUT, OUT + 8).every((byte) => byte === 0xa5));
    assert.is(kernels.dataRanges(size - 4096, 4096, 0x8000_0000, 0x7fff_ffff, OUT, 1), 0);
  });

  test.run();
}

const test = suite('dataRanges, twin and kernel agree');

test('on random buffers', () => {
  const random = rng();
  for (let round = 0; round < 4000; round++) {
    const length = random.below(random.oneIn(4) ? 40000 : 6000);
    const at = IN + random.below(65);
    const granule = 512 << random.below(5);
    const phase = random.oneIn(2) ? 0 : random.below(granule);
    bytes.fill(0, at, at + length);
    for (let n = random.below(12); n > 0; n--) {
      const start = random.below(length + 1);
      const end = Math.min(length, start + random.below(random.oneIn(2) ? 4 : 3000));
      bytes.fill(1 + random.below(255), at + start, at + end);
    }
    // Bytes next to the buffer do not count.
    bytes[at - 1] = bytes[at + length] = 0xff;
    const outMax = random.oneIn(3) ? 1 + random.below(4) : 100;
    agree(`SEED=${SEED} round ${round}`, outMax * 8, (k, out) =>
      k.dataRanges(at, length, granule, phase, out, outMax),
    );
  }
});

test.run();
