/** `check` of open images, in memory: what needs no other tool to compare with. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { checkStorage } from '../../src/image/qcow2/check.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { checkQcow2 } from './qcow2-check.ts';

const CLUSTER = 65536;

/** Storage that an image may close, and that is there afterwards. */
function keptStorage(): {
  storage: Storage;
  open: () => Storage;
  bytes: () => Promise<Uint8Array>;
} {
  const storage = Object.assign(memoryStorage(), { close: () => {} });
  const open = () => storage;
  const bytes = async () => {
    const all = new Uint8Array(await storage.size());
    await storage.read(0, all);
    return all;
  };
  return { storage, open, bytes };
}

/** An image with four clusters of data, and a fifth one's refcount at 3 for no reason. */
async function leakyImage() {
  const kept = keptStorage();
  const image = await Qcow2Image.create(kept.open(), { size: 2 ** 24 });
  await image.write(0, new Uint8Array(4 * CLUSTER).fill(7));
  await image.close();
  const block = new DataView((await kept.bytes()).buffer).getUint32(CLUSTER + 4);
  await kept.storage.write(block + 2 * 9, new Uint8Array([0, 3]));
  await kept.storage.truncate(10 * CLUSTER);
  return kept;
}

const test = suite('check');

test('tells numbers and lines, and changes nothing', async () => {
  const { open, bytes } = await leakyImage();
  const before = await bytes();
  const lines: string[] = [];
  const image = await Qcow2Image.open(open());
  const result = await image.check({ onError: (line) => lines.push(line) });
  await image.close();
  assert.is(result.leaks, 1);
  assert.is(result.corruptions, 0);
  assert.is(result.allocatedClusters, 4);
  assert.is(result.totalClusters, 256);
  assert.equal(lines, ['Leaked cluster 9 refcount=3 reference=0']);
  assert.equal(await bytes(), before);
});

test('repairs an image that is open for writing, and writing goes on', async () => {
  const { open, bytes } = await leakyImage();
  const image = await Qcow2Image.open(open(), { writable: true });
  await image.write(5 * CLUSTER, new Uint8Array(CLUSTER).fill(1));
  const checked = image.check({ repair: 'all' });
  const written = image.write(6 * CLUSTER, new Uint8Array(3 * CLUSTER).fill(2));
  const [result] = await Promise.all([checked, written]);
  assert.is(result.leaksFixed, 1);
  const sector = new Uint8Array(512);
  await image.read(8 * CLUSTER, sector);
  assert.ok(sector.every((byte) => byte === 2));
  await image.close();
  const { corruptions, leaks } = checkQcow2(sourceOf(await bytes()));
  assert.equal({ corruptions, leaks }, { corruptions: [], leaks: 0 });
});

test('an image with lazy refcounts is marked dirty again by the next write', async () => {
  const { open, bytes } = keptStorage();
  const options = { size: 2 ** 24, lazyRefcounts: true };
  const image = await Qcow2Image.create(open(), options);
  const isDirty = async () => ((await bytes())[79]! & 1) === 1;
  await image.write(0, new Uint8Array(CLUSTER));
  assert.ok(await isDirty());
  await image.check({ repair: 'all' });
  assert.not(await isDirty());
  await image.write(CLUSTER, new Uint8Array(CLUSTER));
  assert.ok(await isDirty());
  await image.close();
  assert.not(await isDirty());
});

test('what is written where there is room leaves an image with lazy refcounts clean', async () => {
  const { open, bytes } = keptStorage();
  const options = { size: 2 ** 24, lazyRefcounts: true };
  await (await Qcow2Image.create(open(), { ...options, preallocation: 'metadata' })).close();
  const isDirty = async () => ((await bytes())[79]! & 1) === 1;
  const image = await Qcow2Image.open(open(), { writable: true });
  await image.write(512, new Uint8Array(CLUSTER));
  await image.flush();
  assert.not(await isDirty());
  await image.discard(0, CLUSTER);
  await image.write(0, new Uint8Array(CLUSTER));
  assert.ok(await isDirty());
  await image.close();
  assert.not(await isDirty());
});

test('an image that is open for reading is not repaired', async () => {
  const { open } = await leakyImage();
  const image = await Qcow2Image.open(open());
  try {
    await image.check({ repair: 'leaks' });
    assert.unreachable();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'READ_ONLY'));
  } finally {
    await image.close();
  }
});

test('stops when the signal says so', async () => {
  const { open } = await leakyImage();
  const stop = new AbortController();
  stop.abort();
  try {
    await checkStorage(open(), { signal: stop.signal });
    assert.unreachable();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'ABORTED'));
  }
});

test('gives the same for windows of any size', async () => {
  const kept = keptStorage();
  const size = 2 ** 23;
  const image = await Qcow2Image.create(kept.open(), { size, clusterSize: 512 });
  await image.write(0, new Uint8Array(2 ** 21).fill(3));
  await image.close();
  const view = new DataView((await kept.bytes()).buffer);
  const table = view.getUint32(52);
  // Every fifth block: one count too high, one too low, one gone.
  for (let index = 0; view.getUint32(table + index * 8 + 4) !== 0; index += 5) {
    const block = view.getUint32(table + index * 8 + 4);
    await kept.storage.write(block + 20, new Uint8Array([0, 2, 0, 1, 0, 3]));
  }
  const run = async (options: Parameters<typeof checkStorage>[1]) => {
    const lines: string[] = [];
    const onError = (line: string) => lines.push(line);
    return { ...(await checkStorage(kept.open(), { ...options, onError })), lines: lines.sort() };
  };
  const whole = await run({});
  assert.ok(whole.leaks > 3);
  for (const countBytes of [512, 4096, 5000]) assert.equal(await run({ countBytes }), whole);
  const repaired = await run({ repair: 'all', countBytes: 1024 });
  assert.is(repaired.leaksFixed, whole.leaks);
  assert.is(repaired.corruptions, 0);
  const { corruptions, leaks } = checkQcow2(sourceOf(await kept.bytes()));
  assert.equal({ corruptions, leaks }, { corruptions: [], leaks: 0 });
});

function sourceOf(all: Uint8Array) {
  return {
    size: all.length,
    read(at: number, into: Uint8Array): number {
      const part = all.subarray(at, at + into.length);
      into.set(part);
      return part.length;
    },
  };
}

test.run();
