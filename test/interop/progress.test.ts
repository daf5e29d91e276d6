// `-p` where a program reads it: the very percentages of qemu-img, for random disks and chains.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { Command } from '../../src/cli/command.ts';
import { compare } from '../../src/cli/commands/compare.ts';
import { convert } from '../../src/cli/commands/convert.ts';
import { rebase } from '../../src/cli/commands/rebase.ts';
import { qemuSuite } from '../oracle.ts';
import { type Random, rng, SEED, someOf } from '../random.ts';
import { inScratch, qemuImg, qemuIo, readFiles } from '../tool.ts';
import { ours, theirs } from './image-command.ts';
import {
  type Chain,
  describe,
  makeChain,
  makeImage,
  makeRaw,
  randomSetting,
  writePattern,
} from './random-image.ts';
import { twoFolders } from './two-chains.ts';

const RUNS = process.env.SLOW ? 25 : 2;
const test = qemuSuite('progress, beside qemu-img');

const MIB = 2 ** 20;
const CLUSTER_BITS = [9, 9, 10, 11, 12, 13, 14, 15, 16, 16, 16, 17, 18, 19, 20, 21];

/** How much QEMU looks at at a time is up to its caches. */
const CACHES = [
  'l2-cache-entry-size=512',
  'l2-cache-size=512',
  'l2-cache-size=64k',
  'cache-size=300k',
  'cache-size=20M',
  'cache-size=300k,l2-cache-size=8k',
  'cache-size=300k,refcount-cache-size=100k',
  'cache-size=300k,l2-cache-entry-size=512',
];

/** A sparse image of any size: long runs, small ones, zeros, holes. */
async function makeSparse(next: Random, cwd: string, name: string, backing?: string) {
  const bits = next.pick(CLUSTER_BITS);
  const options = [`cluster_size=${2 ** bits}`];
  if (bits >= 14 && next.oneIn(2)) options.push('extended_l2=on');
  else if (next.oneIn(6)) options.push('compat=0.10');
  const long = bits < 12 ? 2100 * MIB : 5000 * MIB;
  const size = next.pick([0, 65_536, MIB, 3_000_320, 33 * MIB, 100 * MIB, 700 * MIB, long]);
  const named = backing ? ['-F', 'qcow2', '-b', backing] : [];
  const create = ['create', '-q', '-f', 'qcow2', '-o', options.join(','), ...named, name];
  await qemuImg([...create, String(size)], { cwd });
  const commands: string[] = [];
  for (let count = next.below(12); count > 0 && size > 0; count--) {
    const at = next.below(size / 512) * 512;
    const most = Math.min(size - at, next.pick([512, 70_000, 70_000, 3 * MIB, 9 * MIB]));
    const length = Math.max(512, Math.floor(most / 512) * 512);
    const what = next.pick(['write -P 7', 'write -P 7', 'write -P 7', 'write -z', 'discard']);
    commands.push(`${what} ${at} ${length}`);
  }
  await qemuIo(name, commands, { cwd });
  return [...create, size, ...commands].join(' ');
}

/**
 * Both tools in the same folder, on the same files.
 * @param prepare makes a target anew
 */
async function sameSteps(
  command: Command,
  cwd: string,
  line: string,
  title: string,
  prepare: () => Promise<unknown> = async () => {},
) {
  const args = line.split(' ').filter((arg) => arg !== '');
  await prepare();
  const expected = await theirs(command.name, cwd, args);
  await prepare();
  assert.equal(await ours(command, cwd, args), expected, `${title}\n${command.name} ${line}`);
  assert.match(expected.out, '(0.00/100%)');
}

/** And where the command changes the image, each on a copy. */
async function sameChange(command: Command, cwd: string, line: string, title: string) {
  const args = line.split(' ').map((arg) => (arg === '""' ? '' : arg));
  for (const name of ['t', 't.raw']) rmSync(join(cwd, name), { force: true });
  const folders = twoFolders(cwd, line.replaceAll(' ', ''));
  const [mine, expected] = [
    await ours(command, folders[0], args),
    await theirs(command.name, folders[1], args),
  ];
  assert.equal(mine, expected, `${title}\n${command.name} ${line}`);
  assert.match(expected.out, '(0.00/100%)');
}

/** How a conversion to any kind of target is asked for. */
function convertLine(next: Random, sources: readonly string[], backing: string): string {
  const source = next.pick(sources);
  const bits = next.pick(CLUSTER_BITS);
  const more = next.pick(['', '', '-S 0', '-S 64k', '-m 1', '-m 16 -W', '-W', '-S 0 -m 2']);
  const extended = bits >= 14 && next.oneIn(2) ? ',extended_l2=on' : '';
  const cluster = `cluster_size=${2 ** bits}`;
  const over = `-O qcow2 -o ${cluster}${extended}`;
  const forms = [
    `-O raw ${source} t.raw`,
    `-O raw ${source} ${next.pick(sources)} ${next.pick(sources)} t.raw`,
    `${over} ${source} t`,
    `${over} ${source} ${next.pick(sources)} t`,
    `-c -O qcow2 -o ${cluster} ${source} t`,
    `-c -O qcow2 -o ${cluster} ${source} ${next.pick(sources)} t`,
    `${over} -B ${backing} -F qcow2 ${source} t`,
    `-n -O raw ${source} ready.raw`,
    `-n -c -O qcow2 ${source} ready.qcow2`,
  ];
  const form = next.pick(forms);
  return `-p ${form.includes('-c ') ? more.replace('-W', '') : more} ${form}`;
}

const titleOf = (index: number, made: readonly string[]) =>
  `SEED=${SEED} index ${index}\n${made.join('\n')}`;

async function eachRun(salt: number, work: (next: Random, index: number, cwd: string) => unknown) {
  for (let index = 0; index < RUNS; index++) {
    const next = rng((SEED * 1000 + index) ^ Math.imul(salt, 0x9e3779b1));
    await inScratch(async (cwd) => void (await work(next, index, cwd)));
  }
}

test('sparse disks of any size', () =>
  eachRun(0, async (next, index, cwd) => {
    const names = ['base', 'middle', 'top', 'other'];
    const made: string[] = [];
    for (const [depth, name] of names.entries()) {
      const backing = depth > 0 && name !== 'other' ? names[depth - 1] : undefined;
      made.push(await makeSparse(next, cwd, name, backing));
    }
    readFiles(cwd);
    const title = titleOf(index, made);
    for (let count = 0; count < 6; count++) {
      await sameSteps(convert, cwd, `-p -O raw ${next.pick(names)} t.raw`, title);
      const few = names.filter((name) => !made[names.indexOf(name)]?.includes('5242880000'));
      const line = convertLine(next, few.length > 0 ? few : ['other'], 'middle');
      if (few.length > 0 && !line.includes('-n')) await sameSteps(convert, cwd, line, title);
    }
    for (let count = 0; count < 6; count++) {
      const line = `-p ${next.pick(names)} ${next.pick(names)}`;
      await sameSteps(compare, cwd, line, title);
      await sameSteps(compare, cwd, `-s ${line}`, title);
    }
    for (const caches of someOf(CACHES, 2, next)) {
      const [a, b] = [next.pick(names), next.pick(names)].map((name) => `file.filename=${name}`);
      const line = `--image-opts driver=qcow2,${a},${caches} driver=qcow2,${b}`;
      await sameSteps(compare, cwd, `-p ${line}`, title);
    }
    for (const backing of [
      '-b other -F qcow2',
      '-b ""',
      '-b base -F qcow2',
      '-b middle -F qcow2',
    ]) {
      await sameChange(rebase, cwd, `-p ${backing} top`, title);
    }
  }));

/** Chains of images of every kind, and raw files. */
async function makeDisks(next: Random, cwd: string) {
  writePattern(next, cwd);
  const chains: Chain[] = [];
  for (const prefix of ['a', 'b']) {
    const preallocation = next.oneIn(4) ? ({ preallocation: 'metadata' } as const) : {};
    const fixed = next.oneIn(3) ? { compression: 'none' as const, ...preallocation } : {};
    const depth = 'preallocation' in fixed ? 0 : next.below(4);
    chains.push(await makeChain(next, cwd, depth, fixed, prefix));
  }
  await makeRaw(next, cwd, 'r.raw', 1 + next.below(6 * MIB));
  const single = randomSetting(next, { dataFile: 'none', refcountBits: 16, version: 3 });
  await makeImage(next, cwd, 's.qcow2', single);
  for (const name of ['one', 'two']) {
    await qemuImg(['snapshot', '-c', name, 's.qcow2'], { cwd });
    await qemuIo('s.qcow2', [`write ${next.below(single.size / 512) * 512} 512`], { cwd });
  }
  const about = [...chains.map(({ about }) => about), `s ${describe(single)}`];
  return { sources: [...chains.map(({ image }) => image), 'r.raw', 's.qcow2'], about };
}

test('images of every kind', () =>
  eachRun(1, async (next, index, cwd) => {
    const { sources, about } = await makeDisks(next, cwd);
    readFiles(cwd);
    const title = titleOf(index, about);
    await qemuImg(['create', '-q', '-f', 'raw', 'ready.raw', '40M'], { cwd });
    for (let count = 0; count < 20; count++) {
      // All disks end with a cluster of it: qemu-img fails otherwise.
      const ready = ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', 'ready.qcow2'];
      const line = convertLine(next, sources, 's.qcow2');
      await sameSteps(convert, cwd, line, title, async () => {
        if (line.includes(' ready.qcow2')) await qemuImg([...ready, '40M'], { cwd });
      });
    }
    await sameSteps(convert, cwd, '-p -l one -O raw s.qcow2 t.raw', title);
    await sameSteps(convert, cwd, '-p -c -l two -O qcow2 s.qcow2 t', title);
    for (const a of sources) {
      await sameSteps(compare, cwd, `-p ${a} ${a}`, title);
      await sameSteps(compare, cwd, `-p -s ${a} ${a}`, title);
      await sameSteps(compare, cwd, `-p ${a} ${next.pick(sources)}`, title);
      await sameSteps(compare, cwd, `-p -f raw -F raw ${a} ${next.pick(sources)}`, title);
    }
  }));

test.run();
