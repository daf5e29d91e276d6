/**
 * `check` must say what qemu-img says of sound and of damaged images, and leave them as sound.
 * Replay with SEED=…; SLOW=1 tries hundreds.
 */
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { check } from '../../src/cli/commands/check.ts';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import { difference, eachAtOnce, inScratch, qemuImg, qemuIo, run } from '../tool.ts';
import { damage } from './damage.ts';
import { type Outcome, ours } from './image-command.ts';
import {
  type Backing,
  createImage,
  describe,
  fillCommands,
  type ImageSetting,
  makeRaw,
  randomSetting,
  writePattern,
} from './random-image.ts';

const IMAGES = process.env.SLOW ? 200 : 6;
const MODES = [[], ['-r', 'leaks'], ['-r', 'all'], ['--output=json']] as const;

/** A small image with whatever its setting allows: snapshots, bitmaps, compressed clusters. */
async function makeImage(next: Random, folder: string): Promise<ImageSetting> {
  let setting = randomSetting(next);
  setting = { ...setting, size: Math.min(setting.size, 512 * (200 + next.below(2000))) };
  writePattern(next, folder);
  let backing: Backing | undefined;
  if (setting.dataFile !== 'raw' && next.oneIn(5)) {
    await makeRaw(next, folder, 'base.raw', setting.size);
    backing = { name: `${folder}/base.raw`, format: 'raw', stated: !next.oneIn(3) };
  }
  await createImage(folder, 'image', setting, backing);
  const cwd = folder;
  await qemuIo('image', fillCommands(next, setting, next.pick([2, 6, 12])), { cwd });
  const plain = { ...setting, compression: 'none' as const };
  // Narrow refcounts may be used up by the compressed clusters that share one.
  const isWide = setting.refcountBits > (setting.compression === 'none' ? 2 : 8);
  const snapshots = setting.dataFile === 'none' && isWide ? next.below(3) : 0;
  for (let i = snapshots; i > 0; i--) {
    await qemuImg(['snapshot', '-c', `s${i}`, 'image'], { cwd });
    await qemuIo('image', fillCommands(next, plain, 3), { cwd });
  }
  // With both, a repair by QEMU 7.2 forgets the snapshots as it opens the image.
  if (snapshots === 0 && setting.version === 3 && next.oneIn(2)) {
    await qemuImg(['bitmap', '--add', 'image', 'b0'], { cwd });
    await qemuIo('image', fillCommands(next, plain, 2), { cwd });
  }
  return setting;
}

/** Writes an image, and now and then less of it, or more than it is. */
function changeEnd(next: Random, image: Buffer, path: string): string {
  const lost = next.oneIn(8) ? next.below(image.length / 2) : 0;
  const more = Buffer.alloc(next.oneIn(8) ? next.below(70_000) : 0);
  writeFileSync(path, Buffer.concat([image.subarray(0, image.length - lost), more]));
  return `${lost} bytes less, ${more.length} more`;
}

/** What may differ: where QEMU gives up, crashes, or does damage. */
function isPardoned(mine: Outcome, expected: Outcome): boolean {
  const gaveUp = /Marking image as corrupt|Preventing invalid write/.test(expected.err);
  const isGrown = (outcome: Outcome) => !/Could not resize file/.test(outcome.err);
  // It makes files so long that no refcount table is large enough for them, and no memory.
  const overgrown = isGrown(expected) && !isGrown(mine);
  return expected.code === null || (gaveUp && mine.code !== null) || (overgrown && mine.code === 0);
}

/** What QEMU says of bitmaps that it would have written anew, as it closes a broken image. */
const OF_BITMAPS = /^(qcow2_free_clusters failed|.*Lost persistent bitmaps).*\n/gm;

/** A run's end as text. */
function shown({ code, out, err }: Outcome): string {
  return `exit code ${code}\n${out}${err.replace(OF_BITMAPS, '')}`;
}

/** Kibibytes of addresses: where QEMU counts the clusters of a file of terabytes, it takes all. */
const THEIRS_KIB_MAX = 2 ** 21;

async function theirsWithinLimit(cwd: string, line: readonly string[]): Promise<Outcome> {
  const limited = ['-c', `ulimit -v ${THEIRS_KIB_MAX}; exec "$@"`, 'sh', requireQemu().img];
  const { code, stdout, stderr } = await run('sh', [...limited, 'check', ...line], { cwd });
  return { code, out: stdout.toString(), err: stderr };
}

/** Both tools check, each its own copy; says what is different. */
async function compareTools(
  folder: string,
  args: readonly string[],
): Promise<{ mine: Outcome; pardoned: boolean }> {
  const folders = ['ours', 'theirs'].map((name) => `${folder}/${name}`);
  for (const one of folders) {
    mkdirSync(one, { recursive: true });
    for (const name of readdirSync(folder)) {
      if (name.startsWith('image')) copyFileSync(`${folder}/${name}`, `${one}/${name}`);
    }
  }
  const line = [...args, 'image'];
  const mine = await ours(check, folders[0]!, line);
  const expected = await theirsWithinLimit(folders[1]!, line);
  const pardoned = isPardoned(mine, expected);
  if (!pardoned) assert.is(shown(mine), shown(expected));
  return { mine, pardoned };
}

/** After a repair our copy is sound for QEMU too, and reads as its own copy does. */
async function compareRepaired(folder: string, mine: Outcome, pardoned: boolean): Promise<void> {
  const { img } = requireQemu();
  if (mine.code === 0) {
    const again = await run(img, ['check', 'ours/image'], { cwd: folder });
    assert.is(again.code, 0, `${again.stdout}${again.stderr}`);
  }
  // As it closes an image QEMU writes bitmaps anew, to clusters that broken entries may still name.
  const hasBitmaps = readFileSync(`${folder}/image`).includes(Buffer.from('23852875', 'hex'));
  if (pardoned || (mine.code !== 0 && hasBitmaps)) return;
  const read = (name: string) =>
    // One request at a time: errors come in the same order.
    run(img, ['convert', '-m', '1', '-O', 'raw', 'image', '../raw'], { cwd: `${folder}/${name}` });
  const bytes: (Buffer | string)[] = [];
  for (const name of ['ours', 'theirs']) {
    const { code, stderr } = await read(name);
    bytes.push(code === 0 ? readFileSync(`${folder}/raw`) : stderr);
  }
  const [left, right] = bytes as [Buffer | string, Buffer | string];
  if (typeof left === 'string' || typeof right === 'string') assert.is(left, right);
  else assert.is(difference(left, right), '');
}

const test = qemuSuite('check, against qemu-img');

test('sound images, and damaged ones, repaired', async () => {
  const failures: string[] = [];
  const numbers = Array.from({ length: IMAGES }, (_, i) => i);
  await eachAtOnce(numbers, async (number) => {
    const seed = (SEED ^ Math.imul(number + 1, 0x9e3779b1)) | 0;
    const next = rng(seed);
    await inScratch(async (folder) => {
      const about: string[] = [`SEED=${SEED} image ${number}`];
      try {
        about.push(describe(await makeImage(next, folder)));
        const sound = readFileSync(`${folder}/image`);
        for (let round = 0; round < 3; round++) {
          const image = Buffer.from(sound);
          about.length = 2;
          for (let i = round === 0 ? 0 : next.pick([1, 1, 2, 4]); i > 0; i--) {
            about.push(damage(next, image) ?? 'nothing');
          }
          if (round > 0) about.push(changeEnd(next, image, `${folder}/image`));
          else writeFileSync(`${folder}/image`, image);
          for (const mode of round === 0 ? MODES.slice(2) : MODES) {
            about.push(`check ${mode.join(' ')}`);
            const { mine, pardoned } = await compareTools(folder, mode);
            if (mode.length === 2) await compareRepaired(folder, mine, pardoned);
            about.pop();
          }
        }
      } catch (cause) {
        const { message, details = '' } = cause as Error & { details?: string };
        failures.push(`${about.join('\n')}\n${message}\n${details}`);
      }
    });
  });
  assert.is(failures.join('\n\n'), '');
});

test.run();
