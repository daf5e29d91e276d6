// `rebase` must leave an image that shows what it did and names the new backing file, as qemu-img's
// does; and say the same. Random images of random chains are rebased by both tools.
import { copyFileSync, readdirSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { rebase } from '../../src/cli/commands/rebase.ts';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import { difference, eachAtOnce, inScratch, qemuImg, qemuIo, run } from '../tool.ts';
import { ours, theirs } from './image-command.ts';
import { makeChain, makeImage, makeRaw, randomSetting, writePattern } from './random-image.ts';
import { assertAlike, guestBytes, isImage, twoFolders } from './two-chains.ts';

const { SLOW } = process.env;
const RUNS = SLOW ? 120 : 10;
const test = qemuSuite('rebase, beside qemu-img');

/** The images that an image may be put on: what is behind it, and others. */
async function makeOthers(next: Random, folder: string, size: number): Promise<string[]> {
  const other = { ...randomSetting(next), size: 512 * (1 + next.below((2 * size) / 512)) };
  await makeImage(next, folder, 'other.qcow2', other);
  await makeRaw(next, folder, 'other.raw', 1 + next.below(2 * size));
  // One that has much in common with what is there.
  copyFileSync(`${folder}/image1.qcow2`, `${folder}/like.qcow2`);
  await qemuIo('like.qcow2', ['write -P 9 0 512'], { cwd: folder });
  return ['other.qcow2', 'other.raw', 'like.qcow2'];
}

async function backingOf(cwd: string, name: string): Promise<unknown[]> {
  const printed = await qemuImg(['info', '-U', '--output=json', '-f', 'qcow2', name], { cwd });
  const info = JSON.parse(printed.toString());
  return [info['backing-filename'], info['backing-filename-format'], info['virtual-size']];
}

async function rebaseBoth(next: Random, folder: string, about: string): Promise<void> {
  const image = 'image0.qcow2';
  const size = Number((await backingOf(folder, image))[2]);
  const behind = readdirSync(folder).filter((name) => /^(image[^01]|base)/.test(name));
  const others = await makeOthers(next, folder, size);
  const target = next.pick(['', ...others, ...others, ...behind.filter(isImage)]);
  const format = target.endsWith('.raw') ? 'raw' : 'qcow2';
  const folders = twoFolders(folder);
  const args = ['-f', 'qcow2', '-b', target, ...(target ? ['-F', format] : []), image];
  const compress = next.oneIn(3) && !about.split('\n')[0]?.includes('dataFile=file');
  const title = `SEED=${SEED} rebase ${args.join(' ')} compress=${compress}\n${about}`;
  const before = await guestBytes(folder, image, 'qcow2');
  const [mine, expected] = await Promise.all([
    ours(rebase, folders[0], compress ? ['-c', ...args] : args),
    theirs('rebase', folders[1], args),
  ]);
  assert.equal(mine, expected, title);
  const after = await guestBytes(folders[0], image, 'qcow2');
  assert.is(difference(after, before), '', title);
  await assertAlike(folders, title);
  const [left, right] = await Promise.all(folders.map((cwd) => backingOf(cwd, image)));
  assert.equal(left, right, title);
}

test('random chains', async () => {
  await eachAtOnce(
    Array.from({ length: RUNS }, (_, index) => index),
    async (index) => {
      const next = rng(SEED * 1000 + index);
      await inScratch(async (folder) => {
        writePattern(next, folder);
        const { about } = await makeChain(next, folder, 2 + next.below(2));
        await rebaseBoth(next, folder, about);
      });
    },
  );
});

test('only what differs is written', async () => {
  await inScratch(async (folder) => {
    const cwd = folder;
    for (const name of ['old', 'new']) {
      await qemuImg(['create', '-q', '-f', 'qcow2', name, '8M'], { cwd });
      await qemuIo(name, ['write -P 1 0 4M'], { cwd });
    }
    await qemuIo('new', ['write -P 2 1M 64k', 'write -P 2 6M 64k'], { cwd });
    await qemuImg(['create', '-q', '-f', 'qcow2', '-b', 'old', '-F', 'qcow2', 'image', '8M'], {
      cwd,
    });
    const done = await ours(rebase, folder, ['-b', 'new', '-F', 'qcow2', 'image']);
    assert.equal(done, { code: 0, out: '', err: '' });
    const map = JSON.parse((await qemuImg(['map', '--output=json', 'image'], { cwd })).toString());
    const own = map.filter(({ depth }: { depth: number }) => depth === 0);
    const starts = own.map(({ start, length }: Record<string, number>) => [start, length]);
    assert.equal(starts, [
      [2 ** 20, 65536],
      [6 * 2 ** 20, 65536],
    ]);
  });
});

test('names: what goes wrong, and what is not looked at with -u', async () => {
  await inScratch(async (folder) => {
    const cwd = folder;
    const make = (...args: string[]) => qemuImg(['create', '-q', ...args], { cwd });
    await make('-f', 'qcow2', 'one', '1M');
    await make('-f', 'qcow2', 'two', '1M');
    await make('-f', 'raw', 'raw', '1M');
    await make('-f', 'qcow2', '-b', 'one', '-F', 'qcow2', 'image', '1M');
    await make('-f', 'qcow2', '-o', 'compat=0.10', '-b', 'one', '-F', 'qcow2', 'old', '1M');
    await make('-f', 'qcow2', '-o', 'cluster_size=512', 'small', '1M');
    await make('-f', 'qcow2', '-o', 'data_file=all.data,data_file_raw=on', 'all', '1M');
    const folders = twoFolders(folder);
    const lines = [
      '-u -b raw -F raw all',
      '-b raw -F raw all',
      '-u -b raw all',
      '-u all',
      '',
      'image',
      '-b x a b',
      '-b nothing -F qcow2 image',
      '-b two -F nothing image',
      '-b two image',
      '-u -b two image',
      '-t bad -b two image',
      '-T bad -b two image',
      '-t bad',
      '-b image -F qcow2 image',
      '-U -b two image',
      '-f raw -b two -F qcow2 image',
      '-u -f raw -b two -F qcow2 image',
      '-u -f raw -b two image',
      '-u -f raw -b nothing -p image',
      `-u -b ${'x'.repeat(1100)} -F raw image`,
      `-u -b ${'x'.repeat(1023)} -F raw image`,
      `-u -b ${'y'.repeat(900)} -F raw old`,
      `-u -b ${'x'.repeat(500)} -F raw small`,
      '-u -b raw -F raw small',
      '-u -b two -F qcow2 image',
      '-u -b nothing -F raw old',
      '-b two -F qcow2 old',
      '-u image',
      '-u -b one -F qcow2 image',
      '-u -F qcow2 image',
      '-z',
      'nothing -b one',
    ];
    for (const line of lines) {
      const args = line.split(' ').filter((arg) => arg !== '');
      const mine = await ours(rebase, folders[0], args);
      const expected = await theirs('rebase', folders[1], args);
      assert.equal(mine, expected, line);
      for (const name of ['image', 'old', 'small']) {
        const [left, right] = await Promise.all(folders.map((one) => backingOf(one, name)));
        assert.equal(left, right, `${line}: ${name}`);
        const checked = await run(requireQemu().img, ['check', '-q', name], { cwd: folders[0] });
        assert.is(checked.stderr.includes('ERROR'), false, `${line}: ${name}`);
      }
    }
  });
});

test('a write that fails is told, and the image stays on what it had', async () => {
  for (const number of [5, 28]) {
    await inScratch(async (cwd) => {
      await qemuImg(['create', '-q', '-f', 'raw', 'base', '1M'], { cwd });
      await qemuIo('base', ['write -P 5 64k 100k'], { cwd, format: 'raw' });
      const rule = `[inject-error]\nevent = "write_aio"\nerrno = "${number}"\nonce = "on"\n`;
      writeFileSync(`${cwd}/rules`, rule);
      const ends: string[] = [];
      for (const isOurs of [false, true]) {
        await qemuImg(['create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'raw', 'image'], { cwd });
        const args = ['-f', 'qcow2', '-b', '', 'blkdebug:rules:image'];
        const done = await (isOurs ? ours(rebase, cwd, args) : theirs('rebase', cwd, args));
        ends.push(JSON.stringify([done, await backingOf(cwd, 'image')]));
      }
      assert.is(ends[1], ends[0]);
      assert.match(ends[0] as string, /Error while writing/);
    });
  }
});

test.run();
