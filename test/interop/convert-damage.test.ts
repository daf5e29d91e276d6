/**
 * Sources that are damaged or cannot be read: an error that says where, in bounded time, and no
 * target that looks whole; with --salvage what qemu-img saves, and its warnings.
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import { difference, eachAtOnce, inScratch, qemuImg, run, tool } from '../tool.ts';

const DISK = 3 * 2 ** 20;
const CLUSTER = 65_536;
const ROUNDS = process.env.SLOW ? 300 : 4;

/** Rules for sectors that cannot be read. */
const failing = (...sectors: number[]) =>
  sectors
    .map((sector) => `[inject-error]\nevent = "none"\nerrno = "5"\nsector = "${sector}"\n`)
    .join('\n');

/** A raw disk, and the same as images of each kind. */
async function prepare(next: Random, cwd: string): Promise<Buffer> {
  const disk = Buffer.alloc(DISK);
  for (let at = 0; at < DISK; at++) {
    if ((at >> 14) % 5 !== 0) disk[at] = 97 + next.below(6);
  }
  writeFileSync(join(cwd, 'disk.raw'), disk);
  writeFileSync(join(cwd, 'rules'), failing(20, 100, 101, 5000));
  const noStatus = failing(60, 101, 3000).replaceAll('errno', 'iotype = "block-status"\nerrno');
  writeFileSync(join(cwd, 'no-map'), failing(20, 101) + noStatus);
  // Behind the metadata of an image.
  writeFileSync(join(cwd, 'later'), failing(800, 801, 1500));
  const convert = (args: string[], name: string) =>
    qemuImg(['convert', ...args, '-f', 'raw', '-O', 'qcow2', 'disk.raw', name], { cwd });
  await convert([], 'plain.qcow2');
  await convert(['-c'], 'zlib.qcow2');
  await convert(['-c', '-o', 'compression_type=zstd'], 'zstd.qcow2');
  return disk;
}

/** An image with rules before its disk, not before its file. */
function aboveImage(filename: string, sectors: Readonly<Record<string, readonly number[]>>) {
  const rules = Object.entries(sectors).flatMap(([iotype, places]) =>
    places.map((sector) => ({ event: 'none', iotype, errno: 5, sector })),
  );
  const image = { driver: 'qcow2', file: { driver: 'file', filename } };
  return `json:${JSON.stringify({ driver: 'blkdebug', image, 'inject-error': rules })}`;
}

/** Where the image's only L2 table is. */
function tableOf(image: Buffer): number {
  const l1 = Number(image.readBigUInt64BE(40));
  return Number(image.readBigUInt64BE(l1) & 0x00ff_ffff_ffff_fe00n);
}

/** The warnings of a program, but for what it finds of metadata as it opens them. */
function warnings(stderr: string, program: string): string {
  const lines = stderr.split('\n').filter((line) => !/Image is corrupt/.test(line));
  return lines.join('\n').replaceAll(`${program}: `, 'PROGRAM: ');
}

const test = qemuSuite('damaged sources');

test('--salvage saves what qemu-img saves, and says what is lost', () =>
  inScratch(async (cwd) => {
    await prepare(rng(), cwd);
    const entry = readFileSync(join(cwd, 'plain.qcow2'));
    // Aligned to nothing.
    entry.writeBigUInt64BE(0x8000_0000_0005_0200n, tableOf(entry) + 8 * 3);
    writeFileSync(join(cwd, 'entry.qcow2'), entry);
    const stream = readFileSync(join(cwd, 'zlib.qcow2'));
    const at = Number(stream.readBigUInt64BE(tableOf(stream) + 8 * 2) & 0x003f_ffff_ffff_ffffn);
    stream.fill(0xff, at, at + 300);
    writeFileSync(join(cwd, 'stream.qcow2'), stream);
    const sources = [
      ['-f', 'raw', 'blkdebug:rules:disk.raw'],
      ['-f', 'raw', 'blkdebug:no-map:disk.raw'],
      ['-f', 'qcow2', 'blkdebug:later:zstd.qcow2'],
      ['entry.qcow2'],
      ['stream.qcow2'],
      // What is told of several sources counts from where each begins.
      ['entry.qcow2', 'plain.qcow2', 'entry.qcow2'],
      [aboveImage('plain.qcow2', { read: [20, 384], 'block-status': [21, 1000] })],
    ];
    await eachAtOnce(sources.entries(), async ([index, source]) => {
      for (const [format, ...more] of [['raw'], ['raw', '-q'], ['qcow2'], ['qcow2', '-c']]) {
        const line = ['convert', '--salvage', ...more, '-O', format!, ...source];
        const about = line.join(' ');
        const [mine, reference] = [`ours${index}`, `theirs${index}`];
        const ours = await tool([...line, mine], { cwd });
        // One request at a time: of several, QEMU's warnings come as they end.
        const inOrder = [...line.toSpliced(1, 0, '-m', '1'), reference];
        const theirs = await run(requireQemu().img, inOrder, { cwd });
        const wanted = warnings(theirs.stderr, 'qemu-img');
        assert.is(warnings(ours.stderr, 'qcow2-img'), wanted, about);
        assert.is(ours.code, theirs.code, about);
        if (theirs.code !== 0) continue;
        const compare = ['compare', '-q', '-f', format!, '-F', format!, mine, reference];
        await qemuImg(compare, { cwd });
      }
    });
  }));

test('rules before a disk are met by whoever reads it', () =>
  inScratch(async (cwd) => {
    await prepare(rng(), cwd);
    const rules = { read: [20], 'block-status': [1000] };
    for (const [kind, name] of [
      ['reads', aboveImage('plain.qcow2', { read: rules.read })],
      ['status', aboveImage('zlib.qcow2', { 'block-status': rules['block-status'] })],
    ] as const) {
      for (const line of [
        ['convert', '-m', '1', name, 'target'],
        ['compare', 'plain.qcow2', name],
        ['compare', '-s', name, 'plain.qcow2'],
        ['measure', '-O', 'qcow2', name],
        ['measure', '-O', 'raw', name],
        ['dd', `if=${name}`, 'of=target'],
        ['bench', '-c', '5', '-d', '1', '-s', '4k', name],
      ]) {
        const ours = await tool(line, { cwd });
        const theirs = await run(requireQemu().img, line, { cwd });
        const about = `${kind}: ${line.join(' ')}`;
        const time = /\b[\d.]+ seconds/;
        const printed = [ours, theirs].map(({ stdout }) => String(stdout).replace(time, ''));
        assert.is(printed[0], printed[1], about);
        const wanted = theirs.stderr.replaceAll('qemu-img: ', 'qcow2-img: ');
        assert.is(ours.stderr, wanted, about);
        assert.is(ours.code, theirs.code, about);
      }
    }
  }));

test('tables that cannot be read: where in the disk that is', () =>
  inScratch(async (cwd) => {
    await prepare(rng(), cwd);
    await qemuImg(['create', '-q', '-f', 'qcow2', 'large.qcow2', '20G'], { cwd });
    await run(requireQemu().io, ['-c', 'write 9G 1M', 'large.qcow2'], { cwd });
    writeFileSync(join(cwd, 'l2'), '[inject-error]\nevent = "l2_load"\nerrno = "5"\n');
    for (const sources of [
      ['blkdebug:l2:large.qcow2'],
      ['plain.qcow2', 'blkdebug:l2:zlib.qcow2'],
      ['-f', 'raw', 'blkdebug:no-map:disk.raw'],
    ]) {
      for (const format of ['raw', 'qcow2']) {
        const line = ['convert', '-O', format, ...sources, 'target'];
        const ours = await tool(line, { cwd });
        const theirs = await run(requireQemu().img, line, { cwd });
        assert.is(ours.stderr, theirs.stderr.replaceAll('qemu-img', 'qcow2-img'), line.join(' '));
        assert.is(ours.code, theirs.code, line.join(' '));
        rmSync(join(cwd, 'target'), { force: true });
      }
    }
  }));

test('a disk that fails in the middle: where, and no target', () =>
  inScratch(async (cwd) => {
    await prepare(rng(), cwd);
    for (const [format, ...more] of [['raw'], ['qcow2'], ['qcow2', '-c', '-m', '2']]) {
      const line = ['convert', ...more, '-f', 'raw', '-O', format!, 'blkdebug:rules:disk.raw'];
      const { code, stderr } = await tool([...line, 'target'], { cwd });
      assert.match(stderr, /^qcow2-img: error while reading at byte \d+: Input\/output error\n$/);
      assert.is(code, 1);
      assert.not(existsSync(join(cwd, 'target')));
    }
  }));

test('bits that flip in streams and entries: an error or a disk, and soon', () =>
  inScratch(async (cwd) => {
    const next = rng();
    const disk = await prepare(next, cwd);
    await eachAtOnce(Array(ROUNDS).keys(), async (round) => {
      const kind = ['zlib', 'zstd', 'plain'][round % 3];
      const image = readFileSync(join(cwd, `${kind}.qcow2`));
      const table = tableOf(image);
      const inTable = round % 2 === 0 || kind === 'plain';
      for (let flips = 1 + next.below(3); flips > 0; flips--) {
        const data = table + CLUSTER;
        const at = inTable
          ? table + next.below((DISK / CLUSTER) * 8)
          : data + next.below(image.length - data);
        image[at]! ^= 1 << next.below(8);
      }
      const name = `flipped${round}.qcow2`;
      writeFileSync(join(cwd, name), image);
      const target = join(cwd, `target${round}`);
      for (const way of [
        ['raw'],
        ['qcow2', '-c', '-o', 'cluster_size=32k'],
        ['raw', '--salvage'],
      ]) {
        rmSync(target, { force: true });
        const line = ['convert', '-f', 'qcow2', '-O', ...way, name, target];
        const { code, stderr } = await tool(line, { cwd });
        const about = `SEED=${SEED} round ${round}: ${line.join(' ')}\n${stderr}`;
        assert.ok(code === 0 || code === 1, about);
        assert.not.match(stderr, /internal error|\.[jt]s:\d+/, about);
        if (code === 0) continue;
        const where = /(at byte \d+|block status at offset \d+|the source): /;
        assert.match(
          stderr,
          new RegExp(`^qcow2-img: error while reading ${where.source}`, 'm'),
          about,
        );
        assert.not(existsSync(target), about);
      }
    });
    assert.is(disk.length, DISK);
  }));

test('with --salvage a damaged stream is zeros, and all else as it was', () =>
  inScratch(async (cwd) => {
    const next = rng();
    const disk = await prepare(next, cwd);
    const image = readFileSync(join(cwd, 'zstd.qcow2'));
    const table = tableOf(image);
    const index = next.below(DISK / CLUSTER);
    const entry = image.readBigUInt64BE(table + 8 * index);
    // No stream begins with zeros, which are no frame.
    const at = Number(entry & 0x003f_ffff_ffff_ffffn);
    if (entry !== 0n) image.fill(0, at, at + 4);
    writeFileSync(join(cwd, 'bad.qcow2'), image);
    const args = ['convert', '--salvage', '-O', 'raw', 'bad.qcow2', 'saved.raw'];
    assert.is((await tool(args, { cwd })).code, 0);
    disk.fill(0, index * CLUSTER, (index + 1) * CLUSTER);
    const saved = readFileSync(join(cwd, 'saved.raw'));
    assert.is(difference(saved, disk), '', `SEED=${SEED} cluster ${index}`);
  }));

test.run();
