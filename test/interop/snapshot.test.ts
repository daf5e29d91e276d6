/**
 * `snapshot` of the tool and of qemu-img on equal copies: what they print, how they end, and what
 * the images are then. And both in turn on one image. Replay with SEED=…, longer with SLOW=1.
 */
import { copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { snapshot } from '../../src/cli/commands/snapshot.ts';
import { PagedBytes } from '../image/paged-bytes.ts';
import { checkQcow2 } from '../image/qcow2-check.ts';
import { qemuSuite } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import { difference, inScratch, qemuImg, qemuIo } from '../tool.ts';
import { type Outcome, ours, theirs } from './image-command.ts';
import { createImage, describe, fillCommands, type ImageSetting, randomSetting, writePattern } from './random-image.ts';

const IMAGES = process.env.SLOW ? 60 : 5;
const TURNS = process.env.SLOW ? 30 : 9;
const NAMES = ['one', 'two', '1', '2', '3', '', 'ünï', 'a name with spaces'];

/** Dates are of the moment. */
function undated({ code, out, err }: Outcome): Outcome {
  return { code, out: out.replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, 'DATE'), err };
}

async function both(folder: string, args: readonly string[]): Promise<Outcome> {
  const [a, b] = ['a.qcow2', 'b.qcow2'];
  const mine = undated(await ours(snapshot, folder, [...args, a]));
  const wanted = undated(await theirs('snapshot', folder, [...args, b]));
  const named = (outcome: Outcome) => JSON.stringify(outcome).replaceAll(b, a);
  assert.is(named(mine), named(wanted), `snapshot ${args.join(' ')}`);
  return mine;
}

async function sound(folder: string, name: string): Promise<void> {
  await qemuImg(['check', '-q', name], { cwd: folder });
  const bytes = PagedBytes.from(readFileSync(join(folder, name)));
  const { corruptions, leaks, dirty } = checkQcow2(bytes);
  assert.equal({ corruptions, leaks, dirty }, { corruptions: [], leaks: 0, dirty: false });
}

async function same(folder: string): Promise<void> {
  await sound(folder, 'a.qcow2');
  await qemuImg(['compare', '-q', 'a.qcow2', 'b.qcow2'], { cwd: folder });
  const map = async (name: string) =>
    (await qemuImg(['map', '--output=json', name], { cwd: folder })).toString();
  assert.is(await map('a.qcow2'), await map('b.qcow2'), 'map');
  await both(folder, ['-l']);
}

function turn(next: Random): string[] {
  const name = next.pick(NAMES);
  return [next.pick(['-c', '-c', '-c', '-a', '-a', '-d', '-d']), name];
}

async function equalCopies(next: Random, setting: ImageSetting): Promise<void> {
  await inScratch(async (folder) => {
    writePattern(next, folder);
    await createImage(folder, 'a.qcow2', setting);
    const log: string[] = [];
    const fill = async () => {
      const commands = fillCommands(next, { ...setting, compression: 'none' }, next.below(8));
      log.push(...commands);
      for (const name of ['a.qcow2', 'b.qcow2']) await qemuIo(name, commands, { cwd: folder });
    };
    await qemuIo('a.qcow2', fillCommands(next, setting, next.below(12)), { cwd: folder });
    copyFileSync(join(folder, 'a.qcow2'), join(folder, 'b.qcow2'));
    try {
      for (let i = 0; i < TURNS; i++) {
        const args = turn(next);
        log.push(`snapshot ${args.join(' ')}`);
        await both(folder, args);
        await same(folder);
        if (next.oneIn(2)) {
          await fill();
          await same(folder);
        }
      }
    } catch (cause) {
      const steps = log.join('\n');
      throw new Error(`${(cause as Error).message}\n${describe(setting)}\n${steps}`, { cause });
    }
  });
}

const test = qemuSuite('snapshot');

test('on equal copies both do the same, to the place of every cluster', async () => {
  for (let index = 0; index < IMAGES; index++) {
    const next = rng((SEED ^ Math.imul(index + 1, 0x9e3779b1)) | 0);
    const setting = randomSetting(next, { dataFile: 'none' });
    await equalCopies(next, setting).catch((cause) => {
      throw new Error(`SEED=${SEED} image ${index}\n${cause.message}`, { cause });
    });
  }
});

test.run();
