/**
 * References to host clusters, counted in kernel memory: an array with a number for each cluster
 * of a *window* of the file. Most files fit one window; of a larger one each window is counted by
 * going over all tables again, so that memory is bounded whatever the file's size.
 *
 * Counts have 2 bytes where refcounts have at most 16 bits, else 4. Pages of the array that nothing
 * is counted in cost no memory.
 */
import { alignUp } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import type { Geometry } from '../../format/geometry.ts';
import { Workspace } from '../../kernels/arena.ts';
import { type Kernels, L2Flags, Tally } from '../../kernels/kernels.ts';

/** Bytes of counts in one window: 4 TiB of clusters of 64 KiB. */
const WINDOW_BYTES = 128 * 1024 * 1024;
/** Bytes of tables that are read at once; one table or block at least. */
const TABLE_BYTES = 1024 * 1024;

/** Clusters of the active disk: allocated, fragmented, compressed. */
export type Tallies = readonly [allocated: number, fragmented: number, compressed: number];

/** What the counts are made for. */
export interface CountOptions {
  readonly geometry: Geometry;
  readonly dataFile: boolean;
  /** Clusters of the file. */
  readonly clusters: number;
  /** Bytes of counts in one window. */
  readonly windowBytes?: number | undefined;
  /** Most clusters are counted: pages are made at once, by writing what would be read first. */
  readonly dense?: boolean | undefined;
}

/** The memory of a check: counts, and room for tables. */
export class ReferenceCounts {
  readonly kernels: Kernels;
  /** Where tables and blocks are read to. */
  readonly tableAt: number;
  readonly tables: Uint8Array;
  /** A refcount block's worth of zeros. */
  readonly zerosAt: number;
  /** A bit for each cluster of the window, and where they are. */
  readonly ones: Uint8Array;
  readonly onesAt: number;
  /** Clusters that active entries were met of with COPIED; then those without. */
  private readonly seen: Uint8Array;
  private readonly seenAt: number;
  private readonly seenBytes: number;
  readonly countsAt: number;
  readonly width: 2 | 4;
  /** The most that a count may be: what the refcounts can hold. */
  readonly most: number;
  /** Counts that there is memory for. */
  readonly capacity: number;
  /** The window: clusters `first` … `first + length - 1`. */
  first = 0;
  length = 0;
  private readonly view: DataView;
  private readonly tally: number;
  private readonly counts: Uint16Array | Uint32Array;

  constructor(options: CountOptions) {
    const { geometry, dataFile, clusters, windowBytes = WINDOW_BYTES } = options;
    const { clusterBits, clusterSize, refcountOrder } = geometry;
    this.width = refcountOrder > 4 ? 4 : 2;
    this.most = refcountOrder > 4 ? 0xffff_fffe : 2 ** (2 ** refcountOrder) - 1;
    // A block's counts lie in one window: blocks are compared whole. One more for what reaches
    // behind the file's end.
    const block = geometry.refcountBlockEntries;
    const wanted = alignUp(clusters + 2, block);
    const most = Math.max(block, Math.floor(windowBytes / this.width / block) * block);
    this.capacity = Math.min(wanted, most);
    const workspace = new Workspace();
    const tally = workspace.reserve(Tally.bytes);
    const tables = workspace.reserve(Math.max(TABLE_BYTES, clusterSize));
    const zeros = workspace.reserve(clusterSize);
    const ones = workspace.reserve(this.capacity / 8 + 16);
    this.seenBytes = this.capacity / 8 + 4;
    const seen = workspace.reserve(2 * this.seenBytes);
    const counts = workspace.reserve(this.capacity * this.width);
    try {
      this.kernels = workspace.kernels;
    } catch (cause) {
      throw new Qcow2Error('NO_SPACE', 'Cannot allocate memory', undefined, cause);
    }
    const { buffer } = this.kernels.memory;
    this.view = new DataView(buffer);
    this.tally = tally.at;
    this.tableAt = tables.at;
    this.tables = tables.bytes;
    this.zerosAt = zeros.at;
    this.ones = ones.bytes;
    this.onesAt = ones.at;
    this.seen = seen.bytes;
    this.seenAt = seen.at;
    this.countsAt = counts.at;
    this.counts =
      this.width === 2
        ? new Uint16Array(buffer, counts.at, this.capacity)
        : new Uint32Array(buffer, counts.at, this.capacity);
    if (options.dense) this.counts.fill(0);
    this.put(Tally.clusterBits, clusterBits);
    this.put(Tally.flags, dataFile ? L2Flags.dataFile : 0);
    this.put(Tally.counts, counts.at);
    this.put(Tally.most, this.most);
    this.put(Tally.width, this.width);
  }

  /** Starts over, with the window at `first`; `limit`: clusters that the file has. */
  reset(first: number, limit: number): void {
    if (this.length > 0) {
      this.counts.fill(0);
      this.seen.fill(0);
    }
    this.first = first;
    this.length = this.capacity;
    this.put(Tally.limit, limit);
    this.put(Tally.first, first);
    this.put(Tally.length, this.length);
    this.setTallies([0, 0, 0]);
    this.startTable();
  }

  /** The next entry begins a table: it follows none. */
  startTable(): void {
    this.put(Tally.next, 0);
    this.put(Tally.next + 4, 0);
  }

  /**
   * Counts what entries of an L2 table refer to, up to one that there is something to say about.
   * @param options how often each counts, and whether their flags are noted
   */
  addTable(
    at: number,
    entries: number,
    options: { readonly stride: number; readonly times: number; readonly active: boolean },
  ): number {
    this.put(Tally.times, Math.min(options.times, this.most));
    this.put(Tally.seen, options.active ? this.seenAt : 0);
    return this.kernels.l2References(at, entries, options.stride, this.tally);
  }

  /** How many more references a cluster's count has room for; those of other windows have all. */
  room(cluster: number): number {
    const index = cluster - this.first;
    if (index < 0 || index >= this.length) return Number.POSITIVE_INFINITY;
    return this.most - this.counts[index]!;
  }

  /** Adds to a cluster's count, which has room. */
  add(cluster: number, times: number): void {
    const index = cluster - this.first;
    if (index >= 0 && index < this.length) this.counts[index]! += times;
  }

  /** Notes that an active entry was met of a cluster, with COPIED or without. */
  noteFlag(cluster: number, copied: boolean): void {
    const k = cluster - this.first;
    if (k < 0 || k >= this.length) return;
    this.seen[(copied ? 0 : this.seenBytes) + (k >>> 3)]! |= 1 << (k & 7);
  }

  /** Whether the flags that were noted say of each cluster whether it is one of `ones`. */
  flagsFit(): boolean {
    // Blocks have 64 entries at least, so that bitmaps are whole words. Signed ones need no box
    // before the loop is compiled.
    const words = this.seenBytes / 4;
    const seen = new Int32Array(this.seen.buffer, this.seenAt, 2 * words);
    const ones = new Int32Array(this.seen.buffer, this.onesAt, words);
    for (let i = 0; i < words; i++) {
      if (((seen[i]! & ~ones[i]!) | (seen[words + i]! & ones[i]!)) !== 0) return false;
    }
    return true;
  }

  /** The count of a cluster of the window. */
  of(cluster: number): number {
    return this.counts[cluster - this.first] ?? 0;
  }

  set(cluster: number, count: number): void {
    this.counts[cluster - this.first] = count;
  }

  /** The last cluster below `end` that is counted, from `start` on; −1: none. */
  lastUsed(start: number, end: number): number {
    for (let index = end - this.first - 1; index >= start - this.first; index--) {
      if (this.counts[index] !== 0) return this.first + index;
    }
    return -1;
  }

  /** Puts a compressed cluster among the disk's. */
  tallyCompressed(): void {
    this.addTallies([1, 1, 1]);
  }

  /** Puts a plain cluster among the disk's. */
  tallyPlain(host: number, clusterSize: number): void {
    const next = this.field(Tally.next + 4) * 2 ** 32 + this.field(Tally.next);
    this.addTallies([1, next !== 0 && next !== host ? 1 : 0, 0]);
    const after = host + clusterSize;
    this.put(Tally.next, after % 2 ** 32);
    this.put(Tally.next + 4, Math.floor(after / 2 ** 32));
  }

  /** The tallies of the active disk: clusters allocated, fragmented, compressed. */
  tallies(): Tallies {
    const { allocated, fragmented, compressed } = Tally;
    return [this.field(allocated), this.field(fragmented), this.field(compressed)];
  }

  setTallies([allocated, fragmented, compressed]: Tallies): void {
    this.put(Tally.allocated, allocated);
    this.put(Tally.fragmented, fragmented);
    this.put(Tally.compressed, compressed);
  }

  addTallies([allocated, fragmented, compressed]: Tallies): void {
    const before = this.tallies();
    this.setTallies([before[0] + allocated, before[1] + fragmented, before[2] + compressed]);
  }

  private field(at: number): number {
    return this.view.getUint32(this.tally + at, true);
  }

  private put(at: number, value: number): void {
    this.view.setUint32(this.tally + at, value, true);
  }
}
