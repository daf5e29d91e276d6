import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { geometryOf, l1EntriesFor } from '../../src/format/geometry.ts';

const test = suite('geometry');

test('an image of the usual kind', () => {
  assert.equal(geometryOf({ clusterBits: 16, extendedL2: false, refcountOrder: 4 }), {
    clusterBits: 16,
    clusterSize: 65536,
    extendedL2: false,
    l2EntryBytes: 8,
    l2Entries: 8192,
    l2Span: 512 * 2 ** 20,
    subclusterSize: 65536,
    refcountOrder: 4,
    refcountBlockEntries: 32768,
  });
});

test('extended entries are twice as long, and clusters have 32 parts', () => {
  const { l2Entries, l2Span, subclusterSize } = geometryOf({
    clusterBits: 14,
    extendedL2: true,
    refcountOrder: 0,
  });
  assert.equal([l2Entries, l2Span, subclusterSize], [1024, 2 ** 24, 512]);
});

test('every combination keeps its identities', () => {
  for (let clusterBits = 9; clusterBits <= 21; clusterBits++) {
    for (let refcountOrder = 0; refcountOrder <= 6; refcountOrder++) {
      const geometry = geometryOf({ clusterBits, extendedL2: false, refcountOrder });
      assert.is(geometry.l2Entries * geometry.l2EntryBytes, geometry.clusterSize);
      assert.is(geometry.refcountBlockEntries * 2 ** refcountOrder, geometry.clusterSize * 8);
    }
  }
});

test('L1 entries are rounded up', () => {
  const geometry = geometryOf({ clusterBits: 9, extendedL2: false, refcountOrder: 4 });
  const span = 64 * 512;
  const counts = [0, 1, span, span + 1, 2 ** 62].map((size) => l1EntriesFor(size, geometry));
  assert.equal(counts, [0, 1, 1, 2, 2 ** 47]);
});

test.run();
