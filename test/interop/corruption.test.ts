/**
 * Metadata that cannot be as it is, met by commands: what is said of it on standard error, what
 * fails and with which words, and whether the image is marked corrupt, is as QEMU has it.
 */
import {
  closeSync,
  copyFileSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { eachAtOnce, inScratch, qemuImg, qemuIo, run, TOOL } from '../tool.ts';

const IO_TOOL = resolve('dist/qcow2-io.js');
const [L1, L2, REFCOUNT_TABLE] = [0x30000, 0x40000, 0x10000];

/** Bytes that are put into the image. */
type Damage = readonly [at: number, entry: bigint];
const DATA: Damage = [L2, (1n << 63n) | 0x52a00n];
const SHARED: Damage = [L2, 0x52a00n];
const ZERO: Damage = [L2, (1n << 63n) | 0x52a01n];
const FAR: Damage = [L2 + 640 * 8, (1n << 63n) | 0x52a00n];
const TABLE: Damage = [L1, (1n << 63n) | 0x52a00n];
const FAR_TABLE: Damage = [L1 + 8, (1n << 63n) | 0x52a00n];
const BLOCK: Damage = [REFCOUNT_TABLE, 0x52a00n];
/** Nothing that a file could have, but aligned. */
const FAR_BLOCK: Damage = [REFCOUNT_TABLE, 0xbfff_ffff_ffff_0000n];
const UNCOUNTED: Damage = [0x20000, 0n];
const METADATA: Damage = [L2, (1n << 63n) | BigInt(L1)];

/** What is done to an image with qemu-io. */
const CASES: readonly (readonly [Damage, readonly string[]])[] = [
  [DATA, ['-c', 'write 0 64k', '-c', 'read 0 4k', '-c', 'write 1M 64k', '-c', 'aio_write 0 4k']],
  [DATA, ['-c', 'read 0 4k', '-c', 'discard 0 64k', '-c', 'alloc 0 64k']],
  [DATA, ['-r', '-c', 'read 0 4k', '-c', 'read 0 4k', '-c', 'read 64k 4k']],
  [DATA, ['-c', 'discard 0 64k', '-c', 'read 0 64k']],
  [DATA, ['-c', 'write -zu 0 64k', '-c', 'read 0 64k']],
  [SHARED, ['-c', 'write 0 64k', '-c', 'read 0 64k']],
  [ZERO, ['-c', 'write 0 64k', '-c', 'read 0 64k']],
  [FAR, ['-r', '-c', 'read 40M 4k']],
  [TABLE, ['-c', 'discard 0 64k', '-c', 'read 0 4k']],
  [TABLE, ['-r', '-c', 'read 0 4k', '-c', 'read 0 4k']],
  [BLOCK, ['-c', 'read 0 64k', '-c', 'write 0 64k', '-c', 'write 2M 64k', '-c', 'read 0 4k']],
  [FAR_BLOCK, ['-c', 'write 2M 64k', '-c', 'write 3M 64k', '-c', 'read 0 4k']],
  [UNCOUNTED, ['-c', 'write -c 2M 64k', '-c', 'read 2M 4k']],
  [UNCOUNTED, ['-c', 'write 2M 64k', '-c', 'read 0 4k']],
  [METADATA, ['-c', 'write 0 64k', '-c', 'read 0 4k']],
  [METADATA, ['-c', 'read -P 0 0 8', '-c', 'write 64k 64k']],
];

/** The same with qemu-img, in front of the image's name. */
const COMMANDS: readonly (readonly [Damage, readonly string[]])[] = [
  [DATA, ['snapshot', '-c', 'x']],
  [TABLE, ['snapshot', '-c', 'x']],
  [BLOCK, ['snapshot', '-c', 'x']],
  [BLOCK, ['info', '-f', 'qcow2']],
  [FAR_BLOCK, ['snapshot', '-c', 'x']],
];

const test = qemuSuite('corruption that is met');

/** An ending as both tools have it: without names and times. */
async function ending(program: string, args: readonly string[], cwd: string) {
  const isOurs = program !== requireQemu().io && program !== requireQemu().img;
  const [command, first] = isOurs ? [process.execPath, [program]] : [program, []];
  const { code, stdout, stderr } = await run(command, [...first, ...args], { cwd });
  const plain = (text: string) =>
    text
      .replace(/^(qcow2-io|qcow2-img|qemu-io|qemu-img|.*\/qemu-(io|img)): /gm, '')
      .replace(/^disk size: .*$/gm, '')
      .replace(/; .* ops\/sec\)$/gm, '');
  return { code, out: plain(stdout.toString()), err: plain(stderr) };
}

async function compare(
  damage: Damage,
  args: readonly string[],
  programs: readonly string[],
  options: readonly string[] = [],
) {
  await inScratch(async (folder) => {
    const made = join(folder, 'made');
    await qemuImg(['create', '-q', '-f', 'qcow2', ...options, made, '64M']);
    await qemuIo(made, ['write -P 1 0 128k', 'write 40M 64k']);
    const file = openSync(made, 'r+');
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(damage[1]);
    writeSync(file, bytes, 0, 8, damage[0]);
    closeSync(file);
    const [ours, theirs] = await Promise.all(
      programs.map(async (program, index) => {
        const cwd = join(folder, String(index));
        mkdirSync(cwd);
        const image = join(cwd, 'image');
        copyFileSync(made, image);
        const said = await ending(program, [...args, 'image'], cwd);
        return { ...said, corrupt: (readFileSync(image)[79] as number) & 2 };
      }),
    );
    assert.equal(ours, theirs, `0x${damage[0].toString(16)}: ${args.join(' ')}`);
  });
}

test('commands of qemu-io', () =>
  eachAtOnce(CASES, ([damage, args]) =>
    compare(damage, ['-f', 'qcow2', ...args], [IO_TOOL, requireQemu().io]),
  ));

/** Subclusters that are both allocated and zero, or allocated where there is no cluster. */
const SUBCLUSTERS: readonly Damage[] = [
  [L2 + 8, 0x1_0000_0001n],
  [L2 + 8, 0x8000_0000_ffff_ffffn],
  [L2 + 2 * 16 + 8, 1n],
  [L2 + 2 * 16 + 8, 0x1_0000_0001n],
];

test('commands of qemu-io where there are subclusters', () =>
  eachAtOnce(SUBCLUSTERS, async (damage) => {
    const at = damage[0] === L2 + 8 ? '0' : '128k';
    for (const command of ['read', 'write']) {
      const args = ['-f', 'qcow2', '-c', `${command} ${at} 64k`, '-c', `read ${at} 64k`];
      await compare(damage, args, [IO_TOOL, requireQemu().io], ['-o', 'extended_l2=on']);
    }
  }));

test('commands of qemu-img', () =>
  eachAtOnce(COMMANDS, ([damage, args]) => compare(damage, args, [TOOL, requireQemu().img])));

test('as many snapshots as an image can have', () =>
  inScratch(async (cwd) => {
    const made = join(cwd, 'made');
    await qemuImg(['create', '-q', '-f', 'qcow2', '-o', 'preallocation=falloc', made, '16M']);
    const file = openSync(made, 'r+');
    const bytes = Buffer.alloc(12);
    bytes.writeUInt32BE(65_536);
    // Zeros of the disk: each a snapshot without a name.
    bytes.writeBigUInt64BE(0x100_0000n, 4);
    writeSync(file, bytes, 0, 12, 60);
    ftruncateSync(file, 0x200_0000);
    closeSync(file);
    for (const args of [['-c', 'x'], ['-l'], ['-d', 'x']]) {
      const [ours, theirs] = await Promise.all(
        [TOOL, requireQemu().img].map(async (program, index) => {
          const image = join(cwd, String(index));
          copyFileSync(made, image);
          return ending(program, ['snapshot', ...args, image], cwd);
        }),
      );
      assert.equal(ours, theirs, args.join(' '));
    }
  }));

/** Commands that read an image, some of it sound. */
const READING = [
  ['convert', '-O', 'raw', 'image', 'copy'],
  ['convert', '-O', 'qcow2', 'image', 'copy'],
  ['convert', '-c', '-O', 'qcow2', 'image', 'copy'],
  ['convert', '-t', 'bogus', '-O', 'raw', 'missing', 'copy'],
  ['convert', '-t', 'bogus', '-O', 'raw', 'image', 'copy'],
  ['compare', 'image', '../sound'],
  ['compare', '../sound', 'image'],
  ['map', 'image'],
  ['map', '--output=json', 'image'],
  ['measure', '-O', 'qcow2', 'image'],
];

test('how far commands come that read', () =>
  eachAtOnce([DATA, FAR, TABLE, FAR_TABLE], (damage) =>
    inScratch(async (folder) => {
      const made = join(folder, 'made');
      await qemuImg(['create', '-q', '-f', 'qcow2', made, '1G']);
      await qemuIo(made, ['write -P 1 0 128k', 'write 40M 64k', 'write 600M 64k']);
      const bytes = readFileSync(made);
      writeFileSync(join(folder, 'sound'), bytes);
      bytes.writeBigUInt64BE(damage[1], damage[0]);
      writeFileSync(made, bytes);
      for (const args of READING) {
        const endings = [TOOL, requireQemu().img].map((program, index) => {
          const cwd = join(folder, String(index));
          mkdirSync(cwd, { recursive: true });
          copyFileSync(made, join(cwd, 'image'));
          return ending(program, args, cwd);
        });
        const [ours, theirs] = (await Promise.all(endings)).map((one) => {
          // A list that breaks off may end with a comma, or not.
          return { ...one, out: one.out.replace(/,\n$/, '') };
        });
        assert.equal(ours, theirs, `0x${damage[0].toString(16)}: ${args.join(' ')}`);
      }
    }),
  ));

/** What is wrong with a snapshot's entry, and what is done to the image then. */
const ENTRY_DAMAGE: readonly (readonly [what: string, at: number, bytes: string])[] = [
  ["table's offset", 0, '0000000000400200'],
  ["table's size", 8, '10000000'],
  ['largest size', 8, 'ffffffff'],
  ['extra data', 36, '00010000'],
];
const ENTRY_COMMANDS = [
  ['convert', '-O', 'qcow2', '-l', 'one', 'image', 'copy'],
  ['amend', '-o', 'compat=0.10', 'image'],
  ['snapshot', '-a', 'one', 'image'],
  ['snapshot', '-d', 'one', 'image'],
];

for (const [what, at, hex] of ENTRY_DAMAGE) {
  test(`a snapshot whose ${what} cannot be`, () =>
    inScratch(async (folder) => {
      const made = join(folder, 'made');
      await qemuImg(['create', '-q', '-f', 'qcow2', made, '64M']);
      await qemuIo(made, ['write 0 512']);
      await qemuImg(['snapshot', '-c', 'one', made]);
      const bytes = readFileSync(made);
      const table = Number(bytes.readBigUInt64BE(64));
      bytes.set(Buffer.from(hex, 'hex'), table + at);
      writeFileSync(made, bytes);
      for (const args of ENTRY_COMMANDS) {
        const endings = [TOOL, requireQemu().img].map((program, index) => {
          const cwd = join(folder, String(index));
          mkdirSync(cwd, { recursive: true });
          copyFileSync(made, join(cwd, 'image'));
          return ending(program, args, cwd);
        });
        const [ours, theirs] = await Promise.all(endings);
        assert.equal(ours, theirs, args.join(' '));
      }
    }));
}

test.run();
