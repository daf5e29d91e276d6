// `resize` must say what qemu-img says, and leave images that map, check and compare alike. Of
// what there are many of, each run takes some; SLOW=1 takes all.
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import * as assert from 'uvu/assert';
import { resize } from '../../src/cli/commands/resize.ts';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { type Random, rng, SEED, someOf } from '../random.ts';
import { difference, eachAtOnce, inScratch, qemuImg, qemuIo, run } from '../tool.ts';
import { type Outcome, ours, theirs } from './image-command.ts';
import {
  type Backing,
  createImage,
  describe as describeSetting,
  fillCommands,
  type ImageSetting,
  makeRaw,
  randomSetting,
  writePattern,
} from './random-image.ts';
import { guestBytes } from './two-chains.ts';

const RANDOM_IMAGES = process.env.SLOW ? 200 : 8;

/** One image, and what is done to it, step by step. */
interface Case {
  /** Options of qemu-img's `create`, without the name. */
  readonly image: string;
  readonly size: string;
  /** What is written before. */
  readonly io?: readonly string[];
  /** Bytes of a raw backing file that is full of ones. */
  readonly backing?: number;
  readonly snapshot?: boolean;
  /** Arguments of `resize`, `image` among them; or what both get from qemu-io in between. */
  readonly steps: readonly string[];
}

const oneOf = ({ image, size }: Case) => `${image} ${size} (SEED=${SEED})`;

async function makeImage(folder: string, one: Case): Promise<void> {
  const cwd = folder;
  const backing = one.backing === undefined ? [] : ['-b', 'base', '-F', 'raw'];
  if (one.backing !== undefined) writeFileSync(`${folder}/base`, Buffer.alloc(one.backing, 1));
  const args = one.image === '' ? [] : one.image.split(' ');
  await qemuImg(['create', '-q', ...args, ...backing, 'image', one.size], { cwd });
  if (one.io) await qemuIo('image', one.io, { cwd });
  if (!one.snapshot) return;
  await qemuImg(['snapshot', '-c', 'one', 'image'], { cwd });
  if (one.io) await qemuIo('image', one.io, { cwd });
}

/** One entry of `map --output=json`. */
interface Mapped {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly data: boolean;
  readonly offset?: number;
}

/** What qemu-img sees in an image, and the sizes of its files, as lines. */
async function describe(folder: string): Promise<string[]> {
  const cwd = folder;
  const { img } = requireQemu();
  const [map, check] = await Promise.all([
    run(img, ['map', '--output=json', 'image'], { cwd }),
    run(img, ['check', 'image'], { cwd }),
  ]);
  assert.is(check.code, 0, check.stderr + check.stdout.toString());
  const files = readdirSync(folder).map((name) => `${name} ${statSync(`${folder}/${name}`).size}`);
  return [...joined(JSON.parse(map.stdout.toString())), check.stdout.toString(), ...files];
}

/** The map without what it tells of holes in the file, which file systems make as they like. */
function joined(map: readonly Mapped[]): string[] {
  const lines: string[] = [];
  let last: Mapped | undefined;
  for (const { start, length, depth, present, data, offset } of map) {
    const kind = `${depth} ${present} ${data}`;
    const place = offset === undefined ? undefined : offset - start;
    const before = last && `${last.depth} ${last.present} ${last.data}`;
    const placed = last?.offset === undefined ? undefined : last.offset - last.start;
    if (last === undefined || before !== kind || placed !== place) {
      lines.push(`${start}: ${kind} ${offset ?? ''}`);
    }
    last = { start, length, depth, present, data, ...(offset === undefined ? {} : { offset }) };
  }
  return lines;
}

/** The first line that differs. */
function firstDifference(left: readonly string[], right: readonly string[]): string {
  const at = right.findIndex((line, index) => line !== left[index]);
  if (at < 0) return left.length === right.length ? '' : `more: ${left[right.length]}`;
  return `${left[at]} and not ${right[at]}`;
}

/** Both tools take the same steps, each on a copy; after each step the images are alike. */
async function sameSteps(one: Case): Promise<void> {
  await inScratch(async (folder) => {
    const folders = await twoImages(folder, (made) => makeImage(made, one));
    const same = await takeSteps(folders, one.steps, oneOf(one));
    if (!same) await sameBytes(folder, one);
  });
}

/** Makes what is to be resized, and a copy of it. */
async function twoImages(
  folder: string,
  make: (folder: string) => Promise<void>,
): Promise<readonly [string, string]> {
  const folders = [`${folder}/ours`, `${folder}/theirs`] as const;
  for (const made of folders) mkdirSync(made);
  await make(folders[1]);
  for (const name of readdirSync(folders[1])) {
    copyFileSync(`${folders[1]}/${name}`, `${folders[0]}/${name}`);
  }
  return folders;
}

/** @returns whether all files are equal afterwards, byte by byte */
async function takeSteps(
  folders: readonly [string, string],
  steps: readonly string[],
  about: string,
): Promise<boolean> {
  let same = false;
  for (const [index, step] of steps.entries()) {
    const title = `${about}: ${steps.slice(0, index + 1).join(', ')}`;
    if (step.startsWith('write ')) {
      for (const cwd of folders) await qemuIo('image', [step], { cwd });
      continue;
    }
    const args = step.split(' ');
    const [mine, expected] = await Promise.all([
      ours(resize, folders[0], args),
      theirs('resize', folders[1], args),
    ]);
    assert.equal(mine, expected, title);
    // What is as QEMU made it, byte by byte, needs no other proof.
    same = haveEqualFiles(folders);
    if (same) continue;
    const [left, right] = await Promise.all([describe(folders[0]), describe(folders[1])]);
    assert.is(firstDifference(left, right), '', title);
  }
  return same;
}

/** Files up to this are compared here; QEMU's tools are faster at larger ones, which have holes. */
const COMPARED_BYTES_MAX = 2 ** 26;

/** The same files with the same bytes. */
function haveEqualFiles([left, right]: readonly [string, string]): boolean {
  const names = readdirSync(right);
  assert.equal(readdirSync(left), names);
  return names.every((name) => {
    const sizes = [left, right].map((folder) => statSync(`${folder}/${name}`).size);
    if (sizes[0] !== sizes[1] || (sizes[0] as number) > COMPARED_BYTES_MAX) return false;
    return readFileSync(`${left}/${name}`).equals(readFileSync(`${right}/${name}`));
  });
}

/** What both disks read as. QEMU looks for data files in the working directory. */
async function sameBytes(folder: string, one: Case): Promise<void> {
  if (one.image.includes('data_file')) {
    const [left, right] = ['ours', 'theirs'].map((name) => readFileSync(`${folder}/${name}/data`));
    assert.is(difference(left as Buffer, right as Buffer), '', oneOf(one));
    return;
  }
  const args = ['compare', '-q', 'ours/image', 'theirs/image'];
  assert.is((await run(requireQemu().img, args, { cwd: folder })).code, 0, oneOf(one));
}

const test = qemuSuite('resize, against qemu-img');

const IO = ['write -P 1 0 300k', 'write -P 2 1M 70k', 'write -z 2M 1M', 'write -P 3 5M 1M'];
const LAYOUTS = ['', 'cluster_size=512', 'cluster_size=4k,refcount_bits=64', 'compat=0.10'];
LAYOUTS.push('cluster_size=2M', 'extended_l2=on', 'lazy_refcounts=on,cluster_size=1k');
const qcow2 = (layout: string) => (layout === '' ? '-f qcow2' : `-f qcow2 -o ${layout}`);

test('growing', async () => {
  await eachAtOnce(someOf(LAYOUTS, 4), async (layout) => {
    const steps = ['image +1M', 'image 20M', '-q image +512', 'image +3G', '-f qcow2 image +0'];
    await sameSteps({ image: qcow2(layout), size: '9000448', io: IO, steps });
  });
});

test('shrinking, down to nothing', async () => {
  await eachAtOnce(someOf(LAYOUTS, 4), async (layout) => {
    // Whole clusters: what QEMU leaves behind the end of one comes back when the disk grows.
    const steps = ['--shrink image 6M', '--shrink image -4M', 'image +6M', '--shrink image 512'];
    await sameSteps({ image: qcow2(layout), size: '8M', io: IO, steps });
    const preallocated = [layout, 'preallocation=metadata'].filter(Boolean).join(',');
    await sameSteps({ image: qcow2(preallocated), size: '40M', steps: ['--shrink image 8M'] });
  });
});

test('shrinking and growing with snapshots', async () => {
  await eachAtOnce(['', 'cluster_size=512', 'extended_l2=on'], async (layout) => {
    const steps = ['--shrink image 4M', 'image 7M', 'image 64M', '--shrink image 512'];
    await sameSteps({ image: qcow2(layout), size: '8M', io: IO, snapshot: true, steps });
  });
  await sameSteps({
    image: qcow2('compat=0.10'),
    size: '8M',
    snapshot: true,
    steps: ['image 9M', '--shrink image 1M'],
  });
});

/** Pairs of two lists: some with each seed, all with SLOW=1. */
function pairs<A, B>(left: readonly A[], right: readonly B[], count: number): [A, B][] {
  return someOf(
    left.flatMap((one) => right.map((other): [A, B] => [one, other])),
    count,
  );
}

const GROWING = ['metadata', 'falloc', 'full'];

test('growing with preallocation', async () => {
  await eachAtOnce(pairs(LAYOUTS, GROWING, 9), async ([layout, mode]) => {
    for (const size of layout === '' ? ['1M', '1000448'] : ['1000448']) {
      const steps = [`--preallocation=${mode} image 3M`, '--shrink image 2M'];
      const io = ['write -P 1 0 10k', 'write -P 5 900k 64k'];
      await sameSteps({ image: qcow2(layout), size, io, steps });
    }
  });
  const io = ['write 1M 1M'];
  const full = ['--shrink image 512k', '--preallocation=falloc image +1M'];
  // So small clusters run out of refcount table, large ones of refcount blocks.
  await sameSteps({
    image: qcow2('cluster_size=512'),
    size: '2M',
    io,
    steps: [...full, '--preallocation=full image 20M'],
  });
  const sparse = ['--shrink image 512k', '--preallocation=metadata image 3G'];
  await sameSteps({ image: '-f qcow2', size: '20M', io, steps: sparse });
});

test("what is preallocated follows the disk's last cluster, and reaches as far", async () => {
  await sameSteps({
    image: '-f qcow2',
    size: '200192',
    io: ['write 0 200192', 'discard 64k 64k'],
    steps: ['--preallocation=metadata image 300k'],
  });
  for (const mode of ['metadata', 'falloc']) {
    for (const more of ['extended_l2=on,cluster_size=1M', 'cluster_size=1M']) {
      const io = ['write -P 1 0 100k'];
      const steps = [500_224, 600_064, 700_416].map((to) => `--preallocation=${mode} image ${to}`);
      for (const image of [`data_file=data,${more}`, more].map(qcow2)) {
        await sameSteps({ image, size: '408576', io, steps });
      }
    }
  }
});

test('growing over a backing file', async () => {
  const layouts = ['', 'cluster_size=4k', 'extended_l2=on'];
  await eachAtOnce(pairs(layouts, ['off', ...GROWING], 6), async ([layout, mode]) => {
    for (const size of mode === 'off' ? ['1M', '1000448'] : ['1000448']) {
      const steps = [`--preallocation=${mode} image 6M`, '--shrink image 2M'];
      const io = ['write -P 7 100k 1k'];
      await sameSteps({ image: qcow2(layout), size, io, backing: 4 * 2 ** 20, steps });
    }
  });
  const [layout = ''] = someOf(layouts, 1);
  await sameSteps({ image: qcow2(layout), size: '4M', backing: 2 ** 20, steps: ['image 5M'] });
});

test('external data files', async () => {
  await eachAtOnce(pairs(['on', 'off'], ['off', ...GROWING], 5), async ([raw, mode]) => {
    const steps = ['--shrink image 99840', `--preallocation=${mode} image 1M`, 'image 2M'];
    const image = qcow2(`data_file=data,data_file_raw=${raw}`);
    await sameSteps({ image, size: '3M', io: ['write -P 1 0 2M'], steps });
  });
});

const isCompressed = ({ compression }: ImageSetting) => compression !== 'none';

/**
 * An image of any shape: with snapshots, over a backing file, with a data file. None has bitmaps,
 * which ours writes to other places before it lets go of the old ones.
 */
async function makeRandom(next: Random, folder: string, setting: ImageSetting): Promise<void> {
  const cwd = { cwd: folder };
  writePattern(next, folder);
  let backing: Backing | undefined;
  // QEMU refuses to grow version 2 over a longer backing file, and of a part of a cluster may
  // write zeros where ours says so in the entry.
  const isPlain = setting.version === 3 && setting.dataFile !== 'raw' && !isCompressed(setting);
  const canBack = setting.extended || setting.preallocation === 'off';
  if (isPlain && canBack && setting.size % 2 ** setting.clusterBits === 0) {
    await makeRaw(next, folder, 'base', 512 * (1 + next.below(setting.size / 256)));
    backing = { name: 'base', format: 'raw', stated: true };
  }
  await createImage(folder, 'image', setting, backing);
  await qemuIo('image', fillCommands(next, setting, next.pick([2, 6, 12])), cwd);
  const plain = { ...setting, compression: 'none' as const };
  const isWide = setting.refcountBits > (isCompressed(setting) ? 8 : 2);
  const canSnapshot = setting.version === 3 && setting.dataFile === 'none' && isWide;
  if (canSnapshot && next.oneIn(4)) {
    await qemuImg(['snapshot', '-c', 'one', 'image'], cwd);
    await qemuIo('image', fillCommands(next, plain, 3), cwd);
  }
}

/** Sizes up and down: down to whole clusters, as what is left of one QEMU shows again. */
function randomSteps(next: Random, setting: ImageSetting): string[] {
  const cluster = 2 ** setting.clusterBits;
  const steps: string[] = [];
  let { size } = setting;
  const unit = size % cluster === 0 ? cluster : 512;
  // Where the disk ends in a compressed cluster with subclusters, QEMU loses its bytes.
  const isLost = setting.extended && isCompressed(setting);
  for (let count = 2 + next.below(4); count > 0; count--) {
    if (next.oneIn(2) && size > cluster) {
      size = cluster * (1 + next.below(Math.floor(size / cluster)));
      // A discard makes a table with QEMU, where ours makes none: let there be one.
      steps.push(`write ${size - 512} 512`, `--shrink image ${size}`);
      continue;
    }
    const more = next.pick([1, cluster / 512, 100, 2000, (40 * cluster) / 512]);
    size += Math.ceil((512 * (1 + next.below(Math.min(more, 40_000)))) / unit) * unit;
    const mode = isLost ? 'off' : next.pick(['off', 'off', ...GROWING]);
    steps.push(`--preallocation=${mode} image ${size}`);
  }
  return steps;
}

test('images of any shape, step by step', () =>
  eachAtOnce(Array(RANDOM_IMAGES).keys(), (index) =>
    inScratch(async (folder) => {
      const next = rng(SEED ^ Math.imul(index + 1, 0x9e3779b1));
      const preallocation = next.pick(['off', 'off', 'off', 'metadata', 'falloc'] as const);
      const any = randomSetting(next);
      const cluster = 2 ** any.clusterBits;
      const size = next.oneIn(3) ? Math.ceil(any.size / cluster) * cluster : any.size;
      const drawn = { ...any, size, preallocation };
      // What has a place already QEMU does not compress.
      const setting: ImageSetting =
        preallocation === 'off' ? drawn : { ...drawn, compression: 'none' };
      const about = `SEED=${SEED} image ${index} ${describeSetting(setting)}`;
      const folders = await twoImages(folder, (made) => makeRandom(next, made, setting));
      if (await takeSteps(folders, randomSteps(next, setting), about)) return;
      const [left, right] = await Promise.all(
        folders.map((one) => guestBytes(one, 'image', 'qcow2')),
      );
      assert.is(difference(left as Buffer, right as Buffer), '', about);
    }),
  ));

test('raw images', async () => {
  await inScratch(async (folder) => {
    const folders = [`${folder}/ours`, `${folder}/theirs`] as const;
    for (const one of folders) {
      mkdirSync(one);
      writeFileSync(`${one}/image`, 'hello');
      truncateSync(`${one}/image`, 100_000);
    }
    const steps = ['image +1000', '-f raw image +100', '-f raw image 1M', '-f raw image -1k'];
    steps.push('-f raw --shrink image -1000', '-f raw --preallocation=falloc image +1M');
    steps.push('-f raw --preallocation=full image 5M', '-f raw --preallocation=metadata image 6M');
    steps.push('-f raw --preallocation=full --shrink image 1M', '-f raw --shrink image 1');
    steps.push('-f raw image 7E', '-f raw image 8E', '-f raw image 0', '-f qcow2 image 1M');
    for (const step of steps) {
      const args = step.split(' ');
      const [mine, expected] = await Promise.all([
        ours(resize, folders[0], args),
        theirs('resize', folders[1], args),
      ]);
      assert.equal(mine, expected, step);
      const [left, right] = folders.map((one) => statSync(`${one}/image`).size);
      assert.is(left, right, step);
    }
  });
});

test('command lines that are wrong', async () => {
  const lines = ['', 'image', '-q', 'image 1M 2M', '-f bogus image 2M', 'missing 2M', '. 2M'];
  lines.push('--preallocation=foo image 2M', '--preallocation image', '--bogus image 2M');
  lines.push('-U image 2M', '--shrink image', 'image --shrink', '-f', 'overlay 2M', 'none/x 1M');
  for (const size of ['foo', '+foo', '', '+', '-', '++1M', '+-1M', '1.3', '1000', '+1000', '16E']) {
    lines.push(`image ${size}`);
  }
  for (const size of ['-10M', '5k', '7E', '+7E', '8E', '15E', '0', '9223372036854775000']) {
    lines.push(`image ${size}`, `--shrink image ${size}`);
  }
  lines.push('--preallocation=full image +0', '--preallocation=full --shrink image 1k');
  await inScratch(async (folder) => {
    await qemuImg(['create', '-q', '-f', 'qcow2', 'image', '1M'], { cwd: folder });
    const overlay = ['-q', '-f', 'qcow2', '-u', '-b', 'gone', '-F', 'raw', 'overlay', '1M'];
    await qemuImg(['create', ...overlay], { cwd: folder });
    for (const line of lines) {
      const args = line === '' ? [] : line.split(' ');
      const expected: Outcome = await theirs('resize', folder, args);
      assert.equal(await ours(resize, folder, args), expected, `resize ${line}`);
    }
  });
});

test('what grows from nothing begins with room that is its own', () =>
  inScratch(async (folder) => {
    const withData = '-f qcow2 -o data_file=data';
    for (const [made, resized, file] of [
      ['-f raw', '-f raw image', 'image'],
      [withData, 'image', 'data'],
      [`${withData},data_file_raw=on`, 'image', 'data'],
    ] as const) {
      for (const size of ['1M', '3k', '512']) {
        const rooms: number[] = [];
        for (const isOurs of [true, false]) {
          for (const name of ['image', 'data']) rmSync(`${folder}/${name}`, { force: true });
          const create = ['create', '-q', ...made.split(' '), 'image', '0'];
          await qemuImg(create, { cwd: folder });
          const args = [...resized.split(' '), size];
          const { code } = isOurs
            ? await ours(resize, folder, args)
            : await theirs('resize', folder, args);
          assert.is(code, 0, `${made} ${size}`);
          rooms.push(statSync(`${folder}/${file}`).blocks);
        }
        assert.is(rooms[0], rooms[1], `${made} ${size}`);
      }
    }
  }));

/** Whether this machine lets a small file system be mounted. */
const mayMount = await inScratch(async (folder) => {
  const { code } = await run('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', folder]);
  if (code === 0) await run('umount', [folder]);
  return code === 0;
});
const mounted: typeof test = mayMount
  ? test
  : Object.assign((title: string) => test.skip(title), test);

mounted('a disk that is full: what is told, and the room that is given back', async () => {
  for (const image of ['-f raw', '-f qcow2', '-f qcow2 -o cluster_size=512']) {
    await inScratch(async (folder) => {
      await run('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'none', folder]);
      try {
        for (const preallocation of ['full', 'falloc']) {
          const seen: string[] = [];
          for (const isOurs of [false, true]) {
            await qemuImg(['create', '-q', ...image.split(' '), `${folder}/image`, '64k']);
            const before = statSync(`${folder}/image`).size;
            const line = `${image.slice(0, 8).trim()} --preallocation=${preallocation} image 8M`;
            const args = line.split(' ');
            const done: Outcome = isOurs
              ? await ours(resize, folder, args)
              : await theirs('resize', folder, args);
            const { size, blocks } = statSync(`${folder}/image`);
            assert.ok(blocks * 512 < 2 ** 20, `${line}: ${blocks} blocks`);
            seen.push(JSON.stringify([done, size - before]));
          }
          assert.is(seen[1], seen[0]);
        }
      } finally {
        await run('umount', [folder]);
      }
    });
  }
});

test.run();
