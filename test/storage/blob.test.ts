/** Blob storage keeps the reading half of the contract. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { blobStorage } from '../../src/storage/blob.ts';
import { randomBytes, readingSuite, type StorageCase } from './contract.ts';

const copy = (bytes: Uint8Array) => new Uint8Array(bytes);

const blob: StorageCase = {
  make: async (bytes, { name }) => blobStorage(new Blob([copy(bytes)]), { name }),
  dispose: async (storage) => storage.close(),
};

/** Of several parts, and itself a part of a larger one. */
const slice: StorageCase = {
  make: async (bytes, { name }) => {
    const half = bytes.length >> 1;
    const parts = [
      Uint8Array.of(1, 2, 3),
      copy(bytes.subarray(0, half)),
      copy(bytes.subarray(half)),
    ];
    const whole = new Blob([...parts, Uint8Array.of(4, 5)]);
    return blobStorage(whole.slice(3, 3 + bytes.length), { name });
  },
  dispose: async (storage) => storage.close(),
};

readingSuite('blob', blob);
readingSuite('a slice of a blob', slice);

const test = suite('blob storage');

test('is named after its file, and "blob" without one', () => {
  assert.is(blobStorage(new Blob([])).name, 'blob');
  if (typeof File === 'function') assert.is(blobStorage(new File([], 'x.qcow2')).name, 'x.qcow2');
});

test('shares the blob itself', () => {
  const it = new Blob(['abc']);
  assert.equal(blobStorage(it, { name: 'n' }).share?.(), { kind: 'blob', blob: it, name: 'n' });
});

test('a blob that can no longer be read is an IO error, each time anew', async () => {
  // What a browser does with a file that was changed after it was picked.
  const stale = {
    size: 1000,
    slice: () => ({
      arrayBuffer: () => Promise.reject(new Error('NotReadableError')),
      stream: () => new ReadableStream({ pull: (c) => c.error(new Error('NotReadableError')) }),
    }),
  } as unknown as Blob;
  const storage = blobStorage(stale);
  for (let i = 0; i < 2; i++) {
    try {
      await storage.read(0, new Uint8Array(10));
      assert.unreachable();
    } catch (cause) {
      assert.ok(isQcow2Error(cause, 'IO'), String(cause));
    }
  }
  const cursor = storage.cursor(0, 1000);
  try {
    await cursor.read(new Uint8Array(10));
    assert.unreachable();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'IO'), String(cause));
  }
  // A stream that has failed has nothing left to cancel.
  await cursor.close();
});

test('neighbouring small reads are served by one slice', async () => {
  const bytes = randomBytes(100_000);
  const whole = new Blob([copy(bytes)]);
  let slices = 0;
  const counted = {
    size: whole.size,
    slice: (from: number, to: number) => {
      slices++;
      return whole.slice(from, to);
    },
  } as unknown as Blob;
  const storage = blobStorage(counted);
  const into = new Uint8Array(10);
  for (let at = 0; at < 90_000; at += 1000) await storage.read(at, into);
  assert.is(slices, 1);
});

test.run();
