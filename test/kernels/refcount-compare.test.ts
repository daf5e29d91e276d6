/** Refcount blocks against counts. The TypeScript twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MISUSE } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { agree, arm, bound, bytes, IN, memory, OUT, view } from './guarded.ts';

const COUNTS = IN + 0x100000;
const orders = [0, 1, 2, 3, 4, 5, 6];
const widths = [2, 4] as const;

function putCount(index: number, width: 2 | 4, value: number): void {
  if (width === 2) view.setUint16(COUNTS + index * 2, value, true);
  else view.setUint32(COUNTS + index * 4, value, true);
}

/** Sets entry `index` of the block at IN through a kernel that other tests hold to its word. */
function putEntry(index: number, order: number, value: number): void {
  view.setBigUint64(OUT, BigInt(value), true);
  assert.is(bound[1]![1].refcountSet(IN, index, 1, order, OUT), 1);
}

for (const [build, kernels] of bound) {
  const test = suite(`refcountCompare and refcountOnes, ${build}`);

  for (const order of orders) {
    test(`${2 ** order} bits: the first entry that differs, wherever it is`, () => {
      for (const width of widths) {
        for (const first of [0, 1, 8, 13]) {
          bytes.fill(0, IN, IN + 1024);
          for (let i = 0; i < 50; i++) {
            putEntry(first + i, order, i % 2);
            putCount(i, width, i % 2);
          }
          const compare = (count: number) =>
            kernels.refcountCompare(IN, first, count, order, COUNTS, width);
          for (let bad = 0; bad < 50; bad++) {
            putEntry(first + bad, order, 1 - (bad % 2));
            assert.is(compare(50), bad, `from ${first}`);
            assert.is(compare(bad), bad);
            putEntry(first + bad, order, bad % 2);
          }
          assert.is(compare(50), 50);
        }
      }
    });

    test(`${2 ** order} bits: which entries are 1`, () => {
      bytes.fill(0, IN, IN + 1024);
      for (let i = 0; i < 64; i++) putEntry(i, order, i % 3 === 1 ? 1 : 0);
      if (order > 0) putEntry(2, order, 2);
      arm(8);
      assert.is(kernels.refcountOnes(IN, 64, order, OUT), 64);
      for (let i = 0; i < 64; i++) {
        const bit = (bytes[OUT + (i >> 3)]! >> (i & 7)) & 1;
        assert.is(bit, i % 3 === 1 ? 1 : 0, String(i));
      }
    });
  }

  test('a refcount of 64 bits is more than its low half', () => {
    bytes.fill(0, IN, IN + 256);
    view.setBigUint64(IN + 24, 1n << 32n);
    for (let i = 0; i < 32; i++) putCount(i, 4, 0);
    assert.is(kernels.refcountCompare(IN, 0, 32, 6, COUNTS, 4), 3);
    view.setBigUint64(IN + 24, (1n << 32n) | 1n);
    arm(2);
    assert.is(kernels.refcountOnes(IN, 16, 6, OUT), 16);
    assert.is(view.getUint16(OUT), 0);
  });

  test('refuses wrong arguments', () => {
    const size = memory.buffer.byteLength;
    assert.is(kernels.refcountCompare(IN, 0, 1, 7, COUNTS, 2), MISUSE);
    assert.is(kernels.refcountCompare(IN, 0, 1, 4, COUNTS, 3), MISUSE);
    assert.is(kernels.refcountCompare(size - 2, 0, 2, 4, COUNTS, 2), MISUSE);
    assert.is(kernels.refcountCompare(IN, 0, 2, 4, size - 2, 2), MISUSE);
    assert.is(kernels.refcountCompare(IN, 1, 0xffff_ffff, 0, COUNTS, 2), MISUSE);
    assert.is(kernels.refcountOnes(IN, 8, 4, OUT), MISUSE);
    assert.is(kernels.refcountOnes(IN, 16, 7, OUT), MISUSE);
    assert.is(kernels.refcountOnes(size - 16, 16, 4, OUT), MISUSE);
    assert.is(kernels.refcountOnes(IN, 16, 4, size - 1), MISUSE);
  });

  test.run();
}

const test = suite('refcountCompare and refcountOnes, twin and kernel agree');

test('on random blocks', () => {
  const next = rng();
  for (let round = 0; round < 4000; round++) {
    const order = next.below(7);
    const width = next.pick(widths);
    const [first, count] = [next.below(40), next.below(120)];
    const at = IN + next.below(17);
    const noise = next.pick([1, 20, 1000]);
    for (let i = 0; i < 1400; i++) view.setUint8(at + i, next.oneIn(noise) ? next.below(4) : 0);
    const values = new Uint8Array(8 * count);
    bound[1]![1].refcountGet(at, first, count, order, OUT);
    values.set(bytes.subarray(OUT, OUT + 8 * count));
    for (let i = 0; i < count; i++) {
      const same = new DataView(values.buffer).getUint32(i * 8, true);
      putCount(i, width, next.oneIn(noise) ? next.below(4) : same);
    }
    const what = `SEED=${SEED} round ${round}`;
    agree(`${what} compare`, 0, (k) => k.refcountCompare(at, first, count, order, COUNTS, width));
    const whole = count - (count % 16);
    agree(`${what} ones`, whole / 8, (k, out) => k.refcountOnes(at, whole, order, out));
  }
});

test.run();
