import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  checkRefcountBlockOffset,
  parseRefcountTableEntry,
  serializeRefcountTableEntry,
} from '../../src/format/refcount-table.ts';
import { rng, SEED } from '../random.ts';
import { refused, viewOf } from './refused.ts';

const test = suite('refcount table entry');

test('comes back as it was written', () => {
  const next = rng();
  const view = viewOf(16);
  for (let i = 0; i < 1000; i++) {
    const clusterSize = 2 ** (9 + next.below(13));
    const host = next.below(2 ** 62 / clusterSize / 2 ** 9) * clusterSize;
    serializeRefcountTableEntry(view, 8, host);
    assert.is(parseRefcountTableEntry(view, 8), host, `SEED=${SEED}`);
    checkRefcountBlockOffset(host, { index: 1, clusterSize, file: 0 });
  }
});

test('the low nine bits are ignored', () => {
  const view = viewOf(8);
  view.setBigUint64(0, 0x101ffn);
  assert.is(parseRefcountTableEntry(view, 0), 65536);
});

test('an offset that is not cluster aligned, or out of range, is refused', () => {
  const view = viewOf(16);
  const place = { index: 1, clusterSize: 65536, file: 65536 };
  const check = () => checkRefcountBlockOffset(parseRefcountTableEntry(view, 8), place);
  for (const host of [512n, 2n ** 32n + 1024n, 2n ** 62n + 2n ** 15n]) {
    view.setBigUint64(8, host);
    const message = `Refblock offset 0x${host.toString(16)} unaligned (reftable index: 0x1)`;
    refused(check, 'CORRUPT', 65544, message);
  }
  for (const host of [2n ** 62n, 2n ** 63n]) {
    view.setBigUint64(8, host);
    refused(check, 'IO', 65544, 'Refcount block beyond the end of any file');
  }
});

test.run();
