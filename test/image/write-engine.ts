/** What the proofs of writing ask of an engine, and the images they make it write. */
import type { WritableDisk } from '../../src/image/disk.ts';
import type { Random } from '../random.ts';
import { type FileOpener, MemoryFiles, PagedBytes } from './paged-bytes.ts';

/** Names of an image's files, as they are written into it. */
export const IMAGE = 'image.qcow2';
export const DATA = 'data.raw';
export const BACKING = 'backing.raw';

/** What an image is made with. */
export interface WriteSetting {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly refcountBits: number;
  readonly extended: boolean;
  readonly lazy: boolean;
  readonly compression: 'zlib' | 'zstd';
  readonly dataFile: 'none' | 'file' | 'raw';
  /** Bytes of a raw backing file; `undefined`: none. */
  readonly backingBytes: number | undefined;
  /** Virtual bytes, a multiple of 512. */
  readonly size: number;
}

/** The plainest image, with small clusters. */
export const SMALL: WriteSetting = {
  version: 3,
  clusterBits: 9,
  refcountBits: 16,
  extended: false,
  lazy: false,
  compression: 'zlib',
  dataFile: 'none',
  backingBytes: undefined,
  size: 64 * 1024,
};

/** An implementation under test. The image owns the storages that it opens, and closes them. */
export interface WriteEngine {
  /** Makes the image `IMAGE` and opens it. */
  create(files: FileOpener, setting: WriteSetting): Promise<WritableDisk>;
  /** Opens what `create` made, to write. */
  open(files: FileOpener, setting: WriteSetting): Promise<WritableDisk>;
}

/** One line about a setting, for messages. */
export function describeSetting(setting: WriteSetting): string {
  return Object.entries(setting)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ');
}

/** A setting that the format allows. */
export function randomWriteSetting(next: Random, fixed: Partial<WriteSetting> = {}): WriteSetting {
  const version = fixed.version ?? next.pick([2, 3, 3, 3, 3] as const);
  const v3 = version === 3;
  const dataFile =
    fixed.dataFile ?? (v3 && next.oneIn(5) ? next.pick(['file', 'raw'] as const) : 'none');
  const wide = fixed.clusterBits === undefined || fixed.clusterBits >= 14;
  const extended = fixed.extended ?? (v3 && wide && next.oneIn(4));
  const clusterBits =
    fixed.clusterBits ??
    (extended
      ? next.pick([14, 14, 15, 16, 18, 21])
      : next.pick([9, 9, 9, 9, 10, 10, 11, 12, 13, 16, 18, 21]));
  const most = Math.max(2 ** 19, Math.min(2 ** 22, 2 ** (clusterBits + 3)));
  const size = 512 * (1 + next.below((next.oneIn(8) ? 2 ** 22 : most) / 512));
  const backs = dataFile !== 'raw' && next.oneIn(3);
  const backingBytes = backs ? 1 + next.below(next.oneIn(2) ? size : size * 2) : undefined;
  return {
    version,
    clusterBits,
    extended,
    dataFile,
    refcountBits: v3 ? next.pick([1, 2, 4, 8, 16, 16, 32, 64]) : 16,
    compression: v3 && next.oneIn(3) ? 'zstd' : 'zlib',
    lazy: v3 && next.oneIn(5),
    size,
    backingBytes,
    ...fixed,
  };
}

/** The files that an image starts from: its backing file has random bytes. */
export function firstFiles(next: Random, setting: WriteSetting): Map<string, PagedBytes> {
  const { all } = MemoryFiles.empty(IMAGE);
  const files = new Map(all);
  if (setting.dataFile !== 'none') files.set(DATA, new PagedBytes());
  const { backingBytes } = setting;
  if (backingBytes !== undefined) {
    files.set(BACKING, PagedBytes.from(randomBytes(next, backingBytes)));
  }
  return files;
}

/** What a new image reads as: its backing file's bytes, then zeros. */
export function firstContent(
  files: ReadonlyMap<string, PagedBytes>,
  setting: WriteSetting,
): Uint8Array {
  const bytes = new Uint8Array(setting.size);
  files.get(BACKING)?.read(0, bytes);
  return bytes;
}

/** Bytes of several kinds: noise, text that compresses, one byte, zeros, and mixtures. */
export function randomBytes(next: Random, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; ) {
    const end = Math.min(length, at + 1 + next.below(next.pick([600, 5000, 100_000])));
    const kind = next.below(4);
    const byte = 1 + next.below(255);
    if (kind === 0) {
      for (; at + 4 <= end; at += 4) {
        const word = next.u32();
        bytes[at] = word;
        bytes[at + 1] = word >>> 8;
        bytes[at + 2] = word >>> 16;
        bytes[at + 3] = word >>> 24;
      }
    } else if (kind === 1) {
      for (; at < end; at++) bytes[at] = 97 + (((at % 23) + (at >> 9)) % 26);
    } else if (kind === 2) bytes.fill(byte, at, end);
    at = end;
  }
  return bytes;
}

/** Where the bytes differ, as a person can use it; empty where they are the same. */
export function firstDifference(actual: Uint8Array, wanted: Uint8Array): string {
  const length = Math.min(actual.length, wanted.length);
  for (let at = 0; at < length; at++) {
    if (actual[at] !== wanted[at]) {
      return `byte at 0x${at.toString(16)} is ${actual[at]}, not ${wanted[at]}`;
    }
  }
  return actual.length === wanted.length ? '' : `${actual.length} bytes, not ${wanted.length}`;
}

/** The whole disk, in pieces. */
export async function readWhole(disk: WritableDisk, next?: Random): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.size).fill(0xa5);
  for (let at = 0; at < bytes.length; ) {
    const step = next ? 1 + next.below(300_000) : 2 ** 20;
    const piece = bytes.subarray(at, at + step);
    await disk.read(at, piece);
    at += piece.length;
  }
  return bytes;
}
