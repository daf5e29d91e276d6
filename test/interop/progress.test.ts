// `-p` where a program reads it: the very percentages of qemu-img, for random disks and chains.
import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { Command } from '../../src/cli/command.ts';
import { compare } from '../../src/cli/commands/compare.ts';
import { convert } from '../../src/cli/commands/convert.ts';
import { rebase } from '../../src/cli/commands/rebase.ts';
import { qemuSuite } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import { inScratch, qemuImg, qemuIo } from '../tool.ts';
import { ours, theirs } from './image-command.ts';

const RUNS = process.env.SLOW ? 25 : 4;
const test = qemuSuite('progress, beside qemu-img');

const MIB = 2 ** 20;

/** A qcow2 image with data here and there: long runs, small ones, zeros. */
async function makeImage(next: Random, cwd: string, name: string, backing?: string) {
  const clusterBits = next.pick([9, 12, 16, 16, 16, 21]);
  const options = [`cluster_size=${2 ** clusterBits}`];
  if (clusterBits >= 14 && next.oneIn(4)) options.push('extended_l2=on');
  const size = next.pick([0, 65_536, MIB, 3_000_320, 33 * MIB, 100 * MIB, 100 * MIB, 700 * MIB]);
  const named = backing ? ['-F', 'qcow2', '-b', backing] : [];
  const create = ['create', '-q', '-f', 'qcow2', '-o', options.join(','), ...named, name];
  await qemuImg([...create, String(size)], { cwd });
  const commands: string[] = [];
  for (let count = next.below(9); count > 0 && size > 0; count--) {
    const at = next.below(size / 512) * 512;
    const most = Math.min(size - at, next.pick([512, 70_000, 3 * MIB, 20 * MIB]));
    const length = Math.max(512, Math.floor(most / 512) * 512);
    commands.push(`write ${next.pick(['-P 7', '-P 7', '-P 7', '-z'])} ${at} ${length}`);
  }
  if (commands.length > 0) await qemuIo(name, commands, { cwd });
  return [...create, size, ...commands].join(' ');
}

async function sameSteps(command: Command, folder: string, line: string, title: string) {
  const args = line
    .split(' ')
    .filter((arg) => arg !== '')
    .map((arg) => (arg === '""' ? '' : arg));
  const folders = ['ours', 'theirs'].map((name) => join(folder, name)) as [string, string];
  const expected = await theirs(command.name, folders[1], args);
  assert.equal(await ours(command, folders[0], args), expected, `${title}\n${line}`);
  assert.match(expected.out, '(0.00/100%)');
}

test('random disks', async () => {
  for (let index = 0; index < RUNS; index++) {
    const next = rng(SEED * 1000 + index);
    await inScratch(async (folder) => {
      const cwd = join(folder, 'ours');
      mkdirSync(cwd);
      const made = [
        await makeImage(next, cwd, 'base'),
        await makeImage(next, cwd, 'middle', 'base'),
        await makeImage(next, cwd, 'top', 'middle'),
        await makeImage(next, cwd, 'other'),
      ];
      cpSync(cwd, join(folder, 'theirs'), { recursive: true });
      // A copy of it might lack its holes.
      for (const name of ['ours', 'theirs']) {
        const raw = ['convert', '-O', 'raw', 'other', 'other.raw'];
        await qemuImg(raw, { cwd: join(folder, name) });
      }
      const about = `SEED=${SEED} index ${index}\n${made.join('\n')}`;
      const one = () => next.pick(['base', 'middle', 'top', 'other']);
      const bits = next.pick([512, 65_536, 2 * MIB]);
      for (const line of [
        `-p -O qcow2 ${one()} a`,
        `-p -O raw ${one()} b`,
        `-p -c -O qcow2 -o cluster_size=${bits} ${one()} c`,
        `-p -O qcow2 -B middle -F qcow2 top d`,
        `-p -f raw -O qcow2 other.raw e`,
        `-p -O raw ${one()} ${one()} ${one()} f`,
        `-p -S 0 -O raw base g`,
      ]) {
        await sameSteps(convert, folder, line, about);
      }
      for (const line of [`-p ${one()} ${one()}`, `-p -s top top`, '-p other other.raw']) {
        await sameSteps(compare, folder, line, about);
      }
      // QEMU takes the parts of a cluster that is there in pieces of their own.
      if (made[2]?.includes('extended_l2')) return;
      const backing = next.pick(['-b other -F qcow2', '-b ""']);
      await sameSteps(rebase, folder, `-p ${backing} top`, about);
    });
  }
});

test.run();
