/**
 * `map` of the tool and of qemu-img on the same files: what they print and how they end. Replay
 * with SEED=…, longer with SLOW=1.
 */
import * as assert from 'uvu/assert';
import { map } from '../../src/cli/commands/map.ts';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { rng, SEED } from '../random.ts';
import { inScratch, qemuImg, qemuIo, readFiles, run, tool } from '../tool.ts';
import { ours, theirs } from './image-command.ts';
import {
  describe,
  makeChain,
  makeImage,
  makeRaw,
  randomSetting,
  writePattern,
} from './random-image.ts';

const ROUNDS = process.env.SLOW ? 80 : 8;

async function same(folder: string, args: readonly string[]): Promise<void> {
  readFiles(folder);
  const [mine, wanted] = await Promise.all([ours(map, folder, args), theirs('map', folder, args)]);
  assert.is(mine.out, wanted.out, `map ${args.join(' ')}`);
  assert.equal([mine.code, mine.err], [wanted.code, wanted.err], `map ${args.join(' ')}`);
}

const test = qemuSuite('map');

test('lists any chain of images as qemu-img does', async () => {
  for (let round = 0; round < ROUNDS; round++) {
    const next = rng((SEED ^ Math.imul(round + 1, 0x9e3779b1)) | 0);
    await inScratch(async (folder) => {
      writePattern(next, folder);
      // Room that nobody wrote to: with a backing file it takes subclusters.
      const preallocated = {
        extended: true,
        version: 3,
        compression: 'none',
        preallocation: next.pick(['metadata', 'falloc'] as const),
      } as const;
      const fixed = next.oneIn(3) ? preallocated : {};
      const { image, size, about } = await makeChain(next, folder, next.below(4), fixed);
      try {
        await same(folder, ['--output=json', image]);
        await same(folder, [image]);
        await same(folder, ['--output=json', '-f', 'raw', image]);
        for (const unit of [1, 512, 65536]) {
          const from = Math.floor(next.below(size + 1000) / unit) * unit;
          const length = Math.floor(next.below(size) / unit) * unit;
          const limits = [`--start-offset=${from}`, `--max-length=${length}`];
          await same(folder, ['--output=json', ...limits, image]);
          await same(folder, [...limits, image]);
        }
      } catch (cause) {
        const { message, details } = cause as Error & { details?: string };
        throw new Error(`SEED=${SEED} round ${round}\n${about}\n${message}\n${details}`, { cause });
      }
    });
  }
});

test('tells data in holes of the file from other data', async () => {
  for (let round = 0; round < ROUNDS / 2; round++) {
    const next = rng((SEED ^ Math.imul(round + 55, 0x9e3779b1)) | 0);
    await inScratch(async (folder) => {
      writePattern(next, folder);
      const preallocation = next.pick(['metadata', 'metadata', 'falloc', 'full'] as const);
      const setting = randomSetting(next, {
        preallocation,
        compression: 'none',
        version: 3,
        dataFile: 'none',
      });
      await makeImage(next, folder, 'a.qcow2', setting);
      await makeRaw(next, folder, 'r.raw', 512 + next.below(2 ** 20));
      try {
        for (const name of ['a.qcow2', 'r.raw']) {
          await same(folder, ['--output=json', name]);
          await same(folder, [name]);
        }
        const direct = 'cache.direct=on,file.filename=r.raw';
        await same(folder, ['--image-opts', `driver=raw,${direct}`]);
        await same(folder, ['--output=json', '--image-opts', `driver=raw,${direct}`]);
      } catch (cause) {
        const { message, details } = cause as Error & { details?: string };
        const about = `SEED=${SEED} round ${round}\n${describe(setting)}`;
        throw new Error(`${about}\n${message}\n${details}`, { cause });
      }
    });
  }
});

const MESSAGES: readonly (readonly string[])[] = [
  [],
  ['absent'],
  ['--output=foo', 'absent'],
  ['-s', '1k', 'a.qcow2'],
  ['-l', 'abc', 'a.qcow2'],
  ['-s', 'x', '-l', 'abc', 'a.qcow2'],
  ['-s', '99999999999999999999', 'a.qcow2'],
  ['--output=json', '-s', '2M', 'a.qcow2'],
  ['--output=json', '-s', '7E', 'a.qcow2'],
  ['--output=json', '-s', '100', '-l', '0', 'a.qcow2'],
  ['--output=json', '-s', '100', '-l', '70000', 'a.qcow2'],
  ['-s', '70000', 'a.qcow2'],
  ['-f', 'raw', 'a.qcow2'],
  ['-f', 'foo', 'a.qcow2'],
  ['-U', 'a.qcow2'],
  ['c.qcow2'],
  ['e.qcow2'],
  ['--output=json', 'e.qcow2'],
  ['l.qcow2'],
  ['a.qcow2', 'c.qcow2'],
];

/** Parts of files as disks: their bytes have places in the whole file. */
const WINDOWS: readonly (readonly string[])[] = [
  'driver=raw,offset=4k,size=32k,file.filename=a.raw',
  'driver=raw,offset=4k,file.driver=raw,file.offset=8k,file.file.filename=a.raw',
  'driver=qcow2,file.filename=l.qcow2,backing.driver=raw,backing.offset=64k,' +
    'backing.file.filename=a.raw',
].flatMap((name) => [
  ['--image-opts', name],
  ['--output=json', '--image-opts', name],
]);

test('messages and exit codes are those of qemu-img', async () => {
  await inScratch(async (folder) => {
    const cwd = { cwd: folder };
    const make = (name: string, size: string, ...more: string[]) =>
      qemuImg(['create', '-q', '-f', 'qcow2', ...more, name, size], cwd);
    await make('a.qcow2', '1M');
    await qemuIo('a.qcow2', ['write 64k 64k'], cwd);
    await make('c.qcow2', '1M');
    await qemuIo('c.qcow2', ['write -c -P 1 64k 64k', 'write 0 64k'], cwd);
    await make('e.qcow2', '0');
    await make('l.qcow2', '2M', '-b', 'a.qcow2', '-F', 'qcow2');
    for (const args of MESSAGES) await same(folder, args);
    await qemuImg(['create', '-q', '-f', 'raw', 'a.raw', '1M'], cwd);
    await qemuIo('a.raw', ['write 0 600k', 'write 700k 4k'], { ...cwd, format: 'raw' });
    const { img } = requireQemu();
    for (const args of WINDOWS) {
      const [mine, wanted] = [
        await tool(['map', ...args], cwd),
        await run(img, ['map', ...args], cwd),
      ];
      assert.is(
        `${mine.stdout}${mine.stderr.replaceAll('qcow2-img', 'qemu-img')}`,
        `${wanted.stdout}${wanted.stderr}`,
        args.join(' '),
      );
    }
  });
});

test('lists what bitmaps say has changed', async () => {
  await inScratch(async (folder) => {
    const cwd = { cwd: folder };
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '4M'], cwd);
    await qemuImg(['bitmap', '--add', '-g', '64k', 'a.qcow2', 'b'], cwd);
    await qemuIo('a.qcow2', ['write 100k 1k', 'write 1M 200k'], cwd);
    const json = await ours(map, folder, ['--bitmap=b', '--output=json', 'a.qcow2']);
    assert.equal(JSON.parse(json.out), [
      { start: 65536, length: 65536 },
      { start: 1048576, length: 262144 },
    ]);
    const human = await ours(map, folder, ['--bitmap', 'b', '-s', '1M', 'a.qcow2']);
    assert.is(human.out, 'Offset          Length\n0x100000        0x40000\n');
    const absent = await ours(map, folder, ['--bitmap=x', 'a.qcow2']);
    assert.equal([absent.code, absent.err], [1, "qemu-img: Dirty bitmap 'x' not found\n"]);
  });
});

test.run();
