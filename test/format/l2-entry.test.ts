import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type L2Entry, parseL2Entry, serializeL2Entry } from '../../src/format/l2-entry.ts';
import { type Random, rng, SEED } from '../random.ts';
import { refused, viewOf } from './refused.ts';

const test = suite('L2 entry');
const V3 = { clusterBits: 16, version: 3, dataFile: false } as const;

/** An entry whose every field is one that the format allows. */
function randomEntry(next: Random, clusterBits: number): L2Entry {
  const clusterSize = 2 ** clusterBits;
  const host = (1 + next.below(2 ** 56 / clusterSize - 1)) * clusterSize;
  const copied = next.oneIn(2);
  switch (next.below(4)) {
    case 0:
      return { kind: 'unallocated' };
    case 1:
      return { kind: 'zero', host: next.oneIn(2) ? host : 0, copied };
    case 2:
      return { kind: 'data', host, copied };
    default: {
      const byte = next.below(2 ** Math.min(53, 62 - (clusterBits - 8)));
      const sectors = next.below(2 ** (clusterBits - 8));
      return { kind: 'compressed', host: byte, length: (sectors + 1) * 512 - (byte % 512) };
    }
  }
}

test('comes back as it was written', () => {
  const next = rng();
  const view = viewOf(16);
  for (let i = 0; i < 5000; i++) {
    const clusterBits = 9 + next.below(13);
    const entry = randomEntry(next, clusterBits);
    serializeL2Entry(view, 8, entry, clusterBits);
    const back = parseL2Entry(view, 8, { ...V3, clusterBits });
    assert.equal(back, entry, `SEED=${SEED}`);
  }
});

test('every reserved bit is refused', () => {
  const view = viewOf(24);
  for (const bit of [1n, 2n, 8n, 56n, 57n, 58n, 61n]) {
    view.setBigUint64(16, (1n << bit) | 0x10000n);
    refused(
      () => parseL2Entry(view, 16, { ...V3, file: 4096 }),
      'CORRUPT',
      4112,
      'reserved bits set in an L2 entry',
    );
  }
});

test('version 2 knows no zero bit', () => {
  const view = viewOf(8);
  view.setBigUint64(0, 1n);
  assert.equal(parseL2Entry(view, 0, V3), { kind: 'zero', host: 0, copied: false });
  refused(() => parseL2Entry(view, 0, { ...V3, version: 2 }), 'CORRUPT', 0, /^reserved bits/);
});

test('a host offset inside a cluster is refused', () => {
  const view = viewOf(8);
  view.setBigUint64(0, 0x8000_0000_0001_0200n);
  refused(() => parseL2Entry(view, 0, { ...V3, file: 512 }), 'CORRUPT', 512, /not cluster aligned/);
  assert.is(parseL2Entry(view, 0, { ...V3, clusterBits: 9 }).kind, 'data');
});

test('offset 0 is allocated in a data file only, and only with COPIED', () => {
  const view = viewOf(8);
  const dataFile = { ...V3, dataFile: true };
  assert.is(parseL2Entry(view, 0, dataFile).kind, 'unallocated');
  view.setBigUint64(0, 1n << 63n);
  assert.equal(parseL2Entry(view, 0, dataFile), { kind: 'data', host: 0, copied: true });
  assert.is(parseL2Entry(view, 0, V3).kind, 'unallocated');
});

test.run();
