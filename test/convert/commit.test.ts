// What a commit asks of the images of a chain, and of the host.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { tick } from '../../src/base/tick.ts';
import { commitDisk } from '../../src/convert/commit.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { RawImage } from '../../src/image/raw/raw-image.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { standIn } from '../../src/storage/stand-in.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { answeringLater } from '../image/later-storage.ts';
import { firstDifference, randomBytes, readWhole } from '../image/write-engine.ts';
import { rng, SEED } from '../random.ts';

const test = suite('commit');

const SIZE = 6 * 2 ** 20;

/** An image of random bytes here and there, over a raw base. */
async function chainOver(base: Storage) {
  const next = rng(SEED);
  const raw = await RawImage.open(base, { writable: true, depth: 1 });
  const storage = memoryStorage();
  const create = { size: SIZE, backing: { name: 'base', format: 'raw' } };
  const top = await Qcow2Image.create(storage, create, { backing: async () => raw });
  for (let at = 0; at < SIZE; at += 2 ** 20) await top.write(at, randomBytes(next, 300_000));
  return { top, raw };
}

test('the base is not asked where its own bytes are', async () => {
  const base = standIn<Storage>(memoryStorage(new Uint8Array(SIZE)), {
    dataRanges() {
      throw new Error('seeking holes takes longer than the commit');
    },
  });
  const { top, raw } = await chainOver(base);
  await commitDisk(top, raw);
  assert.is(firstDifference(await readWhole(raw), await readWhole(top)), '', `SEED=${SEED}`);
  await top.close();
});

test('bytes are read while the ones before them are written', async () => {
  let writing = 0;
  let most = 0;
  const file = memoryStorage(new Uint8Array(SIZE));
  const later = answeringLater(file, () => 2);
  const counting = standIn<Storage>(file, {
    background: () =>
      standIn<Storage>(file, {
        async write(at, from) {
          most = Math.max(most, ++writing);
          await later.background?.()?.write(at, from);
          writing--;
        },
      }),
  });
  const { top, raw } = await chainOver(counting);
  await commitDisk(top, raw);
  assert.is(most > 1, true);
  assert.is(firstDifference(await readWhole(raw), await readWhole(top)), '', `SEED=${SEED}`);
  await top.close();
});

test('one that is stopped leaves nothing to be written later', async () => {
  const stop = new AbortController();
  let [begun, ended] = [0, 0];
  const file = memoryStorage(new Uint8Array(SIZE));
  const counting = standIn<Storage>(file, {
    background: () =>
      standIn<Storage>(file, {
        async write(at, from) {
          if (++begun === 2) stop.abort();
          for (let turn = 0; turn < 20; turn++) await tick();
          file.write(at, from);
          ended++;
        },
      }),
  });
  const { top, raw } = await chainOver(counting);
  await commitDisk(top, raw, { signal: stop.signal }).then(
    () => assert.unreachable(),
    (cause) => assert.is(cause.code, 'ABORTED'),
  );
  const before = begun;
  assert.is(ended, before);
  for (let turn = 0; turn < 40; turn++) await tick();
  assert.is(begun, before);
  await top.close();
});

test.run();
