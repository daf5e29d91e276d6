/**
 * A small writer of qcow2 images for tests: lays out any mix of clusters from a model, as an image
 * may have them and QEMU's tools would hardly make them. Refcounts are left out: readers need none.
 */
import { deflateRaw } from 'pako';
import type { Random } from '../random.ts';

/** One guest cluster. */
export type Cluster =
  | { readonly kind: 'unallocated' }
  | { readonly kind: 'zero' }
  /** Zeros, with a host cluster that holds something else. */
  | { readonly kind: 'kept' }
  | { readonly kind: 'data'; readonly bytes: Uint8Array }
  | { readonly kind: 'compressed'; readonly bytes: Uint8Array }
  /** Extended images: what each of the 32 subclusters is. */
  | {
      readonly kind: 'mixed';
      readonly parts: readonly ('unallocated' | 'zero' | 'data')[];
      readonly bytes: Uint8Array;
    };

/** What an image says about itself. */
export interface TinyOptions {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly extended?: boolean;
  readonly size: number;
  readonly backing?: { readonly name: string; readonly format?: string | undefined };
  readonly dataFile?: string;
  /** Scatters host clusters where given; otherwise they follow each other. */
  readonly next?: Random;
}

/** The files of an image. */
export interface TinyImage {
  readonly file: Uint8Array;
  readonly data: Uint8Array | undefined;
}

const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;

/** A file that grows as it is written to. */
class Sink {
  bytes = new Uint8Array(1 << 16);
  end = 0;

  put(at: number, from: Uint8Array): void {
    this.reach(at + from.length);
    this.bytes.set(from, at);
  }

  putU64(at: number, value: bigint): void {
    this.reach(at + 8);
    new DataView(this.bytes.buffer).setBigUint64(at, value);
  }

  reach(end: number): void {
    if (end > this.bytes.length) {
      const grown = new Uint8Array(Math.max(end, this.bytes.length * 2));
      grown.set(this.bytes);
      this.bytes = grown;
    }
    this.end = Math.max(this.end, end);
  }
}

/** Lays out an image. Clusters that `clusters` lacks are unallocated. */
export function buildTiny(options: TinyOptions, clusters: ReadonlyMap<number, Cluster>): TinyImage {
  const { clusterBits, size, next, extended = false } = options;
  const cluster = 2 ** clusterBits;
  const entryBytes = extended ? 16 : 8;
  const perTable = cluster / entryBytes;
  const l1Entries = Math.ceil(size / (perTable * cluster));
  const sink = new Sink();
  const data = options.dataFile === undefined ? undefined : new Sink();
  // Header, one empty cluster of a refcount table, L1.
  const l1 = 2 * cluster;
  let free = l1 + Math.max(1, Math.ceil((l1Entries * 8) / cluster)) * cluster;
  writeHeader(sink, options, { l1, l1Entries });
  sink.reach(free);
  const allocate = () => {
    if (next?.oneIn(4)) free += cluster * next.below(3);
    const at = free;
    free += cluster;
    return at;
  };
  const hostOf = (index: number) => (data ? index * cluster : allocate());
  const tables = new Map<number, number>();
  let packed = 0;
  let packedEnd = 0;
  /** Where a stream goes: right behind the last one, as writers pack them. */
  const pack = (length: number) => {
    if (packedEnd - packed < length) {
      packed = allocate();
      packedEnd = packed + cluster;
      if (next) packed += next.below(cluster - length + 1);
    }
    const at = packed;
    packed += length;
    return at;
  };

  for (const [index, what] of [...clusters].sort(([a], [b]) => a - b)) {
    if (what.kind === 'unallocated') continue;
    const tableIndex = Math.floor(index / perTable);
    let table = tables.get(tableIndex);
    if (table === undefined) {
      table = allocate();
      sink.reach(table + cluster);
      tables.set(tableIndex, table);
      sink.putU64(l1 + tableIndex * 8, BigInt(table) | (next?.oneIn(3) ? 0n : COPIED));
    }
    const entry = table + (index % perTable) * entryBytes;
    const copied = data || !next?.oneIn(3) ? COPIED : 0n;
    const place = (bytes: Uint8Array) => {
      const host = hostOf(index);
      (data ?? sink).put(host, bytes);
      return BigInt(host) | copied;
    };
    const bitmap = (zero: number, allocated: number) => {
      if (extended) sink.putU64(entry + 8, (BigInt(zero) << 32n) | BigInt(allocated));
    };
    if (what.kind === 'zero' || what.kind === 'kept') {
      const word = what.kind === 'kept' ? place(new Uint8Array(cluster).fill(0xee)) : 0n;
      sink.putU64(entry, extended ? word : word | 1n);
      bitmap(0xffff_ffff, 0);
    } else if (what.kind === 'data') {
      sink.putU64(entry, place(what.bytes));
      bitmap(0, 0xffff_ffff);
    } else if (what.kind === 'mixed') {
      sink.putU64(entry, place(what.bytes));
      const bits = (kind: string) =>
        what.parts.reduce((sum, part, i) => (part === kind ? sum + 2 ** i : sum), 0);
      bitmap(bits('zero'), bits('data'));
    } else {
      const stream = deflateRaw(what.bytes, { windowBits: 12, memLevel: 9 });
      if (stream.length >= cluster) {
        sink.putU64(entry, place(what.bytes));
        bitmap(0, 0xffff_ffff);
        continue;
      }
      const at = pack(stream.length);
      sink.put(at, stream);
      const sectors = Math.floor((at + stream.length - 1) / 512) - Math.floor(at / 512);
      const x = BigInt(62 - (clusterBits - 8));
      sink.putU64(entry, COMPRESSED | (BigInt(sectors) << x) | BigInt(at));
      bitmap(0, 0);
    }
  }
  return {
    file: sink.bytes.slice(0, Math.max(sink.end, free)),
    data: data?.bytes.slice(0, data.end),
  };
}

function writeHeader(
  sink: Sink,
  options: TinyOptions,
  { l1, l1Entries }: { l1: number; l1Entries: number },
): void {
  const { version, clusterBits, size, backing, dataFile, extended } = options;
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x514649fb);
  view.setUint32(4, version);
  view.setUint32(20, clusterBits);
  view.setBigUint64(24, BigInt(size));
  view.setUint32(36, l1Entries);
  view.setBigUint64(40, BigInt(l1));
  view.setBigUint64(48, BigInt(2 ** clusterBits));
  view.setUint32(56, 1);
  let at = 72;
  if (version === 3) {
    view.setBigUint64(72, (dataFile === undefined ? 0n : 4n) | (extended ? 16n : 0n));
    view.setUint32(96, 4);
    view.setUint32(100, 112);
    at = 112;
  }
  const extension = (type: number, text: string) => {
    const data = new TextEncoder().encode(text);
    view.setUint32(at, type);
    view.setUint32(at + 4, data.length);
    bytes.set(data, at + 8);
    at += 8 + Math.ceil(data.length / 8) * 8;
  };
  if (backing?.format !== undefined) extension(0xe2792aca, backing.format);
  if (dataFile !== undefined) extension(0x44415441, dataFile);
  at += 8;
  if (backing) {
    const name = new TextEncoder().encode(backing.name);
    view.setBigUint64(8, BigInt(at));
    view.setUint32(16, name.length);
    bytes.set(name, at);
  }
  sink.put(0, bytes);
}

/** Bytes that compress a little, a lot, or not at all. */
export function someBytes(next: Random, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const kind = next.below(3);
  const salt = next.below(256);
  // Whole words of noise, repeated: making each byte anew takes long for large clusters.
  const noise = Uint8Array.from({ length: 1021 }, () => next.below(256));
  for (let i = 0; i < length; i++) {
    if (kind === 0) bytes[i] = noise[i % 1021]! ^ (i >> 10);
    else if (kind === 1) bytes[i] = (i % 97) + salt;
    else if (i % 700 < 300) bytes[i] = salt;
  }
  return bytes;
}

/** An image with what its guest reads. */
export interface TinyModel extends TinyImage {
  readonly model: Uint8Array;
}

/**
 * An image of random clusters.
 * @param below what the backing disk reads, where there is one
 */
export function randomTiny(next: Random, options: TinyOptions, below?: Uint8Array): TinyModel {
  const { clusterBits, size, extended, version, dataFile } = options;
  const cluster = 2 ** clusterBits;
  const model = new Uint8Array(size);
  model.set((below ?? new Uint8Array()).subarray(0, size));
  const clusters = new Map<number, Cluster>();
  const kinds: Cluster['kind'][] = ['unallocated', 'data', 'data'];
  if (version === 3) kinds.push('zero', 'kept');
  if (dataFile === undefined) kinds.push('compressed', 'compressed');
  if (extended) kinds.push('mixed', 'mixed', 'mixed');
  let kind: Cluster['kind'] = 'unallocated';
  for (let index = 0; index * cluster < size; index++) {
    // Neighbours are often alike, so that there are runs.
    if (next.oneIn(2)) kind = next.pick(kinds);
    const guest = model.subarray(index * cluster, Math.min(size, (index + 1) * cluster));
    if (kind === 'unallocated') continue;
    if (kind === 'zero' || kind === 'kept') {
      clusters.set(index, { kind });
      guest.fill(0);
      continue;
    }
    const bytes = someBytes(next, cluster);
    if (kind !== 'mixed') {
      clusters.set(index, { kind, bytes });
      guest.set(bytes.subarray(0, guest.length));
      continue;
    }
    const parts = Array.from({ length: 32 }, () =>
      next.pick(['unallocated', 'zero', 'data', 'data'] as const),
    );
    clusters.set(index, { kind, parts, bytes });
    for (const [i, part] of parts.entries()) {
      const [from, to] = [(i * cluster) / 32, ((i + 1) * cluster) / 32];
      if (part === 'zero') guest.subarray(from, to).fill(0);
      if (part === 'data' && from < guest.length) {
        guest.set(bytes.subarray(from, Math.min(to, guest.length)), from);
      }
    }
  }
  return { ...buildTiny({ ...options, next }, clusters), model };
}
