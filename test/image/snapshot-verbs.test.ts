/** Taking, applying and deleting snapshots: limits, what is kept, and hostile tables. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { putU64 } from '../../src/base/be.ts';
import { type ErrorCode, isQcow2Error } from '../../src/base/errors.ts';
import { type Snapshot, serializeSnapshot } from '../../src/format/snapshot-table.ts';
import type { Qcow2CreateOptions } from '../../src/image/qcow2/create.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { nextSnapshotId } from '../../src/image/qcow2/snapshot-store.ts';
import { MemoryFiles } from './paged-bytes.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { firstDifference, IMAGE } from './write-engine.ts';

const CLUSTER = 4096;
const SIZE = 64 * CLUSTER;

const test = suite('snapshot verbs');

async function make(options: Partial<Qcow2CreateOptions> = {}) {
  const files = MemoryFiles.empty(IMAGE);
  const open = { dataFile: async (name: string) => files.open(name) };
  const fresh = { size: SIZE, clusterSize: CLUSTER, ...options };
  const image = await Qcow2Image.create(files.open(IMAGE), fresh, open);
  await image.write(0, new Uint8Array(5 * CLUSTER).fill(7));
  return { files, image };
}

function reopen(files: MemoryFiles): Promise<Qcow2Image> {
  return Qcow2Image.open(files.open(IMAGE), { writable: true });
}

function verdict(files: MemoryFiles) {
  const { corruptions, leaks, dirty } = checkQcow2(files.bytes(IMAGE));
  return { corruptions, leaks, dirty };
}

const CLEAN = { corruptions: [], leaks: 0, dirty: false };

function fileBytes(files: MemoryFiles, at: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  files.bytes(IMAGE).read(at, bytes);
  return bytes;
}

function u64(files: MemoryFiles, at: number): number {
  return Number(
    new DataView(fileBytes(files, at, 8).buffer).getBigUint64(0) & 0x00ff_ffff_ffff_ffffn,
  );
}

function putNumber(files: MemoryFiles, at: number, value: number, flags = 0): void {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  putU64(view, 0, value);
  view.setUint8(0, view.getUint8(0) | flags);
  files.bytes(IMAGE).write(at, bytes);
}

async function refused(code: ErrorCode, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, code), String(cause));
    return;
  }
  assert.unreachable(`not refused: ${code}`);
}

for (const [bits, room] of [
  [1, 0],
  [2, 2],
] as const) {
  test(`${bits}-bit refcounts: what does not fit is refused, and nothing has changed`, async () => {
    const { files, image } = await make({ refcountBits: bits });
    for (let i = 0; i < room; i++) await image.snapshots.create({ name: `fits ${i}` });
    await image.flush();
    const before = image.snapshots.list();
    await refused('OUT_OF_RANGE', () => image.snapshots.create({ name: 'one too many' }));
    assert.equal(image.snapshots.list(), before);
    assert.equal(verdict(files), CLEAN);
    if (room > 0) {
      await refused('OUT_OF_RANGE', () => image.snapshots.apply('fits 1'));
      assert.equal(verdict(files), CLEAN);
      await image.snapshots.delete('fits 0');
      await image.snapshots.apply('fits 1');
    }
    await image.write(0, new Uint8Array(CLUSTER).fill(9));
    await image.close();
    assert.equal(verdict(files), CLEAN);
  });
}

test('ids follow the highest number there is', () => {
  const id = (...ids: string[]) => nextSnapshotId(ids.map((one) => ({ id: one }) as Snapshot));
  assert.is(id(), '1');
  assert.is(id('1', '2'), '3');
  assert.is(id('9', '2'), '10');
  assert.is(id('x', '12abc', ' 7'), '13');
  assert.is(id('18446744073709551614'), '18446744073709551615');
});

test('a data file has no snapshots', async () => {
  const files = MemoryFiles.empty(IMAGE, 'data');
  const image = await Qcow2Image.create(
    files.open(IMAGE),
    { size: SIZE, dataFile: { name: 'data', raw: false } },
    { dataFile: async (name) => files.open(name) },
  );
  await refused('UNSUPPORTED', () => image.snapshots.create({ name: 'x' }));
  await image.close();
});

test('unknown extra data, icount, clock and names that are no text are kept', async () => {
  const { files, image } = await make();
  await image.snapshots.create({
    name: 'odd',
    icount: { high: 1, low: 2 },
    clock: { high: 3, low: 4 },
  });
  await image.close();
  const at = u64(files, 64);
  const [own] = (await Qcow2Image.open(files.open(IMAGE))).snapshots.list();
  const raw = { id: Uint8Array.of(0x39), name: Uint8Array.of(0xff, 0x41, 0, 0x42) };
  const unknownExtra = Uint8Array.from({ length: 21 }, (_, i) => i + 1);
  const entry = serializeSnapshot({ ...(own as Snapshot), raw, extraBytes: 45, unknownExtra });
  files.bytes(IMAGE).write(at, entry);

  const again = await reopen(files);
  const second = await again.snapshots.create({ name: 'second' });
  assert.is(second.id, '10');
  await again.close();
  assert.equal(fileBytes(files, u64(files, 64), entry.length), entry);
  assert.equal(verdict(files), CLEAN);
  const last = await reopen(files);
  await last.snapshots.delete({ name: 'second' });
  await last.close();
  assert.equal(fileBytes(files, u64(files, 64), entry.length), entry);
  assert.equal(verdict(files), CLEAN);
});

test('an entry of version 2 gets the extra data that QEMU gives it', async () => {
  const { files, image } = await make();
  await image.snapshots.create({ name: 'old' });
  await image.close();
  const [own] = (await Qcow2Image.open(files.open(IMAGE))).snapshots.list();
  const short = { ...(own as Snapshot), extraBytes: 16 };
  files.bytes(IMAGE).write(u64(files, 64), serializeSnapshot(short));
  const again = await reopen(files);
  await again.snapshots.create({ name: 'new' });
  const [first] = again.snapshots.list();
  assert.equal([first?.extraBytes, first?.icount], [24, { high: 0xffff_ffff, low: 0xffff_ffff }]);
  await again.close();
});

test('finds no snapshot that is not there, and leaves the image alone', async () => {
  const { files, image } = await make();
  await image.snapshots.create({ name: 'x' });
  await refused('OUT_OF_RANGE', () => image.snapshots.apply('y'));
  await refused('OUT_OF_RANGE', () => image.snapshots.delete('y'));
  await image.close();
  assert.equal(verdict(files), CLEAN);
});

test('requests wait while a snapshot is taken, and see one disk', async () => {
  const { files, image } = await make();
  const before = new Uint8Array(SIZE);
  await image.read(0, before);
  const work = [
    image.snapshots.create({ name: 'x' }),
    ...Array.from({ length: 20 }, (_, i) =>
      image.write(i * CLUSTER, new Uint8Array(CLUSTER).fill(i + 1)),
    ),
  ];
  await Promise.all(work);
  await image.snapshots.apply('x');
  const after = new Uint8Array(SIZE);
  await image.read(0, after);
  assert.is(firstDifference(after, before), '');
  await image.close();
  assert.equal(verdict(files), CLEAN);
});

/** Damages the image after a snapshot was taken. */
const DAMAGE: readonly (readonly [
  what: string,
  code: ErrorCode,
  damage: (files: MemoryFiles, snapshot: Snapshot) => void,
  verbs?: readonly ('create' | 'apply' | 'delete')[],
])[] = [
  [
    'an L1 table past the end of the file',
    'CORRUPT',
    (files) => putNumber(files, u64(files, 64), 2 ** 40),
    ['apply', 'delete'],
  ],
  [
    'an L1 table that is too large',
    'UNSUPPORTED',
    (files) => files.bytes(IMAGE).write(u64(files, 64) + 8, Uint8Array.of(0xff, 0xff, 0xff, 0xff)),
    ['apply', 'delete'],
  ],
  [
    'an L2 table past the end of the file',
    'CORRUPT',
    (files, { l1Offset }) => putNumber(files, l1Offset, 2 ** 40),
    ['apply', 'delete'],
  ],
  [
    'an unaligned L2 table',
    'CORRUPT',
    (files, { l1Offset }) => putNumber(files, l1Offset, CLUSTER + 512),
    ['apply', 'delete'],
  ],
  [
    'a reserved bit in an L2 entry',
    'CORRUPT',
    (files, { l1Offset }) => putNumber(files, u64(files, l1Offset) + 8, CLUSTER * 6, 0x20),
  ],
  [
    'data in a free cluster',
    'CORRUPT',
    (files, { l1Offset }) => putNumber(files, u64(files, l1Offset) + 8, CLUSTER * 500),
  ],
  [
    'data that no refcount block counts',
    'CORRUPT',
    (files, { l1Offset }) => putNumber(files, u64(files, l1Offset) + 8, 2 ** 45),
  ],
];

/** What is wrong with the image, but for that it says so itself by now. */
function wrongsOf(files: Parameters<typeof reopen>[0]): string[] {
  const { corruptions } = checkQcow2(files.bytes(IMAGE));
  return corruptions.filter((one) => one !== 'the corrupt bit is set');
}

for (const [what, code, damage, verbs = ['create', 'apply', 'delete'] as const] of DAMAGE) {
  for (const verb of verbs) {
    test(`${what}: ${verb} is refused, and an image opens that counts enough`, async () => {
      const { files, image } = await make();
      const snapshot = await image.snapshots.create({ name: 'x' });
      await image.close();
      damage(files, snapshot);
      const found = wrongsOf(files).length;
      const broken = await reopen(files);
      await refused(code, () =>
        verb === 'create' ? broken.snapshots.create({ name: 'y' }) : broken.snapshots[verb]('x'),
      );
      await broken.close();
      const reader = await Qcow2Image.open(files.open(IMAGE));
      await reader.close();
      if (verb === 'delete') return;
      // Nothing got worse.
      assert.ok(wrongsOf(files).length <= found);
    });
  }
}

test.run();
