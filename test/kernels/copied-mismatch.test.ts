/** COPIED flags against refcounts. The TypeScript twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { L2Flags, MISUSE } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { agree, bound, bytes, IN, memory, put, view } from './guarded.ts';

const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const ONES = IN + 0x100000;
const LAST = 4;

for (const [build, kernels] of bound) {
  const test = suite(`l2CopiedMismatch, ${build}`);
  const find = (words: bigint[], flags = 0, first = 0, length = 32) => {
    put(IN, ...words);
    return kernels.l2CopiedMismatch(IN, words.length, 8, 16, flags, ONES, first, length);
  };
  const cluster = (index: number) => BigInt(index) << 16n;

  test('finds the first flag that does not fit', () => {
    bytes.set([0b0000_0110, 0, 0xff, 0, 0, 0], ONES);
    assert.is(find([COPIED | cluster(1), COPIED | cluster(2), cluster(3)]), 3);
    assert.is(find([COPIED | cluster(1), cluster(2)]), 1);
    assert.is(find([COPIED | cluster(4)]), 0);
    assert.is(find([COPIED]), 1);
    assert.is(find([0n, 1n, COMPRESSED | COPIED | cluster(1)]), 3);
  });

  test('in runs of every length', () => {
    bytes.fill(0xff, ONES, ONES + 8);
    for (let length = 1; length < 30; length++) {
      for (let bad = 0; bad <= length; bad++) {
        const words = Array.from({ length }, (_, i) =>
          i === bad ? cluster(1 + i) : COPIED | cluster(1 + i),
        );
        assert.is(find(words, 0, 0, 64), bad);
      }
    }
  });

  test('says nothing of clusters outside of the window, unless it is the last', () => {
    bytes.fill(0, ONES, ONES + 8);
    const words = [COPIED | cluster(3), COPIED | cluster(40), cluster(50)];
    assert.is(find(words, 0, 4), 3);
    assert.is(find(words, LAST, 4), 1);
  });

  test('with a data file the flag is always there', () => {
    assert.is(find([COPIED, COPIED | cluster(5), 0n], L2Flags.dataFile), 3);
    assert.is(find([COPIED, cluster(5)], L2Flags.dataFile), 1);
  });

  test('refuses wrong arguments', () => {
    const size = memory.buffer.byteLength;
    const call = kernels.l2CopiedMismatch;
    assert.is(call(IN, 1, 9, 16, 0, ONES, 0, 8), MISUSE);
    assert.is(call(IN, 1, 8, 8, 0, ONES, 0, 8), MISUSE);
    assert.is(call(size - 4, 1, 8, 16, 0, ONES, 0, 8), MISUSE);
    assert.is(call(IN, 1, 8, 16, 0, size - 1, 0, 8), MISUSE);
    assert.is(call(IN, 1, 8, 16, 0, ONES, 0, 0xffff_ffff), MISUSE);
  });

  test.run();
}

const test = suite('l2CopiedMismatch, twin and kernel agree');

test('on random tables', () => {
  const next = rng();
  for (let round = 0; round < 3000; round++) {
    const stride = next.pick([8, 16]);
    const bits = 9 + next.below(13);
    const entries = 1 + next.below(60);
    const fill = next.pick([0, 0xff, 0x0f, 0xa5]);
    for (let i = 0; i < 40; i++) view.setUint8(ONES + i, next.oneIn(9) ? next.u32() : fill);
    const words: bigint[] = [];
    while (words.length < (entries * stride) / 8) {
      let host = BigInt(next.below(200)) << BigInt(bits);
      const flags = next.pick([0n, COPIED, COPIED, COPIED | 1n]);
      const kind = next.below(12);
      for (let run = next.pick([1, 9, 20]); run > 0; run--) {
        let word = kind === 0 ? 0n : kind === 1 ? COMPRESSED | host : host | flags;
        if (next.oneIn(50)) word ^= 1n << BigInt(next.below(64));
        words.push(word);
        if (stride === 16) words.push(BigInt(next.u32()));
        host += 1n << BigInt(bits);
      }
    }
    put(IN, ...words);
    const flags = next.pick([0, 0, LAST, L2Flags.dataFile]);
    const [first, length] = [next.pick([0, 0, 50]), next.pick([0, 5, 160, 250])];
    agree(`SEED=${SEED} round ${round}`, 0, (kernels) => {
      let all = 0;
      for (let at = 0; at < entries; at++) {
        at += kernels.l2CopiedMismatch(
          IN + at * stride,
          entries - at,
          stride,
          bits,
          flags,
          ONES,
          first,
          length,
        );
        all = (all * 31 + at) | 0;
      }
      return all;
    });
  }
});

test.run();
