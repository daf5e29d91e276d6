import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { alignUp } from '../../src/base/bits.ts';
import {
  checkSnapshotL1,
  parseSnapshotTable,
  type Snapshot,
  serializeSnapshot,
  serializeSnapshotTable,
} from '../../src/format/snapshot-table.ts';
import { type Random, rng, SEED } from '../random.ts';
import { put, refused } from './refused.ts';

const test = suite('snapshot table');
const AT = 65536;
const DISK = 2 ** 30;

function randomSnapshot(next: Random): Snapshot {
  const extraBytes = next.pick([0, 8, 16, 24, 32, 1000, 1024]);
  const text = () => 'a näme of söme letters'.slice(0, next.below(22));
  const u64 = () => ({ high: next.u32(), low: next.u32() });
  const unknownExtra = new Uint8Array(Math.max(0, extraBytes - 24)).map(() => next.below(256));
  return {
    id: text(),
    name: text(),
    l1Offset: next.below(2 ** 40) * 512,
    l1Entries: next.u32(),
    dateSeconds: next.u32(),
    dateNanoseconds: next.below(1e9),
    clock: u64(),
    vmStateBytes: extraBytes >= 8 ? next.below(2 ** 53) : next.u32(),
    virtualSize: extraBytes >= 16 ? next.below(2 ** 40) * 512 : DISK,
    icount: extraBytes >= 24 ? u64() : undefined,
    extraBytes,
    unknownExtra,
  };
}

const parse = (bytes: Uint8Array, count: number) =>
  parseSnapshotTable(bytes, AT, { count, diskSize: DISK });

test('comes back as it was written', () => {
  const next = rng();
  for (let i = 0; i < 300; i++) {
    const snapshots = Array.from({ length: next.below(6) }, () => randomSnapshot(next));
    const bytes = serializeSnapshotTable(snapshots);
    assert.equal(parse(bytes, snapshots.length), snapshots, `SEED=${SEED}`);
  }
});

test('a table cut short anywhere is refused', () => {
  const next = rng();
  const bytes = serializeSnapshotTable([{ ...randomSnapshot(next), id: '1', name: 'two' }]);
  for (let length = 0; length < bytes.length; length++) {
    assert.throws(() => parse(bytes.subarray(0, length), 1), /is cut short$/);
  }
});

test('more entries than there are bytes are refused at the first that is missing', () => {
  const bytes = serializeSnapshotTable([randomSnapshot(rng())]);
  refused(() => parse(bytes, 2), 'CORRUPT', AT + alignUp(bytes.length, 8) + 12, /is cut short$/);
});

test('too much extra data is refused, with the number of the entry', () => {
  const first = randomSnapshot(rng());
  const bytes = serializeSnapshotTable([first, first]);
  const second = bytes.length - serializeSnapshot(first).length;
  for (const extra of [1025, 2 ** 31, 2 ** 32 - 1]) {
    put(bytes, second + 36, 4, extra);
    const message = 'Too much extra metadata in snapshot table entry 1';
    refused(() => parse(bytes, 2), 'UNSUPPORTED', AT + second + 36, message);
  }
});

test('offsets and sizes that no number holds are refused where they are', () => {
  const good = { ...randomSnapshot(rng()), extraBytes: 24, unknownExtra: new Uint8Array() };
  for (const [field, value] of [
    [0, 2n ** 63n],
    [0, 2n ** 53n + 1n],
    [40, 2n ** 64n - 1n],
    [48, 2n ** 62n],
    [48, 2n ** 64n - 1n],
  ] as const) {
    const bytes = serializeSnapshotTable([good]);
    put(bytes, field, 8, value);
    refused(() => parse(bytes, 1), 'CORRUPT', AT + field);
    // Who only reads is told that there is no such number, and refused the snapshot.
    const context = { count: 1, diskSize: DISK, lenient: true };
    const [snapshot] = parseSnapshotTable(bytes, AT, context);
    const { l1Offset, vmStateBytes, virtualSize } = snapshot!;
    assert.equal(
      [l1Offset, vmStateBytes, virtualSize].map(Number.isNaN),
      [0, 40, 48].map((at) => at === field),
    );
    if (field === 0)
      refused(() => checkSnapshotL1({ ...snapshot!, l1Entries: 1 }, 512, AT), 'CORRUPT', AT);
  }
});

test('a partial sector of the disk is cut off, as it is in the header', () => {
  const good = { ...randomSnapshot(rng()), extraBytes: 24, unknownExtra: new Uint8Array() };
  const bytes = serializeSnapshotTable([good]);
  put(bytes, 48, 8, 1000);
  assert.is(parse(bytes, 1)[0]?.virtualSize, 512);
});

test('the extra data tells a VM state that the old field cannot', () => {
  const snapshot = { ...randomSnapshot(rng()), extraBytes: 16, unknownExtra: new Uint8Array() };
  const bytes = serializeSnapshot({ ...snapshot, vmStateBytes: 2 ** 32 + 5 });
  assert.is(new DataView(bytes.buffer).getUint32(32), 0);
  assert.is(parse(bytes, 1)[0]?.vmStateBytes, 2 ** 32 + 5);
});

test('a table beyond 64 MiB is refused', () => {
  // Each entry is as long as it can be: its two texts overlap nothing, and are never looked at.
  const entry = new Uint8Array(40 + 2 * 65535 + 2);
  put(entry, 12, 2, 65535);
  put(entry, 14, 2, 65535);
  const count = Math.ceil(2 ** 26 / entry.length);
  const bytes = new Uint8Array(count * entry.length);
  for (let i = 0; i < count; i++) bytes.set(entry.subarray(0, 40), i * entry.length);
  const last = AT + bytes.length - entry.length;
  refused(() => parse(bytes, count), 'UNSUPPORTED', last, 'Snapshot table is too big');
});

test("a snapshot's L1 table is checked before it is read", () => {
  const good = { ...randomSnapshot(rng()), l1Offset: 65536, l1Entries: 2 ** 22 };
  checkSnapshotL1(good, 65536, AT);
  for (const l1Entries of [2 ** 22 + 1, 2 ** 32 - 1]) {
    const message = 'Snapshot L1 table too large';
    refused(() => checkSnapshotL1({ ...good, l1Entries }, 65536, AT), 'UNSUPPORTED', AT, message);
  }
  const unaligned = { ...good, l1Offset: 512 };
  const message = 'Snapshot L1 table offset invalid';
  refused(() => checkSnapshotL1(unaligned, 65536, AT), 'CORRUPT', AT, message);
});

test.run();
