import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  parseCompressedDescriptor,
  serializeCompressedDescriptor,
} from '../../src/format/compressed-descriptor.ts';
import { rng, SEED } from '../random.ts';
import { refused } from './refused.ts';

const test = suite('compressed cluster descriptor');

test('the length reaches to the end of the last sector', () => {
  const next = rng();
  for (let i = 0; i < 5000; i++) {
    const clusterBits = 9 + next.below(13);
    const host = next.below(2 ** Math.min(53, 62 - (clusterBits - 8)));
    const length = 1 + next.below(2 ** clusterBits - 1);
    const { high, low } = serializeCompressedDescriptor({ host, length }, clusterBits);
    const back = parseCompressedDescriptor(high, low, clusterBits);
    assert.is(back.host, host, `SEED=${SEED}`);
    assert.is((host + back.length) % 512, 0, `SEED=${SEED}`);
    assert.ok(back.length >= length && back.length < length + 512, `SEED=${SEED}`);
    assert.is(high >>> 30, 1, 'bit 62 set, bit 63 clear');
  }
});

test('the bits agree with the definition, in BigInt', () => {
  const next = rng();
  for (let i = 0; i < 5000; i++) {
    const clusterBits = 9 + next.below(13);
    const [high, low] = [(next.u32() | 0x4000_0000) >>> 0, next.u32()];
    const x = BigInt(62 - (clusterBits - 8));
    const word = (BigInt(high) << 32n) | BigInt(low);
    const host = word & ((1n << x) - 1n);
    const sectors = (word & ((1n << 62n) - 1n)) >> x;
    const exact = host < 2n ** 53n || host % 512n === 0n;
    if (host >= 2n ** 56n || !exact) {
      const message = 'compressed cluster offset is out of range';
      refused(() => parseCompressedDescriptor(high, low, clusterBits, 77), 'CORRUPT', 77, message);
      continue;
    }
    const length = Number((sectors + 1n) * 512n - (host % 512n));
    const expected = { host: Number(host), length };
    assert.equal(parseCompressedDescriptor(high, low, clusterBits), expected, `SEED=${SEED}`);
  }
});

test.run();
