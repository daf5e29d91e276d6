/**
 * Making a whole image at once: clusters get their places one behind the other, in the order they
 * come; each table is complete when the guest offsets that it maps, or the clusters that it counts,
 * have gone by. Nothing is written here but what `finish` writes: the places and the
 * complete tables go to whoever writes the data.
 *
 *   file     header · refcount table · its first block · L1 · then, in the order they come, L2
 *            tables right before the first cluster they map, refcount blocks right before the
 *            first cluster they count: what QEMU makes by writing the same clusters
 *   stream   the same front, but each table behind what it maps or counts, so that nothing is
 *            written before it is known; only L1 and refcount table stand in front, and are known
 *            from a first pass
 */
import { viewOf } from '../../base/be.ts';
import { divCeil, HIGH } from '../../base/bits.ts';
import { assert, Qcow2Error } from '../../base/errors.ts';
import { REFCOUNT_TABLE_BYTES_MAX } from '../../base/limits.ts';
import { putCompressedDescriptor } from '../../format/compressed-descriptor.ts';
import type { CryptoHeaderPointer } from '../../format/crypto-header-pointer.ts';
import { type Geometry, geometryOf, l1EntriesFor } from '../../format/geometry.ts';
import { putRefcount, refcountAt, refcountMax } from '../../format/refcount-block.ts';
import { serializeRefcountTableEntry } from '../../format/refcount-table.ts';
import { checkCreateOptions, freshHeader, type Qcow2CreateOptions } from './create.ts';
import { refcountMetadata } from './refcounts.ts';

/** Numbers per unit in `place`: cluster index, state, mask of subclusters that hold data. */
const UNIT_STRIDE = 3;
/** States of a unit beside the length of compressed bytes. */
const PLAIN = -1;
/** No place in the file. */
const NOWHERE = -1;
const ALL = 0xffff_ffff;

/** What the front of a streamed image says, known from a first pass. */
export interface BulkFront {
  /** Host offsets of L2 tables, and of refcount blocks; 0 where there is none. */
  readonly l1: readonly number[];
  readonly refcountTable: readonly number[];
}

/** How an image is made. */
export interface BulkOptions {
  readonly order: 'file' | 'stream';
  /** A stream: clusters that have bytes, at most. */
  readonly clustersMax?: number;
  /** The second pass of a stream: what the first one found. */
  readonly front?: BulkFront | undefined;
  /** Bytes of a LUKS header and its key slots, which stand behind the L1 table. */
  readonly luksBytes?: number | undefined;
}

/** A table and its place. */
export interface PlacedTable {
  readonly host: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Where clusters go, and which tables are complete. */
export interface BulkPlacement {
  readonly hosts: Float64Array<ArrayBuffer>;
  readonly tables: readonly PlacedTable[];
  /** The bytes of the file that this placement takes, where it is written front to back. */
  readonly from: number;
  readonly to: number;
}

interface L2Table {
  /** `NOWHERE` until it has its place. */
  readonly host: number;
  readonly view: DataView<ArrayBuffer>;
  readonly index: number;
}

interface RefcountBlock {
  /** `NOWHERE` until it has its place. */
  host: number;
  readonly view: DataView<ArrayBuffer>;
}

/** The layout of an image in the making. */
export class BulkImage {
  readonly geometry: Geometry;
  private readonly options: ReturnType<typeof checkCreateOptions>;
  private readonly l1: number[];
  private refcountTable: number[] = [];
  private refcountTableClusters = 1;
  private refcountTableOffset: number;
  private readonly l1Offset: number;
  /** Refcount blocks that are not complete. */
  private readonly blocks = new Map<number, RefcountBlock>();
  /** L2 tables that are not complete, and the one that was last asked for. */
  private readonly open = new Map<number, L2Table>();
  private l2: L2Table | undefined;
  /** Guest offset up to which all tables are complete. */
  private completeTo = 0;
  /** The next cluster of the file. */
  private next = 0;
  /** Where compressed bytes go on, 0: in a new cluster. */
  private freeByte = 0;
  private tables: PlacedTable[] = [];
  private placedTo: number;
  /** The highest count that an entry holds. */
  private readonly countMax: number;

  /** @throws Qcow2Error OUT_OF_RANGE for options that no image can have */
  constructor(
    private readonly create: Qcow2CreateOptions,
    { order, clustersMax = 0, front, luksBytes = 0 }: BulkOptions,
  ) {
    this.order = order;
    this.front = front;
    this.options = checkCreateOptions(create);
    this.geometry = geometryOf(this.options);
    this.countMax = refcountMax(this.geometry.refcountOrder);
    const { clusterSize } = this.geometry;
    const l1Entries = l1EntriesFor(this.options.size, this.geometry);
    this.l1 = new Array<number>(l1Entries).fill(0);
    if (order === 'stream') this.refcountTableClusters = this.refcountTableBound(clustersMax);
    this.reserve(1 + this.refcountTableClusters);
    this.refcountTableOffset = clusterSize;
    this.l1Offset = this.reserve(divCeil(l1Entries * 8, clusterSize)) * clusterSize;
    if (luksBytes > 0) {
      const offset = this.reserve(divCeil(luksBytes, clusterSize)) * clusterSize;
      this.luks = { offset, length: luksBytes };
    }
    this.frontEnd = this.next;
    this.placedTo = this.next * clusterSize;
    // Blocks that count nothing but the front are written with it.
    this.emitBlocks();
    this.frontTables = this.takeTables();
  }
  /** Where the LUKS header goes. */
  readonly luks: CryptoHeaderPointer | undefined;
  private readonly order: 'file' | 'stream';
  private readonly front: BulkFront | undefined;
  private readonly frontTables: readonly PlacedTable[];

  /** Bytes of the file so far. */
  get fileBytes(): number {
    return this.next * this.geometry.clusterSize;
  }

  /**
   * Gives clusters their places. A cluster comes once, and none comes that lies in front of what
   * an earlier call said of `until`.
   * @param until guest offset up to which all clusters have come
   * @throws Qcow2Error NO_SPACE where the format ends
   */
  place(units: Float64Array, until: number): BulkPlacement {
    const { clusterBits, clusterSize, l2Entries, l2EntryBytes } = this.geometry;
    const hosts = new Float64Array(units.length / UNIT_STRIDE);
    const from = this.placedTo;
    let l2 = this.l2;
    for (let unit = 0, at = 0; unit < hosts.length; unit++, at += UNIT_STRIDE) {
      const cluster = units[at]!;
      const state = units[at + 1]!;
      const index = cluster % l2Entries;
      const table = (cluster - index) / l2Entries;
      if (l2?.index !== table) l2 = this.openTable(table);
      let host = NOWHERE;
      if (state > 0) {
        host = this.takeBytes(state);
        // The second half of an extended entry is zeros for a stream.
        putCompressedDescriptor(l2.view, index * l2EntryBytes, host, state, clusterBits);
      } else {
        if (state === PLAIN) {
          host = this.create.dataFile ? cluster * clusterSize : this.take() * clusterSize;
        }
        this.setEntry(l2.view, index, host, units[at + 2]!);
      }
      hosts[unit] = host;
    }
    this.closeTables(until);
    this.emitBlocks();
    // In a stream, compressed bytes that go on in the next job's cluster are its.
    this.placedTo = this.order === 'stream' && this.freeByte !== 0 ? this.freeByte : this.fileBytes;
    return { hosts, tables: this.takeTables(), from, to: this.placedTo };
  }

  /** Completes all tables. Nothing can be placed afterwards. */
  end(): BulkPlacement {
    const from = this.placedTo;
    this.closeTables(Number.POSITIVE_INFINITY);
    this.ended = true;
    if (this.order === 'file') this.moveRefcountTable();
    this.settleBlocks();
    for (const slot of this.blocks.keys()) this.emitBlock(slot);
    this.placedTo = this.fileBytes;
    return { hosts: new Float64Array(0), tables: this.takeTables(), from, to: this.placedTo };
  }

  /** What a second pass needs to know of this one, which has come to its end. */
  get outcome(): BulkFront {
    return { l1: this.l1, refcountTable: this.refcountTable };
  }

  /** Bytes in front of the first cluster that was placed. */
  get frontBytes(): number {
    return this.frontEnd * this.geometry.clusterSize;
  }
  private frontEnd = 0;

  /**
   * Refcount table, L1 table and what else stands in front, and the header on its own, to be
   * written when all else is on disk.
   */
  frontParts(): { readonly tables: readonly PlacedTable[]; readonly header: PlacedTable } {
    const { clusterSize } = this.geometry;
    const { l1, refcountTable } = this.front ?? this.outcome;
    const l1Bytes = new Uint8Array(l1.length * 8);
    const l1View = viewOf(l1Bytes);
    for (const [index, host] of l1.entries()) {
      if (host === 0) continue;
      l1View.setUint32(index * 8, 0x8000_0000 + Math.floor(host / HIGH));
      l1View.setUint32(index * 8 + 4, host % HIGH);
    }
    const tableBytes = new Uint8Array(this.refcountTableClusters * clusterSize);
    const tableView = viewOf(tableBytes);
    for (const [index, host] of refcountTable.entries()) {
      serializeRefcountTableEntry(tableView, index * 8, host ?? 0);
    }
    const header = freshHeader(this.options, {
      size: this.options.size,
      l1Entries: l1.length,
      l1Offset: this.l1Offset,
      refcountTableOffset: this.refcountTableOffset,
      refcountTableClusters: this.refcountTableClusters,
      cryptoHeader: this.luks,
      isLegacyAes: this.create.encryption?.format === 'aes',
    });
    return {
      tables: [
        { host: this.refcountTableOffset, bytes: tableBytes },
        { host: this.l1Offset, bytes: l1Bytes },
        ...this.frontTables,
      ],
      header: { host: 0, bytes: header },
    };
  }

  // ---- clusters ------------------------------------------------------------------------------

  /** Takes one cluster of the file. */
  private take(): number {
    const { refcountBlockEntries: perBlock } = this.geometry;
    for (;;) {
      const cluster = this.next++;
      const index = cluster % perBlock;
      const slot = (cluster - index) / perBlock;
      const isBlock =
        this.order === 'file' ? !this.blocks.has(slot) : index === perBlock - 1 && this.needs(slot);
      this.count(cluster, 1);
      if (!isBlock) {
        if (this.order === 'stream') this.freeByte = 0;
        return cluster;
      }
      this.putBlock(slot, cluster);
      this.freeByte = 0;
    }
  }

  /** A block that is in the making has no place yet. */
  private needs(slot: number): boolean {
    return this.blocks.get(slot)?.host === NOWHERE;
  }

  /** Takes clusters that follow each other; blocks that count them come behind. */
  private reserve(count: number): number {
    const first = this.next;
    this.next += count;
    for (let cluster = first; cluster < this.next; cluster++) this.count(cluster, 1);
    this.settleBlocks();
    return first;
  }

  /** Gives a place to blocks that have none; those of a stream wait for theirs where they can. */
  private settleBlocks(): void {
    const { refcountBlockEntries: perBlock } = this.geometry;
    for (const [slot, block] of this.blocks) {
      if (block.host !== NOWHERE) continue;
      const waits = this.order === 'stream' && !this.ended;
      if (waits && this.next <= slot * perBlock + perBlock - 1) continue;
      const cluster = this.next++;
      // It may be the first of a slot that another block counts: that one is settled, too.
      this.count(cluster, 1);
      this.putBlock(slot, cluster);
    }
  }
  private ended = false;

  private putBlock(slot: number, cluster: number): void {
    const block = this.blocks.get(slot);
    assert(block !== undefined, 'a block that counts something');
    block.host = cluster * this.geometry.clusterSize;
    this.setTableEntry(slot, block.host);
  }

  private setTableEntry(slot: number, host: number): void {
    if (slot * 8 >= REFCOUNT_TABLE_BYTES_MAX) {
      throw new Qcow2Error('NO_SPACE', 'the refcount table cannot count more clusters');
    }
    while (this.refcountTable.length <= slot) this.refcountTable.push(0);
    this.refcountTable[slot] = host;
  }

  /** The block of a slot, where it is in the making: most often the last one that was asked for. */
  private blockOf(slot: number): RefcountBlock | undefined {
    if (slot !== this.lastSlot) {
      this.lastSlot = slot;
      this.lastBlock = this.blocks.get(slot);
    }
    return this.lastBlock;
  }
  private lastSlot = NOWHERE;
  private lastBlock: RefcountBlock | undefined;

  private makeBlock(slot: number): RefcountBlock {
    const view = new DataView(new ArrayBuffer(this.geometry.clusterSize));
    const block = { host: NOWHERE, view };
    this.blocks.set(slot, block);
    this.lastSlot = NOWHERE;
    return block;
  }

  /** Adds to the count of a cluster, making the block that holds it. */
  private count(cluster: number, add: number): void {
    const { refcountBlockEntries, refcountOrder } = this.geometry;
    const index = cluster % refcountBlockEntries;
    const slot = (cluster - index) / refcountBlockEntries;
    const block = this.blockOf(slot) ?? this.makeBlock(slot);
    const value = refcountAt(block.view, index, refcountOrder) + add;
    putRefcount(block.view, 0, index, refcountOrder, value);
  }

  /** Takes bytes for a compressed cluster, behind the last one where there is room. */
  private takeBytes(length: number): number {
    const { clusterSize } = this.geometry;
    let at = this.freeByte;
    const used = at % clusterSize;
    // The count of a cluster is the number of streams that touch it.
    if (at === 0 || this.isCountFull((at - used) / clusterSize)) at = this.take() * clusterSize;
    else {
      const cluster = (at - used) / clusterSize;
      const fresh = length > clusterSize - used ? this.take() : NOWHERE;
      if (fresh === NOWHERE || fresh === cluster + 1) this.count(cluster, 1);
      else at = fresh * clusterSize;
    }
    this.freeByte = (at + length) % clusterSize === 0 ? 0 : at + length;
    return at;
  }

  /** Whether a cluster that streams share cannot count another one. */
  private isCountFull(cluster: number): boolean {
    const { refcountBlockEntries, refcountOrder } = this.geometry;
    const index = cluster % refcountBlockEntries;
    const block = this.blockOf((cluster - index) / refcountBlockEntries);
    return !block || refcountAt(block.view, index, refcountOrder) >= this.countMax;
  }

  /** A refcount table that has become too short gets a new place, behind all else. */
  private moveRefcountTable(): void {
    const { clusterSize, refcountBlockEntries: perBlock } = this.geometry;
    const old = this.refcountTableClusters;
    if (this.refcountTable.length * 8 <= old * clusterSize) return;
    let clusters = old;
    for (let last = 0; last !== clusters; ) {
      last = clusters;
      const slots = divCeil(this.next + clusters + divCeil(clusters, perBlock) + 1, perBlock);
      clusters = divCeil(slots * 8, clusterSize);
    }
    this.refcountTableClusters = clusters;
    for (let cluster = 1; cluster <= old; cluster++) this.count(cluster, -1);
    this.refcountTableOffset = this.reserve(clusters) * clusterSize;
  }

  /** Clusters that a refcount table has for the largest image that there may be. */
  private refcountTableBound(clustersMax: number): number {
    const { l2Entries, clusterSize, refcountOrder } = this.geometry;
    // Compressed bytes cannot go on across a table: a cluster is lost for each, at most.
    const tables = Math.min(this.l1.length, clustersMax + divCeil(clustersMax, l2Entries));
    const clusters = clustersMax + 2 * tables + divCeil(this.l1.length * 8, clusterSize) + 2;
    const { tableClusters } = refcountMetadata(clusters * 1.01, {
      clusterSize,
      refcountOrder,
      generous: false,
    });
    return Math.min(tableClusters, REFCOUNT_TABLE_BYTES_MAX / clusterSize);
  }

  // ---- tables --------------------------------------------------------------------------------

  private openTable(index: number): L2Table {
    const table = this.open.get(index) ?? this.makeTable(index);
    this.l2 = table;
    return table;
  }

  private makeTable(index: number): L2Table {
    const { clusterSize, l2Entries } = this.geometry;
    assert((index + 1) * l2Entries * clusterSize > this.completeTo, 'a table is written once');
    const host = this.order === 'file' ? this.take() * clusterSize : NOWHERE;
    const table = { index, host, view: new DataView(new ArrayBuffer(clusterSize)) };
    if (host !== NOWHERE) this.l1[index] = host;
    this.open.set(index, table);
    return table;
  }

  /** Hands out the tables of what lies in front of a guest offset. */
  private closeTables(until: number): void {
    const { clusterSize, l2Entries } = this.geometry;
    this.completeTo = until;
    for (const table of this.open.values()) {
      if ((table.index + 1) * l2Entries * clusterSize > until) continue;
      const host = table.host === NOWHERE ? this.take() * clusterSize : table.host;
      this.l1[table.index] = host;
      this.tables.push({ host, bytes: bytesOf(table.view) });
      this.open.delete(table.index);
      if (this.l2 === table) this.l2 = undefined;
    }
  }

  /** Writes the entry of a plain cluster, or where it has no host offset, of zeros. */
  private setEntry(view: DataView, index: number, host: number, mask: number): void {
    const { l2EntryBytes, extendedL2 } = this.geometry;
    const at = index * l2EntryBytes;
    const isZero = host === NOWHERE;
    if (extendedL2) {
      // What a backing file has must not show in subclusters that hold no data.
      const zero = isZero || this.create.backing ? ~mask >>> 0 : 0;
      view.setUint32(at + 8, isZero ? ALL : zero);
      view.setUint32(at + 12, isZero ? 0 : mask);
      if (!isZero) putHost(view, at, host);
    } else if (isZero) view.setUint32(at + 4, 1);
    else putHost(view, at, host);
  }

  /** Hands out the blocks all of whose clusters are taken. */
  private emitBlocks(): void {
    const { refcountBlockEntries } = this.geometry;
    for (const [slot, { host }] of this.blocks) {
      const isWhole = host !== NOWHERE && (slot + 1) * refcountBlockEntries <= this.next;
      // The first one of a file counts the refcount table, which may move.
      if (isWhole && (slot > 0 || this.order === 'stream')) this.emitBlock(slot);
    }
  }

  private emitBlock(slot: number): void {
    const block = this.blocks.get(slot);
    assert(block !== undefined && block.host !== NOWHERE, 'a block that has its place');
    this.blocks.delete(slot);
    this.lastSlot = NOWHERE;
    this.tables.push({ host: block.host, bytes: bytesOf(block.view) });
  }

  private takeTables(): PlacedTable[] {
    const { tables } = this;
    this.tables = [];
    return tables;
  }
}

/** A plain cluster's entry: COPIED, since nothing else refers to it. */
function putHost(view: DataView, at: number, host: number): void {
  view.setUint32(at, 0x8000_0000 + Math.floor(host / HIGH));
  view.setUint32(at + 4, host % HIGH);
}

function bytesOf(view: DataView<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}
