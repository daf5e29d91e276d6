/**
 * `snapshot` of the tool and of qemu-img on equal copies: what they print, how they end, and what
 * the images are then. And both in turn on one image. Replay with SEED=…, longer with SLOW=1.
 */
import { copyFileSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { snapshot } from '../../src/cli/commands/snapshot.ts';
import { PagedBytes } from '../image/paged-bytes.ts';
import { checkQcow2 } from '../image/qcow2-check.ts';
import { qemuSuite } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import { difference, inScratch, qemuImg, qemuIo } from '../tool.ts';
import { type Outcome, ours, theirs } from './image-command.ts';
import {
  createImage,
  describe,
  fillCommands,
  type ImageSetting,
  randomSetting,
  writePattern,
} from './random-image.ts';

const IMAGES = process.env.SLOW ? 60 : 2;
const TURNS = process.env.SLOW ? 30 : 6;
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
  const [a, b] = ['a.qcow2', 'b.qcow2'].map((name) => statSync(join(folder, name)).size);
  assert.is(a, b, 'length of the file');
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
    const [a, b] = [join(folder, 'a.qcow2'), join(folder, 'b.qcow2')];
    copyFileSync(a, b);
    try {
      for (let i = 0; i < TURNS; i++) {
        const args = turn(next);
        log.push(`snapshot ${args.join(' ')}`);
        const { err } = await both(folder, args);
        // A refcount that is too narrow: QEMU leaks what it had counted by then, and we do not.
        if (/Invalid argument/.test(err)) copyFileSync(a, b);
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

const MESSAGES: readonly (readonly string[])[] = [
  [],
  ['-l', 'absent'],
  ['-l', 'a.qcow2', 'b.qcow2'],
  ['-l', '-c', 'x', 'a.qcow2'],
  ['-c'],
  ['-z', 'a.qcow2'],
  ['a.qcow2'],
  ['-q', '-c', 'x', 'absent'],
  ['-l', 'r.raw'],
  ['-c', 'x', 'r.raw'],
  ['-a', 'x', 'r.raw'],
  ['-d', 'x', 'r.raw'],
  ['-l', 'd.qcow2'],
  ['-c', 'x', 'd.qcow2'],
  ['-a', 'x', 'd.qcow2'],
  ['-d', 'x', 'd.qcow2'],
  ['-a', 'x', 'a.qcow2'],
  ['-d', 'x', 'a.qcow2'],
  ['-U', '-c', 'x', 'a.qcow2'],
  ['-U', '-l', 'a.qcow2'],
  ['-c', 'x', 'narrow.qcow2'],
  ['-c', 'x', 'bitmap.qcow2'],
  ['-a', 'x', 'bitmap.qcow2'],
  ['-c', 'x', 'v2.qcow2'],
  ['-c', 'n'.repeat(300), 'a.qcow2'],
  ['-l', 'a.qcow2'],
];

test('what it prints and how it ends is what qemu-img does', async () => {
  await inScratch(async (folder) => {
    const make = (options: string, name: string) =>
      qemuImg(['create', '-q', '-f', 'qcow2', '-o', options, name, '1M'], { cwd: folder });
    await make('cluster_size=64k', 'a.qcow2');
    await make('data_file=d.raw', 'd.qcow2');
    await make('refcount_bits=1', 'narrow.qcow2');
    await make('compat=0.10', 'v2.qcow2');
    await make('cluster_size=4k', 'bitmap.qcow2');
    await qemuImg(['create', '-q', '-f', 'raw', 'r.raw', '1M'], { cwd: folder });
    await qemuIo('narrow.qcow2', ['write 0 64k'], { cwd: folder });
    await qemuImg(['bitmap', '--add', 'bitmap.qcow2', 'b'], { cwd: folder });
    for (const args of MESSAGES) {
      const mine = undated(await ours(snapshot, folder, args));
      // The second to come would find what the first has made.
      if (mine.code === 0) await ours(snapshot, folder, ['-d', String(args[1]), String(args[2])]);
      const wanted = undated(await theirs('snapshot', folder, args));
      assert.equal(mine, wanted, args.join(' '));
    }
  });
});

test('both in turn on one image find what the other has left', async () => {
  for (let index = 0; index < (process.env.SLOW ? 40 : 2); index++) {
    const next = rng((SEED ^ Math.imul(index + 99, 0x9e3779b1)) | 0);
    const setting = randomSetting(next, { dataFile: 'none' });
    await inTurn(next, setting).catch((cause) => {
      const what = `SEED=${SEED} image ${index} ${describe(setting)}`;
      throw new Error(`${what}\n${cause.message}`, { cause });
    });
  }
});

/** Content of every snapshot and of the disk is kept beside, as raw files that qemu-img made. */
async function inTurn(next: Random, setting: ImageSetting): Promise<void> {
  await inScratch(async (folder) => {
    const cwd = { cwd: folder };
    writePattern(next, folder);
    await createImage(folder, 'a.qcow2', setting);
    await qemuIo('a.qcow2', fillCommands(next, setting, next.below(12)), cwd);
    const names: string[] = [];
    const read = async (options: readonly string[]) => {
      await qemuImg(['convert', '-O', 'raw', ...options, 'a.qcow2', 'now.raw'], cwd);
      return readFileSync(join(folder, 'now.raw'));
    };
    const kept = new Map<string, Buffer>();
    let count = 0;
    for (let i = 0; i < TURNS; i++) {
      const verb = next.pick(['-c', '-c', '-a', '-d', 'fill', 'fill']);
      if (verb === 'fill') {
        const plain = { ...setting, compression: 'none' } as const;
        await qemuIo('a.qcow2', fillCommands(next, plain, 5), cwd);
        continue;
      }
      const old = names.length > 0 ? next.pick(names) : undefined;
      if (verb !== '-c' && old === undefined) continue;
      const name = verb === '-c' ? `s${count++}` : (old as string);
      const before = await read([]);
      const by = next.oneIn(2) ? 'us' : 'QEMU';
      const args = [verb, name, 'a.qcow2'];
      const { code, err } =
        by === 'us' ? await ours(snapshot, folder, args) : await theirs('snapshot', folder, args);
      if (code !== 0) {
        assert.match(err, /-22 \(Invalid argument\)|load snapshot: Invalid argument/);
        // Streams that share a cluster count as often.
        const narrow = setting.compression === 'none' ? 2 : 8;
        assert.ok(setting.refcountBits <= narrow, err);
        // What QEMU leaks then is repaired before anyone goes on.
        await qemuImg(['check', '-q', '-r', 'all', 'a.qcow2'], cwd);
        continue;
      }
      if (verb === '-c') {
        names.push(name);
        kept.set(name, before);
      } else if (verb === '-d') names.splice(names.indexOf(name), 1);
      await sound(folder, 'a.qcow2');
      const active = verb === '-a' ? (kept.get(name) as Buffer) : before;
      assert.is(difference(await read([]), active), '', `${verb} ${name} by ${by}`);
      for (const one of names) {
        const found = await read(['-l', one]);
        assert.is(difference(found, kept.get(one) as Buffer), '', `${one} after ${verb} by ${by}`);
      }
    }
  });
}

test.run();
