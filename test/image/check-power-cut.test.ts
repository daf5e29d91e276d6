/**
 * Power fails while an image is being repaired: what is left opens, reads as before, and is whole
 * after another repair. Replay with SEED=….
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { checkStorage } from '../../src/image/qcow2/check.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { rng, SEED } from '../random.ts';
import { CrashFiles } from './crash-storage.ts';
import { PagedBytes } from './paged-bytes.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { DAMAGES, soundImage } from './repairable.ts';
import { SLOW } from './slow.ts';

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
