/** Free runs of refcount blocks. The TypeScript twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MISUSE } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { agree, arm, bound, bytes, IN, memory, OUT, pairsAt, view } from './guarded.ts';

const VALUES = IN + 0x100000;
const orders = [0, 1, 2, 3, 4, 5, 6];

for (const [build, kernels] of bound) {
  const test = suite(`refcountFreeRuns, ${build}`);

  for (const order of orders) {
    const bits = 2 ** order;
    const blockBytes = (entries: number) => Math.ceil((entries * bits) / 8);
    /** Free runs of a block in which only the entries of `taken` count something. */
    const runs = (taken: number[], first: number, count: number, outMax = 100) => {
      bytes.fill(0, IN, IN + blockBytes(400) + 8);
      view.setBigUint64(VALUES, 1n, true);
      for (const index of taken) kernels.refcountSet(IN, index, 1, order, VALUES);
      arm(outMax * 8);
      return pairsAt(kernels.refcountFreeRuns(IN, first, count, order, OUT, outMax));
    };

    test(`${bits} bits: an empty block is one run`, () => {
      for (const count of [1, 7, 8, 15, 16, 17, 63, 64, 65, 128, 200, 399]) {
        assert.equal(runs([], 0, count), [[0, count]]);
        assert.equal(runs([], 1, count), [[1, count]]);
      }
      assert.equal(runs([], 3, 0), []);
    });

    test(`${bits} bits: a full block has none`, () => {
      bytes.fill(0xff, IN, IN + blockBytes(400));
      assert.is(kernels.refcountFreeRuns(IN, 3, 300, order, OUT, 100), 0);
    });

    test(`${bits} bits: each entry alone cuts the run in two`, () => {
      for (let taken = 0; taken < 200; taken++) {
        const expected = [
          [0, taken],
          [taken + 1, 199 - taken],
        ].filter(([, length]) => length !== 0);
        assert.equal(runs([taken], 0, 200), expected, `entry ${taken}`);
      }
    });

    test(`${bits} bits: each bit of an entry counts`, () => {
      for (let bit = 0; bit < 80 * bits; bit++) {
        bytes.fill(0, IN, IN + blockBytes(80));
        bytes[IN + (bit >> 3)] = 1 << (bit & 7);
        const pairs = pairsAt(kernels.refcountFreeRuns(IN, 0, 80, order, OUT, 100));
        const taken = Math.floor(bit / bits);
        const free = pairs.reduce((sum, [, length]) => sum + length, 0);
        assert.is(free, 79);
        assert.ok(pairs.every(([at, length]) => taken < at || taken >= at + length));
      }
    });

    test(`${bits} bits: looks at nothing outside of the range`, () => {
      assert.equal(runs([4, 10], 5, 5), [[5, 5]]);
      assert.equal(runs([], 5, 100), [[5, 100]]);
    });

    test(`${bits} bits: stops at outMax, with the last run whole`, () => {
      const taken = [10, 90, 91, 170];
      assert.equal(runs(taken, 0, 300, 0), []);
      assert.equal(runs(taken, 0, 300, 1), [[0, 10]]);
      assert.equal(runs(taken, 0, 300, 2)[1], [11, 79]);
      assert.equal(runs(taken, 0, 300, 3)[2], [92, 78]);
      assert.equal(runs(taken, 0, 300, 4)[3], [171, 129]);
    });
  }

  test('refuses wrong arguments, and touches nothing', () => {
    arm(8);
    const size = memory.buffer.byteLength;
    assert.is(kernels.refcountFreeRuns(IN, 0, 8, 7, OUT, 1), MISUSE);
    assert.is(kernels.refcountFreeRuns(IN - 8, 0, 8, 4, OUT, 1), MISUSE);
    assert.is(kernels.refcountFreeRuns(size - 8, 0, 5, 4, OUT, 1), MISUSE);
    assert.is(kernels.refcountFreeRuns(size - 8, 64, 1, 0, OUT, 1), MISUSE);
    assert.is(kernels.refcountFreeRuns(IN, 0xffff_ffff, 1, 0, OUT, 1), MISUSE);
    assert.is(kernels.refcountFreeRuns(IN, 0, 8, 4, size - 8, 2), MISUSE);
    assert.is(kernels.refcountFreeRuns(IN, 0, 8, 4, 0x10000, 1), MISUSE);
    assert.ok(bytes.subarray(OUT, OUT + 8).every((byte) => byte === 0xa5));
  });

  test('reads a block that ends with the memory', () => {
    const size = memory.buffer.byteLength;
    for (const order of orders) {
      for (let entries = 8; entries < 200; entries += 8) {
        const block = size - (entries * 2 ** order) / 8;
        bytes.fill(0, block, size);
        assert.is(kernels.refcountFreeRuns(block, 0, entries, order, OUT, 1), 1);
        assert.equal(pairsAt(1), [[0, entries]]);
      }
    }
  });

  test.run();
}

const test = suite('refcountFreeRuns, twin and kernel agree');

test('on random blocks', () => {
  const random = rng();
  for (let round = 0; round < 6000; round++) {
    const order = random.below(7);
    const first = random.below(random.oneIn(2) ? 20 : 200);
    const count = random.below(random.oneIn(2) ? 80 : 500);
    const at = IN + random.below(17);
    const extent = Math.ceil(((first + count) * 2 ** order) / 8) + 8;
    // Long stretches of free and taken entries, or a change at nearly each.
    const patience = 1 + random.below(30);
    let byte = 0;
    for (let i = 0; i < extent; i++) {
      if (random.oneIn(patience)) byte = random.oneIn(2) ? 0 : random.u32() & 0xff;
      bytes[at + i] = byte;
    }
    const outMax = random.oneIn(3) ? random.below(8) : count;
    agree(`SEED=${SEED} round ${round}`, outMax * 8, (k, out) =>
      k.refcountFreeRuns(at, first, count, order, out, outMax),
    );
  }
});

test.run();
