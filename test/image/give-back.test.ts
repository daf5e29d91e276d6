// Freed clusters go back to the host: which, when, and what storage that cannot take them does.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Qcow2Error } from '../../src/base/errors.ts';
import { Qcow2Image, type Qcow2OpenOptions } from '../../src/image/qcow2/qcow2-image.ts';
import { RawImage } from '../../src/image/raw/raw-image.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import type { Storage } from '../../src/storage/storage.ts';

const CLUSTER = 4096;

/** Storage that lists what is given back to it, and when it is flushed. */
function recorded(discard?: () => void) {
  const inner = memoryStorage();
  const events: (readonly [at: number, length: number] | 'flush')[] = [];
  const storage: Storage = {
    name: 'recorded',
    writable: true,
    size: () => inner.size(),
    read: (at, into) => inner.read(at, into),
    cursor: (from, to) => inner.cursor(from, to),
    write: (at, from) => inner.write(at, from),
    zero: (at, length) => inner.zero(at, length),
    discard: (at, length) => {
      discard?.();
      events.push([at, length]);
      return inner.zero(at, length);
    },
    truncate: (size) => inner.truncate(size),
    flush: () => void events.push('flush'),
    close: () => {},
  };
  const given = () => events.filter((event) => event !== 'flush');
  return { storage, events, given };
}

/** A disk of 64 clusters, the first 16 of them written, in order. */
async function written(storage: Storage, options: Qcow2OpenOptions = {}) {
  const create = { size: 64 * CLUSTER, clusterSize: CLUSTER };
  const disk = await Qcow2Image.create(storage, create, options);
  await disk.write(0, new Uint8Array(16 * CLUSTER).fill(0x5a));
  await disk.flush();
  return disk;
}

/** Where the first cluster of the disk is: header, table, block, L1 and L2 come before. */
const FIRST = 5 * CLUSTER;

const test = suite('giving clusters back');

test('what is discarded goes back once its entries are on disk, in one piece', async () => {
  const { storage, events } = recorded();
  const disk = await written(storage);
  events.length = 0;
  await disk.discard(4 * CLUSTER, 3 * CLUSTER);
  await disk.discard(7 * CLUSTER, CLUSTER);
  assert.equal(events, []);
  await disk.flush();
  assert.equal(events.slice(0, 2), ['flush', [FIRST + 4 * CLUSTER, 4 * CLUSTER]]);
  await disk.close();
});

test('so does what is zeroed with unmap, and nothing without', async () => {
  const { storage, given } = recorded();
  const disk = await written(storage);
  await disk.zero(0, CLUSTER, { unmap: true });
  await disk.zero(2 * CLUSTER, CLUSTER);
  await disk.close();
  assert.equal(given(), [[FIRST, CLUSTER]]);
});

test('what was taken again meanwhile stays', async () => {
  const { storage, given } = recorded();
  const disk = await written(storage);
  await disk.discard(0, 4 * CLUSTER);
  await disk.write(32 * CLUSTER, new Uint8Array(2 * CLUSTER).fill(0x77));
  await disk.flush();
  assert.equal(given(), [[FIRST + 2 * CLUSTER, 2 * CLUSTER]]);
  const bytes = new Uint8Array(2 * CLUSTER);
  await disk.read(32 * CLUSTER, bytes);
  assert.ok(bytes.every((byte) => byte === 0x77));
  await disk.close();
});

test('a shrunk disk gives back what it had, whatever the options say', async () => {
  const { storage, given } = recorded();
  const disk = await written(storage, { discard: 'ignore' });
  // Data behind what goes keeps the file from just ending there.
  await disk.write(0, new Uint8Array(CLUSTER));
  await disk.resize(4 * CLUSTER);
  const { length } = given();
  await disk.close();
  assert.ok(length > 0 || (await storage.size()) === FIRST + 4 * CLUSTER);
});

test('with discard=ignore requests do nothing', async () => {
  const { storage, given } = recorded();
  const disk = await written(storage, { discard: 'ignore' });
  await disk.discard(0, 4 * CLUSTER);
  await disk.zero(4 * CLUSTER, CLUSTER, { unmap: true });
  await disk.flush();
  assert.equal(given(), []);
  const bytes = new Uint8Array(5 * CLUSTER);
  await disk.read(0, bytes);
  assert.ok(bytes.every((byte, at) => byte === (at < 4 * CLUSTER ? 0x5a : 0)));
  const kinds = [];
  for await (const { kind, host } of disk.extents(0, 5 * CLUSTER)) kinds.push([kind, host]);
  assert.equal(kinds, [
    ['data', FIRST],
    ['zero', FIRST + 4 * CLUSTER],
  ]);
  await disk.close();
});

test('clusters go, and their room stays, where it is not to be passed on', async () => {
  const { storage, given } = recorded();
  const disk = await written(storage, { passDiscardRequest: false });
  await disk.discard(0, 4 * CLUSTER);
  await disk.flush();
  assert.equal(given(), []);
  await disk.write(40 * CLUSTER, new Uint8Array(CLUSTER).fill(1));
  for await (const { host } of disk.extents(40 * CLUSTER, 41 * CLUSTER)) assert.is(host, FIRST);
  await disk.close();
});

test('what clusters leave behind that are copied stays: it is used again soon', async () => {
  const { storage, given } = recorded();
  const disk = await written(storage);
  await disk.writeCompressed(20 * CLUSTER, new Uint8Array(CLUSTER).fill(3));
  await disk.write(20 * CLUSTER, new Uint8Array(512));
  await disk.close();
  assert.equal(given(), []);
});

test('storage that fails to take room back fails no request', async () => {
  const { storage } = recorded(() => {
    throw new Qcow2Error('IO', 'no such luck');
  });
  const disk = await written(storage);
  await disk.discard(0, 4 * CLUSTER);
  await disk.flush();
  const bytes = new Uint8Array(4 * CLUSTER).fill(1);
  await disk.read(0, bytes);
  assert.ok(bytes.every((byte) => byte === 0));
  await disk.close();
});

test('a data file gets its own clusters back', async () => {
  const { storage } = recorded();
  const data = recorded();
  const create = { size: 16 * CLUSTER, clusterSize: CLUSTER, dataFile: { name: 'data' } };
  const disk = await Qcow2Image.create(storage, create, { dataFile: async () => data.storage });
  await disk.write(0, new Uint8Array(4 * CLUSTER).fill(9));
  await disk.discard(CLUSTER, CLUSTER);
  assert.equal(data.given(), [[CLUSTER, CLUSTER]]);
  await disk.close();
});

test('a raw disk passes discards on, unless they are to be ignored', async () => {
  for (const discard of ['unmap', 'ignore'] as const) {
    const { storage, given } = recorded();
    await storage.write(0, new Uint8Array(9000).fill(5));
    const disk = await RawImage.open(storage, { writable: true, discard });
    await disk.discard(512, 1024);
    await disk.discard(8192, 1024);
    const wanted = [
      [512, 1024],
      [8192, 808],
    ];
    assert.equal(given(), discard === 'unmap' ? wanted : []);
    await disk.close();
  }
});

test.run();
