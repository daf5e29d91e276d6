/**
 * Command lines given to both tools in equal folders, and all that there is to see afterwards: exit
 * codes, what is printed, and the files. Node only.
 */
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { requireQemu } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import {
  askedAlike,
  type Ended,
  eachAtOnce,
  oftenEnough,
  qemuImg,
  qemuIo,
  run,
  TOOL,
} from '../tool.ts';

/** Folders of a suite. */
export interface World {
  /** The images as they were made; commands that only read run here. */
  readonly folder: string;
  /** A link to our tool that is named as QEMU's is. */
  readonly tool: string;
  remove(): void;
}

const CLUSTER = 'cluster_size=4k';

/** Makes images of all kinds, small ones, with names that say what they are. */
export async function makeWorld(): Promise<World> {
  const root = mkdtempSync(join(tmpdir(), 'qcow2-beside-'));
  const folder = join(root, 'images');
  const bin = join(root, 'bin');
  for (const path of [folder, bin, join(folder, 'sub')]) mkdirSync(path);
  const program = join(bin, 'qemu-img');
  symlinkSync(TOOL, program);
  const options = { cwd: folder };
  const create = (name: string, ...args: string[]) =>
    qemuImg(['create', '-q', ...args, name], options);
  const qcow2 = async (name: string, more: string, size: string, ...args: string[]) =>
    qemuImg(
      ['create', '-q', '-f', 'qcow2', '-o', more === '' ? CLUSTER : more, ...args, name, size],
      options,
    );
  const fill = (name: string, ...commands: string[]) => qemuIo(name, commands, options);

  const odd = Buffer.alloc(100_000, 0x61);
  odd.fill(0, 8192, 32768);
  writeFileSync(join(folder, 'raw.img'), odd);
  writeFileSync(join(folder, 'empty'), '');
  writeFileSync(join(folder, 'short.img'), 'no image at all');
  writeFileSync(join(folder, 'passphrase'), 'open sesame');

  await qcow2('plain.qcow2', '', '256k');
  await fill('plain.qcow2', 'write -P 1 0 20k', 'write -c -P 2 32k 4k', 'write -z 64k 8k');
  await qcow2('v2.qcow2', 'compat=0.10,cluster_size=4k', '128k');
  await fill('v2.qcow2', 'write -P 3 4k 8k');
  await qcow2('ext.qcow2', 'extended_l2=on,cluster_size=16k,compression_type=zstd', '128k');
  await fill('ext.qcow2', 'write -P 4 512 3k', 'write -P 5 64k 16k');
  await qcow2('data.qcow2', 'data_file=data.raw,data_file_raw=on,cluster_size=4k', '64k');
  await fill('data.qcow2', 'write -P 6 0 8k');

  await create('base.raw', '-f', 'raw', '-o', 'size=96k');
  await qemuIo('base.raw', ['write -P 7 0 64k'], { cwd: folder, format: 'raw' });
  await qcow2('mid.qcow2', '', '128k', '-b', 'base.raw', '-F', 'raw');
  await fill('mid.qcow2', 'write -P 8 8k 8k', 'write -z 24k 4k', 'write -P 8 100k 4k');
  await qcow2('top.qcow2', '', '160k', '-b', 'mid.qcow2', '-F', 'qcow2');
  await fill('top.qcow2', 'write -P 9 12k 8k', 'write -P 9 140k 4k');
  await qcow2('same.qcow2', '', '160k', '-b', 'top.qcow2', '-F', 'qcow2');
  await qcow2('sub/over.qcow2', '', '128k', '-b', '../mid.qcow2', '-F', 'qcow2');
  await qcow2('orphan.qcow2', '', '64k', '-u', '-b', 'nowhere.qcow2', '-F', 'qcow2');
  await qcow2('loop-a.qcow2', '', '64k', '-u', '-b', 'loop-b.qcow2', '-F', 'qcow2');
  await qcow2('loop-b.qcow2', '', '64k', '-u', '-b', 'loop-a.qcow2', '-F', 'qcow2');
  await qcow2('wrongfmt.qcow2', '', '64k', '-u', '-b', 'base.raw', '-F', 'qcow2');

  await qcow2('snaps.qcow2', '', '128k');
  await fill('snaps.qcow2', 'write -P 10 0 8k');
  for (const name of ['one', '1', 'two words', 'one']) {
    await qemuImg(['snapshot', '-c', name, 'snaps.qcow2'], options);
    await fill('snaps.qcow2', `write -P ${11 + name.length} 4k 8k`);
  }
  await qcow2('bits.qcow2', '', '256k');
  for (const [name, ...more] of [['b0'], ['b1', '--disable'], ['b2', '-g', '32k']] as const) {
    await qemuImg(['bitmap', '--add', ...more, 'bits.qcow2', name as string], options);
  }
  await fill('bits.qcow2', 'write -P 12 16k 64k');
  await qcow2('bits2.qcow2', 'cluster_size=8k', '256k');
  await qemuImg(['bitmap', '--add', 'bits2.qcow2', 'b0'], options);
  await fill('bits2.qcow2', 'write -P 13 128k 8k');

  const secret = ['--object', 'secret,id=s,file=passphrase'];
  const slow = 'iter-time=10';
  const plain = `key-secret=s,${slow},size=64k`;
  await oftenEnough(() => create('luks.img', ...secret, '-f', 'luks', '-o', plain));
  const key = 'encrypt.format=luks,encrypt.key-secret=s';
  const inside = `${key},encrypt.${slow},cluster_size=4k,size=64k`;
  await oftenEnough(() => create('luks.qcow2', ...secret, '-f', 'qcow2', '-o', inside));

  // An image within an image.
  const nested = ['-f', 'raw', '-O', 'qcow2', 'plain.qcow2', 'nested.qcow2'];
  await qemuImg(['convert', ...nested], options);

  const copy = (name: string, from: string, change: (bytes: Buffer) => void) => {
    const bytes = readFileSync(join(folder, from));
    change(bytes);
    writeFileSync(join(folder, name), bytes);
  };
  copy('corrupt.qcow2', 'plain.qcow2', (bytes) => bytes.writeUInt8(bytes[79]! | 2, 79));
  copy('unknown.qcow2', 'plain.qcow2', (bytes) => bytes.writeUInt8(bytes[78]! | 0x80, 78));
  copy('badl1.qcow2', 'plain.qcow2', (bytes) => bytes.writeUInt8(7, 47));
  copy('cut.qcow2', 'plain.qcow2', () => {});
  // A cluster that nobody has, one that is used and not counted, and counts that lag behind.
  const count = (bytes: Buffer, cluster: number) => {
    const table = Number(bytes.readBigUInt64BE(48));
    return Number(bytes.readBigUInt64BE(table)) + 2 * cluster;
  };
  copy('leaks.qcow2', 'plain.qcow2', (bytes) => {
    const last = Math.ceil(bytes.length / 4096) - 1;
    bytes.writeUInt16BE(3, count(bytes, last));
    bytes.writeUInt16BE(1, count(bytes, last + 3));
  });
  copy('uncounted.qcow2', 'snaps.qcow2', (bytes) => {
    bytes.writeUInt16BE(0, count(bytes, Math.ceil(bytes.length / 4096) - 1));
  });
  copy('dirty.qcow2', 'bits.qcow2', (bytes) => bytes.writeUInt8(bytes[79]! | 1, 79));
  copy('stale.qcow2', 'bits.qcow2', (bytes) => bytes.writeUInt8(0, 95));
  await qcow2('overstale.qcow2', '', '256k', '-b', 'stale.qcow2', '-F', 'qcow2');
  await qcow2('room.qcow2', 'cluster_size=8k', '300k');
  truncateSync(join(folder, 'cut.qcow2'), 60);
  return { folder, tool: program, remove: () => rmSync(root, { recursive: true, force: true }) };
}

/** What a command line did. */
interface Done {
  readonly code: number | null | string;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command line and what is to be made of it. */
export interface Case {
  readonly args: readonly string[];
  /** Files of the world that it may change, or that it may make. Default: it only reads. */
  readonly writes?: boolean;
}

/** Dates are of the moment, rooms are the file system's. */
export function settled(text: string): string {
  return (
    text
      .replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, 'DATE')
      .replaceAll(/#block\d+/g, '#block')
      .replaceAll(/Run completed in [\d.]+ seconds/g, 'Run completed')
      // Steps are told when there is time to; only the first and the last are sure.
      .replaceAll(/ {4}\((?!0\.00|100\.00)[\d.]+\/100%\)\r/g, '')
      .replaceAll(/( {4}\([\d.]+\/100%\)\r)\1+/g, '$1')
  );
}

async function doIt(
  program: string,
  before: readonly string[],
  args: readonly string[],
  cwd: string,
): Promise<Done> {
  const { code, signal, stdout, stderr } = await run(program, [...before, ...args], {
    cwd,
  });
  return {
    code: code ?? signal,
    stdout: settled(stdout.toString()),
    stderr: settled(stderr),
  };
}

/** What `measure` does of an unknown option: it prints the help, and ends well. */
const HELPS = /^qemu-img version/;

function shown({ code, stdout, stderr }: Done): string {
  return `exit ${code}\n--- stdout\n${stdout}--- stderr\n${stderr}`;
}

const quoted = (word: string) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word}'`);

/** What is said where a target is one of the sources' files, which QEMU destroys. */
const OWN_TARGET = /'.*' is both a source and the target\n$/;

/** Commands that make new images. */
const MAKERS = ['convert', 'create', 'dd'];

/** A device is there once: its locks are everybody's, the other tool's and other tests'. */
const DEVICE_LOCKED = /Failed to get .* lock\nIs another process using the image \[\/dev\//;

/** Runs one command line in both tools. @returns what differs; empty where nothing does */
export async function compareTools(world: World, one: Case): Promise<string> {
  for (let attempt = 1; ; attempt++) {
    const found = await compareOnce(world, one);
    if (!DEVICE_LOCKED.test(found) || attempt === 20) return found;
  }
}

async function compareOnce(world: World, { args, writes }: Case): Promise<string> {
  const line = `qemu-img ${args.map(quoted).join(' ')}`;
  const img = requireQemu().img;
  if (!writes) {
    const { folder } = world;
    const [ours, theirs] = await askedAlike(() =>
      Promise.all([
        doIt(process.execPath, [world.tool], args, folder),
        doIt(img, [], args, folder),
      ]),
    );
    if (HELPS.test(theirs.stdout)) return ours.code === 1 ? '' : `${line}\n${shown(ours)}`;
    if (shown(ours) === shown(theirs)) return '';
    // Others are at the same images, and some settings make a reader a writer, whom their locks
    // keep out: what counts is what each does with images of its own.
  }
  const root = mkdtempSync(join(tmpdir(), 'qcow2-beside-'));
  const [here, there] = [join(root, 'ours'), join(root, 'theirs')];
  try {
    for (const made of [here, there]) cpSync(world.folder, made, { recursive: true });
    const [ours, theirs] = await Promise.all([
      doIt(process.execPath, [world.tool], args, here),
      doIt(img, [], args, there),
    ]);
    if (OWN_TARGET.test(ours.stderr)) {
      const files = await compareFolders(here, world.folder);
      return files === '' ? '' : `${line}\n${shown(ours)}\n${files}`;
    }
    if (args[0] === 'rebase' && (await losesDisk(world, here, there))) return '';
    if (shown(ours) !== shown(theirs)) return `${line}\n${shown(ours)}=== not\n${shown(theirs)}`;
    // A command that fails leaves files that were there as they were, where qemu-img may not.
    const made = MAKERS.includes(args[0] ?? '') && theirs.code !== 0;
    let files = made ? '' : await compareFolders(here, there);
    if (files !== '' && args.some((arg) => arg.includes(NESTED))) {
      files = await compareWithAlone(world, args, here, there);
    }
    // Of several options, those before the one that is refused are carried out by qemu-img.
    const keeps = args[0] === 'amend' && theirs.code !== 0;
    if (files !== '' && keeps) files = await compareFolders(here, world.folder);
    return files === '' ? '' : `${line}\n${shown(ours)}\n${files}`;
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

/** The settings of an image within an image, and of the same one by itself. */
const NESTED = 'driver=qcow2,file.driver=qcow2,file.file.filename=nested.qcow2';
const ALONE = 'driver=qcow2,file.filename=alone.qcow2';

/**
 * An image within an image loses what QEMU writes past the end that the outer one had: the inner
 * one is to be what QEMU makes of it as a file of its own.
 */
async function compareWithAlone(
  { folder }: World,
  args: readonly string[],
  here: string,
  there: string,
): Promise<string> {
  const img = requireQemu().img;
  const takeOut = (from: string, to: string) => {
    const names = [join(from, 'nested.qcow2'), join(to, 'alone.qcow2')];
    return run(img, ['convert', '-O', 'raw', ...names], { cwd: to });
  };
  await takeOut(folder, there);
  const alone = args.map((arg) => arg.replaceAll(NESTED, ALONE));
  await run(img, alone, { cwd: there });
  await takeOut(here, here);
  for (const made of [here, there]) rmSync(join(made, 'nested.qcow2'));
  return compareFolders(here, there);
}

/** Whether an image shows other bytes after what QEMU has done with it, or none, and not here. */
async function losesDisk({ folder }: World, here: string, there: string): Promise<boolean> {
  const changed = filesBelow(folder).filter(
    (name) => !haveEqualBytes(join(folder, name), join(there, name)),
  );
  for (const name of changed) {
    const [ours, theirs] = [
      await compareDisks(name, folder, here),
      await compareDisks(name, folder, there),
    ];
    if (ours.code === 0 && theirs.code !== 0) return true;
  }
  return false;
}

const filesBelow = (folder: string) =>
  (readdirSync(folder, { recursive: true }) as string[])
    .filter((name) => statSync(join(folder, name)).isFile())
    .sort();

/** Files up to this are read; QEMU's tools are faster at larger ones, which have holes. */
const READ_BYTES_MAX = 2 ** 26;

function haveEqualBytes(left: string, right: string): boolean {
  const sizes = [left, right].map((path) => statSync(path).size);
  if (sizes[0] !== sizes[1] || sizes[0]! > READ_BYTES_MAX) return false;
  return readFileSync(left).equals(readFileSync(right));
}

/**
 * What of the files differs that a person could see.
 * @param except names of files that are not looked at by themselves
 */
export async function compareFolders(
  here: string,
  there: string,
  except: ReadonlySet<string> = new Set(),
): Promise<string> {
  const [mine, wanted] = [filesBelow(here), filesBelow(there)];
  if (mine.join() !== wanted.join()) return `files: ${mine}\nnot:   ${wanted}`;
  for (const name of mine) {
    if (except.has(name) || haveEqualBytes(join(here, name), join(there, name))) continue;
    const [a, b] = await Promise.all([here, there].map((folder) => imageFacts(folder, name)));
    if (a !== b) return `${name} is\n${a}not\n${b}`;
    const { code, stdout, stderr } = await compareDisks(name, here, there);
    if (code !== 0) return `${name}: ${stdout}${stderr}`;
  }
  return '';
}

/** Has qemu-img compare two disks, with the world's passphrase where they are encrypted. */
async function compareDisks(name: string, here: string, there: string): Promise<Ended> {
  const cwd = here;
  const [a, b] = [await withDataFiles(here, name), await withDataFiles(there, name)];
  const plain = await run(requireQemu().img, ['compare', '-U', a, b], { cwd });
  const key = /Parameter '(.*key-secret)' is required/.exec(plain.stderr)?.[1];
  if (key === undefined) return plain;
  const driver = key === 'key-secret' ? 'luks' : 'qcow2';
  const opened = (path: string) => `driver=${driver},${key}=s,file.filename=${path}`;
  const secret = ['--object', 'secret,id=s,file=passphrase', '--image-opts'];
  return run(requireQemu().img, ['compare', '-U', ...secret, opened(a), opened(b)], { cwd });
}

/**
 * An image of a folder for somebody who works in another one: QEMU looks for data files where it
 * works, and not beside their images.
 */
async function withDataFiles(folder: string, name: string): Promise<string> {
  const path = join(folder, name);
  const asked = ['info', '-U', '--backing-chain', '--output=json', name];
  const { code, stdout } = await run(requireQemu().img, asked, { cwd: folder });
  if (code !== 0) return path;
  const chain: readonly ImageInfo[] = JSON.parse(stdout.toString());
  const places = chain.flatMap((info, depth) => {
    const file = info['format-specific']?.data?.['data-file'];
    const key = `${'backing.'.repeat(depth)}data-file.filename`;
    return file === undefined ? [] : [[key, resolve(folder, file)]];
  });
  if (places.length === 0) return path;
  const own = [['driver', chain[0]?.format], ['file.filename', path], ...places];
  return `json:${JSON.stringify(Object.fromEntries(own))}`;
}

/** What of `info --output=json` tells of data files. */
interface ImageInfo {
  readonly format: string;
  readonly 'format-specific'?: { readonly data?: { readonly 'data-file'?: string } };
}

/** All that qemu-img tells of an image but where its clusters are and what time it is. */
async function imageFacts(cwd: string, name: string): Promise<string> {
  const img = requireQemu().img;
  const check = await run(img, ['check', '-q', '-U', name], { cwd });
  const info = await run(img, ['info', '-U', '--output=json', name], { cwd });
  const moments = /^ *"(actual-size|date-n?sec|vm-clock-n?sec)": \d+,?\n/gm;
  const facts = settled(info.stdout.toString().replaceAll(moments, ''));
  // QEMU drops bitmaps that nobody vouches for with the next header that it writes.
  const said = `${check.stderr}${facts}${info.stderr}`.replaceAll(STALE, '');
  return `check ${check.code}\n${said}`;
}

const STALE = /qemu-img: warning: a program lacking bitmap support .*?\n.*? to fix\./g;

/** Names that are lists of options, most of them good. */
const OPTION_LISTS = [
  ...['driver=qcow2,file.filename=plain.qcow2', 'driver=qcow2,file.filename=top.qcow2'],
  ...['file.filename=raw.img', 'driver=raw,file.filename=base.raw,size=32k,offset=4k'],
  'driver=compress,file.driver=qcow2,file.file.filename=top.qcow2',
  'driver=copy-on-read,file.driver=qcow2,file.file.filename=top.qcow2',
  'driver=blkdebug,image.driver=qcow2,image.file.filename=snaps.qcow2',
  'driver=qcow2,file.driver=blkdebug,file.image.filename=top.qcow2',
  'driver=qcow2,read-only=on,file.filename=snaps.qcow2',
  'driver=qcow2,discard=unmap,detect-zeroes=unmap,file.filename=bits.qcow2',
  'driver=qcow2,lazy-refcounts=on,cache-size=0,file.filename=plain.qcow2',
  'driver=qcow2,data-file.filename=data.raw,file.filename=data.qcow2',
  'driver=qcow2,backing.driver=raw,backing.file.filename=raw.img,file.filename=mid.qcow2',
  'driver=qcow2,backing=,file.filename=top.qcow2',
  ...[NESTED, 'plain.qcow2'],
  ...['driver=luks,key-secret=s,file.filename=luks.img', 'driver=bogus,file.filename=raw.img'],
  ...['driver=qcow2,encrypt.key-secret=s,file.filename=luks.qcow2', 'driver=null-co,size=64k'],
  ...['driver=qcow2,backing.driver=raw,backing.file.filename=base.raw,file.filename=top.qcow2'],
  ...['file.driver=file,file.filename=snaps.qcow2,force-share=on', 'driver=qcow2,bogus=1'],
  ...['driver=qcow2,file.filename=bits.qcow2,read-only=on', 'driver=qcow2,file.filename=nowhere'],
  ...['driver=file,filename=raw.img', ''],
];

/** What the grammar of a command is made of. */
export interface Grammar {
  readonly command: string;
  /** Options, each with its values; none: it takes none. */
  readonly options: readonly (readonly [flags: string, ...values: string[]])[];
  /** Operands, in their order. */
  readonly operands: readonly (readonly string[])[];
  readonly writes?: boolean;
}

/** Names of images, good ones more often than others. */
export const IMAGES = [
  ...['plain.qcow2', 'plain.qcow2', 'top.qcow2', 'top.qcow2', 'mid.qcow2', 'base.raw', 'raw.img'],
  ...['v2.qcow2', 'ext.qcow2', 'data.qcow2', 'snaps.qcow2', 'bits.qcow2', 'sub/over.qcow2'],
  ...['same.qcow2', 'luks.img', 'luks.qcow2', 'orphan.qcow2', 'wrongfmt.qcow2'],
  ...['corrupt.qcow2', 'unknown.qcow2', 'badl1.qcow2', 'cut.qcow2', 'empty', 'short.img'],
  ...[
    'nowhere.qcow2',
    'sub',
    'nowhere/x',
    '',
    'json:{"driver":"qcow2","file.filename":"plain.qcow2"}',
  ],
  ...[
    'json:{"file":{"driver":"file","filename":"top.qcow2"}}',
    'json:{',
    'json:{"driver":"bogus"}',
  ],
  ...['driver=qcow2,file.filename=plain.qcow2', 'file.filename=raw.img', 'plain.qcow2/'],
  ...['driver=luks,key-secret=s,file.filename=luks.img', './plain.qcow2', 'file:plain.qcow2'],
];
/** Names of images that want repair. */
export const BROKEN = ['leaks.qcow2', 'uncounted.qcow2', 'dirty.qcow2', 'stale.qcow2'];
export const FORMATS = ['qcow2', 'qcow2', 'raw', 'luks', 'bogus', ''];

const JUNK = [
  ...[
    '--',
    '-x',
    '--bogus',
    '--bogus=1',
    '',
    '-',
    '-U',
    '-q',
    '-p',
    '--image-opts',
    '--image-opts',
  ],
  ...['--object', '--object=secret,id=s,file=passphrase', '--object=secret,id=s,data=x', '-'],
  ...['--object=secret', '--object=bogus,id=x', '--output', '--output=bad', '--output=json'],
  ...['--out=json', '--o', '--force-share', '--forc', '--im', '--ob=secret,id=z,data=y', '-Uq'],
  ...['extra', '-z', '-qz', '--force-share=1', '-T', '-t', '-f', '-F', '-b', '--fo'],
];

/** Commands whose `--output` is not QEMU's; and `check` has `-p` beyond what QEMU's has. */
const LISTS = ['bitmap', 'compare', 'snapshot'];

/** Words that do not belong there. */
export function junkFor(command: string): readonly string[] {
  if (command === 'check') return JUNK.filter((one) => one !== '-p');
  // It has an `--output` of its own, and a pipe at `-`.
  if (command === 'convert') return JUNK.filter((one) => !/^(-|--o|--ou.*)$/.test(one));
  return LISTS.includes(command) ? JUNK.filter((one) => !one.startsWith('--o')) : JUNK;
}

/** A random command line: mostly one that makes sense, then changed a little. */
export function randomLine(next: Random, { command, options, operands }: Grammar): string[] {
  const parts: string[][] = [];
  for (const [flags, ...values] of options) {
    if (!next.oneIn(Math.max(3, Math.ceil(options.length / 2)))) continue;
    const flag = next.pick(flags.split(' '));
    if (values.length === 0) parts.push([flag]);
    else {
      const value = next.pick(values);
      const joined = flag.startsWith('--') ? `${flag}=${value}` : `${flag}${value}`;
      parts.push(next.oneIn(2) ? [flag, value] : [joined]);
    }
  }
  for (let i = parts.length - 1; i > 0; i--) {
    const j = next.below(i + 1);
    [parts[i], parts[j]] = [parts[j]!, parts[i]!];
  }
  const lists = !/^(create|dd)$/.test(command) && next.oneIn(6);
  if (lists) parts.push(['--image-opts']);
  const last = operands.map((choices) => {
    return [next.pick(lists && choices.includes('plain.qcow2') ? OPTION_LISTS : choices)];
  });
  const words = [...parts, ...last];
  if (next.oneIn(4)) {
    // Options behind operands.
    const [moved] = words.splice(next.below(words.length), 1);
    if (moved) words.splice(next.below(words.length + 1), 0, moved);
  }
  const args = words.flat();
  if (next.oneIn(3)) {
    args.splice(next.below(args.length + 1), 0, next.pick(junkFor(command)));
  }
  if (next.oneIn(12)) args.splice(next.below(args.length), 1);
  if (next.oneIn(12)) {
    const at = next.below(args.length);
    args.splice(at, 0, args[at] ?? '');
  }
  if (next.oneIn(10)) {
    const long = args.findIndex((arg) => arg.startsWith('--') && arg.length > 4);
    if (long >= 0) {
      const [name = '', ...value] = args[long]!.split('=');
      args[long] = [name.slice(0, 3 + next.below(name.length - 3)), ...value].join('=');
    }
  }
  return [command, ...args];
}

/** Tries cases, and gives all that differ. */
export async function tryCases(world: World, cases: Iterable<Case>): Promise<string[]> {
  const found: string[] = [];
  await eachAtOnce(cases, async (one) => {
    const what = await compareTools(world, one);
    if (what !== '') found.push(what);
  });
  return found;
}

/** Random command lines of a grammar. */
export function* randomCases(grammar: Grammar, count: number): Generator<Case> {
  for (let index = 0; index < count; index++) {
    const next = rng(SEED ^ Math.imul(index + 1, 0x9e3779b1));
    yield { args: randomLine(next, grammar), writes: grammar.writes ?? false };
  }
}

/**
 * Each option with each of its values, alone, and each word that does not belong there, behind
 * operands that are good.
 */
export function eachOption({ command, options, operands, writes = false }: Grammar): Case[] {
  const good = operands.map((choices) => choices[0] as string);
  const cases = options.flatMap(([flags, ...values]) =>
    flags.split(' ').flatMap((flag) => {
      if (values.length === 0) return [[flag], [flag, flag]];
      return values.map((value) => [flag, value]);
    }),
  );
  const wrong = junkFor(command).map((word) => [word]);
  const missing = { args: [command, ...good.slice(1)], writes };
  const more = { args: [command, ...good, 'extra'], writes };
  const none = { args: [command], writes };
  return [
    ...[...cases, ...wrong].map((words) => ({ args: [command, ...words, ...good], writes })),
    ...[missing, more, none],
  ];
}
