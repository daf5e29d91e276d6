/**
 * Power fails while an image is being repaired: what is left opens, reads as before, and is whole
 * after another repair. Replay with SEED=….
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { checkStorage } from '../../src/image/qcow2/check.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { type Random, rng, SEED } from '../random.ts';
import { CrashFiles } from './crash-storage.ts';
import { PagedBytes } from './paged-bytes.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { SLOW } from './slow.ts';

const SIZE = 2 ** 19;

/** An image of clusters of 1 KiB with data in half of them. */
async function soundImage(next: Random, refcountBits: 1 | 16 | 64): Promise<Uint8Array> {
  const storage = Object.assign(memoryStorage(), { close() {} });
  const image = await Qcow2Image.create(storage, { size: SIZE, clusterSize: 1024, refcountBits });
  for (let at = 0; at < SIZE; at += 16384) {
    await image.write(at, new Uint8Array(8192).fill(1 + next.below(255)));
  }
  await image.close();
  const bytes = new Uint8Array(await storage.size());
  await storage.read(0, bytes);
  return bytes;
}

/** Damage that a repair undoes without a loss. */
const DAMAGES: Readonly<Record<string, (next: Random, view: DataView) => void>> = {
  'refcounts are wrong': (next, view) => {
    const block = view.getUint32(view.getUint32(52) + 4);
    for (let i = 0; i < 30; i++) view.setUint8(block + next.below(400), next.pick([1, 2, 3, 0xff]));
  },
  'a refcount block is lost': (_next, view) => view.setUint32(view.getUint32(52) + 4, 0),
  'the refcount table is lost': (_next, view) => view.setUint32(56, 0),
  'COPIED flags are missing': (next, view) => {
    const l1 = view.getUint32(44);
    for (let i = 0; i < 3; i++) view.setUint8(l1 + i * 8, 0);
    const table = view.getUint32(l1 + 4 * 8 + 4);
    for (let i = 0; i < 8; i++) view.setUint8(table + 8 * next.below(128), 0);
  },
};

async function readAll(storage: Storage): Promise<Uint8Array> {
  const image = await Qcow2Image.open(storage);
  const bytes = new Uint8Array(image.size);
  await image.read(0, bytes);
  await image.close();
  return bytes;
}

const test = suite('repair, when the power fails');

for (const [name, damage] of Object.entries(DAMAGES)) {
  for (const refcountBits of [1, 16, 64] as const) {
    test(`${name}, ${refcountBits} bits`, async () => {
      const next = rng(SEED + refcountBits);
      const bytes = await soundImage(next, refcountBits);
      const files = (content: Uint8Array) => new Map([['image', PagedBytes.from(content)]]);
      const content = await readAll(new CrashFiles(files(bytes)).open('image'));
      damage(next, new DataView(bytes.buffer));
      const crash = new CrashFiles(files(bytes));
      const { corruptions } = await checkStorage(crash.open('image'), { repair: 'all' });
      assert.is(corruptions, 0);
      assert.ok(crash.position > 1);
      const options = { subsets: SLOW ? 8 : 2, cutsMax: SLOW ? 400 : 25 };
      for (const state of crash.states(next, options)) {
        const what = `SEED=${SEED} ${state.about}`;
        // Without a refcount table an image opens for a check only.
        const opens = new DataView(await headOf(state.files.open('image'))).getUint32(56) > 0;
        if (opens) assert.equal(await readAll(state.files.open('image')), content, what);
        const left = await checkStorage(state.files.open('image'), { repair: 'all' });
        assert.is(left.corruptions + left.checkErrors + left.leaks, 0, what);
        const found = checkQcow2(state.files.bytes('image'));
        assert.equal([found.corruptions, found.leaks, found.dirty], [[], 0, false], what);
        assert.equal(await readAll(state.files.open('image')), content, what);
      }
    });
  }
}

async function headOf(storage: Storage): Promise<ArrayBuffer> {
  const head = new Uint8Array(512);
  await storage.read(0, head);
  return head.buffer;
}

test.run();
