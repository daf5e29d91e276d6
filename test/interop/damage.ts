/** Damage to the metadata of qcow2 images, field by field, from a seed. */
import type { Random } from '../random.ts';

const OFFSET = 0x00ff_ffff_ffff_fe00n;

/** What can be damaged. */
const TARGETS = [
  'L1',
  'L2',
  'L2',
  'L2',
  'refcount table',
  'refcount block',
  'refcount block',
  'refcount block',
  'snapshot table',
  'snapshot L1',
  'refcount header',
  'features',
  'header',
  'bitmap extension',
  'bitmap directory',
  'bitmap table',
] as const;

/** Fields of the header, and how wide they are. */
const HEADER_FIELDS = [
  ['backing name', 8, 8],
  ['length of the backing name', 16, 4],
  ['size', 24, 8],
  ['encryption', 32, 4],
  ['L1 entries', 36, 4],
  ['L1', 40, 8],
  ['snapshots', 60, 4],
  ['snapshot table', 64, 8],
  ['compatible features', 80, 8],
  ['autoclear features', 88, 8],
  ['refcount order', 96, 4],
  ['header length', 100, 4],
] as const;

/** Tables of an image, by the places of their entries. */
interface Tables {
  readonly l1: number[];
  readonly l2: number[];
  readonly refcountTable: number[];
  readonly blocks: number[];
  readonly snapshots: number[];
  readonly snapshotL1: number[];
  readonly bitmaps: Bitmaps;
  readonly clusterSize: number;
}

/** Where an image says what bitmaps it has. */
interface Bitmaps {
  readonly extension: number[];
  readonly directory: number[];
  readonly tables: number[];
}

const BITMAPS = 0x23852875;

function findBitmaps(image: Buffer): Bitmaps {
  const none = { extension: [], directory: [], tables: [] };
  if (image.readUInt32BE(4) === 2) return none;
  let at = image.readUInt32BE(100);
  while (at + 8 <= 512 && image.readUInt32BE(at) !== BITMAPS) {
    if (image.readUInt32BE(at) === 0) return none;
    at += 8 + Math.ceil(image.readUInt32BE(at + 4) / 8) * 8;
  }
  if (at + 32 > image.length) return none;
  const [count, from] = [image.readUInt32BE(at + 8), Number(image.readBigUInt64BE(at + 24))];
  const directory: number[] = [];
  const tables: number[] = [];
  for (let entry = from, index = 0; index < Math.min(count, 100); index++) {
    if (entry + 24 > image.length) break;
    directory.push(entry);
    const table = Number(image.readBigUInt64BE(entry));
    const words = Math.min(image.readUInt32BE(entry + 8), 1000);
    for (let word = table; word < table + words * 8 && word + 8 <= image.length; word += 8) {
      tables.push(word);
    }
    const length = image.readUInt16BE(entry + 18) + image.readUInt32BE(entry + 20);
    entry += Math.ceil((24 + length) / 8) * 8;
  }
  return { extension: [at], directory, tables };
}

function findTables(image: Buffer): Tables {
  const clusterSize = 2 ** image.readUInt32BE(20);
  const extended = image.readUInt32BE(4) === 3 && (image.readUInt32BE(76) & 16) !== 0;
  const word = (at: number) => (at + 8 <= image.length ? image.readBigUInt64BE(at) : 0n);
  const places = (at: number, bytes: number) => {
    const list: number[] = [];
    for (let entry = at; entry < Math.min(at + bytes, image.length - 8); entry += 8) {
      list.push(entry);
    }
    return list;
  };
  const l1 = places(Number(word(40)), image.readUInt32BE(36) * 8);
  const l2 = l1.flatMap((at) => {
    const table = Number(word(at) & OFFSET);
    return table === 0 ? [] : places(table, clusterSize);
  });
  const refcountTable = places(Number(word(48)), image.readUInt32BE(56) * clusterSize);
  const blocks = refcountTable.flatMap((at) => {
    const block = Number(word(at) & ~511n);
    const used = Math.min(clusterSize, Math.ceil(image.length / clusterSize) * 8);
    return block === 0 ? [] : places(block, used);
  });
  const snapshots: number[] = [];
  const snapshotL1: number[] = [];
  let at = Number(word(64));
  for (let index = 0; index < Math.min(image.readUInt32BE(60), 100); index++) {
    if (at + 40 > image.length) break;
    snapshots.push(at);
    snapshotL1.push(...places(Number(word(at)), image.readUInt32BE(at + 8) * 8));
    const extra = image.readUInt32BE(at + 36);
    at += 40 + extra + image.readUInt16BE(at + 12) + image.readUInt16BE(at + 14);
    at = Math.ceil(at / 8) * 8;
  }
  // Half of the damage is to entries that say something.
  const used = (list: number[]) => list.filter((entry) => word(entry) !== 0n);
  return {
    l1: [...l1, ...used(l1)],
    l2: extended ? l2 : [...l2, ...used(l2), ...used(l2)],
    refcountTable: [...used(refcountTable), ...refcountTable.slice(0, 2)],
    blocks: [...blocks, ...used(blocks)],
    snapshots,
    snapshotL1,
    bitmaps: findBitmaps(image),
    clusterSize,
  };
}

/** Overwrites a word with something like it, or not like it at all. */
function damageWord(next: Random, image: Buffer, at: number, tables: Tables): string {
  const before = image.readBigUInt64BE(at);
  const clusters = BigInt(Math.ceil(image.length / tables.clusterSize) + 3);
  const size = BigInt(tables.clusterSize);
  const somewhere = BigInt(next.below(Number(clusters))) * size;
  const values = [
    () => 0n,
    () => before ^ (1n << BigInt(next.below(64))),
    () => before ^ (1n << BigInt(next.below(64))),
    () => before ^ (1n << 63n),
    () => before | 1n,
    () => somewhere,
    () => somewhere | (1n << 63n),
    () => somewhere | 1n,
    () => before + 512n,
    () => (before & ~OFFSET) | somewhere,
    () => BigInt(image.length) + size * BigInt(next.below(4)),
    () => (BigInt(next.u32()) << 32n) | BigInt(next.u32()),
  ];
  const value = BigInt.asUintN(64, next.pick(values)());
  image.writeBigUInt64BE(value, at);
  return `${at.toString(16)}: ${before.toString(16)} -> ${value.toString(16)}`;
}

/**
 * Damages an image in one place.
 * @returns what was done, or undefined where there is nothing of that kind
 */
export function damage(next: Random, image: Buffer): string | undefined {
  // Where the refcount table was said to be at the header, what it was damaged by may be this.
  const clusterBits = image.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21) return undefined;
  const tables = findTables(image);
  const target = next.pick(TARGETS);
  const places = {
    L1: tables.l1,
    L2: tables.l2,
    'refcount table': tables.refcountTable,
    'refcount block': tables.blocks,
    'snapshot table': tables.snapshots,
    'snapshot L1': tables.snapshotL1,
    'refcount header': [48],
    features: [72],
    header: [0],
    'bitmap extension': tables.bitmaps.extension,
    'bitmap directory': tables.bitmaps.directory,
    'bitmap table': tables.bitmaps.tables,
  }[target];
  if (places.length === 0) return undefined;
  const at = next.pick(places);
  if (target === 'snapshot table') {
    const field = next.pick([0, 8, 12, 14, 36]);
    const wide = field === 8 || field === 36;
    const value = next.pick([0, 1, 7, 8, 16, 24, 100, 1024, 1025, 70000]);
    if (field === 0) return `snapshot ${damageWord(next, image, at, tables)}`;
    if (wide) image.writeUInt32BE(value, at + field);
    else image.writeUInt16BE(value & 0xffff, at + field);
    return `snapshot at ${at.toString(16)}, field ${field}: ${value}`;
  }
  if (target === 'refcount header') {
    const count = next.pick([0, 0, 1, image.readUInt32BE(56)]);
    if (next.oneIn(2)) {
      image.writeUInt32BE(count, 56);
      return `refcount table of ${count} clusters`;
    }
    image.writeBigUInt64BE(BigInt(next.below(8) * tables.clusterSize), 48);
    return `refcount table at ${image.readBigUInt64BE(48)}`;
  }
  if (target === 'features') {
    if (image.readUInt32BE(4) === 2) return undefined;
    image.writeUInt32BE(image.readUInt32BE(76) ^ next.pick([1, 2, 3]), 76);
    return `features ${image.readUInt32BE(76)}`;
  }
  if (target === 'header') {
    const [name, field, bytes] = next.pick(HEADER_FIELDS);
    return `${name} ${damageField(next, image, field, bytes)}`;
  }
  if (target === 'bitmap extension') {
    // Length, count, reserved bytes, and the directory's size and place.
    const [field, bytes] = next.pick([
      [4, 4] as const,
      [8, 4] as const,
      [12, 4] as const,
      [16, 8] as const,
      [24, 8] as const,
    ]);
    return `${target} +${field} ${damageField(next, image, at + field, bytes)}`;
  }
  if (target === 'bitmap directory') {
    // Table, its entries, flags, type, granularity, length of the name, extra data.
    const [field, bytes] = next.pick([
      [0, 8] as const,
      [8, 4] as const,
      [12, 4] as const,
      [16, 1] as const,
      [17, 1] as const,
      [18, 2] as const,
      [20, 4] as const,
    ]);
    return `${target} +${field} ${damageField(next, image, at + field, bytes)}`;
  }
  return `${target} ${damageWord(next, image, at, tables)}`;
}

/** Overwrites a field of any width with something near it, small, large, or with one bit off. */
function damageField(next: Random, image: Buffer, at: number, bytes: 1 | 2 | 4 | 8): string {
  const bits = BigInt(bytes * 8);
  const word = Buffer.alloc(8);
  image.copy(word, 8 - bytes, at, at + bytes);
  const before = word.readBigUInt64BE();
  const value = next.pick([
    0n,
    1n,
    before + 1n,
    before - 1n,
    before + 8n,
    before * 2n,
    before + 512n,
    before ^ (1n << BigInt(next.below(bytes * 8))),
    before ^ (1n << BigInt(next.below(bytes * 8))),
    BigInt(next.below(8)) << BigInt(image.readUInt32BE(20)),
    -1n,
    (BigInt(next.u32()) << 32n) | BigInt(next.u32()),
  ]);
  word.writeBigUInt64BE(BigInt.asUintN(Number(bits), value));
  word.copy(image, at, 8 - bytes);
  return `${at.toString(16)}: ${before.toString(16)} -> ${word.toString('hex', 8 - bytes)}`;
}
