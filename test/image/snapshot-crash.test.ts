// Power cuts and failing storage while snapshots are taken, applied and deleted: the image is as it
// was before, or as it is after, and whole. Replay a failure with SEED=…, all moments with SLOW=1.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import type { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { type Random, rng, SEED } from '../random.ts';
import { CrashFiles, type CrashState } from './crash-storage.ts';
import { FaultyFiles } from './faulty-storage.ts';
import { type Files, MemoryFiles } from './paged-bytes.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { qcow2Engine } from './qcow2-engine.ts';
import { SLOW } from './slow.ts';
import { type ImageModel, mismatch, openImage, type StoryStep, story } from './snapshot-story.ts';
import {
  describeSetting,
  firstContent,
  firstFiles,
  IMAGE,
  randomBytes,
  SMALL,
  type WriteSetting,
} from './write-engine.ts';

const kinds: readonly (readonly [name: string, fixed: Partial<WriteSetting>])[] = [
  ['small clusters', {}],
  ['clusters of 4 KiB', { clusterBits: 12, size: 128 * 1024 }],
  ['subclusters', { clusterBits: 14, extended: true, size: 512 * 1024 }],
  ['lazy refcounts', { lazy: true }],
  ['narrow refcounts', { refcountBits: 8 }],
  ['wide refcounts', { refcountBits: 64 }],
  ['version 2', { version: 2 }],
  ['a backing file', { backingBytes: 50_000 }],
  ['an L1 table of several sectors', { size: 4 * 1024 * 1024 }],
];

/** What an image may say against itself without being damaged. */
function damage(files: MemoryFiles, setting: WriteSetting): readonly string[] {
  const { corruptions } = checkQcow2(files.bytes(IMAGE));
  // Version 2 has no dirty bit, so its flags may lag behind; what that can harm is looked at.
  return setting.version === 2 ? corruptions.filter((one) => !/COPIED/.test(one)) : corruptions;
}

/** Opens what is left, compares it, and lets life go on. */
async function judge(
  files: MemoryFiles,
  setting: WriteSetting,
  allowed: readonly ImageModel[],
  next: Random,
): Promise<void> {
  assert.equal(damage(files, setting), [], 'corruption found');
  const image = await openImage(files, setting);
  const wrong = await Promise.all(allowed.map((model) => mismatch(image, files, model)));
  const found = allowed[wrong.indexOf('')];
  if (!found) throw new Error(`neither of what it may be:\n  ${wrong.join('\n  ')}`);
  const at = 512 * next.below(found.content.length / 512);
  const bytes = randomBytes(next, Math.min(4096, found.content.length - at));
  await image.write(at, bytes);
  const content = found.content.slice();
  content.set(bytes, at);
  assert.is(await mismatch(image, files, { ...found, content }), '', 'after another write');
  await image.close();
  assert.equal(damage(files, setting), [], 'corruption left by the next writer');
  if (setting.version === 3) assert.not.ok(checkQcow2(files.bytes(IMAGE)).dirty);
}

/** @returns how many moments there were */
async function powerCuts(setting: WriteSetting, next: Random): Promise<number> {
  const first = firstFiles(next, setting);
  const files = new CrashFiles(first);
  const image = (await qcow2Engine(4096).create(files, setting)) as Qcow2Image;
  await image.flush();
  let model: ImageModel = { content: firstContent(first, setting), snapshots: [] };
  const eras: { start: number; end: number; step: StoryStep; allowed: ImageModel[] }[] = [];
  for (const step of story(next, setting)) {
    const start = files.position;
    await step.run(image);
    const after = step.after(model);
    if (step.atomic) eras.push({ start, end: files.position, step, allowed: [model, after] });
    model = after;
    assert.is(await mismatch(image, files.now, model), '', `after ${step.about}`);
  }
  await image.close();
  const left = checkQcow2(files.now.bytes(IMAGE));
  assert.equal([left.corruptions, left.leaks, left.dirty], [[], 0, false]);
  // Which moments are tried is chance; that there are enough to choose from is none.
  const moments = eras.reduce((sum, { start, end }) => sum + end - start, 0);
  const judgeState = async (state: CrashState) => {
    const era = eras.find(({ start, end }) => start <= state.cut && state.cut <= end);
    if (!era) return;
    await judge(state.files, setting, era.allowed, next).catch((cause) => {
      const events = files.describe(Math.max(era.start, state.cut - 25), state.cut);
      const what = `${era.step.about}\n${state.about}\nevents until then:\n${events}`;
      throw new Error(`${cause.message}\n${what}`, { cause });
    });
  };
  const options = SLOW ? { subsets: 4 } : { subsets: 1, cutsMax: 25 };
  for (const state of files.states(next, options)) await judgeState(state);
  return moments;
}

/** Lets the storage fail once, at call number `index` of a kind, somewhere in the story. */
async function failing(
  setting: WriteSetting,
  seed: number,
  plan: { kind: 'read' | 'write' | 'flush'; index: number; forever: boolean },
): Promise<boolean> {
  const next = rng(seed);
  const first = firstFiles(next, setting);
  const memory = new MemoryFiles(first);
  const files: Files & FaultyFiles = new FaultyFiles(memory);
  const image = (await qcow2Engine(4096).create(files, setting)) as Qcow2Image;
  await image.flush();
  let allowed: ImageModel[] = [{ content: firstContent(first, setting), snapshots: [] }];
  const partial = next.pick(['none', 'half', 'all'] as const);
  const arm = () =>
    files.arm({ kinds: [plan.kind], how: 'IO', forever: plan.forever, partial, index: calls() });
  const calls = () => Math.max(0, plan.index - seen);
  let seen = 0;
  for (const step of story(next, setting)) {
    const [model] = allowed as [ImageModel];
    if (step.atomic) arm();
    const before = files.counts[plan.kind];
    try {
      await step.run(image);
      allowed = [step.after(model)];
    } catch (cause) {
      if (!isQcow2Error(cause) || files.failures === 0) throw cause;
      allowed = [model, step.after(model)];
    }
    if (files.failures > 0) break;
    if (step.atomic) seen += files.counts[plan.kind] - before;
    files.arm();
  }
  const failed = files.failures > 0;
  await image.close().catch((cause) => {
    if (!isQcow2Error(cause) || !plan.forever) throw cause;
  });
  files.arm();
  await judge(memory, setting, allowed, next);
  return failed;
}

const test = suite('snapshots, power cuts and failing storage');

for (const [kind, [name, fixed]] of kinds.entries()) {
  const setting = { ...SMALL, size: 80 * 1024, ...fixed };

  test(`a power cut leaves the image before or after, with ${name}`, async () => {
    const next = rng((SEED ^ Math.imul(kind + 1, 0x9e3779b1)) | 0);
    const moments = await powerCuts(setting, next).catch((cause) => {
      throw new Error(`SEED=${SEED} ${describeSetting(setting)}\n${cause.message}`, { cause });
    });
    assert.ok(moments > 10);
  });

  test(`so does storage that fails, with ${name}`, async () => {
    const next = rng((SEED ^ Math.imul(kind + 77, 0x9e3779b1)) | 0);
    const stride = SLOW ? 1 : 97;
    for (const fault of ['read', 'write', 'flush'] as const) {
      for (let index = next.below(stride); ; index += stride) {
        const plan = { kind: fault, index, forever: next.oneIn(2) };
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
