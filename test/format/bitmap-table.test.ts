import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type BitmapTableEntry,
  parseBitmapTableEntry,
  serializeBitmapTableEntry,
} from '../../src/format/bitmap-table.ts';
import { rng, SEED } from '../random.ts';
import { refused, viewOf } from './refused.ts';

const test = suite('bitmap table entry');

test('comes back as it was written', () => {
  const next = rng();
  const view = viewOf(16);
  for (let i = 0; i < 1000; i++) {
    const clusterSize = 2 ** (9 + next.below(13));
    const host = (1 + next.below(2 ** 56 / clusterSize - 1)) * clusterSize;
    const entry: BitmapTableEntry = next.pick([
      { kind: 'zeros' },
      { kind: 'ones' },
      { kind: 'data', host },
    ]);
    serializeBitmapTableEntry(view, 8, entry);
    assert.equal(parseBitmapTableEntry(view, 8, clusterSize), entry, `SEED=${SEED}`);
  }
});

test('reserved bits, an unaligned offset, and all-ones with an offset are refused', () => {
  const view = viewOf(16);
  const wrong = [2n, 0x100n, 1n << 56n, 1n << 63n, 512n, 0x10001n];
  for (const word of wrong) {
    view.setBigUint64(8, word);
    const parse = () => parseBitmapTableEntry(view, 8, 65536, 4096);
    refused(parse, 'CORRUPT', 4104, 'invalid bitmap table entry');
  }
});

test.run();
