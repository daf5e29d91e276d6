/** Changing runs of refcounts. The TypeScript twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MISUSE } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { agree, bound, bytes, IN, memory, OUT, view } from './guarded.ts';

const VALUES = IN + 0x100000;
const orders = [0, 1, 2, 3, 4, 5, 6];
const widest = (order: number) => (1n << BigInt(2 ** order)) - 1n;

for (const [build, kernels] of bound) {
  const test = suite(`refcountAdd, ${build}`);
  const put = (order: number, values: readonly bigint[]) => {
    values.forEach((value, i) => void view.setBigUint64(VALUES + i * 8, value, true));
    assert.is(kernels.refcountSet(IN, 0, values.length, order, VALUES), values.length);
  };
  const get = (order: number, count: number) => {
    assert.is(kernels.refcountGet(IN, 0, count, order, VALUES), count);
    return Array.from({ length: count }, (_, i) => view.getBigUint64(VALUES + i * 8, true));
  };

  for (const order of orders) {
    test(`${2 ** order} bits: a range changes, its neighbours stay`, () => {
      const most = widest(order);
      for (let first = 0; first < 19; first++) {
        for (let count = 0; count < 37; count++) {
          const rest = new Array<bigint>(60).fill(most);
          const low = order === 6 ? 0xffff_ffffn : most > 1n ? most - 1n : 1n;
          put(order, rest.with(first, low).fill(low, first, first + count));
          if (order > 0) {
            assert.is(kernels.refcountAdd(IN, first, count, order, 1), count);
            assert.equal(
              get(order, 60),
              rest.fill(low, first, first + 1).fill(low + 1n, first, first + count),
            );
            assert.is(kernels.refcountAdd(IN, first, count, order, -1), count);
          } else assert.is(kernels.refcountAdd(IN, first, count, order, 1), count > 0 ? -1 : 0);
          assert.is(get(order, 60)[first], low);
        }
      }
    });

    test(`${2 ** order} bits: an entry that cannot change is named, and nothing changes`, () => {
      const good = order === 0 ? 1n : widest(order) - 1n;
      for (const [bad, delta] of [
        [0n, 1],
        [0n, -1],
        [widest(order), 1],
      ] as const) {
        if (order === 0 && delta === 1) continue;
        for (let at = 0; at < 40; at++) {
          const values = new Array<bigint>(41).fill(good).with(at, bad).with(40, bad);
          put(order, values);
          assert.is(kernels.refcountAdd(IN, 0, 41, order, delta), -1 - at);
          assert.equal(get(order, 41), values);
        }
      }
    });
  }

  test('refuses wrong arguments', () => {
    const size = memory.buffer.byteLength;
    assert.is(kernels.refcountAdd(IN, 0, 1, 7, 1), MISUSE);
    assert.is(kernels.refcountAdd(IN - 8, 0, 1, 4, 1), MISUSE);
    assert.is(kernels.refcountAdd(size - 2, 0, 2, 4, 1), MISUSE);
    assert.is(kernels.refcountAdd(IN, 1, 0xffff_ffff, 0, 1), MISUSE);
    assert.is(kernels.refcountAdd(IN, 0, 1, 4, 2 as 1), MISUSE);
  });

  test.run();
}

const test = suite('refcountAdd, twin and kernel agree');

test('on random blocks', () => {
  const random = rng();
  for (let round = 0; round < 4000; round++) {
    const order = random.below(7);
    const first = random.below(random.oneIn(2) ? 20 : 300);
    const count = random.below(random.oneIn(2) ? 20 : 200);
    const extent = Math.ceil(((first + count) * 2 ** order) / 8);
    // Entries in the middle of their width: rarely one that cannot change.
    const fill = random.pick([0x55, 0x7f, 0xaa]);
    const before = new Uint8Array(extent + 16).fill(fill);
    for (let i = random.below(3); i > 0; i--) {
      before[random.below(before.length)] = random.pick([0, 0xff, random.below(256)]);
    }
    const phase = random.below(17);
    const delta = random.oneIn(2) ? 1 : -1;
    agree(
      `SEED=${SEED} round ${round}`,
      extent + 48,
      (k, out) => k.refcountAdd(out + phase, first, count, order, delta),
      () => bytes.set(before, OUT + phase),
    );
  }
});

test.run();
