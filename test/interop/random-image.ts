/**
 * Images of every shape, made by QEMU's tools and filled by qemu-io from a seed.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Random } from '../random.ts';
import { qemuImg, qemuIo } from '../tool.ts';
import type { MapRules } from './map-json.ts';

/** What an image is made with. */
export interface ImageSetting {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly refcountBits: number;
  /** How some of its clusters are compressed, if any are. */
  readonly compression: 'none' | 'zlib' | 'zstd';
  readonly extended: boolean;
  readonly lazy: boolean;
  /** The data clusters lie in a file of their own, which may be a raw image by itself. */
  readonly dataFile: 'none' | 'file' | 'raw';
  readonly preallocation: 'off' | 'metadata' | 'falloc' | 'full';
  /** Virtual bytes, a multiple of 512. */
  readonly size: number;
}

/** The plainest image. */
export const PLAIN: ImageSetting = {
  version: 3,
  clusterBits: 16,
  refcountBits: 16,
  compression: 'none',
  extended: false,
  lazy: false,
  dataFile: 'none',
  preallocation: 'off',
  size: 2 ** 20,
};

/** One line about a setting, for messages. */
export function describe(setting: ImageSetting): string {
  return Object.entries(setting)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ');
}

/** The backing file of a new image. */
export interface Backing {
  /** As it is written into the image. */
  readonly name: string;
  readonly format: 'raw' | 'qcow2';
  /** Whether the image says of what format its backing file is. */
  readonly stated: boolean;
}

/** A disk of a few clusters at least, and of several L2 tables where those are small. */
export function randomSize(next: Random, clusterBits: number): number {
  const most = Math.max(2 ** 20, Math.min(2 ** (clusterBits + 2), 6 * 2 ** 20));
  return 512 * (1 + next.below(most / 512));
}

/** A setting that QEMU accepts. */
export function randomSetting(next: Random, fixed: Partial<ImageSetting> = {}): ImageSetting {
  const version = fixed.version ?? next.pick([2, 3, 3, 3] as const);
  const v3 = version === 3;
  const extended = fixed.extended ?? (v3 && (fixed.clusterBits ?? 14) >= 14 && next.oneIn(3));
  const clusterBits =
    fixed.clusterBits ?? (extended ? 14 + next.below(8) : next.pick([9, 9, 10, 12, 16, 17, 21]));
  const dataFile =
    fixed.dataFile ?? (v3 && next.oneIn(6) ? next.pick(['file', 'raw'] as const) : 'none');
  const compressions = v3
    ? (['none', 'zlib', 'zlib', 'zstd'] as const)
    : (['none', 'zlib'] as const);
  return {
    version,
    clusterBits,
    extended,
    dataFile,
    refcountBits: v3 ? next.pick([1, 2, 4, 8, 16, 16, 32, 64]) : 16,
    compression: dataFile === 'none' ? next.pick(compressions) : 'none',
    lazy: v3 && next.oneIn(5),
    preallocation: 'off',
    size: randomSize(next, clusterBits),
    ...fixed,
  };
}

/** Makes an empty image. */
export async function createImage(
  folder: string,
  name: string,
  setting: ImageSetting,
  backing?: Backing,
): Promise<void> {
  const { version, clusterBits, refcountBits, compression, extended, lazy, dataFile } = setting;
  const options = [
    `compat=${version === 2 ? '0.10' : '1.1'}`,
    `cluster_size=${2 ** clusterBits}`,
    `refcount_bits=${refcountBits}`,
    `preallocation=${setting.preallocation}`,
  ];
  if (compression === 'zstd') options.push('compression_type=zstd');
  if (extended) options.push('extended_l2=on');
  if (lazy) options.push('lazy_refcounts=on');
  if (dataFile !== 'none') options.push(`data_file=${name}.data`);
  if (dataFile === 'raw') options.push('data_file_raw=on');
  const args = ['create', '-q', '-f', 'qcow2', '-o', options.join(',')];
  if (backing) args.push('-b', backing.name, '-F', backing.format);
  await qemuImg([...args, name, String(setting.size)], { cwd: folder });
  if (backing && !backing.stated) unstateBackingFormat(join(folder, name));
}

/**
 * Takes the backing format out of an image: qemu-img makes none without any more, but older ones
 * did. The extension's type becomes one that nobody knows.
 */
function unstateBackingFormat(path: string): void {
  const bytes = readFileSync(path);
  const at = bytes.indexOf(Buffer.from('e2792aca', 'hex'));
  bytes.writeUInt32BE(0x12345678, at);
  writeFileSync(path, bytes);
}

/** The name of the file that `fillCommands` writes from. */
export const PATTERN = 'pattern.bin';

/** Bytes of every kind: random ones, text that compresses, zeros in blocks and in between. */
export function writePattern(next: Random, folder: string): void {
  const bytes = Buffer.alloc(200_003);
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + 1 + next.below(next.pick([64, 3000, 20_000])));
    const kind = next.below(4);
    const byte = next.below(256);
    for (; at < end; at++) {
      if (kind === 0) bytes[at] = next.u32();
      else if (kind === 1) bytes[at] = 97 + (at % 23) + next.below(3);
      else if (kind === 2) bytes[at] = byte;
    }
  }
  writeFileSync(join(folder, PATTERN), bytes);
}

/** A guest range: of any size up to some clusters, on any sector. */
function randomRange(next: Random, size: number, unit: number): { at: number; length: number } {
  const sectors = size / 512;
  const at = next.below(sectors);
  const most = Math.min(sectors - at, next.pick([1, 8, (4 * unit) / 512, (40 * unit) / 512]));
  return { at: at * 512, length: (1 + next.below(Math.max(1, most))) * 512 };
}

/**
 * qemu-io commands that write, zero and discard, for an image that is empty as yet (or whose
 * setting says that nothing is to be compressed): QEMU compresses only what is not allocated, and
 * must not be asked to after a compressed cluster was freed (7.2 then uses its place twice).
 */
export function fillCommands(next: Random, setting: ImageSetting, count: number): string[] {
  const { size, compression, extended } = setting;
  const cluster = 2 ** setting.clusterBits;
  const unit = Math.min(extended ? cluster / 32 : cluster, 65536);
  const commands = compression === 'none' ? [] : compressCommands(next, setting, count / 2);
  while (commands.length < count) {
    let { at, length } = randomRange(next, size, unit);
    const what = next.below(8);
    if (what < 3) commands.push(`write -s ${PATTERN} ${at} ${length}`);
    else if (what === 3) commands.push(`write -P ${next.below(256)} ${at} ${length}`);
    else if (what === 4) commands.push(`write -z ${at} ${length}`);
    else if (what === 5) commands.push(`write -z -u ${at} ${length}`);
    else if (what === 6) commands.push(`discard ${at} ${length}`);
    else {
      at -= at % cluster;
      length = Math.min(size - at, (1 + next.below(3)) * cluster);
      commands.push(`${next.pick(['discard', 'write -z', 'write -z -u'])} ${at} ${length}`);
    }
  }
  return commands;
}

/** Compressed writes, each of another cluster: whole ones, and the last one of the disk. */
function compressCommands(next: Random, setting: ImageSetting, count: number): string[] {
  const cluster = 2 ** setting.clusterBits;
  const clusters = new Set<number>();
  for (let i = 0; i < count; i++) {
    const run = next.below(setting.size / cluster);
    for (let index = run; index <= run + next.below(3); index++) clusters.add(index);
  }
  return [...clusters].flatMap((index) => {
    const at = index * cluster;
    const length = Math.min(setting.size - at, cluster);
    const source = next.oneIn(4) ? `-P ${next.below(256)}` : `-s ${PATTERN}`;
    return length > 0 ? [`write -c ${source} ${at} ${length}`] : [];
  });
}

/** Makes an image and fills it. */
export async function makeImage(
  next: Random,
  folder: string,
  name: string,
  setting: ImageSetting,
  backing?: Backing,
): Promise<void> {
  await createImage(folder, name, setting, backing);
  // Each image its own count: nearly empty ones and crowded ones.
  const commands = fillCommands(next, setting, next.pick([3, 12, 30]));
  await qemuIo(name, commands, { cwd: folder });
}

/** Makes a raw image: of any length, with data and holes. */
export async function makeRaw(
  next: Random,
  folder: string,
  name: string,
  size: number,
): Promise<void> {
  await qemuImg(['create', '-q', '-f', 'raw', name, String(size)], { cwd: folder });
  const whole = { ...PLAIN, size: size - (size % 512) };
  if (whole.size === 0) return;
  const commands = fillCommands(next, whole, 6).filter((line) => line.startsWith('write'));
  await qemuIo(name, commands, { cwd: folder, format: 'raw' });
}

/** An image, and what stands behind it. */
export interface Chain {
  readonly image: string;
  /** Virtual bytes of the image. */
  readonly size: number;
  readonly rules: MapRules;
  /** One line about each image, from the top down. */
  readonly about: string;
}

/** Makes and fills an image without a backing file. */
export async function makeSingle(
  next: Random,
  folder: string,
  setting: ImageSetting,
): Promise<Chain> {
  await makeImage(next, folder, 'a.qcow2', setting);
  return chainOf('a.qcow2', setting);
}

/** An image by itself, made with the setting. */
export function chainOf(image: string, setting: ImageSetting): Chain {
  return { image, size: setting.size, rules: { rawDepths: [] }, about: describe(setting) };
}

/**
 * Makes a chain of `depth` images behind the top one.
 * @param prefix what the names of its files begin with
 */
export async function makeChain(
  next: Random,
  folder: string,
  depth: number,
  fixed: Partial<ImageSetting> = {},
  prefix = '',
): Promise<Chain> {
  const about: string[] = [];
  let backing: Backing | undefined;
  let size = 0;
  const rawBase = depth > 0 && next.oneIn(2);
  if (rawBase) {
    size = randomSize(next, 16) + next.pick([0, 0, 1, 100, 511]);
    await makeRaw(next, folder, `${prefix}base.raw`, size);
    // What is not stated is found out, and an unstated raw image is written to by nobody.
    backing = { name: `${prefix}base.raw`, format: 'raw', stated: !next.oneIn(3) };
    about.push(`raw size=${size}`);
  }
  const images = rawBase ? depth : depth + 1;
  for (let left = images - 1; left >= 0; left--) {
    const name = `${prefix}image${left}.qcow2`;
    let setting = randomSetting(next, fixed);
    // With a backing file clusters of a raw data file would say nothing of what lies below.
    if (backing && setting.dataFile === 'raw') setting = { ...setting, dataFile: 'file' };
    await makeImage(next, folder, name, setting, backing);
    const stated = backing ? ` stated=${backing.stated}` : '';
    about.unshift(describe(setting) + stated);
    backing = { name, format: 'qcow2', stated: !next.oneIn(3) };
    size = setting.size;
  }
  const rules = { rawDepths: rawBase ? [images] : [] };
  return { image: `${prefix}image0.qcow2`, size, rules, about: about.join('\n') };
}
