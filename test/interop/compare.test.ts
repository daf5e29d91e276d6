/**
 * `compare` of the tool and of qemu-img on the same files: what they print and how they end.
 * Replay with SEED=…, longer with SLOW=1.
 */
import { copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { compare } from '../../src/cli/commands/compare.ts';
import { qemuSuite } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import { inScratch, qemuImg, qemuIo, readFiles, run } from '../tool.ts';
import { ours, theirs } from './image-command.ts';
import {
  createImage,
  fillCommands,
  makeChain,
  makeImage,
  randomSetting,
  writePattern,
} from './random-image.ts';

const ROUNDS = process.env.SLOW ? 80 : 6;

async function same(folder: string, args: readonly string[]): Promise<number | null> {
  readFiles(folder);
  const [mine, wanted] = await Promise.all([
    ours(compare, folder, args),
    theirs('compare', folder, args),
  ]);
  assert.is(JSON.stringify(mine), JSON.stringify(wanted), `compare ${args.join(' ')}`);
  return mine.code;
}

/** The same disk in other clothes, and one that differs a little. */
async function relatives(next: Random, folder: string, image: string): Promise<string[]> {
  const cwd = { cwd: folder };
  const setting = randomSetting(next, { dataFile: 'none' });
  await qemuImg(['convert', '-O', 'raw', image, 'same.raw'], cwd);
  const options = `cluster_size=${2 ** setting.clusterBits}`;
  const compress = next.oneIn(2) ? ['-c'] : [];
  await qemuImg(['convert', ...compress, '-O', 'qcow2', '-o', options, image, 'same.qcow2'], cwd);
  copyFileSync(join(folder, 'same.raw'), join(folder, 'other.raw'));
  const bytes = readFileSync(join(folder, 'other.raw'));
  if (bytes.length > 0) {
    const at = next.below(bytes.length);
    bytes[at] = (bytes[at] as number) ^ (1 + next.below(255));
    writeFileSync(join(folder, 'other.raw'), bytes);
  }
  copyFileSync(join(folder, 'same.raw'), join(folder, 'longer.raw'));
  truncateSync(join(folder, 'longer.raw'), bytes.length + 512 * (1 + next.below(9000)));
  copyFileSync(join(folder, 'other.raw'), join(folder, 'shorter.raw'));
  truncateSync(join(folder, 'shorter.raw'), 512 * next.below(bytes.length / 512));
  return ['same.raw', 'same.qcow2', 'other.raw', 'longer.raw', 'shorter.raw'];
}

const test = qemuSuite('compare');

test('what it finds and prints is what qemu-img does, for any two images', async () => {
  const codes = new Set<number | null>();
  for (let round = 0; round < ROUNDS; round++) {
    const next = rng((SEED ^ Math.imul(round + 1, 0x9e3779b1)) | 0);
    await inScratch(async (folder) => {
      writePattern(next, folder);
      const chain = await makeChain(next, folder, next.below(3));
      const names = [chain.image, ...(await relatives(next, folder, chain.image))];
      for (const name of names.slice(1)) {
        const pair = next.oneIn(2) ? [chain.image, name] : [name, chain.image];
        for (const options of [[], ['-s']]) codes.add(await same(folder, [...options, ...pair]));
      }
      const pair = [next.pick(names), next.pick(names)];
      codes.add(await same(folder, [...next.pick([[], ['-s'], ['-q'], ['-U']]), ...pair]));
    }).catch((cause) => {
      throw new Error(`SEED=${SEED} round ${round}\n${cause.message}\n${cause.details}`, { cause });
    });
  }
  assert.equal([...codes].sort(), [0, 1]);
});

test('strictly, what is allocated has to be the same, too', async () => {
  for (let round = 0; round < ROUNDS; round++) {
    const next = rng((SEED ^ Math.imul(round + 77, 0x9e3779b1)) | 0);
    await inScratch(async (folder) => {
      writePattern(next, folder);
      const setting = randomSetting(next, { dataFile: 'none' });
      await makeImage(next, folder, 'a.qcow2', setting);
      copyFileSync(join(folder, 'a.qcow2'), join(folder, 'b.qcow2'));
      await same(folder, ['-s', 'a.qcow2', 'b.qcow2']);
      const commands = fillCommands(next, { ...setting, compression: 'none' }, 2);
      await qemuIo('b.qcow2', commands, { cwd: folder });
      await same(folder, ['-s', 'a.qcow2', 'b.qcow2']);
    }).catch((cause) => {
      throw new Error(`SEED=${SEED} round ${round}\n${cause.message}\n${cause.details}`, { cause });
    });
  }
});

test('strictly, it does not count that the file had to be asked', async () => {
  await inScratch(async (folder) => {
    const cwd = { cwd: folder };
    await qemuImg(['create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata', 'a', '1M'], cwd);
    await qemuIo('a', ['write -P 5 0 512k', 'discard 512k 512k'], cwd);
    // As many holes as before, or none.
    for (const sparse of ['always', 'never']) {
      await run('cp', [`--sparse=${sparse}`, 'a', 'b'], cwd);
      await same(folder, ['-s', 'a', 'b']);
    }
    await qemuImg(['create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata', 'c', '8M'], cwd);
    await qemuIo('c', ['write -P 5 0 64k', 'discard 7M 1M'], cwd);
    await run('cp', ['--sparse=never', 'c', 'd'], cwd);
    await same(folder, ['-s', 'c', 'd']);
  });
});

test('strictly, behind the end of a shorter backing file nothing has a place', async () => {
  await inScratch(async (folder) => {
    const cwd = { cwd: folder };
    await qemuImg(['create', '-q', '-f', 'raw', 'base.raw', '8k'], cwd);
    await qemuImg(['create', '-q', '-f', 'raw', 'flat.raw', '256k'], cwd);
    const over = ['-o', 'extended_l2=on', '-b', 'base.raw', '-F', 'raw', 'over.qcow2', '256k'];
    await qemuImg(['create', '-q', '-f', 'qcow2', ...over], cwd);
    for (const name of ['base.raw', 'flat.raw']) {
      await qemuIo(name, ['write 0 8k'], { ...cwd, format: 'raw' });
    }
    // Subclusters beside it get a place and nothing else.
    await qemuIo('over.qcow2', ['write -P 1 32k 2k'], cwd);
    await qemuIo('flat.raw', ['write -P 1 32k 2k'], { ...cwd, format: 'raw' });
    for (const pair of [
      ['over.qcow2', 'flat.raw'],
      ['flat.raw', 'over.qcow2'],
    ]) {
      assert.is(await same(folder, ['-s', ...pair]), 1);
    }
  });
});

const MESSAGES: readonly (readonly string[])[] = [
  [],
  ['a.qcow2'],
  ['a.qcow2', 'b.qcow2', 'r.raw'],
  ['-f'],
  ['-z', 'a.qcow2', 'b.qcow2'],
  ['absent', 'a.qcow2'],
  ['a.qcow2', 'absent'],
  ['-f', 'foo', 'a.qcow2', 'b.qcow2'],
  ['-F', 'foo', 'a.qcow2', 'b.qcow2'],
  ['-f', 'qcow2', 'r.raw', 'b.qcow2'],
  ['-f', 'raw', 'a.qcow2', 'r.raw'],
  ['-T', 'none-such', 'a.qcow2', 'b.qcow2'],
  ['-T', 'unsafe', 'a.qcow2', 'r.raw'],
  ['-q', 'a.qcow2', 'b.qcow2'],
  ['-q', '-s', 'a.qcow2', 'longer.raw'],
  ['-s', 'a.qcow2', 'longer.raw'],
  ['r.raw', 'longer.raw'],
  ['-p', 'r.raw', 'r.raw'],
  ['-p', '-q', 'r.raw', 'r.raw'],
  ['broken.qcow2', 'r.raw'],
  ['r.raw', 'broken.qcow2'],
  ['broken.qcow2', 'other.raw'],
];

test('messages and exit codes are those of qemu-img', async () => {
  await inScratch(async (folder) => {
    const next = rng();
    const setting = randomSetting(next, {
      version: 3,
      clusterBits: 16,
      dataFile: 'none',
      size: 2 ** 20,
    });
    for (const name of ['a.qcow2', 'b.qcow2']) await createImage(folder, name, setting);
    await qemuIo('b.qcow2', ['write -P 7 128k 64k'], { cwd: folder });
    writeFileSync(join(folder, 'r.raw'), Buffer.alloc(2 ** 20));
    writeFileSync(join(folder, 'longer.raw'), Buffer.alloc(2 ** 21));
    writeFileSync(join(folder, 'other.raw'), Buffer.alloc(2 ** 20).fill(1, 66000, 66001));
    // A compressed cluster that nobody can decode.
    await qemuImg(['create', '-q', '-f', 'qcow2', 'broken.qcow2', '1M'], { cwd: folder });
    await qemuIo('broken.qcow2', ['write -c -P 3 192k 64k'], { cwd: folder });
    const bytes = readFileSync(join(folder, 'broken.qcow2'));
    writeFileSync(join(folder, 'broken.qcow2'), bytes.fill(0xff, 0x50000));
    for (const args of MESSAGES) await same(folder, args);
  });
});

test('tells programs what it found', async () => {
  await inScratch(async (folder) => {
    writeFileSync(join(folder, 'a.raw'), Buffer.alloc(4096));
    writeFileSync(join(folder, 'b.raw'), Buffer.alloc(8192).fill(1, 2000, 2001));
    const args = ['-f', 'raw', '-F', 'raw', '--output=json'];
    const equal = await ours(compare, folder, [...args, 'a.raw', 'a.raw']);
    assert.equal(JSON.parse(equal.out), { identical: true, 'virtual-sizes': [4096, 4096] });
    const other = await ours(compare, folder, [...args, 'a.raw', 'b.raw']);
    assert.is(other.code, 1);
    assert.equal(JSON.parse(other.out), {
      identical: false,
      'virtual-sizes': [4096, 8192],
      difference: 'content',
      offset: 1536,
    });
  });
});

test.run();
