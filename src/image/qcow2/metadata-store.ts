/**
 * The tables of a writable image, in memory and on disk: header fields, L1, cached L2 slices, the
 * refcount table and cached refcount blocks. Whoever changes them holds `lock`.
 */

import { settled } from '../../base/awaitable.ts';
import { viewOf } from '../../base/be.ts';
import { alignDown, alignUp, HIGH } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { L2_SLICE_BYTES_MAX } from '../../base/limits.ts';
import { Mutex } from '../../base/locks.ts';
import { Compatible, hasFeature, Incompatible } from '../../format/feature-bits.ts';
import type { Geometry } from '../../format/geometry.ts';
import { type Header, parseHeader } from '../../format/header.ts';
import { type L1Entry, parseL1Entry, serializeL1Entry } from '../../format/l1-entry.ts';
import { checkRefcountBlockOffset, parseRefcountTableEntry } from '../../format/refcount-table.ts';
import type { Snapshot } from '../../format/snapshot-table.ts';
import type { Region } from '../../kernels/arena.ts';
import type { DebugEvent } from '../../storage/debug-events.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { Storage } from '../../storage/storage.ts';
import { type CorruptionListener, CorruptionWatch, noticing } from './corruption.ts';
import { FlushOrder } from './flush-order.ts';
import { type DiscardPolicy, type DiscardReason, passesDiscard } from './give-back.ts';
import { OverlapCheck } from './overlap.ts';
import { guardedKinds, type OverlapOptions } from './overlap-options.ts';
import { WriteBackCache } from './write-back-cache.ts';

/** What a store is made of. */
export interface MetadataParts {
  readonly storage: Storage;
  /** The file of plain clusters: `storage`, or the external data file. */
  readonly data: Storage;
  readonly header: Header;
  readonly geometry: Geometry;
  readonly l1: Uint8Array;
  readonly l2Region: Region;
  readonly refcountRegion: Region;
  readonly discardPolicy: DiscardPolicy;
  /** Memory for kernels that look at one slice: `SCRATCH_BYTES_PER_ENTRY` for each entry. */
  readonly scratch: Region;
  readonly snapshots: readonly Snapshot[];
  readonly overlapCheck?: OverlapOptions | undefined;
  /** In place of what the header says. */
  readonly lazyRefcounts?: boolean | undefined;
  readonly onCorruption?: CorruptionListener | undefined;
}

/** The metadata of a writable image. */
export class MetadataStore {
  readonly lock = new Mutex();
  readonly order: FlushOrder;
  readonly l2: WriteBackCache;
  readonly refcountBlocks: WriteBackCache;
  readonly overlap: OverlapCheck;
  readonly corruption: CorruptionWatch;
  header: Header;
  geometry: Geometry;
  /** The L1 table as it is in the file. */
  l1: Uint8Array;
  l1View: DataView;
  /** Host offsets of the refcount blocks, 0 where there is none. */
  refcountTable: number[] = [];
  /** Where the next search for a free cluster starts, as a cluster index. */
  freeIndex = 0;
  /** Internal snapshots, in the order of their table. */
  snapshots: readonly Snapshot[];
  /** A change was left half done: counts and flags must be made right by a repair. */
  unsound = false;
  /** A write of the L1 table failed: the file may have old entries, new ones, or both. */
  private l1InDoubt = false;
  /** Where the next compressed cluster is packed to; 0: into a new cluster. */
  freeByte = 0;
  /** Set when it is not known which header the file has: nothing may change any more. */
  broken: Qcow2Error | undefined;

  constructor(readonly parts: MetadataParts) {
    const { storage, data, header, l1, l2Region, refcountRegion, geometry } = parts;
    this.header = header;
    this.geometry = geometry;
    this.snapshots = parts.snapshots;
    this.l1 = l1;
    this.l1View = viewOf(l1);
    this.order = new FlushOrder(storage, data);
    this.overlap = new OverlapCheck(this, guardedKinds(parts.overlapCheck));
    this.corruption = new CorruptionWatch(parts.onCorruption, () => this.markCorrupt());
    const { clusterSize } = geometry;
    const checkL2 = (file: number, length: number) => this.overlap.check(file, length, 'l2');
    const checkBlock = (file: number, length: number) => {
      this.overlap.check(file, length, 'refcount-block');
    };
    this.l2 = new WriteBackCache(
      storage,
      l2Region,
      Math.min(clusterSize, L2_SLICE_BYTES_MAX),
      () => this.order.beforeL2(),
      checkL2,
      { load: 'l2_load', write: 'l2_update' },
    );
    this.refcountBlocks = new WriteBackCache(
      storage,
      refcountRegion,
      clusterSize,
      () => this.order.beforeRefcounts(),
      checkBlock,
      // `Refcounts` tells of blocks that are looked for.
      { write: 'refblock_update_part' },
    );
    this.order.l2 = this.l2;
    this.order.refcounts = this.refcountBlocks;
  }

  get storage(): Storage {
    return this.parts.storage;
  }

  get data(): Storage {
    return this.parts.data;
  }

  /** Whether the room of what is freed for a reason goes back to the host. */
  passesDiscard(reason: DiscardReason): boolean {
    return passesDiscard(this.parts.discardPolicy, reason);
  }

  get scratch(): Region {
    return this.parts.scratch;
  }

  get hasDataFile(): boolean {
    return this.parts.data !== this.parts.storage;
  }

  /** Refcounts may lag behind while the image has its dirty bit. */
  get lazyRefcounts(): boolean {
    const { version, compatible } = this.header;
    const { lazyRefcounts = hasFeature(compatible, Compatible.lazyRefcounts) } = this.parts;
    return version === 3 && lazyRefcounts;
  }

  get dirty(): boolean {
    return hasFeature(this.header.incompatible, Incompatible.dirty);
  }

  /** Reads the refcount table. */
  async loadRefcountTable(): Promise<void> {
    this.refcountTable = await this.readRefcountTable(this.header);
    this.overlap.rebuild();
  }

  private async readRefcountTable(header: Header): Promise<number[]> {
    const { refcountTableOffset: at, refcountTableClusters: clusters } = header;
    const { clusterSize } = this.geometry;
    const bytes = new Uint8Array(clusters * clusterSize);
    if (this.storage.announce) await this.storage.announce('reftable_load');
    const read = readFully(this.storage, at, bytes);
    if (!settled(read)) await read;
    const view = viewOf(bytes);
    const table: number[] = [];
    for (let entry = 0; entry < bytes.length; entry += 8) {
      table.push(parseRefcountTableEntry(view, entry));
    }
    return table;
  }

  /**
   * Reads all anew: somebody else has changed the file. What caches hold is clean. Where that
   * fails, nothing may change any more: what is in memory is out of date.
   */
  async reload(): Promise<void> {
    try {
      const head = new Uint8Array(this.geometry.clusterSize);
      await readFully(this.storage, 0, head);
      const header = parseHeader(head);
      const l1 = new Uint8Array(header.l1Entries * 8);
      await readFully(this.storage, header.l1Offset, l1);
      const table = await this.readRefcountTable(header);
      this.header = header;
      this.l1 = l1;
      this.l1View = viewOf(l1);
      this.refcountTable = table;
    } catch (cause) {
      this.broken = new Qcow2Error('IO', 'The repaired image could not be read', 0, cause);
      throw cause;
    }
    this.l2.forget();
    this.refcountBlocks.forget();
    this.freeIndex = 0;
    this.freeByte = 0;
    this.overlap.rebuild();
  }

  /**
   * Where the refcount table has a block, 0 where it has none.
   * @throws Qcow2Error CORRUPT where no block can be there
   */
  refcountBlockAt(slot: number): number {
    const host = this.refcountTable[slot] ?? 0;
    const { clusterSize } = this.geometry;
    const file = this.header.refcountTableOffset;
    noticing(() => checkRefcountBlockOffset(host, { index: slot, clusterSize, file }));
    return host;
  }

  /**
   * All of them, for those who go through them or write the table anew.
   * @throws Qcow2Error CORRUPT where one of them cannot be there
   */
  soundRefcountTable(): readonly number[] {
    for (const slot of this.refcountTable.keys()) this.refcountBlockAt(slot);
    return this.refcountTable;
  }

  get l1Entries(): number {
    return this.l1.length / 8;
  }

  /**
   * An L1 entry; past the end of the table there is none.
   * @param options.unaligned also where no table can be: for those who only compare
   * @throws Qcow2Error CORRUPT where the table's place is none
   */
  l1Entry(index: number, { unaligned = false } = {}): L1Entry {
    if (index >= this.l1Entries) return { host: 0, copied: false };
    const alignment = unaligned ? 512 : this.geometry.clusterSize;
    return noticing(() => {
      return parseL1Entry(this.l1View, index * 8, alignment, this.header.l1Offset);
    });
  }

  /** Sets the corrupt bit, where the version has one. */
  private async markCorrupt(): Promise<void> {
    if (this.header.version === 3) await this.setIncompatible(Incompatible.corrupt, true);
  }

  /** Changes an L1 entry, in memory and durably on disk. */
  async setL1Entry(index: number, host: number, copied: boolean): Promise<void> {
    const at = index * 8;
    const old = this.l1Entry(index).host;
    // Whole sectors: a torn sector could mix old and new entries only if it held both.
    const start = at - (at % 512);
    const end = Math.min(start + 512, this.l1.length);
    this.overlap.check(this.header.l1Offset + start, end - start, 'l1');
    if (this.storage.announce) await this.storage.announce('l1_update');
    const before = this.l1.slice(start, end);
    serializeL1Entry(this.l1View, at, { host, copied });
    const next = this.l1.subarray(start, end);
    try {
      await this.overwrite(this.header.l1Offset + start, next, before);
    } catch (cause) {
      this.l1.set(before, start);
      throw cause;
    }
    this.overlap.moved('l2', old, host);
  }

  /** Changes entries of the L1 table where it is: those sectors that differ. Does not flush. */
  async replaceL1Entries(next: Uint8Array): Promise<void> {
    const { l1, header } = this;
    let start = 0;
    let end = l1.length;
    if (!this.l1InDoubt) {
      while (start < end && l1[start] === next[start]) start++;
      while (end > start && l1[end - 1] === next[end - 1]) end--;
    }
    if (start === end) return;
    start = alignDown(start, 512);
    end = Math.min(alignUp(end, 512), l1.length);
    this.overlap.check(header.l1Offset + start, end - start, 'l1');
    this.l1InDoubt = true;
    await this.storage.write(header.l1Offset + start, next.subarray(start, end));
    this.l1InDoubt = false;
    l1.set(next);
  }

  /**
   * Overwrites metadata that is in use, durably. On failure it is put back as it was, or the image
   * is written to no more: the file would name tables that memory knows nothing of.
   * @param before the same bytes as they are
   */
  async overwrite(at: number, bytes: Uint8Array, before: Uint8Array): Promise<void> {
    try {
      await this.storage.write(at, bytes);
      await this.order.flushStorage();
    } catch (cause) {
      const putBack = async () => this.storage.write(at, before);
      await putBack().catch((again) => {
        const message = 'Metadata could not be written, nor put back as it was';
        this.broken = new Qcow2Error('IO', message, at, again);
      });
      throw cause;
    }
  }

  /**
   * Writes fields of the header, durably. On failure they are put back as they were.
   * @param event what the storage is told of the write
   */
  async writeHeader(at: number, bytes: Uint8Array, event?: DebugEvent): Promise<void> {
    this.overlap.check(at, bytes.length, 'header');
    const before = new Uint8Array(bytes.length);
    await readFully(this.storage, at, before);
    if (event && this.storage.announce) await this.storage.announce(event);
    await this.overwrite(at, bytes, before);
  }

  /** Sets or clears a bit of the incompatible features, durably and at once. */
  async setIncompatible(bit: number, on: boolean): Promise<void> {
    const { high, low } = this.header.incompatible;
    const changed = on ? (low | (1 << bit)) >>> 0 : (low & ~(1 << bit)) >>> 0;
    if (changed === low) return;
    await this.writeHeader(72, u64Bytes({ high, low: changed }));
    this.header = { ...this.header, incompatible: { high, low: changed } };
  }

  /** File bytes up to the end of the last cluster that anything may lie in. */
  async fileClusters(): Promise<number> {
    return alignUp(await this.storage.size(), this.geometry.clusterSize);
  }
}

/** Eight bytes of a u64. */
export function u64Bytes({ high, low }: { high: number; low: number }): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = viewOf(bytes);
  view.setUint32(0, high);
  view.setUint32(4, low);
  return bytes;
}

/** Eight bytes of a number. */
export function numberBytes(value: number): Uint8Array {
  return u64Bytes({ high: Math.floor(value / HIGH), low: value % HIGH });
}
