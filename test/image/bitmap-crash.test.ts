// Power cuts and failing storage while bitmaps change and follow writes: the image is whole, and a
// bitmap that says it can be believed can. Replay a failure with SEED=…, all moments with SLOW=1.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import type { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { type Random, rng, SEED } from '../random.ts';
import { CrashFiles } from './crash-storage.ts';
import { FaultyFiles } from './faulty-storage.ts';
import { MemoryFiles } from './paged-bytes.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { qcow2Engine } from './qcow2-engine.ts';
import { SLOW } from './slow.ts';
import { openImage } from './snapshot-story.ts';
import {
  describeSetting,
  firstContent,
  firstDifference,
  firstFiles,
  IMAGE,
  randomBytes,
  readWhole,
  SMALL,
  type WriteSetting,
} from './write-engine.ts';

/** Bits of a bitmap that the model knows, by name. */
interface Model {
  readonly content: Uint8Array;
  readonly bitmaps: ReadonlyMap<string, string>;
  /** Those that follow what is written. */
  readonly enabled: ReadonlySet<string>;
}

type Phase = (image: Qcow2Image) => Promise<void>;

async function bitsOf(image: Qcow2Image, name: string): Promise<string> {
  const ranges: string[] = [];
  for await (const { guest, length } of image.bitmaps.ranges(name)) {
    ranges.push(`${guest}+${length}`);
  }
  return ranges.join(' ');
}

async function look(files: MemoryFiles, setting: WriteSetting): Promise<Model> {
  const image = await openImage(files, setting);
  const bitmaps = new Map<string, string>();
  const enabled = new Set<string>();
  for (const { name, inconsistent, enabled: follows } of image.bitmaps.list()) {
    if (follows) enabled.add(name);
    bitmaps.set(name, inconsistent ? 'inconsistent' : await bitsOf(image, name));
  }
  const content = await readWhole(image);
  await image.close();
  return { content, bitmaps, enabled };
}

/** What is done between an open and a close. */
function phases(next: Random, { size }: WriteSetting): Phase[] {
  const write = async (image: Qcow2Image) => {
    for (let i = 0; i < 4; i++) {
      const at = 512 * next.below(image.size / 512);
      const length = Math.min(image.size - at, 512 * (1 + next.below(20)));
      const kind = next.below(3);
      if (kind === 0) await image.zero(at, length, { unmap: true });
      else await image.write(at, randomBytes(next, length).fill(i + 1, 0, 1));
      if (next.oneIn(2)) await image.flush();
    }
  };
  return [
    (image) => image.bitmaps.add('fine', { granularity: 512 }),
    (image) => image.bitmaps.add('off', { granularity: 1024, enabled: false }),
    write,
    (image) => image.bitmaps.set('off', { guest: 0, length: size / 2 }),
    (image) => image.bitmaps.merge('off', 'fine'),
    write,
    (image) => image.bitmaps.enable('off'),
    (image) => image.bitmaps.clear('fine'),
    write,
    (image) => image.resize(size * 2),
    write,
    (image) => image.resize(size),
    (image) => image.bitmaps.remove('fine'),
    (image) => image.bitmaps.clear('off', { guest: 0, length: size / 4 }),
    (image) => image.bitmaps.remove('off'),
  ];
}

/** Judges what a crash or a failure has left between two models. */
async function judge(files: MemoryFiles, setting: WriteSetting, before: Model, after: Model) {
  const { corruptions } = checkQcow2(files.bytes(IMAGE));
  assert.equal(corruptions, [], 'corruption');
  const found = await look(files, setting);
  const changed =
    found.content.length !== before.content.length ||
    firstDifference(found.content, before.content) !== '';
  for (const [name, bits] of found.bitmaps) {
    if (bits === 'inconsistent') continue;
    const [old, now] = [before.bitmaps.get(name), after.bitmaps.get(name)];
    assert.ok(bits === old || bits === now, `${name}: ${bits}\nnot ${old}\nnor ${now}`);
    // Bits that do not know of a change must not be believed.
    if (bits !== now && found.content.length === before.content.length) {
      assert.not.ok(changed, `${name} is to be believed, and does not know of a change`);
    }
  }
  const left = checkQcow2(files.bytes(IMAGE));
  assert.equal([left.corruptions, left.dirty], [[], false], 'left by the next writer');
}

async function powerCuts(setting: WriteSetting, next: Random): Promise<number> {
  const first = firstFiles(next, setting);
  const files = new CrashFiles(first);
  const fresh = await qcow2Engine(4096).create(files, setting);
  await fresh.close();
  let before: Model = {
    content: firstContent(first, setting),
    bitmaps: new Map(),
    enabled: new Set(),
  };
  const eras: { start: number; end: number; before: Model; after: Model; about: string }[] = [];
  for (const [index, phase] of phases(next, setting).entries()) {
    const start = files.position;
    const image = await openImage(files, setting);
    await phase(image);
    await image.close();
    const after = await look(files.now, setting);
    for (const bits of after.bitmaps.values()) assert.is.not(bits, 'inconsistent');
    const { corruptions, leaks } = checkQcow2(files.now.bytes(IMAGE));
    assert.equal([corruptions, leaks], [[], 0], `phase ${index}`);
    eras.push({ start, end: files.position, before, after, about: `phase ${index}` });
    before = after;
  }
  assert.is(before.bitmaps.size, 0);
  let count = 0;
  const options = SLOW ? { subsets: 4 } : { subsets: 1, cutsMax: 50 };
  for (const state of files.states(next, options)) {
    const era = eras.find(({ start, end }) => start <= state.cut && state.cut <= end);
    if (!era) continue;
    count++;
    await judge(state.files, setting, era.before, era.after).catch((cause) => {
      const events = files.describe(Math.max(era.start, state.cut - 25), state.cut);
      throw new Error(`${cause.message}\n${era.about}\n${state.about}\n${events}`, { cause });
    });
  }
  return count;
}

async function failing(
  setting: WriteSetting,
  seed: number,
  plan: { readonly kind: 'read' | 'write' | 'flush' | 'zero'; readonly index: number },
): Promise<boolean> {
  const next = rng(seed);
  const memory = new MemoryFiles(firstFiles(next, setting));
  const files = new FaultyFiles(memory);
  const partial = next.pick(['none', 'half', 'all'] as const);
  await (await qcow2Engine(4096).create(files, setting)).close();
  let seen = 0;
  for (const phase of phases(next, setting)) {
    const before = await look(memory, setting);
    const image = await openImage(files, setting);
    files.arm({ kinds: [plan.kind], how: 'IO', partial, index: Math.max(0, plan.index - seen) });
    const started = files.counts[plan.kind];
    const failed = (cause: unknown) => {
      if (!isQcow2Error(cause) || files.failures === 0) throw cause;
    };
    await phase(image).catch(failed);
    await image.close().catch(failed);
    files.arm();
    if (files.failures > 0) {
      // A phase with writes is judged by the writes' own proofs; here, that bitmaps tell the truth.
      const { corruptions } = checkQcow2(memory.bytes(IMAGE));
      assert.equal(corruptions, []);
      const found = await look(memory, setting);
      const same = firstDifference(found.content, before.content) === '';
      for (const [name, bits] of found.bitmaps) {
        if (bits === 'inconsistent' || same || !before.enabled.has(name)) continue;
        assert.ok(covers(bits, found.content, before.content), `${name} misses a change`);
      }
      return true;
    }
    seen += files.counts[plan.kind] - started;
  }
  return false;
}

/** Whether ranges cover every byte that differs. */
function covers(bits: string, now: Uint8Array, before: Uint8Array): boolean {
  const set = new Uint8Array(now.length);
  for (const range of bits.split(' ').filter((one) => one !== '')) {
    const [guest, length] = range.split('+').map(Number) as [number, number];
    set.fill(1, guest, guest + length);
  }
  const end = Math.min(now.length, before.length);
  for (let at = 0; at < end; at++) if (now[at] !== before[at] && set[at] === 0) return false;
  return true;
}

const kinds: readonly (readonly [name: string, fixed: Partial<WriteSetting>])[] = [
  ['small clusters', { clusterBits: 9, size: 3 * 2 ** 20 }],
  ['clusters of 4 KiB', { clusterBits: 12, size: 256 * 1024 }],
  ['subclusters', { clusterBits: 14, extended: true, size: 512 * 1024 }],
  ['lazy refcounts', { clusterBits: 12, lazy: true, size: 256 * 1024 }],
  ['a backing file', { clusterBits: 12, backingBytes: 50_000, size: 256 * 1024 }],
];

const test = suite('bitmaps, power cuts and failing storage');

for (const [kind, [name, fixed]] of kinds.entries()) {
  const setting = { ...SMALL, ...fixed };

  test(`no power cut makes a bitmap lie, with ${name}`, async () => {
    const next = rng((SEED ^ Math.imul(kind + 1, 0x9e3779b1)) | 0);
    const states = await powerCuts(setting, next).catch((cause) => {
      throw new Error(`SEED=${SEED} ${describeSetting(setting)}\n${cause.message}`, { cause });
    });
    assert.ok(states > 10);
  });

  test(`no failure of the storage does, with ${name}`, async () => {
    const next = rng((SEED ^ Math.imul(kind + 77, 0x9e3779b1)) | 0);
    const stride = SLOW ? 1 : 31;
    for (const fault of ['read', 'write', 'flush', 'zero'] as const) {
      for (let index = next.below(stride); ; index += stride) {
        const plan = { kind: fault, index };
        const failed = await failing(setting, SEED, plan).catch((cause) => {
          const what = `SEED=${SEED} ${describeSetting(setting)}\n${JSON.stringify(plan)}`;
          throw new Error(`${what}\n${cause.message}`, { cause });
        });
        if (!failed) break;
      }
    }
  });
}

test.run();
