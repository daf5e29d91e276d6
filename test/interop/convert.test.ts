/**
 * Conversions of images that QEMU's tools made, byte for byte what qemu-img makes of them; and our
 * extents against `qemu-img map`. Replay with SEED=…, and try many more images with SLOW=1.
 */
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { convertToRaw } from '../../src/convert/to-raw.ts';
import type { Disk } from '../../src/image/disk.ts';
import type { Gate } from '../../src/image/gate.ts';
import { openDisk } from '../../src/image/open.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { openNodeFile } from '../../src/storage/node-file.ts';
import { qemuSuite } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import { difference, eachAtOnce, inScratch, qemuImg, qemuIo, TOOL, tool } from '../tool.ts';
import { mapOf, parseMap } from './map-json.ts';
import {
  type Chain,
  chainOf,
  createImage,
  fillCommands,
  makeChain,
  makeImage,
  makeSingle,
  PLAIN,
  randomSetting,
  randomSize,
  writePattern,
} from './random-image.ts';

const SLOW = Boolean(process.env.SLOW);

/** How many images a test makes, `few` by default. */
const images = (few: number) => (SLOW ? few * 12 : few);

/** A generator for each image of each test, so that one can be looked at without the others. */
function randomFor(title: string, index: number): Random {
  let hash = SEED ^ Math.imul(index + 1, 0x9e3779b1);
  for (const letter of title) hash = Math.imul(hash ^ letter.codePointAt(0)!, 0x01000193);
  return rng(hash);
}

function openIn(folder: string, name: string, options = {}): Promise<Disk> {
  const gate: Gate = (request) => openNodeFile(join(folder, request.name));
  return openDisk(openNodeFile(join(folder, name)), { gate, ...options });
}

/** The whole disk in memory, by way of the library. */
async function convertInMemory(disk: Disk): Promise<Uint8Array> {
  const target = memoryStorage();
  await convertToRaw([disk], target);
  return target.snapshot();
}

/** The same by way of `Disk.read`, in pieces that end anywhere. */
async function readAll(next: Random, disk: Disk): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.size);
  for (let at = 0; at < bytes.length; ) {
    const piece = bytes.subarray(at, at + 1 + next.below(300_000));
    piece.fill(0xa5);
    await disk.read(at, piece);
    at += piece.length;
  }
  return bytes;
}

/** What the tool is called with, and what it writes then. */
const WAYS: ((next: Random, size: number, target: string) => string[])[] = [
  () => [],
  (next) => ['-m', String(1 + next.below(4))],
  () => ['-S', '0'],
  () => ['-C'],
  (next) => ['-S', next.pick(['512', '4k', '64k', '1536'])],
  (_next, size, target) => {
    // Written into what is there: every byte has to be.
    writeFileSync(target, Buffer.alloc(size, 0x5a));
    return ['-n'];
  },
  (next, size, target) => {
    writeFileSync(target, '');
    truncateSync(target, size);
    return ['-n', '--target-is-zero', '-m', String(1 + next.below(4))];
  },
];

interface Check extends Pick<Chain, 'image' | 'about' | 'rules'> {
  readonly folder: string;
  /** Arguments of both tools. */
  readonly args?: readonly string[];
  /** How our library opens it. */
  readonly open?: Parameters<typeof openDisk>[1];
  /** `map` knows no snapshots. */
  readonly map?: boolean;
}

/** Holds one image to everything: library, tool and map. */
async function check(next: Random, what: Check): Promise<void> {
  const { folder, image, rules, args = [], open = {}, map = true } = what;
  const about = `SEED=${SEED}\n${what.about}`;
  await qemuImg(['convert', ...args, '-O', 'raw', image, 'theirs.raw'], { cwd: folder });
  const theirs = readFileSync(join(folder, 'theirs.raw'));
  const disk = await openIn(folder, image, open);
  try {
    assert.is(difference(await convertInMemory(disk), theirs), '', `library: ${about}`);
    assert.is(difference(await readAll(next, disk), theirs), '', `reading: ${about}`);
    if (map) {
      const json = await qemuImg(['map', '--output=json', ...args, image], { cwd: folder });
      const wanted = parseMap(json.toString(), rules);
      assert.equal(await mapOf(disk.extents()), wanted, `map: ${about}`);
    }
  } finally {
    await disk.close();
  }
  await checkTool(next, what, theirs);
}

async function checkTool(next: Random, what: Check, theirs: Uint8Array): Promise<void> {
  const { folder, image, args = [] } = what;
  const target = join(folder, 'ours.raw');
  if (next.oneIn(6)) {
    const piped = await tool(['convert', ...args, '-O', 'raw', image, '-'], { cwd: folder });
    assert.is(piped.stderr, '', what.about);
    assert.is(difference(piped.stdout, theirs), '', `pipe: SEED=${SEED}\n${what.about}`);
    return;
  }
  const way = next.pick(WAYS)(next, theirs.length, target);
  const line = ['convert', ...way, ...args, '-O', 'raw', image, 'ours.raw'];
  const { code, stdout, stderr } = await tool(line, { cwd: folder });
  assert.is(stdout + stderr, '', `${TOOL} ${line.join(' ')}\n${what.about}`);
  assert.is(code, 0);
  const ours = readFileSync(target);
  assert.is(difference(ours, theirs), '', `${line.join(' ')} SEED=${SEED}\n${what.about}`);
}

/** Makes `count` images, each in a folder of its own, and holds them to everything. */
async function checkEach(
  title: string,
  count: number,
  make: (next: Random, folder: string, index: number) => Promise<Omit<Check, 'folder'>>,
): Promise<void> {
  await eachAtOnce(Array(images(count)).keys(), (index) =>
    inScratch(async (folder) => {
      const next = randomFor(title, index);
      writePattern(next, folder);
      try {
        await check(next, { folder, ...(await make(next, folder, index)) });
      } catch (cause) {
        console.error(`SEED=${SEED}, image ${index}`);
        throw cause;
      }
    }),
  );
}

const test = qemuSuite('convert and map agree with QEMU');

for (let clusterBits = 9; clusterBits <= 21; clusterBits++) {
  const title = `clusters of 2^${clusterBits} bytes, versions 2 and 3`;
  test(title, () =>
    checkEach(title, 3, (next, folder, index) => {
      const version = index % 2 === 0 ? 3 : 2;
      const fixed = { clusterBits, version, extended: false, dataFile: 'none' } as const;
      return makeSingle(next, folder, randomSetting(next, fixed));
    }),
  );
}

for (let clusterBits = 14; clusterBits <= 21; clusterBits++) {
  const title = `subclusters of 2^${clusterBits - 5} bytes`;
  test(title, () =>
    checkEach(title, 2, (next, folder) =>
      makeSingle(next, folder, randomSetting(next, { clusterBits, version: 3, extended: true })),
    ),
  );
}

for (const refcountBits of [1, 2, 4, 8, 16, 32, 64]) {
  const title = `refcounts of ${refcountBits} bits`;
  test(title, () =>
    checkEach(title, 1, (next, folder) =>
      makeSingle(
        next,
        folder,
        randomSetting(next, { refcountBits, version: 3, compression: 'zlib', dataFile: 'none' }),
      ),
    ),
  );
}

for (const compression of ['zlib', 'zstd'] as const) {
  const title = `clusters compressed with ${compression}`;
  test(title, () =>
    checkEach(title, 4, async (next, folder) => {
      const fixed = { version: 3, compression, dataFile: 'none' } as const;
      const setting = randomSetting(next, fixed);
      await createImage(folder, 'a.qcow2', setting);
      // Nearly all of it compressed, in order: streams packed one after another.
      const cluster = 2 ** setting.clusterBits;
      const commands = [];
      for (let at = 0; at < setting.size && commands.length < 200; at += cluster) {
        if (next.oneIn(8)) continue;
        const length = Math.min(cluster, setting.size - at);
        commands.push(`write -c -s pattern.bin ${at} ${length}`);
      }
      commands.push(...fillCommands(next, { ...setting, compression: 'none' }, 4));
      await qemuIo('a.qcow2', commands, { cwd: folder });
      return chainOf('a.qcow2', setting);
    }),
  );
}

test('an image that qemu-img compressed', () =>
  checkEach('whole', 2, async (next, folder) => {
    const setting = randomSetting(next, { dataFile: 'none', version: 3, compression: 'none' });
    await makeImage(next, folder, 'plain.qcow2', setting);
    const type = next.pick(['zlib', 'zstd']);
    const options = `compression_type=${type},cluster_size=${2 ** setting.clusterBits}`;
    const args = ['convert', '-c', '-O', 'qcow2', '-o', options, 'plain.qcow2', 'a.qcow2'];
    await qemuImg(args, { cwd: folder });
    const chain = chainOf('a.qcow2', setting);
    return { ...chain, about: `${chain.about} ${type}` };
  }));

for (const depth of [1, 2, 3, 4]) {
  const title = `backing chains of ${depth}`;
  test(title, () => checkEach(title, 5, (next, folder) => makeChain(next, folder, depth)));
}

for (const dataFile of ['file', 'raw'] as const) {
  const title = `external data files (${dataFile})`;
  test(title, () =>
    checkEach(title, 4, (next, folder) =>
      makeSingle(next, folder, randomSetting(next, { dataFile, version: 3 })),
    ),
  );
}

for (const preallocation of ['metadata', 'falloc', 'full'] as const) {
  const title = `preallocation=${preallocation}`;
  test(title, () =>
    checkEach(title, 2, (next, folder) =>
      makeSingle(next, folder, randomSetting(next, { preallocation, compression: 'none' })),
    ),
  );
}

test('internal snapshots, by id and by name', () =>
  checkEach('snapshots', 6, async (next, folder) => {
    const fixed = { dataFile: 'none', refcountBits: 16 } as const;
    const chain = await makeChain(next, folder, next.below(2), fixed);
    const { image, size, about } = chain;
    const names = ['first', '2', 'third one', 'fö'];
    for (const name of names) {
      await qemuImg(['snapshot', '-c', name, image], { cwd: folder });
      await qemuIo(image, fillCommands(next, { ...PLAIN, size }, 5), { cwd: folder });
    }
    const index = next.below(names.length);
    const name = names[index]!;
    const id = String(index + 1);
    const [arg, snapshot] = next.pick([
      [id, id],
      [name, name],
      [`snapshot.id=${id}`, { id }],
      [`snapshot.name=${name}`, { name }],
      [`snapshot.id=${id},snapshot.name=${name}`, { id, name }],
    ] as const);
    const open = { snapshot } as Parameters<typeof openDisk>[1];
    return { ...chain, about: `${about}\n-l ${arg}`, args: ['-l', arg], open, map: false };
  }));

test('a snapshot whose name has a comma', () =>
  inScratch(async (folder) => {
    const cwd = folder;
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '1M'], { cwd });
    await qemuIo('a.qcow2', ['write -P 5 0 100k'], { cwd });
    await qemuImg(['snapshot', '-c', 'no,w', 'a.qcow2'], { cwd });
    await qemuIo('a.qcow2', ['write -P 6 50k 100k'], { cwd });
    for (const [name, run] of Object.entries({ ours: tool, theirs: qemuImg })) {
      await run(['convert', '-l', 'snapshot.name=no,,w,', '-O', 'raw', 'a.qcow2', name], { cwd });
    }
    const [left, right] = ['ours', 'theirs'].map((name) => readFileSync(`${folder}/${name}`));
    assert.is(difference(left as Buffer, right as Buffer), '');
  }));

test('a snapshot of a disk that has since been resized', () =>
  checkEach('resized', 2, async (next, folder) => {
    const setting = randomSetting(next, { version: 3, dataFile: 'none', refcountBits: 16 });
    const chain = await makeSingle(next, folder, setting);
    await qemuImg(['snapshot', '-c', 's', 'a.qcow2'], { cwd: folder });
    const size = randomSize(next, setting.clusterBits);
    await qemuImg(['resize', '-q', '--shrink', 'a.qcow2', String(size)], { cwd: folder });
    const commands = fillCommands(next, { ...PLAIN, size }, 5);
    await qemuIo('a.qcow2', commands, { cwd: folder });
    const about = `${chain.about} then ${size}`;
    return { ...chain, about, args: ['-l', 's'], open: { snapshot: 's' }, map: false };
  }));

test('images cut off within their last cluster', () =>
  checkEach('cut', 4, async (next, folder) => {
    const setting = randomSetting(next, { dataFile: 'none', compression: 'none' });
    const chain = await makeSingle(next, folder, setting);
    const path = join(folder, 'a.qcow2');
    const cluster = 2 ** setting.clusterBits;
    // Metadata must stay whole: the last cluster is one of data that was written just now.
    await qemuIo('a.qcow2', [`write -s pattern.bin 0 ${setting.size}`], { cwd: folder });
    const { size } = statSync(path);
    truncateSync(path, size - next.below(Math.min(cluster, size % cluster || cluster)));
    return { ...chain, about: `${chain.about} cut from ${size}` };
  }));

test('dirty images: refcounts are not needed to read', () =>
  checkEach('dirty', 2, async (next, folder) => {
    const setting = randomSetting(next, { version: 3, lazy: true, dataFile: 'none' });
    await createImage(folder, 'a.qcow2', setting);
    // `abort` ends qemu-io as a crash would, before it clears the dirty bit; the exit is no news.
    const write = `write -P 7 0 ${setting.size}`;
    const commands = [write, ...fillCommands(next, { ...setting, compression: 'none' }, 8)];
    commands.push('flush', 'abort');
    await qemuIo('a.qcow2', commands, { cwd: folder }).catch(() => {});
    assert.is(readFileSync(join(folder, 'a.qcow2'))[79]! & 1, 1, 'the dirty bit is set');
    return chainOf('a.qcow2', setting);
  }));

test('a virtual size that is no multiple of 512', () =>
  checkEach('odd', 2, async (next, folder) => {
    const setting = randomSetting(next);
    const made = await makeSingle(next, folder, setting);
    const path = join(folder, 'a.qcow2');
    const bytes = readFileSync(path);
    // Only other writers store such a size.
    bytes.writeUInt32BE(setting.size - 1 - next.below(511), 28);
    writeFileSync(path, bytes);
    return made;
  }));

test('raw images of any length', () =>
  checkEach('raw', 3, async (next, folder) => {
    const size = next.pick([0, 1, 511, 512, 513, 4096, 1_000_001]);
    const bytes = Buffer.alloc(size);
    for (let at = 0; at < size; at++) bytes[at] = at % 5000 < 900 ? 0 : next.u32();
    writeFileSync(join(folder, 'a.raw'), bytes);
    const open = { format: 'raw' } as const;
    const rules = { rawDepths: [0] };
    return { image: 'a.raw', about: `raw ${size}`, args: ['-f', 'raw'], open, rules };
  }));

test('several disks, one after another', async () => {
  await eachAtOnce(Array(images(3)).keys(), (index) =>
    inScratch(async (folder) => {
      const next = randomFor('several', index);
      writePattern(next, folder);
      const names = ['a.qcow2', 'b.qcow2', 'c.qcow2'];
      for (const name of names) await makeImage(next, folder, name, randomSetting(next));
      const args = ['convert', '-O', 'raw', ...names];
      await qemuImg([...args, 'theirs.raw'], { cwd: folder });
      assert.is((await tool([...args, 'ours.raw'], { cwd: folder })).stderr, '');
      const [ours, theirs] = ['ours.raw', 'theirs.raw'].map((n) => readFileSync(join(folder, n)));
      assert.is(difference(ours!, theirs!), '', `SEED=${SEED}`);
    }),
  );
});

test('a rate holds back what is written, and not what is passed over', () =>
  inScratch(async (folder) => {
    const disk = join(folder, 'disk.raw');
    writeFileSync(disk, '');
    truncateSync(disk, 2 ** 40);
    await qemuIo(disk, ['write -P 5 512G 2M'], { format: 'raw' });
    for (const format of ['raw', 'qcow2']) {
      const from = performance.now();
      const args = ['convert', '-r', '1M', '-f', 'raw', '-O', format, disk, join(folder, 'out')];
      assert.is((await tool(args)).stderr, '');
      const seconds = (performance.now() - from) / 1000;
      // All but the last job's bytes, and nothing of a tebibyte of holes, which would be days.
      assert.ok(seconds > 1.5, `${format}: ${seconds} s`);
    }
  }));

test.run();
