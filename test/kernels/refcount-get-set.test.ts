/** Refcounts in and out of blocks. The TypeScript twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MISUSE } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { agree, arm, bound, bytes, IN, memory, OUT, view } from './guarded.ts';

const VALUES = IN + 0x100000;
const orders = [0, 1, 2, 3, 4, 5, 6];
const widest = (order: number) => (1n << BigInt(2 ** order)) - 1n;

function putValues(values: readonly bigint[]): void {
  values.forEach((value, i) => {
    view.setBigUint64(VALUES + i * 8, value, true);
  });
}

for (const [build, kernels] of bound) {
  const test = suite(`refcountGet and refcountSet, ${build}`);
  const get = (first: number, count: number, order: number, block = IN) => {
    arm(count * 8);
    assert.is(kernels.refcountGet(block, first, count, order, OUT), count);
    return Array.from({ length: count }, (_, i) => view.getBigUint64(OUT + i * 8, true));
  };

  test('narrow entries start at the lowest bit of a byte', () => {
    bytes.set([0b1101_0010, 0b0000_0001], IN);
    assert.equal(get(0, 9, 0), [0n, 1n, 0n, 0n, 1n, 0n, 1n, 1n, 1n]);
    assert.equal(get(0, 5, 1), [2n, 0n, 1n, 3n, 1n]);
    assert.equal(get(0, 3, 2), [2n, 13n, 1n]);
    assert.equal(get(1, 1, 3), [1n]);
  });

  test('wide entries are big-endian', () => {
    bytes.set([1, 2, 3, 4, 5, 6, 7, 8], IN);
    assert.equal(get(0, 2, 4), [0x0102n, 0x0304n]);
    assert.equal(get(1, 1, 5), [0x05060708n]);
    assert.equal(get(0, 1, 6), [0x0102030405060708n]);
  });

  for (const order of orders) {
    test(`${2 ** order} bits: what was set is what is read, and the neighbours stay`, () => {
      const random = rng(order);
      for (let first = 0; first < 19; first++) {
        for (let count = 0; count < 40; count++) {
          const fill = random.oneIn(2) ? 0 : 0xff;
          bytes.fill(fill, OUT, OUT + 640);
          const values = Array.from(
            { length: count },
            () => ((BigInt(random.u32()) << 32n) | BigInt(random.u32())) & widest(order),
          );
          putValues(values);
          assert.is(kernels.refcountSet(OUT, first, count, order, VALUES), count);
          const block = bytes.slice(OUT, OUT + 640);
          bytes.set(block, IN);
          assert.equal(get(first, count, order), values);
          const rest = fill === 0 ? 0n : widest(order);
          assert.ok(get(0, first, order).every((value) => value === rest));
          assert.ok(get(first + count, 20, order).every((value) => value === rest));
        }
      }
    });

    test(`${2 ** order} bits: the largest value fits`, () => {
      putValues(new Array(17).fill(widest(order)));
      assert.is(kernels.refcountSet(IN, 0, 17, order, VALUES), 17);
      assert.equal(get(0, 17, order), new Array(17).fill(widest(order)));
    });

    if (order < 6) {
      test(`${2 ** order} bits: a value that does not fit is named, and nothing is written`, () => {
        for (const tooWide of [widest(order) + 1n, 1n << 63n, 1n << 32n, widest(6)]) {
          for (let bad = 0; bad < 21; bad++) {
            const values = new Array<bigint>(21).fill(1n);
            values[bad] = tooWide;
            values[20] = tooWide;
            putValues(values);
            arm(640);
            assert.is(kernels.refcountSet(OUT, 1, 21, order, VALUES), -1 - bad);
            assert.ok(bytes.subarray(OUT, OUT + 640).every((byte) => byte === 0xa5));
          }
        }
      });
    }
  }

  test('refuses wrong arguments, and touches nothing', () => {
    arm(16);
    const size = memory.buffer.byteLength;
    for (const call of [kernels.refcountGet, kernels.refcountSet]) {
      assert.is(call(IN, 0, 1, 7, OUT), MISUSE);
      assert.is(call(IN - 8, 0, 1, 4, OUT), MISUSE);
      assert.is(call(size - 2, 0, 2, 4, OUT), MISUSE);
      assert.is(call(size - 2, 1, 1, 4, OUT), MISUSE);
      assert.is(call(size - 2, 16, 1, 0, OUT), MISUSE);
      assert.is(call(IN, 0xffff_ffff, 1, 0, OUT), MISUSE);
      assert.is(call(IN, 1, 0xffff_ffff, 0, OUT), MISUSE);
      assert.is(call(IN, 0, 2, 4, size - 8), MISUSE);
      assert.is(call(IN, 0, 1, 4, 0x10000), MISUSE);
    }
    assert.ok(bytes.subarray(OUT, OUT + 16).every((byte) => byte === 0xa5));
  });

  test.run();
}

const test = suite('refcountGet and refcountSet, twin and kernel agree');

test('on random blocks', () => {
  const random = rng();
  for (let round = 0; round < 4000; round++) {
    const order = random.below(7);
    const first = random.below(random.oneIn(2) ? 20 : 300);
    const count = random.below(random.oneIn(2) ? 20 : 200);
    const at = IN + random.below(17);
    const what = `SEED=${SEED} round ${round}`;
    const extent = Math.ceil(((first + count) * 2 ** order) / 8);
    for (let i = 0; i < extent + 16; i += 4) view.setUint32(at + i, random.u32());
    agree(`${what} get`, count * 8, (k, out) => k.refcountGet(at, first, count, order, out));

    const values = VALUES + random.below(17);
    const misfit = random.oneIn(4) ? random.below(count + 1) : -1;
    for (let i = 0; i < count; i++) {
      const wide = order === 6 || i === misfit;
      view.setUint32(values + i * 8, wide ? random.u32() : random.below(2 ** (2 ** order)), true);
      view.setUint32(values + i * 8 + 4, wide ? random.u32() : 0, true);
    }
    const phase = random.below(17);
    const before = bytes.slice(at, at + extent + 16);
    agree(
      `${what} set`,
      extent + 32,
      (k, out) => k.refcountSet(out + phase, first, count, order, values),
      () => bytes.set(before, OUT + phase),
    );
  }
});

test.run();
