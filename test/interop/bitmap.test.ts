/**
 * Persistent bitmaps: `bitmap` of the tool and of qemu-img on equal copies, bits that follow what
 * is written, and bits as QEMU reads them. Replay with SEED=…, longer with SLOW=1.
 */
import { spawn } from 'node:child_process';
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { bitmap } from '../../src/cli/commands/bitmap.ts';
import { resize } from '../../src/cli/commands/resize.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { openNodeFile } from '../../src/storage/node-file.ts';
import { PagedBytes } from '../image/paged-bytes.ts';
import { checkQcow2 } from '../image/qcow2-check.ts';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import { inScratch, qemuImg, qemuIo, run } from '../tool.ts';
import { type Outcome, ours, theirs } from './image-command.ts';
import { createImage, describe, type ImageSetting, randomSetting } from './random-image.ts';

const IMAGES = process.env.SLOW ? 60 : 3;
const TURNS = process.env.SLOW ? 20 : 6;
const GRANULARITIES = [undefined, 512, 4096, 65536, 2 ** 20, 2 ** 31];

const test = qemuSuite('bitmap');

/** Node names are of the moment. */
function unnamed({ code, out, err }: Outcome): Outcome {
  return { code, out, err: err.replaceAll(/#block\d+/g, '#block') };
}

async function both(folder: string, args: readonly string[]): Promise<Outcome> {
  const copy = (name: string) => args.map((arg) => (arg === 'a.qcow2' ? name : arg));
  const mine = unnamed(await ours(bitmap, folder, copy('a.qcow2')));
  const wanted = unnamed(await theirs('bitmap', folder, copy('b.qcow2')));
  const named = (outcome: Outcome) => JSON.stringify(outcome).replaceAll('b.qcow2', 'a.qcow2');
  assert.is(named(mine), named(wanted), `bitmap ${args.join(' ')}`);
  return mine;
}

const LONG = 'n'.repeat(1023);
const MESSAGES: readonly (readonly string[])[] = [
  [],
  ['a.qcow2', 'x'],
  ['--add'],
  ['--add', 'a.qcow2'],
  ['--add', 'a.qcow2', 'x', 'y'],
  ['--clear', '-g', '64k', 'a.qcow2', 'x'],
  ['--add', '-F', 'raw', 'a.qcow2', 'x'],
  ['--add', '-b', 'small.qcow2', 'a.qcow2', 'x'],
  ...['100', '65537', 'foo', '4G'].map((size) => ['--add', '-g', size, 'a.qcow2', 'x']),
  ['--add', '-g', '2G', 'a.qcow2', 'big'],
  ['--add', '-g', '0', 'a.qcow2', 'zero'],
  ['--add', 'a.qcow2', 'x'],
  ['--add', 'a.qcow2', 'x'],
  ['--add', 'a.qcow2', ''],
  ['--add', 'a.qcow2', LONG],
  ['--add', 'a.qcow2', `${LONG}n`],
  ['--add', 'r.raw', 'x'],
  ['--add', '-f', 'raw', 'r.raw', 'x'],
  ['--remove', '-f', 'raw', 'r.raw', 'x'],
  ['--add', 'v2.qcow2', 'x'],
  ['--add', '-g', '512', 'huge.qcow2', 'x'],
  ...['remove', 'clear', 'enable', 'disable'].map((verb) => [`--${verb}`, 'a.qcow2', 'y']),
  ['--merge', 'y', 'a.qcow2', 'x'],
  ['--merge', 'x', 'a.qcow2', 'y'],
  ['--merge', 'x', '-b', 'small.qcow2', 'a.qcow2', 'y'],
  ['--merge', 'x', '-b', 'small.qcow2', 'a.qcow2', 'x'],
  ['--merge', 'x', '-b', 'absent', 'a.qcow2', 'x'],
  ['--merge', 'x', '-b', 'r.raw', '-F', 'raw', 'a.qcow2', 'x'],
  ['--merge', 'x', 'a.qcow2', 'x'],
  ['--enable', '--disable', '--enable', 'a.qcow2', 'x'],
  ['--add', '--merge', 'x', '--disable', 'a.qcow2', 'z'],
  ['--remove', '--remove', 'a.qcow2', 'z'],
  ['--add', 'absent', 'x'],
  ['-z'],
  ['-U', '--add', 'a.qcow2', 'x'],
  ['--add', '-f', 'foo', 'a.qcow2', 'x'],
];

test('what it prints and how it ends is what qemu-img does', async () => {
  await inScratch(async (folder) => {
    const make = (options: string, name: string, size: string) =>
      qemuImg(['create', '-q', '-f', 'qcow2', '-o', options, name, size], { cwd: folder });
    await make('cluster_size=64k', 'a.qcow2', '10M');
    await make('cluster_size=64k', 'small.qcow2', '5M');
    await make('compat=0.10', 'v2.qcow2', '1M');
    await make('cluster_size=64k', 'huge.qcow2', '4T');
    await qemuImg(['bitmap', '--add', 'small.qcow2', 'x'], { cwd: folder });
    await qemuImg(['create', '-q', '-f', 'raw', 'r.raw', '1M'], { cwd: folder });
    copyFileSync(join(folder, 'a.qcow2'), join(folder, 'b.qcow2'));
    for (const args of MESSAGES) await both(folder, args);
    await sameBitmaps(folder, 'messages');
  });
});

/** What `info` says of the bitmaps of both copies. */
async function sameBitmaps(folder: string, what: string): Promise<void> {
  const info = async (name: string) => {
    const text = await qemuImg(['info', '--output=json', name], { cwd: folder });
    return JSON.parse(text.toString())['format-specific'].data.bitmaps;
  };
  assert.equal(await info('a.qcow2'), await info('b.qcow2'), what);
  await sound(folder, 'a.qcow2');
}

async function sound(folder: string, name: string): Promise<void> {
  await qemuImg(['check', '-q', name], { cwd: folder });
  const bytes = PagedBytes.from(readFileSync(join(folder, name)));
  const { corruptions, leaks, dirty } = checkQcow2(bytes);
  assert.equal({ corruptions, leaks, dirty }, { corruptions: [], leaks: 0, dirty: false });
}

function open(folder: string, name: string, writable = false): Promise<Qcow2Image> {
  return Qcow2Image.open(openNodeFile(join(folder, name), { writable }), {
    writable,
    dataFile: async (file) => openNodeFile(join(folder, file), { writable }),
  });
}

/** Bits as this library reads them. */
async function bitsOf(folder: string, name: string): Promise<Map<string, string>> {
  const image = await open(folder, name);
  const result = new Map<string, string>();
  for (const one of image.bitmaps.list()) {
    const ranges: string[] = [];
    for await (const { guest, length } of image.bitmaps.ranges(one.name)) {
      ranges.push(`${guest}+${length}`);
    }
    result.set(one.name, ranges.join(' '));
  }
  await image.close();
  return result;
}

/** Bits as QEMU reads them: an export of the bitmap, as `map` of an NBD client sees it. */
async function bitsByQemu(folder: string, image: string, name: string): Promise<string> {
  const cwd = { cwd: folder };
  copyFileSync(join(folder, image), join(folder, 'export.qcow2'));
  // A read-only export takes no bitmap that follows writes.
  await qemuImg(['bitmap', '--disable', 'export.qcow2', name], cwd);
  const socket = join(folder, 'socket');
  rmSync(socket, { force: true });
  const args = ['-r', '-k', socket, '-f', 'qcow2', '-B', name, 'export.qcow2'];
  const server = spawn('qemu-nbd', args, { ...cwd, stdio: 'ignore' });
  const ended = new Promise<void>((done) => server.once('close', () => done()));
  try {
    const where = `driver=nbd,server.type=unix,server.path=${socket}`;
    const options = `${where},x-dirty-bitmap=qemu:dirty-bitmap:${name}`;
    const ask = ['map', '--output=json', '--image-opts', options];
    let map = await run(requireQemu().img, ask, cwd);
    // The socket may be there before anyone listens.
    while (/Failed to connect/.test(map.stderr) && server.exitCode === null) {
      await new Promise((done) => setTimeout(done, 10));
      map = await run(requireQemu().img, ask, cwd);
    }
    assert.is(map.stderr, '');
    const extents: { start: number; length: number; data: boolean }[] = JSON.parse(
      map.stdout.toString(),
    );
    // The client takes "dirty" for "hole".
    const dirty = extents.filter(({ data }) => !data);
    return dirty.map(({ start, length }) => `${start}+${length}`).join(' ');
  } finally {
    server.kill();
    await ended;
  }
}

/** A request, for both engines. */
interface Change {
  readonly kind: 'write' | 'zero' | 'unmap' | 'discard' | 'compress';
  readonly at: number;
  readonly length: number;
}

function randomChange(next: Random, { clusterBits, size, dataFile }: ImageSetting): Change {
  const cluster = 2 ** clusterBits;
  const whole = Math.floor(size / cluster);
  const kind = next.pick(['write', 'write', 'zero', 'unmap', 'discard', 'compress'] as const);
  if ((kind === 'discard' || kind === 'compress') && whole > 0) {
    const at = next.below(whole);
    const length = (1 + next.below(Math.min(3, whole - at))) * cluster;
    const one = kind === 'compress' && dataFile !== 'none' ? 'write' : kind;
    return { kind: one, at: at * cluster, length };
  }
  const at = 512 * next.below(size / 512);
  const length = 512 * (1 + next.below(Math.min((size - at) / 512, next.pick([1, 8, 300]))));
  return { kind: kind === 'discard' || kind === 'compress' ? 'write' : kind, at, length };
}

async function send(image: Qcow2Image, { kind, at, length }: Change): Promise<void> {
  const bytes = () => new Uint8Array(length).fill(0x41);
  if (kind === 'write') await image.write(at, bytes());
  else if (kind === 'compress') await image.writeCompressed(at, bytes());
  else if (kind === 'discard') await image.discard(at, length);
  else await image.zero(at, length, { unmap: kind === 'unmap' });
}

/** QEMU compresses nothing that is allocated: there it writes, which marks the same bits. */
function command({ kind, at, length }: Change): string {
  const verb = {
    write: 'write -P 0x41',
    compress: 'write -P 0x41',
    zero: 'write -z',
    unmap: 'write -z -u',
    discard: 'discard',
  }[kind];
  return `${verb} ${at} ${length}`;
}

async function equalCopies(next: Random, setting: ImageSetting): Promise<void> {
  await inScratch(async (folder) => {
    const cwd = { cwd: folder };
    const log: string[] = [];
    await createImage(folder, 'a.qcow2', setting);
    copyFileSync(join(folder, 'a.qcow2'), join(folder, 'b.qcow2'));
    const names = ['one', 'two', 'three', 'vier'];
    try {
      for (let turn = 0; turn < TURNS; turn++) {
        const steps: string[] = [];
        const name = next.pick(names);
        for (let i = next.below(3); i >= 0; i--) {
          const verb = next.pick(['add', 'add', 'remove', 'clear', 'enable', 'disable', 'merge']);
          steps.push(`--${verb}`);
          if (verb === 'merge') steps.push(next.pick(names));
        }
        const size = next.pick(GRANULARITIES);
        if (size !== undefined && steps.includes('--add')) steps.push('-g', String(size));
        log.push(`bitmap ${steps.join(' ')} ${name}`);
        await both(folder, [...steps, 'a.qcow2', name]);
        await sameBitmaps(folder, 'after bitmap');

        const changes = Array.from({ length: 1 + next.below(5) }, () =>
          randomChange(next, setting),
        );
        log.push(...changes.map(({ kind, at, length }) => `${kind} ${at} +${length}`));
        const image = await open(folder, 'a.qcow2', true);
        for (const change of changes) await send(image, change);
        await image.close();
        await qemuIo('b.qcow2', changes.map(command), cwd);
        await sameBitmaps(folder, 'after changes');
        const found = await bitsOf(folder, 'a.qcow2');
        assert.equal([...found], [...(await bitsOf(folder, 'b.qcow2'))]);
        const [one] = [...found.keys()];
        if (one !== undefined && next.oneIn(2)) {
          assert.is(await bitsByQemu(folder, 'a.qcow2', one), found.get(one), `QEMU of ${one}`);
        }
      }
    } catch (cause) {
      const message = `${(cause as Error).message}\n${describe(setting)}\n${log.join('\n')}`;
      throw new Error(message, { cause });
    }
  });
}

test('on equal copies both keep the same bits, operation by operation', async () => {
  for (let index = 0; index < IMAGES; index++) {
    const next = rng((SEED ^ Math.imul(index + 1, 0x9e3779b1)) | 0);
    const setting = randomSetting(next, { version: 3, dataFile: 'none' });
    await equalCopies(next, setting).catch((cause) => {
      throw new Error(`SEED=${SEED} image ${index}\n${cause.message}`, { cause });
    });
  }
});

test('a disk of another size has the bits that QEMU gives it', async () => {
  for (const clusterSize of [512, 4096, 65536]) {
    const next = rng(SEED ^ clusterSize);
    await inScratch(async (folder) => {
      const cwd = { cwd: folder };
      const options = `cluster_size=${clusterSize}`;
      await qemuImg(['create', '-q', '-f', 'qcow2', '-o', options, 'a.qcow2', '6M'], cwd);
      for (const [name, size] of [
        ['fine', '512'],
        ['coarse', '1M'],
      ] as const) {
        await qemuImg(['bitmap', '--add', '-g', size, 'a.qcow2', name], cwd);
      }
      copyFileSync(join(folder, 'a.qcow2'), join(folder, 'b.qcow2'));
      for (let turn = 0; turn < 4; turn++) {
        const size = 512 * (1 + next.below(24 * 2048));
        const image = await open(folder, 'a.qcow2', true);
        const at = 512 * next.below(image.size / 512);
        const length = image.size - at;
        await image.zero(at, length);
        await image.resize(size);
        await image.close();
        await qemuIo('b.qcow2', [`write -z ${at} ${length}`], cwd);
        await qemuImg(['resize', '-q', '--shrink', '-f', 'qcow2', 'b.qcow2', String(size)], cwd);
        await sameBitmaps(folder, 'after resize');
        const what = `SEED=${SEED} ${clusterSize} turn ${turn}`;
        assert.equal(
          [...(await bitsOf(folder, 'a.qcow2'))],
          [...(await bitsOf(folder, 'b.qcow2'))],
          what,
        );
      }
    });
  }
});

test('resize of images with bitmaps says and does what qemu-img does', async () => {
  await inScratch(async (folder) => {
    const cwd = { cwd: folder };
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '10M'], cwd);
    await qemuImg(['bitmap', '--add', 'a.qcow2', 'b0'], cwd);
    await qemuImg(['bitmap', '--add', '--disable', '-g', '4k', 'a.qcow2', 'b1'], cwd);
    await qemuIo('a.qcow2', ['write 0 1M', 'write 9M 1M'], cwd);
    copyFileSync(join(folder, 'a.qcow2'), join(folder, 'b.qcow2'));
    const resizeBoth = async (args: readonly string[]) => {
      const mine = await ours(resize, folder, args);
      const copy = args.map((arg) => (arg === 'a.qcow2' ? 'b.qcow2' : arg));
      assert.equal(mine, await theirs('resize', folder, copy), args.join(' '));
    };
    const sizes = [['20M'], ['--shrink', '5M'], ['9G'], ['--shrink', '512'], ['3M']];
    for (const [first = '', ...rest] of sizes) {
      await resizeBoth(rest.length > 0 ? [first, 'a.qcow2', ...rest] : ['a.qcow2', first]);
      await sameBitmaps(folder, first);
      assert.equal([...(await bitsOf(folder, 'a.qcow2'))], [...(await bitsOf(folder, 'b.qcow2'))]);
    }
    for (const name of ['a.qcow2', 'b.qcow2']) leaveInUse(join(folder, name));
    await resizeBoth(['a.qcow2', '30M']);
    await resizeBoth(['--shrink', 'a.qcow2', '1M']);
  });
});

/** Sets the flag that a writer which stopped would have left, in every copy of the directory. */
function leaveInUse(path: string): void {
  const bytes = readFileSync(path);
  for (let at = bytes.indexOf('b0'); at >= 0; at = bytes.indexOf('b0', at + 1)) {
    const flags = at - 24 + 12;
    bytes.writeUInt32BE((bytes.readUInt32BE(flags) | 1) >>> 0, flags);
  }
  writeFileSync(path, bytes);
}

test.run();
