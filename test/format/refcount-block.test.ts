import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { geometryOf } from '../../src/format/geometry.ts';
import {
  refcountAt,
  refcountMax,
  refcountPlace,
  stepRefcount,
} from '../../src/format/refcount-block.ts';
import { rng, SEED } from '../random.ts';
import { viewOf } from './refused.ts';

const test = suite('refcount block');

test('every width counts from the definition, in BigInt', () => {
  const next = rng();
  const view = viewOf(512);
  for (let at = 0; at < 512; at++) view.setUint8(at, next.below(256));
  for (let order = 0; order <= 6; order++) {
    const width = 2 ** order;
    for (let index = 0; index < (512 * 8) / width; index++) {
      let expected = 0n;
      if (width < 8) {
        const bit = index * width;
        const byte = view.getUint8(Math.floor(bit / 8));
        expected = (BigInt(byte) >> BigInt(bit % 8)) & ((1n << BigInt(width)) - 1n);
      } else {
        for (let i = 0; i < width / 8; i++) {
          expected = (expected << 8n) | BigInt(view.getUint8((index * width) / 8 + i));
        }
      }
      const message = `order ${order}, index ${index}, SEED=${SEED}`;
      assert.is(refcountAt(view, index, order), Number(expected), message);
    }
  }
});

test('one more and one less, however high a counter is', () => {
  for (const [order, was] of [
    [6, 2n ** 63n],
    [6, 2n ** 64n - 2n],
    [6, 2n ** 32n - 1n],
    [5, 2n ** 31n],
    [2, 7n],
  ] as const) {
    for (const delta of [1, -1] as const) {
      const view = viewOf(24);
      const step = (by: 1 | -1) => stepRefcount(view, 8, 1, order, by);
      const value = () => BigInt.asUintN(2 ** order, view.getBigUint64(16 - (order === 6 ? 0 : 8)));
      if (order === 6) view.setBigUint64(16, was);
      else if (order === 5) view.setUint32(12, Number(was));
      else view.setUint8(8, Number(was) << 4);
      const bits = () => (order === 2 ? BigInt(view.getUint8(8) >> 4) : value());
      step(delta);
      assert.is(bits(), was + BigInt(delta), `order ${order}, ${was} ${delta}`);
      step(delta === 1 ? -1 : 1);
      assert.is(bits(), was, `order ${order}, back to ${was}`);
    }
  }
});

test('the highest counts', () => {
  const highest = [1, 3, 15, 255, 65535, 2 ** 32 - 1, Number.POSITIVE_INFINITY];
  assert.equal([0, 1, 2, 3, 4, 5, 6].map(refcountMax), highest);
});

test('a cluster is found in its block', () => {
  const geometry = geometryOf({ clusterBits: 16, extendedL2: false, refcountOrder: 4 });
  assert.equal(refcountPlace(0, geometry), { block: 0, index: 0 });
  assert.equal(refcountPlace(32767, geometry), { block: 0, index: 32767 });
  assert.equal(refcountPlace(32768 * 5 + 7, geometry), { block: 5, index: 7 });
  assert.equal(refcountPlace(2 ** 46 + 1, geometry), { block: 2 ** 31, index: 1 });
});

test.run();
