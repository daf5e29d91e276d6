/**
 * Single L2 entries of a writable image, and the tables they stand in. Standard and extended
 * entries look alike here: a *cell* has a mask of the subclusters that have data and one of those
 * that read as zeros; a standard entry has one subcluster, and its masks are all or nothing.
 */
import { settled } from '../../base/awaitable.ts';
import { alignDown } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { parseL2Entry, serializeL2Entry } from '../../format/l2-entry.ts';
import { parseL2ExtendedEntry, serializeL2ExtendedEntry } from '../../format/l2-extended-entry.ts';
import { L2Flags } from '../../kernels/kernels.ts';
import type { Allocator } from './allocate.ts';
import { entryCorruption, strayWrite } from './corruption.ts';
import type { MetadataStore } from './metadata-store.ts';

/** All subclusters of a cluster. */
export const ALL = 0xffff_ffff;

/** What one L2 entry says. */
export type Cell =
  | { readonly kind: 'compressed'; readonly host: number; readonly length: number }
  | {
      readonly kind: 'plain';
      /** Host offset of the cluster, −1 where none is kept. */
      readonly host: number;
      /** This image alone refers to the cluster. */
      readonly copied: boolean;
      readonly data: number;
      readonly zero: number;
    };

/** Where an entry is: the slice's file offset, and the entry's in it. */
export interface CellPlace {
  readonly slice: number;
  readonly at: number;
  /** Guest offset of the entry's cluster. */
  readonly guest: number;
}

/** A cell with nothing in it. */
export const EMPTY = { kind: 'plain', host: -1, copied: false, data: 0, zero: 0 } as const;

/** Reads and writes entries. Methods are called with the metadata lock held. */
export class L2Tables {
  constructor(
    private readonly store: MetadataStore,
    private readonly allocator: Allocator,
  ) {}

  /** The entry's place, its slice loaded; undefined where there is no table. */
  async find(guest: number): Promise<CellPlace | undefined> {
    const { host } = this.store.l1Entry(Math.floor(guest / this.store.geometry.l2Span));
    return host === 0 ? undefined : this.load(host, guest);
  }

  /** The entry's place in a table that this image alone refers to, made where need be. */
  async findForWrite(guest: number): Promise<CellPlace> {
    const index = Math.floor(guest / this.store.geometry.l2Span);
    let { host, copied } = this.store.l1Entry(index);
    if (host === 0 || !copied) host = await this.makeTable(index, host);
    return this.load(host, guest);
  }

  /** Entries from `place` to the end of its slice. */
  entriesLeft(place: CellPlace): number {
    const { l2EntryBytes } = this.store.geometry;
    return (this.store.l2.sliceBytes - place.at) / l2EntryBytes;
  }

  /** The place `count` entries on, in the same slice. */
  advance(place: CellPlace, count: number): CellPlace {
    const { l2EntryBytes, clusterSize } = this.store.geometry;
    return {
      slice: place.slice,
      at: place.at + count * l2EntryBytes,
      guest: place.guest + count * clusterSize,
    };
  }

  /**
   * @param options.unaligned also where no cluster can be: for those who let go of it
   * @throws Qcow2Error CORRUPT for an entry that the format forbids
   */
  read(place: CellPlace, options: { readonly unaligned?: boolean } = {}): Cell {
    try {
      return this.parse(place, options);
    } catch (cause) {
      throw this.corrupt(place) ?? cause;
    }
  }

  /** What is to be told of a wrong entry. */
  private corrupt({ slice, at }: CellPlace): Qcow2Error | undefined {
    const { geometry, hasDataFile, l2 } = this.store;
    const table = alignDown(slice, geometry.clusterSize);
    const { view, at: start } = l2.bytesAt(slice);
    const file = slice + at;
    const index = (file - table) / geometry.l2EntryBytes;
    const flags = hasDataFile ? L2Flags.dataFile : 0;
    const rules = { geometry, flags, writing: true };
    return entryCorruption(view, start + at, { table, index, at: file, ...rules });
  }

  private parse(place: CellPlace, { unaligned = false }: { readonly unaligned?: boolean }): Cell {
    const { store } = this;
    const { geometry, header, hasDataFile } = store;
    const { view, at } = store.l2.bytesAt(place.slice);
    const context = {
      clusterBits: geometry.clusterBits,
      version: header.version,
      dataFile: hasDataFile,
      file: place.slice - at,
      unaligned,
    };
    if (geometry.extendedL2) {
      const entry = parseL2ExtendedEntry(view, at + place.at, context);
      if (entry.kind === 'compressed') return entry;
      const { host, copied, allocated, zero } = entry;
      const none = host === 0 && !(hasDataFile && copied);
      return { kind: 'plain', host: none ? -1 : host, copied, data: allocated, zero };
    }
    const entry = parseL2Entry(view, at + place.at, context);
    switch (entry.kind) {
      case 'compressed':
        return entry;
      case 'unallocated':
        return EMPTY;
      default: {
        const none = entry.host === 0 && !(hasDataFile && entry.copied);
        return {
          kind: 'plain',
          host: none ? -1 : entry.host,
          copied: entry.copied,
          data: entry.kind === 'data' ? ALL : 0,
          zero: entry.kind === 'zero' ? ALL : 0,
        };
      }
    }
  }

  /** Changes an entry in the cache; what must reach the disk first has been declared. */
  write(place: CellPlace, cell: Cell): void {
    const { store } = this;
    const { clusterBits, extendedL2 } = store.geometry;
    const { view, at } = store.l2.bytesAt(place.slice);
    const entryAt = at + place.at;
    if (cell.kind === 'compressed') {
      if (extendedL2) serializeL2ExtendedEntry(view, entryAt, cell, clusterBits);
      else serializeL2Entry(view, entryAt, cell, clusterBits);
    } else if (extendedL2) {
      const host = Math.max(cell.host, 0);
      const copied = cell.host >= 0 && cell.copied;
      const { data: allocated, zero } = cell;
      const entry = { kind: 'subclusters', host, copied, allocated, zero } as const;
      serializeL2ExtendedEntry(view, entryAt, entry, clusterBits);
    } else {
      const host = Math.max(cell.host, 0);
      const copied = cell.host >= 0 && cell.copied;
      const kind = cell.zero !== 0 ? 'zero' : 'data';
      const empty = cell.host < 0 && cell.zero === 0;
      const entry = empty ? ({ kind: 'unallocated' } as const) : { kind, host, copied };
      serializeL2Entry(view, entryAt, entry as never, clusterBits);
    }
    store.l2.markDirty(place.slice);
  }

  /**
   * How many standard entries of one slice, from the first on, say the same as it does: nothing, or
   * that this image alone has clusters there, which follow each other in the file. At least 1;
   * others are looked at one by one.
   */
  alike(first: CellPlace, max: number): number {
    const { clusterSize, extendedL2 } = this.store.geometry;
    if (extendedL2) return 1;
    const { view, at } = this.store.l2.bytesAt(first.slice);
    const start = at + first.at;
    const high = view.getUint32(start);
    let low = view.getUint32(start + 4);
    const isNothing = high === 0 && low === 0;
    const isPlain = high >= 0x8000_0000 && high < 0x8100_0000 && low % clusterSize === 0;
    if (!isNothing && (!isPlain || (high === 0x8000_0000 && low === 0))) return 1;
    let count = 1;
    for (; count < max; count++) {
      if (isPlain) low += clusterSize;
      const entry = start + count * 8;
      if (view.getUint32(entry + 4) !== low || view.getUint32(entry) !== high) break;
    }
    return count;
  }

  /**
   * Makes standard entries of one slice, none of which says anything yet, name clusters that follow
   * each other.
   * @returns false where one says something, or they are extended ones: then nothing has changed
   */
  linkFresh(first: CellPlace, count: number, host: number): boolean {
    const { store } = this;
    const { clusterBits, clusterSize, extendedL2 } = store.geometry;
    if (extendedL2) return false;
    const { view, at } = store.l2.bytesAt(first.slice);
    const start = at + first.at;
    for (let byte = start; byte < start + count * 8; byte += 4) {
      if (view.getUint32(byte) !== 0) return false;
    }
    for (let index = 0; index < count; index++) {
      const entry = { kind: 'data', host: host + index * clusterSize, copied: true } as const;
      serializeL2Entry(view, start + index * 8, entry, clusterBits);
    }
    store.l2.markDirty(first.slice);
    return true;
  }

  private async load(table: number, guest: number): Promise<CellPlace> {
    const { geometry, l2 } = this.store;
    const { clusterSize, l2Span, l2EntryBytes } = geometry;
    const inTable = Math.floor((guest % l2Span) / clusterSize) * l2EntryBytes;
    const at = inTable % l2.sliceBytes;
    const slice = table + inTable - at;
    const loaded = l2.load(slice, table);
    if (!settled(loaded)) await loaded;
    return { slice, at, guest: guest - (guest % clusterSize) };
  }

  /**
   * Makes an L2 table for an L1 entry: empty, or a copy of one that is shared with a snapshot. The
   * refcount is on disk before the table, and the table before the L1 entry.
   */
  private async makeTable(index: number, old: number): Promise<number> {
    const { store, allocator } = this;
    const { clusterSize } = store.geometry;
    if (index >= store.l1Entries) {
      throw new Qcow2Error('OUT_OF_RANGE', 'guest offset past the end of the L1 table');
    }
    // Where a step fails the cluster is leaked: whether the L1 entry is on disk is not known then.
    const host = await allocator.clusters(clusterSize);
    if (host === 0) {
      throw strayWrite('Preventing invalid allocation of L2 table at offset 0', 0);
    }
    const table = new Uint8Array(clusterSize);
    const { storage } = store;
    if (old !== 0) {
      if (storage.announce) await storage.announce('l2_alloc_cow_read');
      await this.copyTable(old, table);
    }
    // Also where refcounts lag behind otherwise: tables are few.
    await store.refcountBlocks.writeDirty();
    await store.order.flushStorage();
    store.overlap.check(host, clusterSize, 'l2');
    if (storage.announce) await storage.announce('l2_alloc_write');
    await storage.write(host, table);
    await store.order.flushStorage();
    store.l2.drop(host, clusterSize);
    await store.setL1Entry(index, host, true);
    if (old !== 0) await allocator.free(old, clusterSize, { discard: 'other' });
    const { l2 } = store;
    for (let at = 0; at < clusterSize; at += l2.sliceBytes) {
      await l2.put(host + at, table.subarray(at, at + l2.sliceBytes));
    }
    return host;
  }

  private async copyTable(from: number, into: Uint8Array): Promise<void> {
    const { l2 } = this.store;
    for (let at = 0; at < into.length; at += l2.sliceBytes) {
      const loaded = l2.load(from + at, from);
      if (!settled(loaded)) await loaded;
      const { view, at: start } = l2.bytesAt(from + at);
      into.set(new Uint8Array(view.buffer, view.byteOffset + start, l2.sliceBytes), at);
    }
  }
}
