/** Conversions in a page: workers open the files themselves, and make what one thread makes. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { convert } from '../../src/convert/convert.ts';
import { convertInWorkers } from '../../src/convert/convert-web.ts';
import { startWebWorkers } from '../../src/convert/pool-web.ts';
import { openDisk } from '../../src/image/open.ts';
import type { Qcow2CreateOptions } from '../../src/image/qcow2/create.ts';
import { blobStorage } from '../../src/storage/blob.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { openOpfsFile } from '../../src/storage/opfs.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { rng } from '../random.ts';

const MIB = 2 ** 20;
/** Enough that workers are started: for plain bytes, and where there is something to compress. */
const SIZE = 26 * MIB + 512;
const SMALL_SIZE = 5 * MIB + 512;

/** Data, text and zeros; half of it is noise, so that it stays large when it is compressed. */
function diskBytes(size: number): Uint8Array<ArrayBuffer> {
  const next = rng();
  // Three quarters of it are left when it is compressed.
  const some = Uint8Array.from({ length: 2 * MIB }, () => 32 + next.below(64));
  const noise = Uint8Array.from({ length: 2 * MIB }, () => next.below(256));
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at += some.length) {
    const isText = at % (16 * some.length) === 0;
    bytes.set((isText ? some : noise).subarray(0, size - at), at);
    bytes[at] = at / some.length;
  }
  bytes.fill(0, MIB, 3 * MIB);
  return bytes;
}

const large = diskBytes(SIZE);
const small = diskBytes(SMALL_SIZE);
let made = 0;

async function newFile(bytes?: Uint8Array<ArrayBuffer>): Promise<Storage> {
  const root = await navigator.storage.getDirectory();
  const file = await root.getFileHandle(`converted-${made++}`, { create: true });
  if (bytes) {
    const stream = await file.createWritable();
    await stream.write(bytes);
    await stream.close();
  }
  return openOpfsFile(file, { writable: true });
}

async function bytesOf(storage: Storage): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(await storage.size());
  assert.is(await storage.read(0, bytes), bytes.length);
  return bytes;
}

function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length) return Math.min(a.length, b.length);
  return a.findIndex((byte, i) => byte !== b[i]);
}

/** An image as one thread makes it in memory. */
async function imageOf(raw: Uint8Array, create: Omit<Qcow2CreateOptions, 'size'>, packed: boolean) {
  const file = memoryStorage();
  const source = await openDisk(memoryStorage(raw.slice()), { format: 'raw' });
  const compress = packed ? {} : undefined;
  await convert(source, { format: 'qcow2', file, create, compress });
  return file.snapshot() as Uint8Array<ArrayBuffer>;
}

const shapes: readonly (readonly [string, Omit<Qcow2CreateOptions, 'size'>, boolean])[] = [
  ['deflate', {}, true],
  ['zstd', { compression: 'zstd' }, true],
  ['plain', { clusterSize: 4096 }, false],
  ['subclusters', { extendedL2: true, clusterSize: 65536 }, false],
];

const sources = {
  OPFS: newFile,
  'a Blob': async (bytes: Uint8Array<ArrayBuffer>) => blobStorage(new Blob([bytes])),
};

const test = suite('conversions in workers of a page');

for (const [name, create, packed] of shapes) {
  test(`${name}: an image made by workers is the one that a single thread makes`, async () => {
    const raw = packed ? small : large;
    const wanted = await imageOf(raw, create, packed);
    for (const [kind, open] of Object.entries(sources)) {
      const workers = kind === 'OPFS' ? 3 : 1;
      const source = await openDisk(await open(raw), { format: 'raw' });
      const file = await newFile();
      let started = 0;
      const startWorkers: typeof startWebWorkers = (setup, count) => {
        started = count;
        return startWebWorkers(setup, count);
      };
      const compress = packed ? {} : undefined;
      const target = { format: 'qcow2', file, create, compress } as const;
      const done = await convertInWorkers(source, target, { workers, startWorkers });
      assert.is(started, workers, `workers for ${kind}`);
      assert.is(firstDifference(await bytesOf(file), wanted), -1, `${kind}, ${workers} workers`);
      assert.is(done.diskBytes, raw.length);
      await source.close();
      await file.close();
    }
  });
}

test('workers make the raw disk of compressed images, and say where one is broken', async () => {
  const image = await imageOf(large, {}, true);
  for (const [kind, open] of Object.entries(sources)) {
    const source = await openDisk(await open(image));
    const file = await newFile();
    await convertInWorkers(source, { format: 'raw', file });
    assert.is(firstDifference(await bytesOf(file), large), -1, kind);
    await source.close();
    await file.close();
  }
  // Behind the tables: noise is not compressed, text is, and comes first.
  image.fill(0xff, 5 * 65536, 5 * 65536 + 100_000);
  const source = await openDisk(await newFile(image));
  try {
    await convertInWorkers(source, { format: 'raw', file: await newFile() });
    assert.unreachable();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'CORRUPT'), String(cause));
    assert.type((cause as { at?: unknown }).at, 'number');
  }
});

test('memory has no handle: then this thread does it all', async () => {
  const source = await openDisk(memoryStorage(large.slice()), { format: 'raw' });
  const file = memoryStorage();
  const startWorkers = () => {
    throw new Error('nothing to start workers for');
  };
  await convertInWorkers(source, { format: 'raw', file }, { startWorkers });
  assert.is(firstDifference(file.snapshot(), large), -1);
});

test('progress arrives at the whole, and a signal stops the work', async () => {
  const open = async () => openDisk(await newFile(small), { format: 'raw' });
  let last = 0;
  const compress = {};
  const file = await newFile();
  const target = { format: 'qcow2', file, create: {}, compress } as const;
  await convertInWorkers(await open(), target, {
    onProgress: (done, total) => {
      assert.is(total, SMALL_SIZE);
      assert.ok(done >= last);
      last = done;
    },
  });
  assert.is(last, SMALL_SIZE);

  const abort = new AbortController();
  const half = await newFile();
  try {
    await convertInWorkers(
      await open(),
      { ...target, file: half },
      {
        signal: abort.signal,
        onProgress: () => abort.abort(),
      },
    );
    assert.unreachable();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'ABORTED'), String(cause));
  }
  const head = await bytesOf(half);
  assert.not.ok(head[0] === 0x51 && head[1] === 0x46, 'half an image does not look whole');
});

test.run();
