// Power cuts and failing storage while images are amended: the disk, its snapshots and its size
// are as they were before, or as they are to be. Replay a failure with SEED=…, all with SLOW=1.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import type { KeySlotChange } from '../../src/crypto/luks-slots.ts';
import type { AmendOptions } from '../../src/image/qcow2/amend.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import type { Random } from '../random.ts';
import { type FileOpener, MemoryFiles } from './paged-bytes.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { createOptions, qcow2Engine } from './qcow2-engine.ts';
import {
  type ImageModel,
  mismatch,
  openImage,
  resized,
  type StoryStep,
  taken,
  writes,
} from './snapshot-story.ts';
import { assertUndamaged, testVerbs, type Verb } from './verb-crash.ts';
import {
  DATA,
  firstContent,
  firstDifference,
  firstFiles,
  IMAGE,
  randomBytes,
  readWhole,
  SMALL,
  type WriteSetting,
} from './write-engine.ts';

/** One way to amend. */
interface Case {
  readonly about: string;
  readonly setting: Partial<WriteSetting>;
  /** What was amended before, in peace. */
  readonly first?: AmendOptions;
  readonly amend: AmendOptions;
  /** The size goes last. */
  readonly size?: number;
  readonly snapshots?: number;
}

const SIZE = 80 * 1024;

const CASES: readonly Case[] = [
  { about: 'compat up', setting: { version: 2, backingBytes: 50_000 }, amend: { version: 3 } },
  {
    about: 'compat up, of an image with snapshots and a header of several sectors',
    setting: { version: 2, clusterBits: 12 },
    amend: { version: 3 },
    snapshots: 2,
  },
  {
    about: 'compat up, and all that version 3 can have',
    setting: { version: 2, clusterBits: 12 },
    amend: { version: 3, refcountBits: 32, lazyRefcounts: true },
    size: SIZE * 2,
  },
  { about: 'compat down', setting: {}, amend: { version: 2 } },
  {
    about: 'compat down, of an overlay',
    setting: { clusterBits: 12, backingBytes: SIZE },
    amend: { version: 2 },
  },
  {
    about: 'compat down, with snapshots',
    setting: {},
    amend: { version: 2 },
    snapshots: 2,
  },
  {
    about: 'compat down, of an overlay with snapshots',
    setting: { backingBytes: 50_000 },
    amend: { version: 2 },
    snapshots: 2,
  },
  {
    about: 'compat down, from lazy and narrow refcounts',
    setting: { lazy: true, refcountBits: 8 },
    amend: { version: 2, refcountBits: 16 },
    size: SIZE / 2,
  },
  { about: 'wider refcounts', setting: {}, amend: { refcountBits: 64 }, snapshots: 1 },
  { about: 'narrower refcounts', setting: { refcountBits: 32 }, amend: { refcountBits: 8 } },
  {
    about: 'the narrowest refcounts',
    setting: { refcountBits: 1 },
    first: { refcountBits: 16 },
    amend: { refcountBits: 1 },
  },
  {
    about: 'wider refcounts while they are lazy',
    setting: { refcountBits: 2, lazy: true },
    amend: { refcountBits: 32 },
  },
  {
    about: 'refcounts of large clusters',
    setting: { clusterBits: 16, size: 2 ** 20 },
    amend: { refcountBits: 4 },
    snapshots: 1,
  },
  { about: 'lazy refcounts', setting: {}, amend: { lazyRefcounts: true } },
  { about: 'refcounts no longer lazy', setting: { lazy: true }, amend: { lazyRefcounts: false } },
  {
    about: 'refcounts no longer lazy, with subclusters',
    setting: { lazy: true, extended: true, clusterBits: 14, size: 512 * 1024 },
    amend: { lazyRefcounts: false, refcountBits: 64 },
  },
  { about: 'a larger disk', setting: { backingBytes: 100_000 }, amend: {}, size: 5 * SIZE },
  { about: 'a smaller disk', setting: { backingBytes: 100_000 }, amend: {}, size: SIZE / 4 },
  { about: 'the data file', setting: { dataFile: 'file' }, amend: { dataFile: 'elsewhere.raw' } },
  {
    about: 'a longer name of the data file',
    setting: { dataFile: 'file', clusterBits: 12 },
    amend: { dataFile: `${'long-'.repeat(150)}.raw` },
  },
  { about: 'a data file no longer named', setting: { dataFile: 'file' }, amend: { dataFile: '' } },
  {
    about: 'a data file no longer raw',
    setting: { dataFile: 'raw' },
    amend: { dataFileRaw: false },
  },
];

/** The image before, and what it shows. */
async function prepare(
  next: Random,
  setting: WriteSetting,
  snapshots: number,
): Promise<{ files: MemoryFiles; model: ImageModel }> {
  const first = firstFiles(next, setting);
  const files = new MemoryFiles(first);
  const steps: StoryStep[] = [writes(next, setting)];
  for (let i = 0; i < snapshots; i++) {
    steps.push(taken(`s${i}`, randomBytes(next, next.pick([0, 1500]))), writes(next, setting));
  }
  let model: ImageModel = { content: firstContent(first, setting), snapshots: [] };
  const image = (await qcow2Engine().create(files, setting)) as Qcow2Image;
  for (const step of steps) {
    await step.run(image);
    model = step.after(model);
  }
  await image.close();
  return { files, model };
}

/** All names are names of the data file, but those of other files. */
function withDataFile(files: FileOpener): FileOpener {
  return { open: (name) => files.open(/elsewhere|long-/.test(name) ? DATA : name) };
}

async function verbOf(one: Case, next: Random): Promise<Verb> {
  const { first, amend, size, snapshots = 0, setting: fixed } = one;
  const setting: WriteSetting = { ...SMALL, size: SIZE, ...fixed };
  const { files, model } = await prepare(next, setting, snapshots);
  if (first) {
    const image = await openImage(files, setting);
    await image.amend(first);
    await image.close();
  }
  const allowed = [model, ...(size === undefined ? [] : [resized(size).after(model)])];
  const versions = [setting.version, amend.version ?? 3];
  return {
    before: files.all,
    async run(opener) {
      const image = await openImage(withDataFile(opener), setting);
      try {
        await image.amend(amend);
        if (size !== undefined) await image.resize(size);
      } finally {
        await image.close();
      }
    },
    async judge(found) {
      const version = versions.includes(2) ? 2 : 3;
      assertUndamaged(found, IMAGE, version);
      const opener = withDataFile(found);
      const image = await openImage(opener, setting);
      const wrong = await Promise.all(allowed.map((one) => mismatch(image, opener, one)));
      const seen = allowed[wrong.indexOf('')];
      if (!seen) throw new Error(`neither of what it may be:\n  ${wrong.join('\n  ')}`);
      const at = 512 * next.below(seen.content.length / 512);
      const bytes = randomBytes(next, Math.min(4096, seen.content.length - at));
      await image.write(at, bytes);
      const content = seen.content.slice();
      content.set(bytes, at);
      assert.is(await mismatch(image, opener, { ...seen, content }), '', 'after another write');
      await image.close();
      assertUndamaged(found, IMAGE, version);
      if (version === 3) assert.not.ok(checkQcow2(found.bytes(IMAGE)).dirty);
    },
  };
}

const test = suite('amend, power cuts and failing storage');

testVerbs(test, CASES, verbOf);

/** A change of key slots: a volume that two passphrases open, and who must still open it. */
const SLOT_CASES: readonly {
  readonly about: string;
  readonly change: KeySlotChange;
  readonly stays: readonly string[];
}[] = [
  {
    about: 'a new key slot',
    change: { state: 'active', newPassphrase: utf8('three'), iterTime: 1 },
    stays: ['one', 'two'],
  },
  {
    about: 'a key slot that lies in two sectors',
    change: { state: 'active', newPassphrase: utf8('three'), iterTime: 1, slot: 6 },
    stays: ['one', 'two'],
  },
  {
    about: 'a key slot goes',
    change: { state: 'inactive', oldPassphrase: utf8('two') },
    stays: ['one'],
  },
  {
    about: 'a key slot is overwritten by force',
    change: { state: 'active', newPassphrase: utf8('three'), iterTime: 1, slot: 1, force: true },
    stays: ['one'],
  },
];

async function slotVerb(
  { change, stays }: (typeof SLOT_CASES)[number],
  next: Random,
): Promise<Verb> {
  const files = MemoryFiles.empty(IMAGE);
  const open = (opener: FileOpener, secret: string) =>
    Qcow2Image.open(opener.open(IMAGE), { writable: true, secret });
  const encryption = { format: 'luks', passphrase: 'one', iterTime: 1 } as const;
  const options = { ...createOptions({ ...SMALL, clusterBits: 16 }), encryption };
  const image = await Qcow2Image.create(files.open(IMAGE), options, { secret: 'one' });
  await image.changeKeySlots({ state: 'active', newPassphrase: utf8('two'), iterTime: 1 });
  const content = randomBytes(next, image.size);
  await image.write(0, content);
  await image.close();
  return {
    before: files.all,
    async run(opener) {
      const disk = await open(opener, 'one');
      try {
        await disk.changeKeySlots(change).catch((cause) => {
          // Tried again, it may be done already.
          if (!isQcow2Error(cause, 'OUT_OF_RANGE')) throw cause;
        });
      } finally {
        await disk.close();
      }
    },
    async judge(found) {
      assertUndamaged(found, IMAGE, 3);
      const disk = await open(found, next.pick(stays));
      assert.is(firstDifference(await readWhole(disk), content), '');
      await disk.close();
    },
  };
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

testVerbs(test, SLOT_CASES, slotVerb);

test.run();
