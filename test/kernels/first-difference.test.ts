/** The first byte that differs. The TypeScript twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MISUSE } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { agree, bound, bytes, IN, memory } from './guarded.ts';

const OTHER = IN + 0x20000;

for (const [build, kernels] of bound) {
  const test = suite(`firstDifference, ${build}`);

  test('each byte counts, at any length and alignment', () => {
    for (const length of [1, 2, 63, 64, 65, 127, 128, 200]) {
      for (const shift of [0, 1, 7, 16]) {
        bytes.fill(9, IN, IN + 400);
        bytes.fill(9, OTHER, OTHER + 400);
        assert.is(kernels.firstDifference(IN + shift, OTHER, length), length);
        for (let at = 0; at < length; at++) {
          bytes[OTHER + at] = 8;
          assert.is(kernels.firstDifference(IN + shift, OTHER, length), at);
          bytes[OTHER + at] = 9;
        }
      }
    }
  });

  test('what lies behind the buffers does not matter', () => {
    bytes.fill(1, IN, IN + 200);
    bytes.fill(1, OTHER, OTHER + 200);
    bytes[IN + 100] = 2;
    assert.is(kernels.firstDifference(IN, OTHER, 100), 100);
    assert.is(kernels.firstDifference(IN, OTHER, 0), 0);
  });

  test('buffers outside of the memory are refused', () => {
    const end = memory.buffer.byteLength;
    assert.is(kernels.firstDifference(end - 10, IN, 11), MISUSE);
    assert.is(kernels.firstDifference(IN, end - 10, 11), MISUSE);
    assert.is(kernels.firstDifference(0, IN, 11), MISUSE);
  });

  test.run();
}

const both = suite('firstDifference, both builds');

both('agree on buffers that differ somewhere', () => {
  const next = rng(SEED);
  for (let round = 0; round < 300; round++) {
    const length = next.below(5000);
    bytes.fill(next.below(256), IN, IN + 6000);
    bytes.copyWithin(OTHER, IN, IN + 6000);
    for (let change = next.below(3); change > 0; change--) bytes[OTHER + next.below(6000)]! ^= 1;
    agree(`SEED=${SEED} round ${round}`, 0, (build) => build.firstDifference(IN, OTHER, length));
  }
});

both.run();
