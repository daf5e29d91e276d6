// `bench` must send what qemu-img sends, and say the same but for the time that it took.
import { writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { bench } from '../../src/cli/commands/bench.ts';
import { qemuSuite } from '../oracle.ts';
import { rng, SEED } from '../random.ts';
import { eachAtOnce, inScratch, qemuImg, qemuIo } from '../tool.ts';
import { type Outcome, ours, theirs } from './image-command.ts';
import { assertAlike, twoFolders } from './two-chains.ts';

const { SLOW } = process.env;
const RUNS = SLOW ? 200 : 12;
const test = qemuSuite('bench, beside qemu-img');

const LINES = [
  '',
  'a b',
  '-c 10 -w raw.img',
  '-c 10 -w --flush-interval 2 image.qcow2',
  '-c 10 --flush-interval 2 image.qcow2',
  '-c 10 -w -d 2 --flush-interval 4 image.qcow2',
  '-c 10 -w -d 2 --flush 4 --no-drain image.qcow2',
  '-c 100 -w --flush-interval 0 image.qcow2',
  '-c 10 -q image.qcow2',
  '-c foo image.qcow2',
  '-c 1k image.qcow2',
  '-c -1 image.qcow2',
  '-c 0 image.qcow2',
  '-c 0x10 image.qcow2',
  '-c 010 image.qcow2',
  '-c 2147483648 image.qcow2',
  '-d foo image.qcow2',
  '-i foo image.qcow2',
  '-i native image.qcow2',
  '-n nothing',
  '-n -f nothing image.qcow2',
  '-n -t none -c 5 image.qcow2',
  '-i io_uring -c 5 image.qcow2',
  '-o foo image.qcow2',
  '-o 1M -c 5 image.qcow2',
  '-o 1M -c 0 image.qcow2',
  '-o 1000k -c 5 -s 64k image.qcow2',
  '-o 1 -c 5 -s 1 image.qcow2',
  '-c 5 -s 0 image.qcow2',
  '-s 3G image.qcow2',
  '-S 0 -c 5 image.qcow2',
  '-t foo image.qcow2',
  '--pattern 256 image.qcow2',
  '--pattern=foo image.qcow2',
  '-U -w -c 5 image.qcow2',
  '-U -c 5 image.qcow2',
  '-f raw -c 5 image.qcow2',
  '-f nothing image.qcow2',
  '--image-opts driver=null-co,size=1M -c 5',
  '--object secret,id=a,data=b image.qcow2',
  '--p 5 -c 5 image.qcow2',
  '-c foo -p image.qcow2',
  '-t foo --bogus image.qcow2',
  '-p -c foo image.qcow2',
  '-c',
];

/** Nobody knows how long it takes. */
function timeless({ out, ...rest }: Outcome): Outcome {
  return { ...rest, out: out.replace(/in \d+\.\d{3} seconds/, 'in time') };
}

async function makeImages(folder: string): Promise<void> {
  const cwd = folder;
  writeFileSync(`${folder}/raw.img`, new Uint8Array(2 ** 20));
  await qemuImg(['create', '-q', '-f', 'qcow2', 'base.qcow2', '1M'], { cwd });
  await qemuIo('base.qcow2', ['write -P 1 100k 300k'], { cwd });
  const from = ['-b', 'base.qcow2', '-F', 'qcow2'];
  await qemuImg(['create', '-q', '-f', 'qcow2', ...from, 'image.qcow2'], { cwd });
}

async function assertSame(folder: string, index: number, args: readonly string[]): Promise<void> {
  const folders = twoFolders(folder, `${index}`);
  const title = `SEED=${SEED} bench ${args.join(' ')}`;
  const [mine, expected] = await Promise.all([
    ours(bench, folders[0], args),
    theirs('bench', folders[1], args),
  ]);
  assert.equal(timeless(mine), timeless(expected), title);
  if (args.includes('-w')) await assertAlike(folders, title);
}

test('options, right and wrong', async () => {
  await inScratch(async (folder) => {
    await makeImages(folder);
    await eachAtOnce(LINES.entries(), async ([index, line]) => {
      const args = line.split(' ').filter((arg) => arg !== '');
      await assertSame(folder, index, args);
    });
  });
});

test('whatever is written is where qemu-img writes it', async () => {
  const next = rng(SEED);
  await inScratch(async (folder) => {
    await makeImages(folder);
    await eachAtOnce(Array.from({ length: RUNS }).keys(), async (index) => {
      const bytes = 512 * (1 + next.below(20));
      // No step takes a request past the end: all there are fail then, some of them written.
      const step = bytes * next.pick([0, 1, 2, 5]);
      const count = step === 0 ? 3 : Math.floor((2 ** 20 - bytes) / step / (1 + next.below(3)));
      const depth = 1 + next.below(20);
      const image = next.pick(['raw.img', 'image.qcow2']);
      const args = [
        ...['-w', '-f', image === 'raw.img' ? 'raw' : 'qcow2', '-c', `${count}`, '-s', `${bytes}`],
        ...['-S', `${step}`, '-d', `${depth}`, '--pattern', `${next.below(256)}`],
        ...(next.oneIn(2) ? ['--flush-interval', `${depth + next.below(20)}`] : []),
        ...(next.oneIn(3) ? ['--no-drain'] : []),
        image,
      ];
      await assertSame(folder, index, args);
    });
  });
});

test('nothing in flight is refused, and so is an empty disk', async () => {
  await inScratch(async (folder) => {
    await makeImages(folder);
    writeFileSync(`${folder}/empty.raw`, '');
    const refused = await ours(bench, folder, ['-d', '0', 'image.qcow2']);
    const err = 'qemu-img: Invalid queue depth specified\n';
    assert.equal(refused, { code: 1, out: '', err });
    const empty = await ours(bench, folder, ['-f', 'raw', '-c', '3', 'empty.raw']);
    assert.is(empty.err, 'qemu-img: Failed request: Input/output error\n');
  });
});

test.run();
