import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type L2ExtendedEntry,
  parseL2ExtendedEntry,
  serializeL2ExtendedEntry,
  subclusterState,
} from '../../src/format/l2-extended-entry.ts';
import { rng, SEED } from '../random.ts';
import { refused, viewOf } from './refused.ts';

const test = suite('extended L2 entry');
const CONTEXT = { clusterBits: 16, version: 3, dataFile: false, file: 65536 } as const;

test('comes back as it was written', () => {
  const next = rng();
  const view = viewOf(32);
  for (let i = 0; i < 2000; i++) {
    const clusterBits = 14 + next.below(8);
    const zero = next.u32();
    const allocated = (next.u32() & ~zero) >>> 0;
    const host = (1 + next.below(2 ** (56 - clusterBits) - 1)) * 2 ** clusterBits;
    const entry: L2ExtendedEntry = next.oneIn(4)
      ? { kind: 'subclusters', host: 0, copied: false, zero, allocated: 0 }
      : { kind: 'subclusters', host, copied: next.oneIn(2), zero, allocated };
    serializeL2ExtendedEntry(view, 16, entry, clusterBits);
    assert.equal(
      parseL2ExtendedEntry(view, 16, { ...CONTEXT, clusterBits }),
      entry,
      `SEED=${SEED}`,
    );
  }
});

test('a compressed cluster has no subclusters', () => {
  const view = viewOf(16);
  const entry: L2ExtendedEntry = { kind: 'compressed', host: 12345, length: 967 };
  serializeL2ExtendedEntry(view, 0, entry, 16);
  assert.equal(parseL2ExtendedEntry(view, 0, CONTEXT), entry);
  for (const at of [8, 12]) {
    view.setBigUint64(8, 0n);
    view.setUint32(at, 1);
    const message = 'a compressed cluster has subcluster bits';
    refused(() => parseL2ExtendedEntry(view, 0, CONTEXT), 'CORRUPT', 65544, message);
  }
});

test('a subcluster cannot be allocated and zero', () => {
  const view = viewOf(16);
  view.setUint32(4, 65536);
  for (let bit = 0; bit < 32; bit++) {
    view.setUint32(8, 2 ** bit);
    view.setUint32(12, 2 ** bit);
    const message = 'a subcluster is both allocated and zero';
    refused(() => parseL2ExtendedEntry(view, 0, CONTEXT), 'CORRUPT', 65544, message);
  }
});

test('subclusters need a cluster to be allocated in', () => {
  const view = viewOf(16);
  view.setUint32(12, 1);
  const message = 'subclusters are allocated in a cluster that is not';
  refused(() => parseL2ExtendedEntry(view, 0, CONTEXT), 'CORRUPT', 65544, message);
});

test('the zero bit of standard entries is reserved', () => {
  const view = viewOf(16);
  view.setUint32(4, 1);
  refused(() => parseL2ExtendedEntry(view, 0, CONTEXT), 'CORRUPT', 65536, /^reserved bits/);
});

test('each subcluster has a state of its own', () => {
  const entry = { allocated: 0x8000_0001, zero: 0x4000_0002 };
  const states = Array.from({ length: 32 }, (_, index) => subclusterState(entry, index));
  assert.equal([states[0], states[1], states[30], states[31]], ['data', 'zero', 'zero', 'data']);
  assert.ok(states.slice(2, 30).every((state) => state === 'unallocated'));
});

test.run();
