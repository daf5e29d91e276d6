// Power cuts and failing storage while an image gets another backing file: through the old one or
// the new one, it shows the same. Replay a failure with SEED=…, all moments with SLOW=1.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { rebaseImage } from '../../src/convert/rebase.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { RawImage } from '../../src/image/raw/raw-image.ts';
import { type FileOpener, MemoryFiles, PagedBytes } from '../image/paged-bytes.ts';
import { createOptions } from '../image/qcow2-engine.ts';
import { assertUndamaged, testVerbs, type Verb } from '../image/verb-crash.ts';
import { randomWorkload, send } from '../image/workload.ts';
import {
  firstDifference,
  IMAGE,
  randomBytes,
  readWhole,
  SMALL,
  type WriteSetting,
} from '../image/write-engine.ts';
import type { Random } from '../random.ts';

interface Case {
  readonly about: string;
  readonly setting?: Partial<WriteSetting>;
  /** Bytes of the old backing file, and of the new one. */
  readonly from?: number;
  readonly to?: number;
  readonly newName?: string;
  readonly compress?: boolean;
  /** The bytes of both are the same, and nobody compares them. */
  readonly unsafe?: boolean;
}

const SIZE = 60 * 1024;
const LONG = `${'a-name-that-takes-sectors-'.repeat(38)}.raw`;

const CASES: readonly Case[] = [
  { about: 'to another', from: SIZE, to: SIZE },
  { about: 'to a shorter one', from: SIZE, to: 20_000 },
  { about: 'to a longer one', from: 20_000, to: 2 * SIZE },
  { about: 'to none', from: SIZE },
  { about: 'from none', to: SIZE },
  { about: 'compressed', from: SIZE, to: 20_000, compress: true, setting: { clusterBits: 12 } },
  { about: 'in version 2', from: SIZE, to: SIZE / 2, setting: { version: 2 } },
  { about: 'with lazy refcounts', from: SIZE / 2, to: SIZE, setting: { lazy: true } },
  {
    about: 'with subclusters',
    from: SIZE,
    to: SIZE,
    setting: { extended: true, clusterBits: 14, size: 4 * SIZE },
  },
  {
    about: 'to one of a longer name',
    from: SIZE,
    to: SIZE,
    newName: LONG,
    setting: { clusterBits: 12 },
  },
  { about: 'without a look', from: SIZE, to: SIZE, unsafe: true, setting: { clusterBits: 13 } },
  {
    about: 'without a look, to one of a longer name',
    from: SIZE,
    to: SIZE,
    unsafe: true,
    newName: LONG,
    setting: { clusterBits: 12 },
  },
];

const OLD = 'old.raw';
const NEW = 'new.raw';

function openImage(files: FileOpener, cacheBytes = 4096): Promise<Qcow2Image> {
  return Qcow2Image.open(files.open(IMAGE), {
    writable: true,
    cacheBytes,
    backing: (name) => RawImage.open(files.open(name === OLD ? OLD : NEW), { depth: 1 }),
  });
}

async function prepare(next: Random, one: Case, setting: WriteSetting): Promise<MemoryFiles> {
  const { from, to, unsafe = false } = one;
  const old = randomBytes(next, from ?? 0);
  const other = unsafe ? old : randomBytes(next, to ?? 0);
  // Much of both is the same.
  for (let at = 0; at < Math.min(old.length, other.length); at += 8192) {
    if (next.oneIn(2)) other.set(old.subarray(at, Math.min(at + 8192, other.length)), at);
  }
  const files = new MemoryFiles(
    new Map([
      [IMAGE, new PagedBytes()],
      [OLD, PagedBytes.from(old)],
      [NEW, PagedBytes.from(other)],
    ]),
  );
  const options = {
    ...createOptions(setting),
    ...(from === undefined ? {} : { backing: { name: OLD, format: 'raw' } }),
  };
  const backing = () => RawImage.open(files.open(OLD), { depth: 1 });
  const image = await Qcow2Image.create(files.open(IMAGE), options, { backing });
  const batches = randomWorkload(next, setting, { batches: 4, resize: false });
  for (const request of batches.flat()) await send(image, request);
  await image.close();
  return files;
}

async function verbOf(one: Case, next: Random): Promise<Verb> {
  const { to, newName = NEW, compress = false, unsafe = false } = one;
  const setting: WriteSetting = { ...SMALL, size: SIZE, ...one.setting };
  const files = await prepare(next, one, setting);
  const image = await openImage(files);
  const content = await readWhole(image);
  await image.close();
  return {
    before: files.all,
    async run(opener) {
      const disk = await openImage(opener);
      try {
        if (to === undefined) await rebaseImage(disk, undefined);
        else if (unsafe) await disk.setBackingName({ name: newName, format: 'raw' });
        else {
          const other = await RawImage.open(opener.open(NEW));
          const backing = { name: newName, format: 'raw', disk: other };
          await rebaseImage(disk, backing, { compress }).finally(() => other.close());
        }
      } finally {
        await disk.close();
      }
    },
    async judge(found) {
      assertUndamaged(found, IMAGE, setting.version);
      const disk = await openImage(found);
      const { name } = disk.backingName;
      const names = [one.from === undefined ? undefined : OLD, to === undefined ? to : newName];
      assert.ok(names.includes(name), `the backing file is named ${name}`);
      assert.is(firstDifference(await readWhole(disk), content), '', `over ${name}`);
      const at = 512 * next.below(content.length / 512);
      const bytes = randomBytes(next, Math.min(4096, content.length - at));
      const old = content.slice(at, at + bytes.length);
      await disk.write(at, bytes);
      await disk.write(at, old);
      assert.is(firstDifference(await readWhole(disk), content), '', 'after another write');
      await disk.close();
      assertUndamaged(found, IMAGE, setting.version);
    },
  };
}

const test = suite('rebase, power cuts and failing storage');

testVerbs(test, CASES, verbOf);

test.run();
