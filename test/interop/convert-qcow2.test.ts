/**
 * Conversions into qcow2 images of every shape, judged by QEMU's tools: the image is without
 * faults and shows what the source shows. Replay with SEED=…, and try many more with SLOW=1.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { isQcow2 } from '../../src/format/header.ts';
import { qemuSuite } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import { difference, eachAtOnce, inScratch, qemuImg, qemuIo, TOOL, tool } from '../tool.ts';
import {
  describe,
  type ImageSetting,
  makeChain,
  makeSingle,
  randomSetting,
  writePattern,
} from './random-image.ts';
import { guestBytes } from './two-chains.ts';

const SLOW = Boolean(process.env.SLOW);
const images = (few: number) => (SLOW ? few * 12 : few);

/** What a target image is made with. */
function targetOptions(setting: ImageSetting): string[] {
  const { version, clusterBits, refcountBits, compression, extended, lazy, dataFile } = setting;
  const options = [
    `compat=${version === 2 ? '0.10' : '1.1'}`,
    `cluster_size=${2 ** clusterBits}`,
    `refcount_bits=${refcountBits}`,
  ];
  if (setting.preallocation !== 'off') options.push(`preallocation=${setting.preallocation}`);
  if (compression === 'zstd') options.push('compression_type=zstd');
  if (extended) options.push('extended_l2=on');
  if (lazy) options.push('lazy_refcounts=on');
  if (dataFile !== 'none') options.push('data_file=target.data');
  if (dataFile === 'raw') options.push('data_file_raw=on');
  return ['-o', options.join(',')];
}

async function convert(folder: string, args: readonly string[], about: string): Promise<void> {
  const { code, stdout, stderr } = await tool(['convert', ...args], { cwd: folder });
  assert.is(stdout + stderr, '', `convert ${args.join(' ')}\n${about}`);
  assert.is(code, 0, about);
}

/** The target is a sound image of the same disk. */
async function judge(folder: string, source: string, target: string, about: string) {
  await qemuImg(['check', '-q', target], { cwd: folder }).catch((cause: Error) => {
    throw new Error(`${about}\n${cause.message}`);
  });
  await qemuImg(['compare', '-q', source, target], { cwd: folder }).catch((cause: Error) => {
    throw new Error(`${about}\n${cause.message}`);
  });
}

function scratchImages(count: number, work: (next: Random, folder: string) => Promise<void>) {
  return eachAtOnce(Array(images(count)).keys(), (index) =>
    inScratch(async (folder) => {
      const next = rng(SEED ^ Math.imul(index + 1, 0x9e3779b1));
      writePattern(next, folder);
      try {
        await work(next, folder);
      } catch (cause) {
        console.error(`SEED=${SEED}, image ${index}`);
        throw cause;
      }
    }),
  );
}

const test = qemuSuite('convert to qcow2');

test('every shape of source into every shape of target', () =>
  scratchImages(30, async (next, folder) => {
    const { image, about } = next.oneIn(2)
      ? await makeSingle(next, folder, randomSetting(next))
      : await makeChain(next, folder, 1 + next.below(3));
    const preallocation = next.pick(['off', 'off', 'off', 'metadata', 'falloc'] as const);
    const setting = { ...randomSetting(next), preallocation };
    const args = targetOptions(setting);
    const compress = setting.dataFile === 'none' && preallocation === 'off' && next.oneIn(2);
    if (compress) args.push('-c');
    if (next.oneIn(3)) args.push('-S', next.pick(['0', '512', '64k', '1M']));
    if (next.oneIn(2)) args.push('-m', String(1 + next.below(4)));
    const line = [...args, '-O', 'qcow2', image, 'target.qcow2'];
    const what = `SEED=${SEED} ${line.join(' ')}\n${about}\ntarget: ${describe(setting)}`;
    await convert(folder, line, what);
    await judge(folder, image, 'target.qcow2', what);
    if (setting.dataFile === 'raw') {
      // The data file is a raw image of the disk by itself.
      await qemuImg(['compare', '-q', '-F', 'raw', image, 'target.data'], { cwd: folder });
    }
  }));

test('uncompressed images are those of qemu-img, byte for byte', () =>
  scratchImages(12, async (next, folder) => {
    const { image, about } = await makeSingle(next, folder, randomSetting(next));
    const setting = randomSetting(next, { extended: false, dataFile: 'none', clusterBits: 16 });
    const args = [...targetOptions(setting), '-O', 'qcow2'];
    const what = `SEED=${SEED} ${args.join(' ')}\n${about}`;
    await convert(folder, [...args, image, 'ours.qcow2'], what);
    await qemuImg(['convert', '-m', '1', ...args, image, 'theirs.qcow2'], { cwd: folder });
    const [ours, theirs] = ['ours', 'theirs'].map((name) =>
      readFileSync(join(folder, `${name}.qcow2`)),
    ) as [Buffer, Buffer];
    assert.is(difference(ours, theirs), '', what);
  }));

test('with -S 0 all of the disk is written, and nothing behind its end', () =>
  inScratch(async (folder) => {
    const cwd = { cwd: folder };
    for (const [clusterSize, size] of [
      ['2M', 518_656],
      ['16k', 100_352],
      ['64k', 512],
    ] as const) {
      await qemuImg(['create', '-q', '-f', 'raw', 'disk.raw', `${size}`], cwd);
      const options = ['-o', `extended_l2=on,cluster_size=${clusterSize}`];
      const args = ['-S', '0', '-f', 'raw', '-O', 'qcow2', ...options, 'disk.raw'];
      await convert(folder, [...args, 'ours.qcow2'], clusterSize);
      await qemuImg(['convert', ...args, 'theirs.qcow2'], cwd);
      const [ours, theirs] = ['ours', 'theirs'].map((name) =>
        readFileSync(join(folder, `${name}.qcow2`)),
      ) as [Buffer, Buffer];
      assert.is(difference(ours, theirs), '', clusterSize);
    }
  }));

test('zeros of a disk that has its places begin and end where those of qemu-img do', () =>
  inScratch(async (folder) => {
    const cwd = { cwd: folder };
    await qemuImg(['create', '-q', '-f', 'raw', 'disk.raw', '1M'], cwd);
    const writes = [512, 70_144, 140_800, 300_544].map((at) => `write -P 1 ${at} 17k`);
    // Written all over: holes of the file would be others' word on zeros.
    const commands = ['write -P 0 0 1M', ...writes, 'write -P 2 500k 1k'];
    await qemuIo('disk.raw', commands, { ...cwd, format: 'raw' });
    for (const sparse of ['512', '1536', '2k', '7k', '8k', '33k']) {
      const options = ['-o', 'extended_l2=on,cluster_size=16k,preallocation=metadata'];
      const args = ['-S', sparse, '-f', 'raw', '-O', 'qcow2', ...options, 'disk.raw'];
      await convert(folder, [...args, 'ours.qcow2'], sparse);
      await qemuImg(['convert', ...args, 'theirs.qcow2'], cwd);
      const [ours, theirs] = await Promise.all(
        ['ours', 'theirs'].map((name) => qemuImg(['map', '--output=json', `${name}.qcow2`], cwd)),
      );
      assert.is(`${ours}`, `${theirs}`, sparse);
    }
  }));

test('compressed clusters of the same kind are copied, and no larger', () =>
  scratchImages(10, async (next, folder) => {
    const compression = next.pick(['zlib', 'zstd'] as const);
    const clusterBits = next.pick([9, 12, 16, 21]);
    const fixed = { version: 3, clusterBits, compression, dataFile: 'none' } as const;
    const setting = randomSetting(next, fixed);
    const { image, about } = await makeSingle(next, folder, setting);
    const args = ['-c', ...targetOptions({ ...setting, extended: false, refcountBits: 16 })];
    const what = `SEED=${SEED} ${args.join(' ')}\n${about}`;
    await qemuImg(['convert', ...args, '-O', 'qcow2', image, 'first.qcow2'], { cwd: folder });
    await convert(folder, [...args, '-O', 'qcow2', 'first.qcow2', 'second.qcow2'], what);
    await judge(folder, image, 'second.qcow2', what);
    const size = (name: string) => statSync(join(folder, name)).size;
    assert.ok(size('second.qcow2') <= size('first.qcow2') + 2 * 2 ** clusterBits, what);
  }));

test('an overlay gets what differs from its backing file', () =>
  scratchImages(16, async (next, folder) => {
    // A backing file, and a disk that is related to it or is not.
    const { image, size, about } = await makeChain(next, folder, 1 + next.below(2));
    const base = next.oneIn(2) ? 'base.raw' : 'image1.qcow2';
    const backing = existsSync(join(folder, base)) ? base : 'image1.qcow2';
    const known = existsSync(join(folder, backing)) ? backing : image;
    const format = known.endsWith('.raw') ? 'raw' : 'qcow2';
    const setting = randomSetting(next, { dataFile: 'none' });
    const args = targetOptions(setting);
    if (next.oneIn(3)) args.push('-c');
    const line = [...args, '-O', 'qcow2', '-B', known, '-F', format, image, 'target.qcow2'];
    const what = `SEED=${SEED} ${line.join(' ')}\n${about}\nsize ${size}`;
    await convert(folder, line, what);
    await judge(folder, image, 'target.qcow2', what);
  }));

test('an overlay of a disk that is its backing file holds nothing', () =>
  inScratch(async (folder) => {
    const next = rng();
    writePattern(next, folder);
    const { image } = await makeSingle(next, folder, randomSetting(next, { clusterBits: 16 }));
    await qemuImg(['convert', '-O', 'raw', image, 'copy.raw'], { cwd: folder });
    for (const source of [image, 'copy.raw']) {
      const args = ['-O', 'qcow2', '-B', image, '-F', 'qcow2', source, 'target.qcow2'];
      await convert(folder, args, source);
      const map = await qemuImg(['map', '--output=json', 'target.qcow2'], { cwd: folder });
      const own = JSON.parse(map.toString()).filter(
        (part: { depth: number; present: boolean }) => part.depth === 0 && part.present,
      );
      assert.equal(own, [], source);
    }
  }));

test('an overlay that is there already gets what it does not show', () =>
  scratchImages(16, async (next, folder) => {
    const { image, size, about } = await makeChain(next, folder, 1 + next.below(2));
    const base = existsSync(join(folder, 'base.raw')) && next.oneIn(2) ? 'base.raw' : image;
    const over = ['-b', base, '-F', base.endsWith('.raw') ? 'raw' : 'qcow2'];
    const setting = randomSetting(next, { dataFile: 'none', preallocation: 'off' });
    const target = 'target.qcow2';
    const bytes = `${size + next.pick([0, 0, 512, 70 * 512])}`;
    const options = [...over, ...targetOptions(setting)];
    await qemuImg(['create', '-q', '-f', 'qcow2', ...options, target, bytes], { cwd: folder });
    // It may have something of its own, in the way or not.
    for (const at of next.oneIn(2) ? [0, Math.floor(size / 3)] : []) {
      const from = at - (at % 512);
      const length = Math.min(9 * 512, size - (size % 512) - from);
      if (length > 0) await qemuIo(target, [`write -P 119 ${from} ${length}`], { cwd: folder });
    }
    const args = next.oneIn(3) ? ['-c'] : [];
    const line = ['-n', ...args, '-O', 'qcow2', '-B', base, image, target];
    const what = `SEED=${SEED} ${line.join(' ')}\n${describe(setting)}\n${about}\nsize ${size}`;
    const before = await guestBytes(folder, target, 'qcow2');
    await convert(folder, line, what);
    await qemuImg(['check', '-q', target], { cwd: folder });
    const wanted = await guestBytes(folder, image, 'qcow2');
    // Behind the source's end it shows what it did, which may be bytes of a longer backing file.
    const whole = Buffer.concat([wanted, before.subarray(wanted.length)]);
    assert.is(difference(await guestBytes(folder, target, 'qcow2'), whole), '', what);
  }));

test('a chain that is copied image by image is as deep and as long as with qemu-img', () =>
  inScratch(async (folder) => {
    const cwd = { cwd: folder };
    const over = (base: string) => ['-b', base, '-F', 'qcow2'];
    const make = (...args: string[]) => qemuImg(['create', '-q', '-f', 'qcow2', ...args], cwd);
    await make('a.qcow2', '1M');
    await make(...over('a.qcow2'), 'b.qcow2');
    await qemuIo('a.qcow2', ['write -P 1 0 64k'], cwd);
    await qemuIo('b.qcow2', ['write -P 2 64k 64k', 'write -P 3 300k 10k'], cwd);
    const [ours, theirs] = ['ours.qcow2', 'theirs.qcow2'] as const;
    await qemuImg(['convert', '-O', 'qcow2', 'a.qcow2', 'copy.qcow2'], cwd);
    for (const name of [ours, theirs]) await make(...over('copy.qcow2'), name);
    const args = ['-n', '-t', 'none', '-T', 'none', '-f', 'qcow2', '-O', 'qcow2'];
    const words = [...args, '-B', 'copy.qcow2', 'b.qcow2'];
    await convert(folder, [...words, ours], '');
    await qemuImg(['convert', ...words, theirs], cwd);
    await qemuImg(['compare', '-s', 'b.qcow2', ours], cwd);
    const [left, right] = [ours, theirs].map((name) => readFileSync(join(folder, name)));
    assert.is(difference(left!, right!), '');
  }));

test('into an image that is there already', () =>
  scratchImages(12, async (next, folder) => {
    const { image, size, about } = await makeSingle(next, folder, randomSetting(next));
    const setting = { ...randomSetting(next, { dataFile: 'none' }), size: size + 70 * 512 };
    const clusterSize = 2 ** setting.clusterBits;
    const options = targetOptions(setting);
    const create = ['create', '-q', '-f', 'qcow2', ...options, 'target.qcow2', `${setting.size}`];
    await qemuImg(create, { cwd: folder });
    const isZero = next.oneIn(2);
    const args = ['-n', '-O', 'qcow2'];
    if (isZero) args.push('--target-is-zero');
    else {
      const fill = ['convert', '-n', '-f', 'raw', '-O', 'qcow2', 'noise.raw', 'target.qcow2'];
      writeFileSync(join(folder, 'noise.raw'), Buffer.alloc(setting.size, 0x77));
      await qemuImg(fill, { cwd: folder });
    }
    if (next.oneIn(2)) args.push('-c');
    const what = `SEED=${SEED} ${args.join(' ')} zero=${isZero} ${clusterSize}\n${about}`;
    await convert(folder, [...args, image, 'target.qcow2'], what);
    await qemuImg(['check', '-q', 'target.qcow2'], { cwd: folder });
    await qemuImg(['convert', '-O', 'raw', image, 'wanted.raw'], { cwd: folder });
    await qemuImg(['convert', '-O', 'raw', 'target.qcow2', 'found.raw'], { cwd: folder });
    const wanted = readFileSync(join(folder, 'wanted.raw'));
    const found = readFileSync(join(folder, 'found.raw'));
    assert.is(difference(found.subarray(0, wanted.length), wanted), '', what);
    const rest = isZero ? 0 : 0x77;
    assert.ok(
      found.subarray(wanted.length).every((byte) => byte === rest),
      what,
    );
  }));

test('front to back through a pipe', () =>
  scratchImages(10, async (next, folder) => {
    const { image, about } = await makeChain(next, folder, next.below(2));
    const setting = randomSetting(next, { dataFile: 'none' });
    const args = targetOptions(setting);
    if (next.oneIn(2)) args.push('-c');
    const what = `SEED=${SEED} ${args.join(' ')}\n${about}`;
    const line = ['convert', ...args, '-O', 'qcow2', image, '-'];
    const { code, stdout, stderr } = await tool(line, { cwd: folder });
    assert.is(stderr, '', what);
    assert.is(code, 0, what);
    writeFileSync(join(folder, 'target.qcow2'), stdout);
    await judge(folder, image, 'target.qcow2', what);
  }));

test('killed at any moment, the target is no image or a whole one', () =>
  inScratch(async (folder) => {
    const next = rng();
    const noise = Buffer.alloc(48 * 2 ** 20);
    for (let at = 0; at < noise.length; at += 4096) noise.writeUInt32LE(next.u32(), at);
    writeFileSync(join(folder, 'disk.raw'), noise);
    const target = join(folder, 'target.qcow2');
    let killed = 0;
    for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
      // The last one takes seconds: it is always stopped in the middle.
      for (const options of [[], ['-c'], ['-o', 'preallocation=metadata'], ['-r', '16M']]) {
        for (const delay of [0, 20, 100]) {
          rmSync(target, { force: true });
          const line = ['convert', ...options, '-f', 'raw', '-O', 'qcow2', 'disk.raw', target];
          const child = spawn(process.execPath, [TOOL, ...line], { cwd: folder, stdio: 'ignore' });
          const ended = new Promise((done) => child.once('exit', done));
          while (!existsSync(target) && child.exitCode === null) {
            await new Promise((done) => setTimeout(done, 2));
          }
          await new Promise((done) => setTimeout(done, delay));
          child.kill(signal);
          await ended;
          const isImage = existsSync(target) && isQcow2(readFileSync(target).subarray(0, 8));
          if (!isImage) {
            killed++;
            continue;
          }
          const compare = ['compare', '-q', '-f', 'raw', '-F', 'qcow2', 'disk.raw', target];
          await qemuImg(compare, { cwd: folder });
        }
      }
    }
    assert.ok(killed > 0, 'every conversion was done before it could be stopped');
  }));

test('several sources, one after another', () =>
  inScratch(async (folder) => {
    const next = rng();
    writePattern(next, folder);
    const sizes = [3 * 512, 1_000_448, 512, 300 * 512];
    const names: string[] = [];
    for (const [index, size] of sizes.entries()) {
      const setting = randomSetting(next, { size, clusterBits: 12, extended: false });
      await makeSingle(next, folder, { ...setting, dataFile: 'none' });
      const name = `part${index}.raw`;
      await qemuImg(['convert', '-O', 'raw', 'a.qcow2', name], { cwd: folder });
      rmSync(join(folder, 'a.qcow2'));
      names.push(name);
    }
    const whole = Buffer.concat(names.map((name) => readFileSync(join(folder, name))));
    writeFileSync(join(folder, 'whole.raw'), whole);
    for (const compress of [[], ['-c']]) {
      for (const clusterSize of [512, 65_536]) {
        const args = [...compress, '-o', `cluster_size=${clusterSize}`, '-O', 'qcow2', '-f', 'raw'];
        await convert(folder, [...args, ...names, 'target.qcow2'], `SEED=${SEED}`);
        await qemuImg(['check', '-q', 'target.qcow2'], { cwd: folder });
        const compare = ['compare', '-q', '-f', 'raw', '-F', 'qcow2', 'whole.raw', 'target.qcow2'];
        await qemuImg(compare, { cwd: folder });
      }
    }
  }));

test.run();
