// `commit` must leave what qemu-img leaves: a base that shows what the chain did, an image that
// holds nothing, both of them sound; and say the same. Copies of random chains are committed by
// both tools.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { commit } from '../../src/cli/commands/commit.ts';
import { qemuSuite } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import { difference, eachAtOnce, inScratch, qemuImg, qemuIo } from '../tool.ts';
import { ours, theirs } from './image-command.ts';
import { type Chain, makeChain, writePattern } from './random-image.ts';
import { assertAlike, guestBytes, isImage, twoFolders } from './two-chains.ts';

const { SLOW } = process.env;
const CANNOT_GROW = 'qemu-img: Block job failed: Operation not supported\n';
const RUNS = SLOW ? 120 : 10;
const test = qemuSuite('commit, beside qemu-img');

/** How much of an image lies in its own file. */
async function ownBytes(cwd: string, name: string): Promise<number> {
  const printed = await qemuImg(['map', '--output=json', '-f', 'qcow2', name], { cwd });
  const map = JSON.parse(printed.toString());
  const own = map.filter((entry: { depth: number; present: boolean }) => {
    return entry.depth === 0 && entry.present;
  });
  return own.reduce((sum: number, { length }: { length: number }) => sum + length, 0);
}

/** Names that an image of the chain goes by; the first is the image's own. */
function namesOf(folder: string): string[] {
  const images = readdirSync(folder).filter((name) => /^image\d/.test(name) && isImage(name));
  images.sort();
  return readdirSync(folder).includes('base.raw') ? [...images, 'base.raw'] : images;
}

async function commitBoth(next: Random, folder: string, chain: Chain): Promise<void> {
  const folders = twoFolders(folder);
  const names = namesOf(folders[0]);
  const base = next.oneIn(2) ? names[1 + next.below(names.length - 1)] : undefined;
  const options = [
    ...(base === undefined ? [] : ['-b', base]),
    ...(next.oneIn(4) ? ['-d'] : []),
    ...(next.oneIn(4) ? ['-t', 'writethrough'] : []),
  ];
  const args = [...options, '-f', 'qcow2', chain.image];
  const title = `SEED=${SEED} commit ${args.join(' ')}\n${chain.about}`;
  const before = await guestBytes(folder, chain.image, 'qcow2');
  const [mine, expected] = await Promise.all([
    ours(commit, folders[0], args),
    theirs('commit', folders[1], args),
  ]);
  const written = base ?? (names[1] as string);
  const format = written.endsWith('.raw') ? 'raw' : 'qcow2';
  const after = await guestBytes(folders[0], written, format);
  assert.is(difference(after.subarray(0, before.length), before), '', title);
  // QEMU's tool cannot make a base of version 2 longer that has a backing file.
  if (expected.err === CANNOT_GROW) return assert.is(mine.code, 0, title);
  assert.equal(mine, expected, title);
  await assertAlike(folders, title);
  const drops = options.includes('-d') || base !== undefined;
  const [left, right] = await Promise.all(folders.map((one) => ownBytes(one, chain.image)));
  if (drops) assert.is(left, right, title);
  else assert.is(left, 0, title);
}

test('random chains', async () => {
  await eachAtOnce(
    Array.from({ length: RUNS }, (_, index) => index),
    async (index) => {
      const next = rng(SEED * 1000 + index);
      await inScratch(async (folder) => {
        writePattern(next, folder);
        const chain = await makeChain(next, folder, 1 + next.below(3));
        await commitBoth(next, folder, chain);
      });
    },
  );
});

test('an image with snapshots keeps them', async () => {
  await inScratch(async (folder) => {
    const cwd = folder;
    await qemuImg(['create', '-q', '-f', 'raw', 'base.raw', '1M'], { cwd });
    const from = ['-b', 'base.raw', '-F', 'raw'];
    await qemuImg(['create', '-q', '-f', 'qcow2', ...from, 'image0.qcow2', '1M'], { cwd });
    await qemuIo('image0.qcow2', ['write -P 1 0 300k'], { cwd });
    await qemuImg(['snapshot', '-c', 'one', 'image0.qcow2'], { cwd });
    await qemuIo('image0.qcow2', ['write -P 2 100k 300k', 'write -z 64k 64k'], { cwd });
    const folders = twoFolders(folder);
    const args = ['image0.qcow2'];
    assert.equal(await ours(commit, folders[0], args), await theirs('commit', folders[1], args));
    await assertAlike(folders, 'committed');
    for (const one of folders) {
      await qemuImg(['snapshot', '-a', 'one', 'image0.qcow2'], { cwd: one });
    }
    await assertAlike(folders, 'back at the snapshot');
  });
});

test('an image is as empty as with qemu-img, also where clusters had leaked', async () => {
  await inScratch(async (folder) => {
    const cwd = folder;
    await qemuImg(['create', '-q', '-f', 'raw', 'base.raw', '1M'], { cwd });
    for (const [name, compat] of [
      ['image0.qcow2', '1.1'],
      ['image1.qcow2', '0.10'],
    ] as const) {
      const options = ['-o', `compat=${compat},cluster_size=4k`];
      const create = ['create', '-q', '-f', 'qcow2', ...options, '-b', 'base.raw', '-F', 'raw'];
      await qemuImg([...create, name, '1M'], { cwd });
      await qemuIo(name, ['write -P 1 0 64k', 'write -P 2 512k 64k'], { cwd });
    }
    // The first has a cluster that nothing refers to; the second's disk ends before its table.
    const path = (name: string) => join(folder, name);
    const leaky = readFileSync(path('image0.qcow2'));
    const counts = Number(leaky.readBigUInt64BE(Number(leaky.readBigUInt64BE(48))));
    leaky.writeUInt16BE(1, counts + 2 * (leaky.length / 4096 + 8));
    writeFileSync(path('image0.qcow2'), leaky);
    const cut = readFileSync(path('image1.qcow2'));
    cut.writeBigUInt64BE(131072n, 24);
    writeFileSync(path('image1.qcow2'), cut);
    const folders = twoFolders(folder);
    for (const name of ['image0.qcow2', 'image1.qcow2']) {
      const [mine, expected] = [
        await ours(commit, folders[0], [name]),
        await theirs('commit', folders[1], [name]),
      ];
      assert.equal(mine, expected, name);
      const check = await qemuImg(['check', name], { cwd: folders[0] });
      assert.match(check.toString(), 'No errors were found', name);
    }
    await assertAlike(folders, 'committed');
  });
});

test('a base that cannot grow is told as a job that failed', async () => {
  await inScratch(async (folder) => {
    const cwd = folder;
    const create = ['create', '-q', '-f', 'qcow2'];
    await qemuImg([...create, '-o', 'compat=0.10', 'image1.qcow2', '1M'], { cwd });
    await qemuImg(['snapshot', '-c', 'one', 'image1.qcow2'], { cwd });
    await qemuImg([...create, '-b', 'image1.qcow2', '-F', 'qcow2', 'image0.qcow2', '2M'], { cwd });
    const folders = twoFolders(folder);
    const mine = await ours(commit, folders[0], ['image0.qcow2']);
    assert.equal(mine, await theirs('commit', folders[1], ['image0.qcow2']));
    assert.is(mine.err, CANNOT_GROW);
  });
});

test('a backing file that is marked corrupt is not written', async () => {
  await inScratch(async (cwd) => {
    await qemuImg(['create', '-q', '-f', 'qcow2', 'base.qcow2', '1M'], { cwd });
    await qemuImg(['create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'top'], {
      cwd,
    });
    await qemuIo('top', ['write -P 1 0 64k'], { cwd });
    const bytes = readFileSync(join(cwd, 'base.qcow2'));
    // The second incompatible bit.
    bytes.writeUInt8(2, 79);
    writeFileSync(join(cwd, 'base.qcow2'), bytes);
    const top = readFileSync(join(cwd, 'top'));
    const why = 'qcow2: Image is corrupt; cannot be opened read/write';
    assert.equal(await ours(commit, cwd, ['-f', 'qcow2', 'top']), {
      code: 1,
      out: '',
      err: `qemu-img: Could not open 'top': Could not open backing file: ${why}\n`,
    });
    assert.ok(readFileSync(join(cwd, 'base.qcow2')).equals(bytes));
    assert.ok(readFileSync(join(cwd, 'top')).equals(top));
  });
});

test('what goes wrong is said in the same words', async () => {
  await inScratch(async (folder) => {
    const cwd = folder;
    await qemuImg(['create', '-q', '-f', 'qcow2', 'image1.qcow2', '1M'], { cwd });
    const from = ['-b', 'image1.qcow2', '-F', 'qcow2'];
    await qemuImg(['create', '-q', '-f', 'qcow2', ...from, 'image0.qcow2', '1M'], { cwd });
    await qemuImg(['create', '-q', '-f', 'qcow2', '-u', '-b', 'gone', '-F', 'raw', 'x', '1M'], {
      cwd,
    });
    const folders = twoFolders(folder);
    const lines = [
      '',
      'a b',
      'image1.qcow2',
      '-f raw image0.qcow2',
      '-f nothing image0.qcow2',
      '-t bad image0.qcow2',
      '-r bad image0.qcow2',
      '-r bad',
      '-b nothing image0.qcow2',
      '-b image0.qcow2 image0.qcow2',
      '-z image0.qcow2',
      'nothing',
      'x',
      '-q -p -r 100M image0.qcow2',
    ];
    for (const line of lines) {
      const args = line.split(' ').filter((arg) => arg !== '');
      const [mine, expected] = [
        await ours(commit, folders[0], args),
        await theirs('commit', folders[1], args),
      ];
      assert.equal(mine, expected, line);
    }
  });
});

test.run();
