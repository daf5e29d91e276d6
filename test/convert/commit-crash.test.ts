// Power cuts and failing storage while an image is committed into one that it is backed by: what
// it shows stays the same. Replay a failure with SEED=…, all moments with SLOW=1.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { commitDisk } from '../../src/convert/commit.ts';
import type { Disk, WritableDisk } from '../../src/image/disk.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { RawImage } from '../../src/image/raw/raw-image.ts';
import { answeringLater } from '../image/later-storage.ts';
import { type FileOpener, MemoryFiles } from '../image/paged-bytes.ts';
import { createOptions } from '../image/qcow2-engine.ts';
import { assertUndamaged, testVerbs, type Verb } from '../image/verb-crash.ts';
import { randomWorkload, send } from '../image/workload.ts';
import {
  firstDifference,
  randomBytes,
  readWhole,
  SMALL,
  type WriteSetting,
} from '../image/write-engine.ts';
import type { Random } from '../random.ts';

/** An image of a chain; the one behind all is raw where it has no setting. */
type Link = Partial<WriteSetting> | { readonly rawBytes: number };

interface Case {
  readonly about: string;
  /** From the top down. */
  readonly chain: readonly Link[];
  /** Steps down from the top. */
  readonly base: number;
  /** The top image stays as it is. */
  readonly drop?: boolean;
  /** The host writes while the next bytes are read. */
  readonly later?: boolean;
}

const SIZE = 60 * 1024;

const CASES: readonly Case[] = [
  { about: 'into a raw image', chain: [{}, { rawBytes: SIZE }], base: 1 },
  { about: 'into a shorter raw image', chain: [{}, { rawBytes: 20_000 }], base: 1 },
  { about: 'and kept', chain: [{}, { rawBytes: SIZE }], base: 1, drop: true },
  { about: 'into an image', chain: [{}, {}], base: 1 },
  { about: 'into a shorter image', chain: [{}, { size: SIZE / 2 }], base: 1 },
  {
    about: 'into a shorter image of an older version',
    chain: [{ version: 2 }, { version: 2, size: SIZE / 2 }, { rawBytes: 2 * SIZE }],
    base: 1,
  },
  { about: 'into a longer image', chain: [{}, { size: 2 * SIZE }], base: 1 },
  { about: 'through another one', chain: [{}, { size: 2 * SIZE }, {}], base: 2, drop: true },
  { about: 'into the middle', chain: [{}, { size: SIZE / 2 }, { rawBytes: 2 * SIZE }], base: 1 },
  {
    about: 'into subclusters, with lazy refcounts',
    chain: [{ lazy: true }, { lazy: true, extended: true, clusterBits: 14, size: 2 * SIZE }],
    base: 1,
  },
  { about: 'later into a raw image', chain: [{}, { rawBytes: SIZE }], base: 1, later: true },
  { about: 'later into an image', chain: [{}, { size: SIZE / 2 }], base: 1, later: true },
];

const nameOf = (step: number) => `image-${step}`;
const isRaw = (link: Link | undefined): link is { readonly rawBytes: number } =>
  link !== undefined && 'rawBytes' in link;

/** Opens the chain from one step on, the top and the base to be written. */
async function openChain(
  files: FileOpener,
  one: Case,
  {
    step = 0,
    writable = [0, one.base],
  }: { readonly step?: number; readonly writable?: number[] } = {},
): Promise<WritableDisk> {
  const { chain, later } = one;
  const file = files.open(nameOf(step));
  const storage = later ? answeringLater(file) : file;
  const own = { writable: writable.includes(step), depth: step };
  if (isRaw(chain[step])) return RawImage.open(storage, own);
  return Qcow2Image.open(storage, {
    ...own,
    cacheBytes: 65536,
    backing: (): Promise<Disk> => openChain(files, one, { step: step + 1, writable }),
  });
}

async function prepare(next: Random, one: Case): Promise<MemoryFiles> {
  const { chain } = one;
  const files = MemoryFiles.empty(...chain.map((_, step) => nameOf(step)));
  for (let step = chain.length - 1; step >= 0; step--) {
    const link = chain[step] as Link;
    if (isRaw(link)) {
      files.bytes(nameOf(step)).write(0, randomBytes(next, link.rawBytes));
      continue;
    }
    const setting: WriteSetting = { ...SMALL, size: SIZE, ...link };
    const backing = step + 1 < chain.length ? { backing: { name: nameOf(step + 1) } } : {};
    const made = await Qcow2Image.create(
      files.open(nameOf(step)),
      { ...createOptions(setting), ...backing },
      { backing: () => openChain(files, one, { step: step + 1, writable: [] }) },
    );
    const batches = randomWorkload(next, setting, { batches: 8, resize: false });
    for (const request of batches.flat()) await send(made, request);
    await made.close();
  }
  return files;
}

async function verbOf(one: Case, next: Random): Promise<Verb> {
  const files = await prepare(next, one);
  const top = await openChain(files, one, { writable: [] });
  const content = await readWhole(top);
  await top.close();
  const versions = one.chain.map((link) => (isRaw(link) ? undefined : (link.version ?? 3)));
  return {
    before: files.all,
    async run(opener) {
      const disk = (await openChain(opener, one)) as Qcow2Image;
      try {
        let base: Disk = disk;
        for (let step = 0; step < one.base; step++) base = (base as Qcow2Image).backing as Disk;
        await commitDisk(disk, base as WritableDisk);
        if (!one.drop) await disk.makeEmpty();
      } finally {
        await disk.close();
      }
    },
    async judge(found) {
      const undamaged = () => {
        for (const [step, version] of versions.entries()) {
          if (version !== undefined) assertUndamaged(found, nameOf(step), version);
        }
      };
      undamaged();
      const read = async (about: string) => {
        const disk = await openChain(found, one, { writable: [] });
        assert.is(firstDifference(await readWhole(disk), content), '', about);
        await disk.close();
      };
      await read('what the image shows');
      const disk = await openChain(found, one);
      const at = 512 * next.below(content.length / 512);
      const bytes = randomBytes(next, Math.min(4096, content.length - at));
      const old = content.slice(at, at + bytes.length);
      await disk.write(at, bytes);
      await disk.write(at, old);
      await disk.close();
      undamaged();
      await read('after another write');
    },
  };
}

const test = suite('commit, power cuts and failing storage');

testVerbs(test, CASES, verbOf);

test.run();
