/**
 * The bitmaps of a writable image. Enabled ones follow what is written: before the first change
 * they are marked in use on disk, their bits are kept in a cache of fixed size meanwhile, and when
 * the image is closed bits and tables are stored and the marks taken away. A crash leaves the mark.
 *
 * While a bitmap is in use nobody believes its bits, so its data and its table change where they
 * are. Only refcounts must be on disk before the table refers to a new cluster.
 */
import { type Awaitable, settled } from '../../base/awaitable.ts';
import { alignDown, alignUp, divCeil } from '../../base/bits.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import {
  type BitmapDirectoryEntry,
  type BitmapExtension,
  BitmapFlag,
  serializeBitmapDirectoryEntry,
} from '../../format/bitmap-directory.ts';
import type { Region } from '../../kernels/arena.ts';
import type { Allocator } from './allocate.ts';
import { writeBitmapExtension } from './bitmap-extension.ts';
import { BitmapState, bitmapSliceBytes, clustersOfBits } from './bitmap-state.ts';
import type { MetadataStore } from './metadata-store.ts';
import { WriteBackCache } from './write-back-cache.ts';

/** Tables of bitmaps in memory, all together: what is beyond that is given up, not kept up. */
const TABLE_BYTES_MAX = 64 * 1024 * 1024;

/** Everything about the bitmaps of one writable image. */
export class BitmapStore {
  /** In the order of the directory. */
  bitmaps: BitmapState[];
  /** Bits of all bitmaps, by the file offset of their slices. */
  readonly data: WriteBackCache;
  readonly sliceBytes: number;
  /** Every bitmap that follows writes is marked in use on disk. */
  private holdsAll = false;
  /** The header may name another directory than the one known here. */
  private lost = false;

  constructor(
    readonly store: MetadataStore,
    readonly allocator: Allocator,
    entries: readonly BitmapDirectoryEntry[],
    private extension: BitmapExtension | undefined,
    region: Region,
  ) {
    this.bitmaps = entries.map((entry) => new BitmapState(entry));
    this.sliceBytes = bitmapSliceBytes(store.geometry.clusterSize);
    // Nothing has to be on disk before the bits of a bitmap that is in use.
    this.data = new WriteBackCache(
      store.storage,
      region,
      this.sliceBytes,
      () => {},
      (file, length) => store.overlap.check(file, length, 'data'),
    );
  }

  /** @throws Qcow2Error OUT_OF_RANGE where there is none; UNSUPPORTED where it is inconsistent */
  find(name: string, options: { readonly inconsistent?: boolean } = {}): BitmapState {
    const bitmap = this.bitmaps.find((one) => one.name === name);
    if (!bitmap) throw new Qcow2Error('OUT_OF_RANGE', `Dirty bitmap '${name}' not found`);
    if (bitmap.inconsistent && !options.inconsistent) {
      const message = `Bitmap '${name}' is inconsistent and cannot be used`;
      throw new Qcow2Error('CORRUPT', message, bitmap.entry.tableOffset);
    }
    return bitmap;
  }

  /** Those that follow what is written. */
  private get tracked(): BitmapState[] {
    return this.bitmaps.filter(({ enabled, inconsistent }) => enabled && !inconsistent);
  }

  /** Another set of enabled bitmaps, or other places of them: marks are looked at again. */
  changed(): void {
    this.holdsAll = false;
  }

  /**
   * Notes that guest bytes are about to change. That bits cannot be kept never fails a request: the
   * bitmap is left in use instead.
   */
  mark(guest: number, length: number): Awaitable<void> {
    if (length === 0 || this.bitmaps.length === 0 || this.store.corruption.caught) return;
    return this.markAll(guest, length);
  }

  private async markAll(guest: number, length: number): Promise<void> {
    if (!this.holdsAll) await this.store.lock.run(() => this.holdAll());
    for (const bitmap of this.tracked) {
      const from = Math.floor(guest / bitmap.granularity);
      const to = divCeil(guest + length, bitmap.granularity);
      try {
        if (this.isSet(bitmap, from, to)) continue;
        await this.store.lock.run(() => this.setBits(bitmap, from, to));
      } catch (cause) {
        if (!isQcow2Error(cause)) throw cause;
        bitmap.inconsistent = true;
      }
    }
  }

  private async holdAll(): Promise<void> {
    await this.hold(this.tracked);
    this.holdsAll = true;
  }

  /** Marks bitmaps in use on disk: their bits are about to change. */
  async hold(bitmaps: readonly BitmapState[]): Promise<void> {
    this.refuseLost();
    const fresh = bitmaps.filter(({ held }) => !held);
    if (fresh.length === 0) return;
    let bytes = this.bitmaps.reduce((sum, { table }) => sum + (table?.length ?? 0), 0);
    for (const bitmap of fresh) {
      bytes += bitmap.entry.tableEntries * 8;
      try {
        if (bytes <= TABLE_BYTES_MAX) await bitmap.loadTable(this.store.storage);
        else bitmap.inconsistent = true;
      } catch (cause) {
        if (!(cause instanceof Qcow2Error) || cause.code !== 'CORRUPT') throw cause;
        bitmap.inconsistent = true;
      }
      bitmap.setFlag(BitmapFlag.inUse, true);
    }
    try {
      await this.writeFlags();
      await this.store.order.flushStorage();
    } catch (cause) {
      for (const bitmap of fresh) bitmap.setFlag(BitmapFlag.inUse, false);
      throw cause;
    }
    for (const bitmap of fresh) bitmap.held = true;
  }

  /** Whether bits are known to be set, without a look at the file. */
  private isSet(bitmap: BitmapState, from: number, to: number): boolean {
    const { clusterSize } = this.store.geometry;
    for (const part of clustersOfBits(from, to, clusterSize)) {
      if (!bitmap.table || part.index >= bitmap.entry.tableEntries) return false;
      const entry = bitmap.tableEntry(part.index, clusterSize);
      if (entry.kind === 'ones') continue;
      if (entry.kind === 'zeros') return false;
      const slice = entry.host + alignDown(part.from >> 3, this.sliceBytes);
      const last = entry.host + alignDown((part.to - 1) >> 3, this.sliceBytes);
      if (slice !== last || this.data.peek(slice) === undefined) return false;
      const { view, at } = this.data.bytesAt(slice);
      const base = (slice - entry.host) * 8;
      if (!allSet(view, at, part.from - base, part.to - base)) return false;
    }
    return true;
  }

  /** Sets bits [from, to) of a bitmap that is held. Called with the metadata lock held. */
  setBits(bitmap: BitmapState, from: number, to: number): Promise<void> {
    return this.putBits(bitmap, { from, to, value: true });
  }

  /** Clears them. */
  clearBits(bitmap: BitmapState, from: number, to: number): Promise<void> {
    return this.putBits(bitmap, { from, to, value: false });
  }

  private async putBits(
    bitmap: BitmapState,
    range: { readonly from: number; readonly to: number; readonly value: boolean },
  ): Promise<void> {
    const { clusterSize } = this.store.geometry;
    const same = range.value ? 'ones' : 'zeros';
    for (const part of clustersOfBits(range.from, range.to, clusterSize)) {
      if (part.index >= bitmap.entry.tableEntries) {
        const message = `Bitmap '${bitmap.name}' is too short for the disk`;
        throw new Qcow2Error('CORRUPT', message, bitmap.entry.tableOffset);
      }
      if (bitmap.tableEntry(part.index, clusterSize).kind === same) continue;
      const host = await this.place(bitmap, part.index);
      for (let bit = part.from; bit < part.to; ) {
        const inCluster = alignDown(bit >> 3, this.sliceBytes);
        const end = Math.min(part.to, (inCluster + this.sliceBytes) * 8);
        const { view, at } = await this.slice(host, inCluster);
        fillBits(view, at, { from: bit - inCluster * 8, to: end - inCluster * 8 }, range.value);
        this.data.markDirty(host + inCluster);
        bit = end;
      }
    }
  }

  /** A slice of bits, loaded: its bytes, good until the next load. */
  async slice(host: number, inCluster: number) {
    const loaded = this.data.load(host + inCluster, host);
    if (!settled(loaded)) await loaded;
    return this.data.bytesAt(host + inCluster);
  }

  /**
   * The slice that has a bit, loaded, and its place in the file; undefined where all of its cluster
   * is set already.
   */
  async sliceFor(bitmap: BitmapState, bit: number) {
    const { clusterSize } = this.store.geometry;
    const index = Math.floor(bit / (clusterSize * 8));
    if (bitmap.tableEntry(index, clusterSize).kind === 'ones') return undefined;
    const host = await this.place(bitmap, index);
    const inCluster = alignDown(Math.floor((bit % (clusterSize * 8)) / 8), this.sliceBytes);
    const { view, at } = await this.slice(host, inCluster);
    return { view, at, file: host + inCluster };
  }

  /** The cluster that a part of a bitmap's bits lies in, taken where there is none. */
  async place(bitmap: BitmapState, index: number): Promise<number> {
    const { store, allocator } = this;
    const { clusterSize } = store.geometry;
    const entry = bitmap.tableEntry(index, clusterSize);
    if (entry.kind === 'data') return entry.host;
    const host = await allocator.clusters(clusterSize);
    this.data.drop(host, clusterSize);
    try {
      store.overlap.check(host, clusterSize, 'data');
      if (entry.kind === 'ones') {
        const bits = bitmap.bitsFor(store.header.size) - index * clusterSize * 8;
        const bytes = new Uint8Array(clusterSize);
        fillBits(
          new DataView(bytes.buffer),
          0,
          { from: 0, to: Math.min(bits, clusterSize * 8) },
          true,
        );
        await store.storage.write(host, bytes);
      } else await store.storage.zero(host, clusterSize);
    } catch (cause) {
      await allocator.free(host, clusterSize, { reusable: true }).catch(() => {});
      throw cause;
    }
    bitmap.setTableEntry(index, { kind: 'data', host });
    return host;
  }

  /** Stores all bits, and takes the marks away. Called with the metadata lock held. */
  async settle(): Promise<void> {
    const held = this.bitmaps.filter((bitmap) => bitmap.held);
    if (held.length === 0 || this.lost) return;
    const { store } = this;
    await this.data.writeDirty();
    // Refcounts of new clusters, before tables refer to them; with lazy ones the dirty bit does.
    await store.order.flush();
    for (const bitmap of held) await this.writeTable(bitmap);
    await store.order.flushStorage();
    const sound = held.filter(({ inconsistent }) => !inconsistent);
    for (const bitmap of sound) bitmap.setFlag(BitmapFlag.inUse, false);
    try {
      await this.writeFlags();
      await store.order.flushStorage();
    } catch (cause) {
      for (const bitmap of sound) bitmap.setFlag(BitmapFlag.inUse, true);
      throw cause;
    }
    for (const bitmap of sound) {
      bitmap.held = false;
      bitmap.table = undefined;
    }
    this.holdsAll = false;
  }

  private async writeTable(bitmap: BitmapState): Promise<void> {
    if (!bitmap.tableDirty || !bitmap.table) return;
    const { tableOffset } = bitmap.entry;
    this.store.overlap.check(tableOffset, bitmap.table.length, 'data');
    await this.store.storage.write(tableOffset, bitmap.table);
    bitmap.tableDirty = false;
  }

  /** Writes the directory where it is: only flags have changed, each within a sector. */
  async writeFlags(): Promise<void> {
    if (!this.extension) return;
    const bytes = directoryBytes(this.bitmaps);
    const { directoryOffset } = this.extension;
    this.store.overlap.check(directoryOffset, bytes.length, 'bitmap-directory');
    await this.store.storage.write(directoryOffset, bytes);
  }

  /**
   * Makes another list of bitmaps the image's, durably: a new directory, which the header then
   * names. What the new ones refer to has been written.
   */
  async replaceDirectory(bitmaps: BitmapState[]): Promise<void> {
    this.refuseLost();
    const { store, allocator } = this;
    const bytes = directoryBytes(bitmaps);
    const old = this.extension;
    let next: BitmapExtension | undefined;
    await store.order.flush();
    if (bitmaps.length > 0) {
      const directoryOffset = await allocator.clusters(bytes.length);
      next = { count: bitmaps.length, directoryBytes: bytes.length, directoryOffset };
      try {
        // Tables that the directory names are on disk before it, and so is their count.
        await store.order.flush();
        store.overlap.check(directoryOffset, bytes.length, 'bitmap-directory');
        await store.storage.write(directoryOffset, bytes);
        await store.order.flushStorage();
      } catch (cause) {
        await allocator.free(directoryOffset, bytes.length, { reusable: true }).catch(() => {});
        throw cause;
      }
    }
    try {
      await writeBitmapExtension(store, next);
    } catch (cause) {
      if (cause instanceof Qcow2Error && cause.code === 'NO_SPACE' && next) {
        await allocator.free(next.directoryOffset, bytes.length, { reusable: true });
      } else this.lost = true;
      throw cause;
    }
    this.extension = next;
    this.bitmaps = bitmaps;
    this.holdsAll = false;
    store.overlap.fixed = [
      ...store.overlap.fixed.filter(({ kind }) => kind !== 'bitmap-directory'),
      ...directoryRange(next),
    ];
    if (old) await allocator.free(old.directoryOffset, old.directoryBytes, { reusable: true });
  }

  private refuseLost(): void {
    if (!this.lost) return;
    throw new Qcow2Error('IO', 'the bitmap directory could not be written before');
  }
}

/** All entries, one after another. */
export function directoryBytes(bitmaps: readonly BitmapState[]): Uint8Array {
  const entries = bitmaps.map(({ entry }) => serializeBitmapDirectoryEntry(entry));
  const bytes = new Uint8Array(entries.reduce((sum, { length }) => sum + alignUp(length, 8), 0));
  let at = 0;
  for (const entry of entries) {
    bytes.set(entry, at);
    at += entry.length;
  }
  return bytes;
}

function directoryRange(extension: BitmapExtension | undefined) {
  if (!extension) return [];
  const { directoryOffset: at, directoryBytes: length } = extension;
  return [{ kind: 'bitmap-directory', at, length }] as const;
}

function allSet(view: DataView, at: number, from: number, to: number): boolean {
  for (let bit = from; bit < to; ) {
    const byte = view.getUint8(at + (bit >> 3));
    if ((bit & 7) === 0 && to - bit >= 8) {
      if (byte !== 0xff) return false;
      bit += 8;
    } else {
      if (((byte >> (bit & 7)) & 1) === 0) return false;
      bit++;
    }
  }
  return true;
}

/** Sets or clears bits; bit 0 is the lowest of the byte at `at`. */
export function fillBits(
  view: DataView,
  at: number,
  { from, to }: { readonly from: number; readonly to: number },
  value: boolean,
): void {
  const put = (index: number, mask: number) => {
    const byte = view.getUint8(at + index);
    view.setUint8(at + index, value ? byte | mask : byte & ~mask);
  };
  if (from >= to) return;
  const first = from >> 3;
  const last = (to - 1) >> 3;
  const head = (0xff << (from & 7)) & 0xff;
  const tail = 0xff >> (7 - ((to - 1) & 7));
  if (first === last) {
    put(first, head & tail);
    return;
  }
  put(first, head);
  const bytes = new Uint8Array(view.buffer, view.byteOffset + at + first + 1, last - first - 1);
  bytes.fill(value ? 0xff : 0);
  put(last, tail);
}
