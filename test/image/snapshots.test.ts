/** Finding an internal snapshot, and reading a table of them. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import type { Header } from '../../src/format/header.ts';
import { type Snapshot, serializeSnapshotTable } from '../../src/format/snapshot-table.ts';
import {
  findSnapshot,
  readSnapshots,
  type SnapshotSelector,
} from '../../src/image/qcow2/snapshots.ts';
import { memoryStorage } from '../../src/storage/memory.ts';

const test = suite('snapshots');

function snapshot(id: string, name: string): Snapshot {
  return {
    id,
    name,
    l1Offset: 65536,
    l1Entries: 1,
    dateSeconds: 5,
    dateNanoseconds: 6,
    clock: { high: 0, low: 7 },
    vmStateBytes: 0,
    virtualSize: 2 ** 20,
    icount: undefined,
    extraBytes: 16,
    unknownExtra: new Uint8Array(),
  };
}

const list = [
  snapshot('1', 'first'),
  snapshot('2', '1'),
  snapshot('7', 'last'),
  snapshot('8', 'last'),
];

for (const [selector, found] of [
  ['1', '1'],
  ['2', '2'],
  ['first', '1'],
  ['last', '7'],
  [{ id: '8' }, '8'],
  [{ name: '1' }, '2'],
  [{ id: '8', name: 'last' }, '8'],
  [{ name: 'last' }, '7'],
] as [SnapshotSelector, string][]) {
  test(`${JSON.stringify(selector)} is snapshot ${found}`, () => {
    assert.is(findSnapshot(list, selector).id, found);
  });
}

for (const selector of [
  '',
  '3',
  'firs',
  { id: 'first' },
  { name: '7' },
  { id: '1', name: 'last' },
]) {
  test(`${JSON.stringify(selector)} is none`, () => {
    try {
      findSnapshot(list, selector);
      assert.unreachable();
    } catch (cause) {
      assert.ok(isQcow2Error(cause, 'OUT_OF_RANGE'), String(cause));
    }
  });
}

function read(table: Uint8Array, snapshotCount: number): Promise<Snapshot[]> {
  const storage = memoryStorage();
  storage.write(1024, table);
  const header = { snapshotCount, snapshotsOffset: 1024, clusterBits: 9, version: 3 } as Header;
  return readSnapshots(storage, header, 2 ** 20);
}

test('a table is read whole, also where its entries are long', async () => {
  for (const length of [3, 200, 2000]) {
    const snapshots = Array.from({ length: 30 }, (_, i) => snapshot(`${i}`, 'x'.repeat(length)));
    const found = await read(serializeSnapshotTable(snapshots), 30);
    assert.equal(
      found.map(({ id, name }) => [id, name.length]),
      snapshots.map(({ id }) => [id, length]),
    );
  }
});

test('a table that the file cuts short is corrupt', async () => {
  const table = serializeSnapshotTable([snapshot('1', 'a'), snapshot('2', 'b')]);
  for (const [bytes, count] of [
    [table.slice(0, -20), 2],
    [table, 3],
    [new Uint8Array(), 1],
  ] as const) {
    try {
      await read(bytes, count);
      assert.unreachable();
    } catch (cause) {
      assert.ok(isQcow2Error(cause, 'CORRUPT'), String(cause));
    }
  }
});

test.run();
