/** Files with holes: made by zeros and discards, found by those who read, and room reserved. */
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { ExtentKind, ExtentList } from '../../src/image/disk.ts';
import { RawImage } from '../../src/image/raw/raw-image.ts';
import { type NodeFileStorage, openNodeFile } from '../../src/storage/node-file.ts';
import { nativeSuite } from '../native-layer.ts';

const MIB = 2 ** 20;

const test = nativeSuite('holes of files');
let folder = '';
let path = '';

test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), 'qcow2-test-'));
  path = join(folder, 'file');
});
test.after.each(() => rmSync(folder, { recursive: true }));

const allocated = () => statSync(path).blocks * 512;

function withFile<T>(work: (file: NodeFileStorage) => T): T {
  const file = openNodeFile(path, { writable: true });
  try {
    return work(file);
  } finally {
    file.close();
  }
}

for (const way of ['zero', 'tryZero', 'discard'] as const) {
  test(`${way} gives room back`, () => {
    writeFileSync(path, Buffer.alloc(8 * MIB, 1));
    withFile((file) => file[way](MIB, 4 * MIB));
    assert.ok(allocated() <= 4 * MIB + 65536);
    const wanted = Buffer.alloc(8 * MIB, 1).fill(0, MIB, 5 * MIB);
    assert.is(Buffer.compare(readFileSync(path), wanted), 0);
  });
}

test('zeros across the end grow the file', () => {
  writeFileSync(path, Buffer.alloc(MIB, 1));
  withFile((file) => file.zero(MIB / 2, MIB));
  const wanted = Buffer.alloc(MIB * 1.5).fill(1, 0, MIB / 2);
  assert.is(Buffer.compare(readFileSync(path), wanted), 0);
});

test('zeros at odd places leave their neighbours alone', () => {
  writeFileSync(path, Buffer.alloc(MIB, 1));
  withFile((file) => file.zero(12345, 700_001));
  const wanted = Buffer.alloc(MIB, 1).fill(0, 12345, 712_346);
  assert.is(Buffer.compare(readFileSync(path), wanted), 0);
});

test('zeros that nobody writes have room, within the file and behind its end', () => {
  writeFileSync(path, Buffer.alloc(2 * MIB, 1));
  const given = withFile((file) => file.zeroUnwritten(MIB + 5, 3 * MIB));
  if (!given) return;
  const wanted = Buffer.alloc(4 * MIB + 5).fill(1, 0, MIB + 5);
  assert.is(Buffer.compare(readFileSync(path), wanted), 0);
  assert.ok(allocated() >= 4 * MIB);
});

test('reserves room without touching what is there', () => {
  writeFileSync(path, Buffer.alloc(MIB, 1));
  withFile((file) => {
    assert.is(file.tryAllocate(0, 4 * MIB, { keepSize: true }), true);
    assert.is(file.size(), MIB);
    file.allocate(0, 2 * MIB);
    assert.is(file.size(), 2 * MIB);
  });
  assert.ok(allocated() >= 4 * MIB);
  const wanted = Buffer.alloc(2 * MIB).fill(1, 0, MIB);
  assert.is(Buffer.compare(readFileSync(path), wanted), 0);
});

/** A file of 64 MiB with data at three places, two of them close to each other. */
function makeSparse(): void {
  writeFileSync(path, '');
  truncateSync(path, 64 * MIB);
  withFile((file) => {
    const bytes = new Uint8Array(65536).fill(5);
    for (const at of [8 * MIB, 8 * MIB + 69632, 40 * MIB]) file.write(at, bytes);
  });
}

test('tells where there is data, short holes left out', () => {
  makeSparse();
  withFile((file) => {
    const ranges = (from: number, to: number) => [...(file.dataRanges(from, to) ?? [])];
    const first = [8 * MIB, 8 * MIB + 69632 + 65536];
    const second = [40 * MIB, 40 * MIB + 65536];
    assert.equal(ranges(0, 64 * MIB), [first, second]);
    assert.equal(ranges(9 * MIB, 40 * MIB), []);
    assert.equal(ranges(9 * MIB, 40 * MIB + 4096), [[40 * MIB, 40 * MIB + 4096]]);
    assert.equal(ranges(64 * MIB, 65 * MIB), []);
  });
});

test('of a file without holes tells nothing', () => {
  writeFileSync(path, Buffer.alloc(MIB, 1));
  withFile((file) => assert.is(file.dataRanges(0, MIB), undefined));
});

test('a raw disk has zeros where its file has holes', async () => {
  makeSparse();
  const disk = await RawImage.open(openNodeFile(path));
  const list = new ExtentList();
  disk.collectExtents(MIB, 64 * MIB, list);
  const records = Array.from({ length: list.count }, (_, i) => [
    list.kind(i),
    list.guest(i),
    list.length(i),
    list.host(i),
  ]);
  const { zero, data } = ExtentKind;
  const end = 8 * MIB + 69632 + 65536;
  assert.equal(records, [
    [zero, MIB, 7 * MIB, MIB],
    [data, 8 * MIB, end - 8 * MIB, 8 * MIB],
    [zero, end, 40 * MIB - end, end],
    [data, 40 * MIB, 65536, 40 * MIB],
    [zero, 40 * MIB + 65536, 24 * MIB - 65536, 40 * MIB + 65536],
  ]);
  await disk.close();
});

test.run();
