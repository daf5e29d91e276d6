/** Files of the origin-private file system keep the contract: in a page, by way of a worker. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { openOpfsFile, openOpfsHere } from '../../src/storage/opfs.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { randomBytes, readingSuite, type StorageCase, writingSuite } from './contract.ts';

let made = 0;

/** A new file with these bytes, in a folder of its own: names may be anything. */
async function makeFile(bytes: Uint8Array, name = 'image'): Promise<FileSystemFileHandle> {
  const root = await navigator.storage.getDirectory();
  const folder = await root.getDirectoryHandle(`files-${made++}`, { create: true });
  const file = await folder.getFileHandle(name, { create: true });
  if (bytes.length > 0) {
    const stream = await file.createWritable();
    await stream.write(new Uint8Array(bytes));
    await stream.close();
  }
  return file;
}

const opfs: StorageCase = {
  make: async (bytes, { name, writable }) =>
    openOpfsFile(await makeFile(bytes, name), { writable }),
  dispose: async (storage) => storage.close(),
};

readingSuite('OPFS', opfs);
writingSuite('OPFS', opfs);

const test = suite('OPFS storage');

test('may be open several times at once, and each sees what the others write', async () => {
  const file = await makeFile(new Uint8Array());
  const open = (writable: boolean) => openOpfsFile(file, { writable });
  const [a, b, reader] = await Promise.all([open(true), open(true), open(false)]);
  const bytes = randomBytes(100_000);
  await a.write(0, bytes.subarray(0, 50_000));
  await b.write(50_000, bytes.subarray(50_000));
  await Promise.all([a.flush(), b.flush()]);
  const into = new Uint8Array(100_000);
  assert.is(await reader.read(0, into), 100_000);
  assert.ok(into.every((byte, i) => byte === bytes[i]));
  await Promise.all([a, b, reader].map((storage: Storage) => storage.close()));
});

test('a file that another program has for itself is an IO error', async () => {
  const file = await makeFile(randomBytes(10));
  // Somebody's worker with a handle of the exclusive kind.
  const program = `onmessage = async ({ data }) => {
    await data.createSyncAccessHandle();
    postMessage('mine');
  };`;
  const url = URL.createObjectURL(new Blob([program], { type: 'text/javascript' }));
  const worker = new Worker(url);
  await new Promise((resolve) => {
    worker.onmessage = resolve;
    worker.postMessage(file);
  });
  try {
    await openOpfsFile(file);
    assert.unreachable();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'IO'), String(cause));
  } finally {
    worker.terminate();
    URL.revokeObjectURL(url);
  }
});

test('a page has no handles of its own', async () => {
  try {
    await openOpfsHere(await makeFile(randomBytes(1)), false);
    assert.unreachable();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'UNSUPPORTED'), String(cause));
  }
});

test('is gone when it is closed', async () => {
  const storage = await openOpfsFile(await makeFile(randomBytes(10)), { writable: true });
  await storage.close();
  await storage.close();
  try {
    await storage.read(0, new Uint8Array(1));
    assert.unreachable();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'IO'), String(cause));
  }
});

test('the handle of a share opens the same file', async () => {
  const file = await makeFile(randomBytes(10));
  const storage = await openOpfsFile(file);
  const handle = storage.share?.();
  assert.is(handle?.kind, 'opfs');
  assert.ok(handle?.kind === 'opfs' && (await handle.file.isSameEntry(file)));
  await storage.close();
});

test.run();
