// `dd` must write what qemu-img writes, and say the same, whatever operands it is given.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { dd } from '../../src/cli/commands/dd.ts';
import { qemuSuite } from '../oracle.ts';
import { rng, SEED } from '../random.ts';
import { difference, eachAtOnce, inScratch, qemuImg, qemuIo } from '../tool.ts';
import { ours, theirs } from './image-command.ts';
import { guestBytes, twoFolders } from './two-chains.ts';

const { SLOW } = process.env;
const RUNS = SLOW ? 200 : 20;
const test = qemuSuite('dd, beside qemu-img');

const LINES = [
  '',
  'if=raw.img',
  'of=x.raw',
  'if=raw.img of=x.raw foo',
  'if=raw.img of=x.raw obs=1',
  '=raw.img of=x.raw',
  'if=raw.img of=x.raw bs=0',
  'if=raw.img of=x.raw bs=3G',
  'if=raw.img of=x.raw bs=1.5',
  'if=raw.img of=x.raw bs=',
  'if=raw.img of=x.raw count=-1',
  'if=raw.img of=x.raw skip=8E',
  'if=raw.img of=x.raw bs=2G',
  'if=raw.img of=x.raw count=7E bs=1G',
  'if=raw.img of=x.raw skip=7E bs=1G',
  'if=raw.img of=x.raw bs=1M skip=1',
  'if=raw.img of=x.raw bs=1M skip=2',
  'if=raw.img of=x.qcow2 bs=1M skip=2 -O qcow2',
  'if=raw.img of=x.raw bs=513 skip=3 count=1',
  'if=raw.img of=x.raw -n',
  'if=raw.img -- of=x.raw -U',
  'if=raw.img of=nowhere/x.raw',
  'if=raw.img of=.',
  'if=raw.img of=',
  'if= of=x.raw',
  'if=nothing of=x.raw',
  'if=. of=x.raw',
  'if=empty.raw of=x.raw',
  'if=empty.raw of=x.qcow2 -O qcow2',
  'if=raw.img if=image.qcow2 of=x.raw --force',
  'if=raw.img of=foo:bar',
  'if=raw.img of=x.raw -O nothing',
  'if=raw.img of=x.raw -O luks',
  'if=raw.img of=x.raw -f nothing',
  'if=raw.img of=x.raw -f qcow2',
  'if=raw.img of=x.raw --object foo',
  '--obj secret,id=a,data=b if=raw.img of=x.raw',
  '--image if=raw.img of=x.raw',
  '--image if=driver=raw,file.filename=raw.img of=x.raw',
  '--image -f raw if=driver=raw,file.filename=raw.img of=x.raw',
  '-f',
];

async function makeSources(folder: string): Promise<void> {
  const cwd = folder;
  writeFileSync(`${folder}/raw.img`, new Uint8Array(300_000).fill(7, 70_000, 200_000));
  writeFileSync(`${folder}/empty.raw`, '');
  await qemuImg(['create', '-q', '-f', 'qcow2', 'base.qcow2', '1M'], { cwd });
  await qemuIo('base.qcow2', ['write -P 1 100k 300k'], { cwd });
  const from = ['-b', 'base.qcow2', '-F', 'qcow2'];
  await qemuImg(['create', '-q', '-f', 'qcow2', ...from, 'image.qcow2'], { cwd });
  await qemuIo('image.qcow2', ['write -P 2 0 10k', 'write -z 128k 64k'], { cwd });
}

/** What was written, if anything was: sources stay as they are. */
async function assertSameTarget(folders: readonly [string, string], title: string): Promise<void> {
  for (const name of readdirSync(folders[0]).filter((one) => one.startsWith('x.'))) {
    const read = async (cwd: string) =>
      name === 'x.qcow2' ? guestBytes(cwd, name, 'qcow2') : readFileSync(`${cwd}/${name}`);
    const [left, right] = [await read(folders[0]), await read(folders[1])];
    assert.is(difference(left, right), '', title);
    if (name === 'x.qcow2') await qemuImg(['check', '-q', name], { cwd: folders[0] });
  }
}

test('operands and options, right and wrong', async () => {
  await inScratch(async (folder) => {
    await makeSources(folder);
    await eachAtOnce(LINES.entries(), async ([index, line]) => {
      const folders = twoFolders(folder, `${index}`);
      const args = line.split(' ').filter((arg) => arg !== '');
      const [mine, expected] = await Promise.all([
        ours(dd, folders[0], args),
        theirs('dd', folders[1], args),
      ]);
      assert.equal(mine, expected, line);
      assert.equal(readdirSync(folders[0]), readdirSync(folders[1]), line);
      await assertSameTarget(folders, line);
    });
  });
});

test('any blocks of any disk', async () => {
  const next = rng(SEED);
  await inScratch(async (folder) => {
    await makeSources(folder);
    await eachAtOnce(Array.from({ length: RUNS }).keys(), async (index) => {
      const folders = twoFolders(folder, `${index}`);
      const format = next.pick(['raw', 'qcow2']);
      const bytes = next.pick([1, 7, 512, 1000, 4096, 65536, 2 ** 20]);
      const blocks = Math.ceil(2 ** 20 / bytes);
      const args = [
        ...(next.oneIn(2) ? [`count=${next.below(blocks + 2)}`] : []),
        ...(next.oneIn(2) ? [`skip=${next.below(blocks + 2)}`] : []),
        // QEMU's tool makes a request for each block.
        `bs=${bytes < 100 ? bytes * 100 : bytes}`,
        `if=${next.pick(['raw.img', 'image.qcow2'])}`,
        `of=x.${format}`,
        ...['-O', format],
      ];
      const title = `SEED=${SEED} dd ${args.join(' ')}`;
      const [mine, expected] = await Promise.all([
        ours(dd, folders[0], args),
        theirs('dd', folders[1], args),
      ]);
      assert.equal(mine, expected, title);
      await assertSameTarget(folders, title);
      // Written out, zeros too.
      if (format === 'raw') return;
      const [left, right] = await Promise.all(
        folders.map((cwd) => qemuImg(['map', '--output=json', 'x.qcow2'], { cwd })),
      );
      assert.is(`${left}`, `${right}`, title);
    });
  });
});

test('a source is no target', async () => {
  await inScratch(async (folder) => {
    await makeSources(folder);
    const { code, err } = await ours(dd, folder, ['if=image.qcow2', 'of=base.qcow2']);
    assert.is(code, 1);
    assert.match(err, /both a source and the target/);
    await qemuImg(['check', 'base.qcow2'], { cwd: folder });
  });
});

test.run();
