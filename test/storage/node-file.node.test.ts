/** File storage keeps the contract; opening tells what went wrong as the C library does. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { NodeFileStorage, openNodeFile } from '../../src/storage/node-file.ts';
import { must } from '../tool.ts';
import { readingSuite, type StorageCase, writingSuite } from './contract.ts';

const folders = new Map<unknown, string>();

function newFolder(): string {
  return mkdtempSync(join(tmpdir(), 'qcow2-test-'));
}

const file: StorageCase = {
  make: async (bytes, { name, writable }) => {
    const folder = newFolder();
    const path = join(folder, name);
    writeFileSync(path, bytes);
    const storage = openNodeFile(path, { writable });
    folders.set(storage, folder);
    return storage;
  },
  dispose: async (storage) => {
    await storage.close();
    rmSync(folders.get(storage)!, { recursive: true });
  },
};

/** As a worker has it: another object over the same descriptor, not its own to close. */
const shared: StorageCase = {
  make: async (bytes, options) => {
    const first = (await file.make(bytes, options)) as NodeFileStorage;
    const handle = first.share();
    assert.is(handle.kind, 'fd');
    const fd = handle.kind === 'fd' ? handle.fd : -1;
    const second = new NodeFileStorage(fd, handle.name, options.writable, false);
    owners.set(second, first);
    return second;
  },
  dispose: async (storage) => {
    await storage.close();
    await file.dispose(owners.get(storage)!);
  },
};
const owners = new Map<unknown, NodeFileStorage>();

/** Its large pieces by calls that answer later. */
const later: StorageCase = {
  make: async (bytes, options) => {
    const first = (await file.make(bytes, options)) as NodeFileStorage;
    const second = first.background()!;
    owners.set(second, first);
    return second;
  },
  dispose: (storage) => file.dispose(owners.get(storage)!),
};

/** And as it is where Node has one thread for such calls. */
const queued: StorageCase = {
  ...later,
  make: async (bytes, options) => {
    const before = process.env.UV_THREADPOOL_SIZE;
    process.env.UV_THREADPOOL_SIZE = '1';
    try {
      return await later.make(bytes, options);
    } finally {
      if (before === undefined) delete process.env.UV_THREADPOOL_SIZE;
      else process.env.UV_THREADPOOL_SIZE = before;
    }
  },
};

readingSuite('file', file);
writingSuite('file', file);
readingSuite('shared file', shared);
writingSuite('shared file', shared);
readingSuite('file in the background', later);
writingSuite('file in the background', later);
readingSuite('file with a queue of writes', queued);
writingSuite('file with a queue of writes', queued);

const test = suite('file storage');
let folder = '';

test.before.each(() => {
  folder = newFolder();
});
test.after.each(() => rmSync(folder, { recursive: true }));

function failure(work: () => unknown): { code: string; message: string } {
  try {
    work();
  } catch (cause) {
    assert.ok(isQcow2Error(cause), String(cause));
    return cause;
  }
  throw new Error('nothing was thrown');
}

test('a file that is not there', () => {
  const path = join(folder, 'nowhere');
  const { code, message } = failure(() => openNodeFile(path));
  assert.is(code, 'IO');
  assert.is(message, `Could not open '${path}': No such file or directory`);
});

test('folders are refused', () => {
  const { message } = failure(() => openNodeFile(folder));
  assert.is(message, `'file' driver requires '${folder}' to be a regular file`);
});

test('a pipe is refused, and opening it waits for nobody', async () => {
  const path = join(folder, 'pipe');
  await must('mkfifo', [path]);
  for (const options of [{}, { writable: true }]) {
    assert.is(failure(() => openNodeFile(path, options)).code, 'IO');
  }
});

test('`create` makes a file, and empties one that is there', () => {
  const path = join(folder, 'new');
  const storage = openNodeFile(path, { create: true });
  assert.is(storage.writable, true);
  storage.write(0, Uint8Array.of(1, 2, 3));
  storage.close();
  const again = openNodeFile(path, { create: true });
  assert.is(again.size(), 0);
  again.write(0, Uint8Array.of(9));
  again.close();
  assert.equal([...readFileSync(path)], [9]);
});

test('`writable` alone makes no file', () => {
  assert.is(failure(() => openNodeFile(join(folder, 'x'), { writable: true })).code, 'IO');
});

test('zeros past the end leave a hole', () => {
  const path = join(folder, 'sparse');
  const storage = openNodeFile(path, { create: true });
  storage.zero(2 ** 20, 2 ** 40);
  assert.is(storage.size(), 2 ** 40 + 2 ** 20);
  assert.is(statSync(path).blocks, 0);
  storage.close();
});

test('offsets above 4 GiB are exact', () => {
  const storage = openNodeFile(join(folder, 'far'), { create: true });
  const at = 5 * 2 ** 40 + 12_345;
  storage.write(at, Uint8Array.of(1, 2, 3));
  const into = new Uint8Array(5);
  assert.is(storage.read(at - 1, into), 4);
  assert.equal([...into], [0, 1, 2, 3, 0]);
  storage.close();
});

test('character devices can be read', () => {
  const storage = openNodeFile('/dev/zero');
  assert.is(storage.kind, 'other');
  storage.close();
});

test('large writes in the background: all of them, and what went wrong', async () => {
  const path = join(folder, 'large');
  const storage = openNodeFile(path, { create: true });
  const background = storage.background()!;
  const piece = (index: number) => new Uint8Array(400_000).fill(index + 1);
  const indexes = [5, 0, 3, 1, 4, 2];
  await Promise.all(indexes.map((index) => background.write(index * 400_000, piece(index))));
  const found = new Uint8Array(2_400_001);
  assert.is(await background.read(0, found), 2_400_000);
  for (const index of indexes) {
    const part = found.subarray(index * 400_000, (index + 1) * 400_000);
    assert.ok(part.every((byte) => byte === index + 1));
  }
  storage.close();
  // What a write failed with is not what the next one fails with.
  const full = openNodeFile('/dev/full', { writable: true });
  const refused = full.background()!;
  const results = await Promise.allSettled(
    [0, 1, 2].map((index) => refused.write(index * 400_000, piece(index))),
  );
  full.close();
  for (const [index, result] of results.entries()) {
    const cause = result.status === 'rejected' ? result.reason : undefined;
    assert.ok(isQcow2Error(cause, 'NO_SPACE'), String(cause));
    assert.is(cause.at, index * 400_000);
  }
  const closed = await Promise.allSettled([refused.read(0, piece(0))]);
  assert.is(closed[0]?.status, 'rejected');
});

test.run();
