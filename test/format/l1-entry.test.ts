import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parseL1Entry, parseL1Offset, serializeL1Entry } from '../../src/format/l1-entry.ts';
import { rng, SEED } from '../random.ts';
import { refused, viewOf } from './refused.ts';

const test = suite('L1 entry');

test('comes back as it was written', () => {
  const next = rng();
  const view = viewOf(24);
  for (let i = 0; i < 2000; i++) {
    const clusterSize = 2 ** (9 + next.below(13));
    const host = next.below(2 ** 56 / clusterSize) * clusterSize;
    const entry = { host, copied: next.oneIn(2) };
    serializeL1Entry(view, 8, entry);
    assert.equal(parseL1Entry(view, 8, clusterSize), entry, `SEED=${SEED}`);
    assert.is(parseL1Offset(view, 8, clusterSize), host);
  }
});

test('reserved bits are ignored', () => {
  const view = viewOf(8);
  view.setBigUint64(0, 0x7f00_0000_0000_01ffn);
  assert.equal(parseL1Entry(view, 0, 512), { host: 0, copied: false });
});

test('an offset that is not cluster aligned is refused, with its index', () => {
  const view = viewOf(32);
  for (const host of [512n, 65024n, 2n ** 55n + 512n]) {
    view.setBigUint64(24, host);
    assert.is(parseL1Offset(view, 24, 512), Number(host));
    const message = `L2 table offset 0x${host.toString(16)} unaligned (L1 index: 0x3)`;
    refused(() => parseL1Offset(view, 24, 65536, 1000), 'CORRUPT', 1024, message);
    refused(() => parseL1Entry(view, 24, 65536, 1000), 'CORRUPT', 1024, message);
  }
});

test.run();
