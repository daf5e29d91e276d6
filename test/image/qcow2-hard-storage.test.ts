// Storage that is full, that gives little at a time, or that loses the header: typed errors, and
// nothing is lost. Replay a failure with SEED=….
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import type { WritableDisk } from '../../src/image/disk.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { rng, SEED } from '../random.ts';
import { FaultyFiles, limitedFiles } from './faulty-storage.ts';
import { MemoryFiles } from './paged-bytes.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { qcow2Engine } from './qcow2-engine.ts';
import { SLOW } from './slow.ts';
import { firstDifference, IMAGE, randomBytes, readWhole, SMALL } from './write-engine.ts';

const KIB = 1024;

const test = suite('qcow2 on storage that is hard to live with');

/** The error of a request, or undefined. */
async function errorOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => undefined,
    (cause) => cause,
  );
}

for (const [name, fixed] of [
  ['small clusters', {}],
  ['large clusters', { clusterBits: 14 }],
  ['subclusters', { clusterBits: 14, extended: true }],
  ['lazy refcounts', { lazy: true }],
] as const) {
  test(`a full disk loses nothing: ${name}`, async () => {
    const next = rng();
    const setting = { ...SMALL, ...fixed, size: 4096 * KIB };
    const memory = MemoryFiles.empty(IMAGE);
    const room = 300 * KIB + 512 * next.below(300);
    const disk = await qcow2Engine(4096).create(limitedFiles(memory, room), setting);
    const content = new Uint8Array(setting.size);
    let refused = 0;
    for (let step = 0; step < (SLOW ? 4000 : 400); step++) {
      const at = 512 * next.below(setting.size / 512);
      const length = Math.min(setting.size - at, 512 * (1 + next.below(80)));
      const bytes = randomBytes(next, length);
      const error = await errorOf(step % 7 === 6 ? disk.flush() : disk.write(at, bytes));
      if (error !== undefined) {
        refused++;
        assert.ok(isQcow2Error(error, 'NO_SPACE'), `SEED=${SEED} ${error}`);
        // Where it was refused its range may be old or new, and is read again.
        const found = new Uint8Array(length);
        await disk.read(at, found);
        for (let i = 0; i < length; i++) {
          const fits = found[i] === content[at + i] || found[i] === bytes[i] || found[i] === 0;
          assert.ok(fits, `SEED=${SEED} byte ${at + i} is ${found[i]}`);
        }
        content.set(found, at);
        // Room is made, and used again.
        const start = at - (at % 16384);
        await disk.discard(start, 4 * 16384 > setting.size - start ? 16384 : 4 * 16384);
        content.fill(0, start, start + (4 * 16384 > setting.size - start ? 16384 : 4 * 16384));
      } else if (step % 7 !== 6) content.set(bytes, at);
    }
    assert.ok(refused > 0, `SEED=${SEED}`);
    assert.is(firstDifference(await readWhole(disk), content), '', `SEED=${SEED}`);
    // What was done is brought to the disk once there is room.
    const closed = await errorOf(disk.close());
    assert.ok(closed === undefined || isQcow2Error(closed, 'NO_SPACE'), String(closed));
    const { corruptions } = checkQcow2(memory.bytes(IMAGE));
    assert.equal(corruptions, [], `SEED=${SEED}`);
  });
}

test('reads that give less than there is are read on', async () => {
  const setting = { ...SMALL, size: 200 * KIB };
  const memory = MemoryFiles.empty(IMAGE);
  const files = new FaultyFiles(memory);
  const next = rng();
  const content = randomBytes(next, setting.size);
  const made = await qcow2Engine(4096).create(files, setting);
  await made.write(0, content);
  await made.close();
  for (let index = 0; index < 200; index += SLOW ? 1 : 7) {
    files.arm({ kinds: ['read'], index, how: 'short' });
    const disk = await qcow2Engine(1).open(files, setting);
    assert.is(firstDifference(await readWhole(disk), content), '', `read ${index} is short`);
    const at = 512 * next.below(setting.size / 512);
    await disk.write(at, content.slice(at, at + 512));
    await disk.close();
    const { corruptions, leaks } = checkQcow2(memory.bytes(IMAGE));
    assert.equal({ corruptions, leaks }, { corruptions: [], leaks: 0 }, `read ${index} is short`);
  }
});

test('reads that give nothing are errors, and nothing is taken for empty', async () => {
  const setting = { ...SMALL, size: 100 * KIB };
  const memory = MemoryFiles.empty(IMAGE);
  const files = new FaultyFiles(memory);
  const content = randomBytes(rng(), setting.size);
  const made = await qcow2Engine(4096).create(files, setting);
  await made.write(0, content);
  await made.close();
  const reader = await qcow2Engine(1).open(files, setting);
  files.arm({ kinds: ['read'], index: 0, how: 'short', forever: true });
  const error = await errorOf(reader.read(0, new Uint8Array(70 * KIB)));
  assert.ok(isQcow2Error(error, 'IO'), String(error));
  assert.match(String(error), /short read/);
  files.arm();
  assert.is(firstDifference(await readWhole(reader), content), '');
  await reader.close();
});

/** Storage whose first sector cannot be written while `broken` says so. */
function withBreakingHeader() {
  const inner = memoryStorage();
  const state = { broken: false, inner };
  const storage: Storage = {
    name: 'header',
    writable: true,
    size: () => inner.size(),
    read: (at, into) => inner.read(at, into),
    cursor: (from, to) => inner.cursor(from, to),
    write: async (at, from) => {
      if (state.broken && at < 512) throw new Error('the sector is gone');
      await inner.write(at, from);
    },
    zero: (at, length) => inner.zero(at, length),
    truncate: (size) => inner.truncate(size),
    flush: () => {},
    close: () => {},
  };
  return { state, storage };
}

test('a header that can neither be written nor put back ends all changes', async () => {
  const { state, storage } = withBreakingHeader();
  const disk: WritableDisk = await Qcow2Image.create(storage, {
    size: 100 * KIB,
    clusterSize: 512,
  });
  await disk.write(0, new Uint8Array(50 * KIB).fill(1));
  state.broken = true;
  assert.ok((await errorOf(disk.resize(64 * 2 ** 20))) instanceof Error);
  state.broken = false;
  for (const request of [
    disk.write(0, new Uint8Array(512)),
    disk.zero(0, 512),
    disk.discard(0, 10 * KIB),
    disk.writeCompressed(0, new Uint8Array(512)),
    disk.resize(50 * KIB),
  ]) {
    const error = await errorOf(request);
    assert.ok(isQcow2Error(error, 'IO'), String(error));
    assert.match(String(error), /until it is opened anew/);
  }
  // What was written before is not lost by that.
  await disk.flush();
  await disk.close();
  const again = await Qcow2Image.open(memoryStorage(state.inner.snapshot()), { writable: true });
  const bytes = new Uint8Array(50 * KIB);
  await again.read(0, bytes);
  assert.ok(bytes.every((byte) => byte === 1));
  await again.write(0, new Uint8Array(512));
  await again.close();
});

/** A disk of some size whose writes are counted. */
async function writesOf(gib: number): Promise<number[]> {
  const inner = memoryStorage();
  const counts = { calls: 0, bytes: 0 };
  const count = (bytes: number) => {
    counts.calls++;
    counts.bytes += bytes;
  };
  const storage: Storage = {
    name: 'counted',
    writable: true,
    size: () => inner.size(),
    read: (at, into) => {
      count(into.length);
      return inner.read(at, into);
    },
    cursor: (from, to) => inner.cursor(from, to),
    write: (at, from) => {
      count(from.length);
      return inner.write(at, from);
    },
    zero: (at, length) => inner.zero(at, length),
    truncate: (size) => inner.truncate(size),
    flush: () => {},
    close: () => {},
  };
  const disk = await Qcow2Image.create(storage, { size: gib * 2 ** 30 });
  const bytes = new Uint8Array(4096).fill(7);
  // Tables of their own for each, all over the disk.
  for (let i = 0; i < 16; i++) await disk.write(Math.floor((disk.size / 16) * i), bytes);
  await disk.flush();
  counts.calls = 0;
  counts.bytes = 0;
  for (let i = 0; i < 64; i++) {
    await disk.write(Math.floor((disk.size / 16) * (i % 16)) + 65536 * (1 + i), bytes);
    await disk.flush();
  }
  const found = [counts.calls, counts.bytes];
  await disk.close();
  return found;
}

test('the cost of a small write does not grow with the image', async () => {
  const [small, large] = [await writesOf(1), await writesOf(64 * 1024)];
  assert.equal(large, small);
});

test('a refcount table that names one full block everywhere is an error, soon', async () => {
  const storage = memoryStorage();
  const made = await Qcow2Image.create(storage, { size: 2 ** 30, clusterSize: 65536 });
  await made.close();
  const bytes = new Uint8Array(4 * 65536);
  await storage.read(0, bytes);
  const view = new DataView(bytes.buffer);
  // All of the table's one cluster, and all of its one block.
  for (let at = 65536; at < 2 * 65536; at += 8) view.setUint32(at + 4, 2 * 65536);
  bytes.fill(1, 2 * 65536, 3 * 65536);
  const disk = await Qcow2Image.open(memoryStorage(bytes), { writable: true });
  const error = await errorOf(disk.write(0, new Uint8Array(512).fill(1)));
  assert.ok(isQcow2Error(error, 'CORRUPT'), String(error));
  await disk.close().catch(() => {});
});

test.run();
