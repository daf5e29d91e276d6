// Every call to the storage fails while an image is checked or repaired: a typed error, no byte of
// the disk lost, and a later repair finishes. Replay with SEED=…, all calls with SLOW=1.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { checkStorage } from '../../src/image/qcow2/check.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { rng, SEED } from '../random.ts';
import { FAULT_KINDS, type FaultPlan, FaultyFiles } from './faulty-storage.ts';
import { MemoryFiles, PagedBytes } from './paged-bytes.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { DAMAGES, soundImage } from './repairable.ts';
import { SLOW } from './slow.ts';

const NAME = 'image';

async function readAll(storage: Storage): Promise<Uint8Array> {
  const image = await Qcow2Image.open(storage);
  const bytes = new Uint8Array(image.size);
  await image.read(0, bytes);
  await image.close();
  return bytes;
}

const memoryOf = (bytes: Uint8Array) => new MemoryFiles(new Map([[NAME, PagedBytes.from(bytes)]]));

/** Without a refcount table an image opens for a check only. */
function hasTable(files: MemoryFiles): boolean {
  const field = new Uint8Array(4);
  files.bytes(NAME).read(56, field);
  return field.some((byte) => byte !== 0);
}

/** A typed error of a storage that has failed, or nothing. */
async function errorOf(work: Promise<unknown>, files: FaultyFiles, about: string) {
  try {
    await work;
  } catch (cause) {
    if (isQcow2Error(cause) && files.failures > 0) return cause;
    throw new Error(`${about}: ${cause}`, { cause });
  }
}

function typed(cause: unknown): undefined {
  if (!isQcow2Error(cause)) throw cause;
}

const test = suite('checks and repairs of storage that fails');

for (const [name, damage] of Object.entries(DAMAGES)) {
  for (const repair of ['leaks', 'all'] as const) {
    test(`-r ${repair} of an image where ${name}`, async () => {
      const next = rng();
      for (const kind of FAULT_KINDS) {
        const stride = SLOW ? 1 : 9;
        for (let index = next.below(stride); ; index += stride) {
          const sound = await soundImage(next, next.pick([1, 16, 64]));
          const content = await readAll(memoryOf(sound).open(NAME));
          damage(next, new DataView(sound.buffer));
          const memory = memoryOf(sound);
          const files = new FaultyFiles(memory);
          const how = kind === 'write' && next.oneIn(2) ? 'NO_SPACE' : 'IO';
          const partial = next.pick(['none', 'half', 'all'] as const);
          const plan: FaultPlan = { kinds: [kind], index, how, partial, forever: next.oneIn(2) };
          const about = `SEED=${SEED} ${JSON.stringify(plan)}`;
          files.arm(plan);
          const work = checkStorage(files.open(NAME), { repair });
          // What takes new structures is more than a repair of leaks does.
          const refuses = repair === 'leaks' && !/COPIED/.test(name);
          const failed = await (refuses ? work.catch(typed) : errorOf(work, files, about));
          files.arm();
          // What cannot be read of a sound table is said, and not taken for damage.
          if (hasTable(memory)) assert.equal(await readAll(memory.open(NAME)), content, about);
          else assert.match(name, /table is lost/, about);
          const left = await checkStorage(memory.open(NAME), { repair: 'all' });
          assert.is(left.corruptions + left.checkErrors + left.leaks, 0, about);
          const found = checkQcow2(memory.bytes(NAME));
          assert.equal([found.corruptions, found.leaks, found.dirty], [[], 0, false], about);
          assert.equal(await readAll(memory.open(NAME)), content, about);
          if (!failed && files.failures === 0) break;
        }
      }
    });
  }
}

test('after a repair that failed an open image goes on, or takes no changes', async () => {
  const next = rng();
  let stopped = 0;
  for (const kind of ['read', 'write', 'flush'] as const) {
    for (let index = 0; ; index++) {
      const sound = await soundImage(next, 16);
      const content = await readAll(memoryOf(sound).open(NAME));
      DAMAGES['COPIED flags are missing']!(next, new DataView(sound.buffer));
      const memory = memoryOf(sound);
      const files = new FaultyFiles(memory);
      const image = await Qcow2Image.open(files.open(NAME), { writable: true });
      const about = `SEED=${SEED} ${kind} ${index}`;
      files.arm({ kinds: [kind], index, how: 'IO', partial: next.pick(['none', 'all']) });
      await errorOf(image.check({ repair: 'all' }), files, about);
      files.arm();
      const { failures } = files;
      const bytes = new Uint8Array(3000).fill(0xab);
      const at = 512 * next.below(900);
      try {
        await image.write(at, bytes);
        content.set(bytes, at);
      } catch (cause) {
        if (!isQcow2Error(cause, 'IO') || failures === 0) throw new Error(`${about}: ${cause}`);
        stopped++;
      }
      const found = new Uint8Array(content.length);
      await image.read(0, found);
      assert.equal(found, content, about);
      await image.close();
      assert.equal(await readAll(memory.open(NAME)), content, about);
      // Flags may still be missing where the repair did not come to its end.
      const { corruptions } = checkQcow2(memory.bytes(NAME));
      assert.equal(
        corruptions.filter((one) => !/not COPIED/.test(one)),
        [],
        about,
      );
      if (failures === 0) break;
    }
  }
  assert.ok(stopped > 0);
});

test.run();
