/**
 * Small valid images in memory, with the place of every table: what tests then break, one thing at
 * a time. Browser-safe. `npm test -- interop/info` shows them to QEMU.
 *
 *   0 header, extensions, backing name · 1 refcount table · 2 refcount block · L1 · then L2 tables,
 *   guest clusters, snapshots with their L1 and the bitmaps, in the order they are asked for
 */
import { alignUp } from '../../src/base/bits.ts';
import {
  type BitmapDirectoryEntry,
  BitmapFlag,
  serializeBitmapDirectoryEntry,
  serializeBitmapExtension,
} from '../../src/format/bitmap-directory.ts';
import { serializeCryptoHeaderPointer } from '../../src/format/crypto-header-pointer.ts';
import { Autoclear, Incompatible } from '../../src/format/feature-bits.ts';
import { type Geometry, geometryOf, l1EntriesFor } from '../../src/format/geometry.ts';
import {
  HEADER_BYTES_V2,
  HEADER_BYTES_V3,
  type Header,
  serializeHeader,
} from '../../src/format/header.ts';
import { ExtensionType, serializeExtension } from '../../src/format/header-extensions.ts';
import { serializeL1Entry } from '../../src/format/l1-entry.ts';
import { type L2Entry, serializeL2Entry } from '../../src/format/l2-entry.ts';
import { serializeL2ExtendedEntry } from '../../src/format/l2-extended-entry.ts';
import { serializeSnapshotTable } from '../../src/format/snapshot-table.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import type { Storage } from '../../src/storage/storage.ts';

/** What a guest cluster is made of. */
export type ClusterSpec =
  /** Every byte of it is `fill`. */
  | { readonly kind: 'data'; readonly fill: number }
  /** Reads as zeros; `kept`: a host cluster stays allocated behind it. */
  | { readonly kind: 'zero'; readonly kept?: boolean }
  /** A compressed stream, which starts at the first byte of a host cluster. */
  | { readonly kind: 'compressed'; readonly stream: Uint8Array };

/** What an image is to be. Everything has a default. */
export interface ImageSpec {
  readonly version?: 2 | 3;
  /** Default 9, the smallest there is; 14 with extended L2 entries. */
  readonly clusterBits?: number;
  readonly refcountOrder?: number;
  readonly extendedL2?: boolean;
  readonly zstd?: boolean;
  /** Virtual bytes. Default 64 KiB. */
  readonly size?: number;
  readonly cryptMethod?: number;
  /** Name of the external data file; clusters are then not stored here. */
  readonly dataFile?: string;
  readonly backing?: { readonly name: string; readonly format?: string };
  /** Further extensions, in this order, in front of those that the rest of the spec needs. */
  readonly extensions?: readonly { readonly type: number; readonly data: Uint8Array }[];
  /** Guest clusters by their index; what is not named is unallocated. */
  readonly clusters?: Readonly<Record<number, ClusterSpec>>;
  /** Names of snapshots, all of the disk as it is. */
  readonly snapshots?: readonly string[];
  /** Names of bitmaps, all enabled and all zeros. */
  readonly bitmaps?: readonly string[];
  /** A LUKS header, which gets the clusters it needs. */
  readonly luks?: Uint8Array;
}

/** File offsets of what an image has; 0 or empty where it has none. */
export interface Places {
  readonly refcountTable: number;
  readonly refcountBlock: number;
  readonly l1: number;
  /** By L1 index. */
  readonly l2: readonly number[];
  /** L2 entries by guest cluster. */
  readonly entries: Readonly<Record<number, number>>;
  /** Host clusters by guest cluster. */
  readonly clusters: Readonly<Record<number, number>>;
  /** Data of extensions by type. */
  readonly extensions: Readonly<Record<number, number>>;
  readonly backingName: number;
  readonly snapshots: number;
  readonly snapshotL1: number;
  readonly bitmapDirectory: number;
  readonly bitmapTables: readonly number[];
  readonly luks: number;
}

/** An image that was built. */
export interface BuiltImage {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly header: Header;
  readonly geometry: Geometry;
  readonly at: Places;
  /** The bytes as they are now, as read-only storage. */
  storage(name?: string): Storage;
  /** Overwrites a big-endian field of 1 to 8 bytes. */
  put(at: number, bytes: number, value: number | bigint): void;
}

/** Builds an image. */
export function buildImage(spec: ImageSpec = {}): BuiltImage {
  return new Builder(spec).build();
}

/** A raw deflate stream of the bytes, stored: valid, and a little longer than they are. */
export function deflateStored(bytes: Uint8Array): Uint8Array {
  const { length } = bytes;
  return new Uint8Array([
    1,
    length & 255,
    length >> 8,
    ~length & 255,
    (~length >> 8) & 255,
    ...bytes,
  ]);
}

/** A zstd frame of the bytes, stored: one raw block; 256 to 65791 of them. */
export function zstdStored(bytes: Uint8Array): Uint8Array {
  const { length } = bytes;
  const size = length - 256;
  const block = (length << 3) | 1;
  return new Uint8Array([
    ...[0x28, 0xb5, 0x2f, 0xfd, 0x60, size & 255, size >> 8],
    ...[block & 255, (block >> 8) & 255, block >> 16],
    ...bytes,
  ]);
}

class Builder {
  private readonly version: 2 | 3;
  private readonly size: number;
  private readonly geometry: Geometry;
  private readonly chunks: { readonly at: number; readonly bytes: Uint8Array }[] = [];
  private end: number;
  private readonly places = {
    l2: [] as number[],
    entries: {} as Record<number, number>,
    clusters: {} as Record<number, number>,
    extensions: {} as Record<number, number>,
    bitmapTables: [] as number[],
    snapshotL1: 0,
  };

  constructor(private readonly spec: ImageSpec) {
    const { version = 3, extendedL2 = false, size = 65536 } = spec;
    const { clusterBits = extendedL2 ? 14 : 9, refcountOrder = 4 } = spec;
    this.version = version;
    this.size = size;
    this.geometry = geometryOf({ clusterBits, extendedL2, refcountOrder });
    // Header, refcount table, refcount block.
    this.end = 3 * this.geometry.clusterSize;
  }

  build(): BuiltImage {
    const { spec, geometry, version, size } = this;
    const { clusterSize } = geometry;
    const l1Entries = Math.max(1, l1EntriesFor(size, geometry));
    const l1 = this.buildL1(l1Entries);
    const l1Offset = this.store(l1);
    const snapshots = this.storeSnapshots(l1);
    const directory = this.storeBitmaps();
    const luks = spec.luks ? this.store(spec.luks) : 0;

    const { extensions, backingName, area } = this.buildExtensions({ directory, luks });
    const header: Header = {
      version,
      backingNameOffset: backingName,
      backingNameLength: spec.backing ? encode(spec.backing.name).length : 0,
      clusterBits: geometry.clusterBits,
      size: size - (size % 512),
      sizeTail: size % 512,
      cryptMethod: spec.cryptMethod ?? (spec.luks ? 2 : 0),
      l1Entries,
      l1Offset,
      refcountTableOffset: clusterSize,
      refcountTableClusters: 1,
      snapshotCount: spec.snapshots?.length ?? 0,
      snapshotsOffset: snapshots,
      incompatible: { high: 0, low: this.incompatibleBits() },
      compatible: { high: 0, low: 0 },
      autoclear: { high: 0, low: directory.length > 0 ? 1 << Autoclear.bitmaps : 0 },
      refcountOrder: geometry.refcountOrder,
      headerLength: version === 2 ? HEADER_BYTES_V2 : HEADER_BYTES_V3,
      compression: spec.zstd ? 'zstd' : 'deflate',
      unknownFields: new Uint8Array(version === 2 ? 0 : HEADER_BYTES_V3 - 105),
    };
    const bytes = new Uint8Array(this.end);
    bytes.set(serializeHeader(header));
    bytes.set(area, header.headerLength);
    for (const chunk of this.chunks) bytes.set(chunk.bytes, chunk.at);
    const view = new DataView(bytes.buffer);
    view.setUint32(clusterSize + 4, 2 * clusterSize);
    this.countClusters(view);
    const at: Places = {
      ...this.places,
      refcountTable: clusterSize,
      refcountBlock: 2 * clusterSize,
      l1: l1Offset,
      extensions,
      backingName,
      snapshots,
      bitmapDirectory: directory.at,
      luks,
    };
    return {
      ...{ bytes, view, header, geometry, at },
      storage: (name = 'image') => memoryStorage(bytes.slice(), { name, writable: false }),
      put(place, length, value) {
        let rest = BigInt.asUintN(64, BigInt(value));
        for (let i = length - 1; i >= 0; i--) {
          bytes[place + i] = Number(rest & 255n);
          rest >>= 8n;
        }
      },
    };
  }

  /** Gives bytes the clusters they need, and returns the offset of the first. */
  private store(bytes: Uint8Array): number {
    const at = this.end;
    this.chunks.push({ at, bytes });
    this.end = alignUp(at + Math.max(1, bytes.length), this.geometry.clusterSize);
    return at;
  }

  private buildL1(entries: number): Uint8Array {
    const l1 = new Uint8Array(entries * 8);
    const { clusters = {} } = this.spec;
    const { l2Entries } = this.geometry;
    const used = new Set(Object.keys(clusters).map((guest) => Math.floor(+guest / l2Entries)));
    for (const index of used) {
      const host = this.storeL2(index);
      this.places.l2[index] = host;
      serializeL1Entry(view(l1), index * 8, { host, copied: !this.shared });
    }
    return l1;
  }

  /** Snapshots share what they show: no refcount is 1 any more, and COPIED is clear. */
  private get shared(): boolean {
    return (this.spec.snapshots?.length ?? 0) > 0;
  }

  private storeL2(index: number): number {
    const { clusterSize, clusterBits, l2Entries, l2EntryBytes, extendedL2 } = this.geometry;
    const table = new Uint8Array(clusterSize);
    const host = this.store(table);
    for (const [key, cluster] of Object.entries(this.spec.clusters ?? {})) {
      const guest = Number(key);
      if (Math.floor(guest / l2Entries) !== index) continue;
      const at = (guest % l2Entries) * l2EntryBytes;
      this.places.entries[guest] = host + at;
      const entry = this.storeCluster(guest, cluster);
      if (!extendedL2) serializeL2Entry(view(table), at, entry, clusterBits);
      else if (entry.kind === 'compressed') {
        serializeL2ExtendedEntry(view(table), at, entry, clusterBits);
      } else if (entry.kind !== 'unallocated') {
        const bits = 0xffff_ffff;
        const states =
          entry.kind === 'zero' ? { zero: bits, allocated: 0 } : { zero: 0, allocated: bits };
        const { host: data, copied } = entry;
        const value = { kind: 'subclusters', host: data, copied, ...states } as const;
        serializeL2ExtendedEntry(view(table), at, value, clusterBits);
      }
    }
    return host;
  }

  private storeCluster(guest: number, cluster: ClusterSpec): L2Entry {
    const { clusterSize } = this.geometry;
    const copied = !this.shared;
    if (cluster.kind === 'zero' && !cluster.kept) return { kind: 'zero', host: 0, copied: false };
    if (this.spec.dataFile !== undefined) {
      const kind = cluster.kind === 'zero' ? 'zero' : 'data';
      return { kind, host: guest * clusterSize, copied: true };
    }
    const bytes =
      cluster.kind === 'compressed'
        ? cluster.stream
        : new Uint8Array(clusterSize).fill(cluster.kind === 'data' ? cluster.fill : 0xee);
    const host = this.store(bytes);
    this.places.clusters[guest] = host;
    if (cluster.kind === 'compressed') return { kind: 'compressed', host, length: bytes.length };
    return { kind: cluster.kind, host, copied };
  }

  private storeSnapshots(l1: Uint8Array): number {
    const { snapshots = [] } = this.spec;
    if (snapshots.length === 0) return 0;
    const extraBytes = this.version === 2 ? 0 : 24;
    const entries = snapshots.map((name, index) => {
      const l1Offset = this.store(l1);
      if (index === 0) this.places.snapshotL1 = l1Offset;
      return {
        ...{ id: String(index + 1), name, l1Offset, l1Entries: l1.length / 8 },
        ...{ dateSeconds: 1_700_000_000, dateNanoseconds: 0, clock: { high: 0, low: 0 } },
        ...{ vmStateBytes: 0, virtualSize: this.size, icount: { high: 0, low: 0 } },
        ...{ extraBytes, unknownExtra: new Uint8Array() },
      };
    });
    return this.store(serializeSnapshotTable(entries));
  }

  private storeBitmaps(): { readonly at: number; readonly length: number } {
    const { bitmaps = [] } = this.spec;
    if (bitmaps.length === 0) return { at: 0, length: 0 };
    const { clusterSize } = this.geometry;
    const granularityBits = 16;
    const tableEntries = Math.ceil(Math.ceil(this.size / 2 ** granularityBits / 8) / clusterSize);
    const entries = bitmaps.map((name) => {
      const tableOffset = this.store(new Uint8Array(tableEntries * 8));
      this.places.bitmapTables.push(tableOffset);
      const entry: BitmapDirectoryEntry = {
        ...{ tableOffset, tableEntries, flags: BitmapFlag.auto, granularityBits },
        ...{ extraData: new Uint8Array(), name },
      };
      return serializeBitmapDirectoryEntry(entry);
    });
    const directory = concat(entries);
    return { at: this.store(directory), length: directory.length };
  }

  private buildExtensions(tables: {
    readonly directory: { readonly at: number; readonly length: number };
    readonly luks: number;
  }) {
    const { spec, version } = this;
    const { directory, luks } = tables;
    const list = [...(spec.extensions ?? [])];
    const add = (type: number, data: Uint8Array) => list.push({ type, data });
    if (spec.backing?.format) add(ExtensionType.backingFormat, encode(spec.backing.format));
    if (spec.dataFile !== undefined) add(ExtensionType.dataFileName, encode(spec.dataFile));
    if (spec.luks) {
      const pointer = { offset: luks, length: alignUp(spec.luks.length, 512) };
      add(ExtensionType.cryptoHeader, serializeCryptoHeaderPointer(pointer));
    }
    if (directory.length > 0) {
      const count = spec.bitmaps?.length ?? 0;
      const place = { directoryBytes: directory.length, directoryOffset: directory.at };
      add(ExtensionType.bitmaps, serializeBitmapExtension({ count, ...place }));
    }
    const start = version === 2 ? HEADER_BYTES_V2 : HEADER_BYTES_V3;
    const extensions: Record<number, number> = {};
    const parts: Uint8Array[] = [];
    let at = start;
    for (const { type, data } of list) {
      const bytes = serializeExtension(type, data);
      extensions[type] = at + 8;
      parts.push(bytes);
      at += bytes.length;
    }
    extensions[ExtensionType.end] = at + 8;
    parts.push(new Uint8Array(8));
    at += 8;
    if (spec.backing) parts.push(encode(spec.backing.name));
    return { extensions, backingName: spec.backing ? at : 0, area: concat(parts) };
  }

  private incompatibleBits(): number {
    const { dataFile, zstd } = this.spec;
    const set = (yes: boolean, bit: number) => (yes ? 1 << bit : 0);
    return (
      set(dataFile !== undefined, Incompatible.dataFile) |
      set(zstd === true, Incompatible.compressionType) |
      set(this.geometry.extendedL2, Incompatible.extendedL2)
    );
  }

  /** Every cluster of the file counts once; what snapshots show, once more for each of them. */
  private countClusters(file: DataView): void {
    const { clusterSize, refcountOrder } = this.geometry;
    const shared = new Set([...this.places.l2, ...Object.values(this.places.clusters)]);
    const snapshots = this.spec.snapshots?.length ?? 0;
    for (let cluster = 0; cluster * clusterSize < this.end; cluster++) {
      const start = this.chunks.findLast(({ at }) => at <= cluster * clusterSize)?.at ?? 0;
      const count = 1 + (shared.has(start) ? snapshots : 0);
      const width = 2 ** refcountOrder;
      const block = 2 * clusterSize;
      if (width >= 8) {
        const at = block + ((cluster + 1) * width) / 8 - 1;
        file.setUint8(at, count);
      } else {
        const at = block + Math.floor((cluster * width) / 8);
        file.setUint8(at, file.getUint8(at) | (count << ((cluster * width) % 8)));
      }
    }
  }
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
