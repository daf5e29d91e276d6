/**
 * Streams that are copied in the background of the thread that plans: the image is the one that is
 * made without, and workers come when there is more to make than that thread has time for.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { ConvertOptions } from '../../src/convert/options.ts';
import { convertToQcow2 } from '../../src/convert/to-qcow2.ts';
import { openDisk } from '../../src/image/open.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { openNodeFile } from '../../src/storage/node-file.ts';
import { nativeSuite } from '../native-layer.ts';
import { rng, SEED } from '../random.ts';

const test = nativeSuite('copies in the background');
const folder = mkdtempSync(join(tmpdir(), 'qcow2-test-'));
const poolSize = process.env.UV_THREADPOOL_SIZE;

test.after(() => {
  if (poolSize === undefined) delete process.env.UV_THREADPOOL_SIZE;
  else process.env.UV_THREADPOOL_SIZE = poolSize;
  rmSync(folder, { recursive: true });
});

const CLUSTER = 65536;

/** A disk of clusters that compress, and some that do not; a compressed image of it. */
async function makeSource(clusters: number, noise: (cluster: number) => boolean): Promise<string> {
  const next = rng();
  const raw = new Uint8Array(clusters * CLUSTER);
  for (let cluster = 0; cluster < clusters; cluster++) {
    const bytes = raw.subarray(cluster * CLUSTER, (cluster + 1) * CLUSTER);
    if (noise(cluster)) for (let at = 0; at < CLUSTER; at++) bytes[at] = next.below(256);
    // Half of what there is to say of a byte.
    else for (let at = 0; at < CLUSTER; at++) bytes[at] = 65 + next.below(16);
  }
  const path = join(folder, `${clusters}-${noise(7)}.qcow2`);
  const file = openNodeFile(path, { create: true });
  const disk = await openDisk(memoryStorage(raw), { format: 'raw' });
  await convertToQcow2([disk], { file, create: {}, compress: { level: 1 } });
  file.close();
  return path;
}

/**
 * @param copiesMax copies that the host makes in the background before it cannot any more
 * @returns whether workers were asked for, and the bytes of the image's copy
 */
async function copy(source: string, options: ConvertOptions, copiesMax?: number) {
  const target = join(folder, 'target.qcow2');
  const [from, file] = [openNodeFile(source), openNodeFile(target, { create: true })];
  let asked = 0;
  let copies = 0;
  if (copiesMax !== undefined) {
    // The host finds out that it cannot.
    const { copyFromLater } = file;
    file.copyFromLater = (...copy) => {
      if (++copies < copiesMax) return copyFromLater.apply(file, copy);
      Object.defineProperty(file, 'copiesInBackground', { value: false });
      return Promise.resolve(0);
    };
  }
  const startWorkers = () => {
    asked++;
    return [];
  };
  const disk = await openDisk(from);
  await convertToQcow2([disk], { file, create: {}, compress: {} }, { ...options, startWorkers });
  await disk.close();
  file.close();
  return { asked, bytes: readFileSync(target) };
}

for (const [about, noise, asks] of [
  ['streams alone', () => false, 0],
  ['a few clusters to make', (cluster: number) => cluster % 16 === 7, 0],
  ['more to make than to copy', (cluster: number) => cluster > 60, 1],
  ['nothing to copy at first', () => true, 1],
] as const) {
  test(`${about}: the same image`, async () => {
    const source = await makeSource(300, noise);
    delete process.env.UV_THREADPOOL_SIZE;
    const expected = await copy(source, {});
    assert.is(expected.asked, 0);
    const without = await copy(source, { workers: 3 });
    assert.is(without.asked, 1);
    process.env.UV_THREADPOOL_SIZE = '1';
    const { asked, bytes } = await copy(source, { workers: 3 });
    assert.is(asked, asks, `SEED=${SEED}`);
    assert.is(Buffer.compare(bytes, expected.bytes), 0);
    assert.is(Buffer.compare(without.bytes, expected.bytes), 0);
  });
}

for (const copies of [1, 2, 5]) {
  test(`a host that cannot copy from copy ${copies} on: the same image`, async () => {
    const source = await makeSource(300, (cluster) => cluster % 5 === 2);
    const expected = await copy(source, {});
    process.env.UV_THREADPOOL_SIZE = '1';
    const { asked, bytes } = await copy(source, { workers: 3 }, copies);
    assert.is(asked, 1);
    assert.is(Buffer.compare(bytes, expected.bytes), 0);
  });
}

test.run();
