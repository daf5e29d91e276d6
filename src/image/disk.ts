/**
 * What every image looks like to those who work on disks: convert, compare, a network server, a
 * web page. Raw and qcow2 implement it; so does a chain, which is a disk whose backing is a disk.
 */
import { type Awaitable, settled } from '../base/awaitable.ts';
import { alignDown } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import type { ClusterCodec } from '../codec/codec.ts';
import type { Reserve } from '../storage/extend.ts';
import type { Storage } from '../storage/storage.ts';

/** A file that guest bytes of a disk lie in, one of its chain's. */
export interface DataSource {
  readonly storage: Storage;
  /** 0 for the disk itself, 1 for its backing file, and so on. */
  readonly depth: number;
  /** Bytes of one cluster; compressed extents decode to that much. 1 for raw files. */
  readonly clusterSize: number;
  readonly codec: ClusterCodec;
  /** `storage` decrypts: its offsets are of no use to those who open the file themselves. */
  readonly encrypted?: boolean;
}

/** What the guest bytes of an extent are, as a number: see `EXTENT_KINDS`. */
export const ExtentKind = {
  /** No image of the chain has the range: reads as zeros. */
  hole: 0,
  /** An image says that the range reads as zeros. */
  zero: 1,
  /** Plain bytes in a file. */
  data: 2,
  /** Part of one compressed cluster. */
  compressed: 3,
} as const;
export type ExtentKind = (typeof ExtentKind)[keyof typeof ExtentKind];

/** Names of the kinds, in the order of their numbers. */
export const EXTENT_KINDS = ['hole', 'zero', 'data', 'compressed'] as const;

/** A range of guest bytes and where they come from. All numbers are bytes. */
export interface Extent {
  readonly guest: number;
  readonly length: number;
  readonly kind: (typeof EXTENT_KINDS)[number];
  /** How many images down the chain the answer was found. */
  readonly depth: number;
  /** Where plain bytes start in `storage`, or the kept cluster of a zero extent or a hole does. */
  readonly host: number | undefined;
  /** The file that `host` counts in. */
  readonly storage: Storage | undefined;
  /** Compressed: the stream's offset and at most its length in `storage`, and how far into the
   * decoded cluster the extent starts. */
  readonly stream?: { readonly at: number; readonly length: number; readonly skip: number };
}

/** Numbers of one record of an `ExtentList`. */
export const EXTENT_STRIDE = 7;

/**
 * Extents as one array of numbers: what a planner works on, without an object for each. Records
 * that continue each other are joined as they are added.
 *
 *   0 kind · 1 guest · 2 length · 3 source (index into `Disk.sources`) · 4 host offset, −1 none
 *   5 stored bytes of a compressed stream · 6 bytes to skip of its decoded cluster
 *
 * Plain bytes whose host offset is one of the guest, for that is how they are encrypted, have
 * their place in the file in number 6; it is 0 for others.
 */
export class ExtentList {
  /** For those who go through many records; it is another array when there are more. */
  records = new Float64Array(EXTENT_STRIDE * 256);
  count = 0;

  /**
   * @param sourceEnd files from this one on are not asked what they have: their ranges are holes,
   * of the first of them
   */
  constructor(readonly sourceEnd = Number.POSITIVE_INFINITY) {}

  /** Adds a range; ranges come in guest order. */
  push(
    kind: ExtentKind,
    guest: number,
    length: number,
    source: number,
    host = -1,
    stored = 0,
    skip = 0,
  ): void {
    if (this.count > 0 && this.continues(kind, guest, source, host, skip)) {
      this.records[(this.count - 1) * EXTENT_STRIDE + 2]! += length;
      return;
    }
    const at = this.count * EXTENT_STRIDE;
    if (at === this.records.length) {
      const grown = new Float64Array(this.records.length * 2);
      grown.set(this.records);
      this.records = grown;
    }
    const { records } = this;
    records[at] = kind;
    records[at + 1] = guest;
    records[at + 2] = length;
    records[at + 3] = source;
    records[at + 4] = host;
    records[at + 5] = stored;
    records[at + 6] = skip;
    this.count++;
  }

  clear(): void {
    this.count = 0;
  }

  /** How much there is now: what is added later can be taken back. */
  mark(): readonly [count: number, length: number] {
    return [this.count, this.count === 0 ? 0 : this.length(this.count - 1)];
  }

  /** Takes back what was added since. */
  backTo([count, length]: readonly [count: number, length: number]): void {
    this.count = count;
    if (count > 0) this.records[(count - 1) * EXTENT_STRIDE + 2] = length;
  }

  /** Forgets all records but the last, which may grow on. */
  keepLast(): void {
    if (this.count < 2) return;
    this.records.copyWithin(0, (this.count - 1) * EXTENT_STRIDE, this.count * EXTENT_STRIDE);
    this.count = 1;
  }

  kind(index: number): ExtentKind {
    return this.records[index * EXTENT_STRIDE] as ExtentKind;
  }
  guest(index: number): number {
    return this.records[index * EXTENT_STRIDE + 1]!;
  }
  length(index: number): number {
    return this.records[index * EXTENT_STRIDE + 2]!;
  }
  source(index: number): number {
    return this.records[index * EXTENT_STRIDE + 3]!;
  }
  host(index: number): number {
    return this.records[index * EXTENT_STRIDE + 4]!;
  }
  stored(index: number): number {
    return this.records[index * EXTENT_STRIDE + 5]!;
  }
  skip(index: number): number {
    return this.records[index * EXTENT_STRIDE + 6]!;
  }

  /** One record as an object. */
  at(index: number, sources: readonly DataSource[]): Extent {
    const kind = this.kind(index);
    const source = sources[this.source(index)];
    const host = this.host(index);
    const extent: Extent = {
      guest: this.guest(index),
      length: this.length(index),
      kind: EXTENT_KINDS[kind],
      depth: source?.depth ?? 0,
      host: this.hasPlace(index, source) ? host : undefined,
      storage: source?.storage,
    };
    if (kind !== ExtentKind.compressed) return extent;
    const stream = { at: host, length: this.stored(index), skip: this.skip(index) };
    return { ...extent, stream };
  }

  /** Plain bytes of a file that anybody may read where they are. */
  private hasPlace(index: number, source: DataSource | undefined): boolean {
    if (this.kind(index) === ExtentKind.compressed || source?.encrypted) return false;
    return this.host(index) >= 0;
  }

  private continues(
    kind: ExtentKind,
    guest: number,
    source: number,
    host: number,
    file: number,
  ): boolean {
    const at = (this.count - 1) * EXTENT_STRIDE;
    const { records } = this;
    if (kind === ExtentKind.compressed || records[at] !== kind || records[at + 3] !== source) {
      return false;
    }
    if (records[at + 1]! + records[at + 2]! !== guest) return false;
    const fileBefore = records[at + 6]!;
    const isFileNext = fileBefore + records[at + 2]! === file;
    if (!isFileNext && !(fileBefore === 0 && file === 0)) return false;
    const before = records[at + 4]!;
    return host < 0 ? before < 0 : before >= 0 && before + records[at + 2]! === host;
  }
}

/** An open disk image. Offsets and lengths are guest bytes. */
export interface Disk {
  readonly format: 'raw' | 'qcow2' | 'luks';
  /** Virtual bytes, a multiple of 512. */
  readonly size: number;
  /** The image's own files first, then those of its backing chain. */
  readonly sources: readonly DataSource[];
  /** The disk whose bytes these are, where this one only watches what is asked of it. */
  readonly passesTo?: Disk;
  /** Of such a disk: somebody asks what a range is made of. @throws Qcow2Error IO */
  meetStatus?(from: number, length: number): void;
  /**
   * Reads guest bytes. Holes read as zeros; bytes past the end are refused.
   * @throws Qcow2Error OUT_OF_RANGE, CORRUPT, UNSUPPORTED or IO
   */
  read(guest: number, into: Uint8Array): Promise<void>;
  /**
   * What the guest range [from, to) is made of, in order and without gaps.
   * @throws Qcow2Error OUT_OF_RANGE, CORRUPT or IO, as it is iterated
   */
  extents(from?: number, to?: number): AsyncIterable<Extent>;
  /**
   * The same in bulk: appends the range's records to a list.
   * @param sourceBase index of this disk's first source in the list that the records are for
   */
  collectExtents(from: number, to: number, list: ExtentList, sourceBase?: number): Awaitable<void>;
  /** Closes the image and everything that it opened. */
  close(): Promise<void>;
}

/** A write that others may follow already. */
export interface WriteUnderWay {
  /** Settles as `write` would. */
  readonly written: Promise<void>;
}

/** What a discarded or zeroed range may give up. */
export interface ZeroOptions {
  /** Let clusters go where the range covers them whole, rather than keep them as zeros. */
  readonly unmap?: boolean;
}

/** What new bytes of a disk get at once; `metadata`: a place, and no more. Raw has no metadata. */
export type Preallocation = Reserve | 'metadata';

/** How a disk's size changes. */
export interface ResizeOptions {
  /** Default `off`; only for disks that grow. */
  readonly preallocation?: Preallocation;
}

/**
 * A disk that can be written. Any number of requests may be in flight: those that overlap are
 * carried out in the order they came. A request that fails leaves its range with old bytes, new
 * bytes or zeros, cluster by cluster, and everything else as it was.
 */
export interface WritableDisk extends Disk {
  /** Writes guest bytes. Not on stable storage before a `flush` that starts later is done. */
  write(guest: number, from: Uint8Array): Promise<void>;
  /**
   * Writes as `write` does, and resolves when the next request may be made, which finds the disk's
   * clusters as if this one were done; large pieces are written by calls that the host carries out
   * meanwhile, where it has such. Ranges under way do not overlap, and `from` stays as it is.
   */
  writeAhead?(guest: number, from: Uint8Array): Promise<WriteUnderWay>;
  /** Makes a range read as zeros, without writing them where the format can say so. */
  zero(guest: number, length: number, options?: ZeroOptions): Promise<void>;
  /**
   * Says that a range is not needed. Only what covers whole clusters is acted on; it then reads as
   * zeros, also where there is a backing file (version 2 cannot say so, and does nothing there).
   * A raw disk passes it on to its storage: see `RawImage.discard`.
   */
  discard(guest: number, length: number): Promise<void>;
  /** Writes whole clusters (or up to the disk's end) compressed, where that makes them smaller. */
  writeCompressed(guest: number, from: Uint8Array): Promise<void>;
  /** Changes the virtual size; a smaller one discards what lies beyond. A multiple of 512. */
  resize(size: number, options?: ResizeOptions): Promise<void>;
  /** Resolves when all that was written before would survive a power cut. */
  flush(): Promise<void>;
}

/** Clusters that one look at extents may meet: 32 records each at worst, some 60 bytes a record. */
const WINDOW_CLUSTERS = 2 ** 16;
const WINDOW_CLUSTER_MAX = 2 ** 21;

/**
 * Guest bytes of a disk whose extents are collected at a time: a bound on what one list holds,
 * wide enough that an empty disk costs next to nothing. A multiple of every cluster size.
 */
export function extentWindow(disk: Disk): number {
  const sizes = disk.sources.map(({ clusterSize }) => clusterSize).filter((size) => size > 1);
  return WINDOW_CLUSTERS * Math.min(WINDOW_CLUSTER_MAX, ...sizes);
}

/** The extents of a disk as objects, window by window, joined across windows. */
export async function* iterateExtents(
  disk: Disk,
  from: number,
  to: number,
): AsyncGenerator<Extent, void, undefined> {
  if (from < 0 || to > disk.size) {
    throw new Qcow2Error('OUT_OF_RANGE', 'extents past the end of the disk', from);
  }
  const window = extentWindow(disk);
  const list = new ExtentList();
  for (let at = from; at < to; ) {
    // Windows end on multiples of clusters, so that none cuts a compressed one in two.
    const end = Math.min(to, alignDown(at, window) + window);
    const collected = disk.collectExtents(at, end, list, 0);
    if (!settled(collected)) await collected;
    // The last one may go on in the next window.
    const whole = end === to ? list.count : list.count - 1;
    for (let index = 0; index < whole; index++) yield list.at(index, disk.sources);
    list.keepLast();
    at = end;
  }
}
