/**
 * Refcounts of host clusters: reading, raising and lowering them, and the blocks and the table
 * that hold them, which describe themselves.
 *
 * Blocks are made and the table grows as QEMU does it, so that the same requests give the same
 * file: a new block is the next free cluster; a table that is full is replaced by one half as
 * large again, with its blocks, behind all that is in use.
 */

import { type Awaitable, settled } from '../../base/awaitable.ts';
import { viewOf } from '../../base/be.ts';
import { alignUp, divCeil } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { REFCOUNT_TABLE_BYTES_MAX } from '../../base/limits.ts';
import { putRefcount, refcountAt, refcountMax, stepRefcount } from '../../format/refcount-block.ts';
import { serializeRefcountTableEntry } from '../../format/refcount-table.ts';
import { strayWrite } from './corruption.ts';
import type { DiscardReason } from './give-back.ts';
import type { MetadataStore } from './metadata-store.ts';
import { numberBytes } from './metadata-store.ts';
import { scratchPairs } from './references.ts';

/** Clusters that one search looks at before it asks whether the table can be believed. */
const SEARCH_MAX = 2 ** 20;

/** Full blocks that a search passes before it looks whether they are all different. */
const BLOCKS_AT_ONCE = 256;

/** Clusters that are changed one by one, below which asking a kernel takes longer. */
const ALIKE_MIN = 2;

/** Bytes of refcount blocks and table that `clusters` clusters need, themselves included. */
export function refcountMetadata(
  clusters: number,
  options: {
    readonly clusterSize: number;
    readonly refcountOrder: number;
    /** Leave room to grow: half a table more. */
    readonly generous: boolean;
  },
): { readonly blocks: number; readonly tableClusters: number } {
  const { clusterSize, refcountOrder } = options;
  const perBlock = (clusterSize * 8) / 2 ** refcountOrder;
  const perTableCluster = clusterSize / 8;
  let { generous } = options;
  let wanted = clusters;
  let blocks = 0;
  let table = 0;
  for (let total = -1; ; ) {
    const last = total;
    blocks = divCeil(wanted + table + blocks, perBlock);
    table = divCeil(blocks, perTableCluster);
    total = wanted + blocks + table;
    if (total !== last) continue;
    if (!generous) return { blocks, tableClusters: table };
    wanted += divCeil(table, 2);
    generous = false;
    total = 0;
  }
}

/** What becomes of clusters that nothing refers to any more. */
interface Freeing {
  /** Entries on disk may still refer to them: they are not handed out before those are written. */
  readonly aside?: boolean;
  readonly discard?: DiscardReason | undefined;
}

/** The refcounts of one writable image. Methods are called with the metadata lock held. */
export class Refcounts {
  constructor(private readonly store: MetadataStore) {}

  /** The count of one cluster, by cluster index. */
  async get(cluster: number): Promise<number> {
    const block = await this.loadBlock(cluster);
    return block === 0 ? 0 : this.peek(block, cluster % this.store.geometry.refcountBlockEntries);
  }

  /** Loads the block that counts a cluster. @returns its host offset, 0 where there is none */
  async loadBlock(cluster: number): Promise<number> {
    const { geometry, refcountBlocks } = this.store;
    const slot = Math.floor(cluster / geometry.refcountBlockEntries);
    const block = this.store.refcountBlockAt(slot);
    if (block === 0) return 0;
    const loaded = refcountBlocks.load(block, block);
    if (!settled(loaded)) await loaded;
    return block;
  }

  /** Clusters have become free: they may be handed out, and no cache may write them any more. */
  noteFree(first: number, count: number): void {
    const { store } = this;
    const { clusterSize } = store.geometry;
    store.freeIndex = Math.min(store.freeIndex, first);
    // Nothing may be packed into a cluster that is free by now, and another's soon.
    const packed = Math.floor(store.freeByte / clusterSize);
    if (store.freeByte !== 0 && packed >= first && packed < first + count) store.freeByte = 0;
    store.l2.drop(first * clusterSize, count * clusterSize);
    store.refcountBlocks.drop(first * clusterSize, count * clusterSize);
  }

  private peek(block: number, index: number): number {
    const { refcountOrder, clusterSize } = this.store.geometry;
    const { view, at } = this.store.refcountBlocks.bytesAt(block);
    const bytes = new DataView(view.buffer, view.byteOffset + at, clusterSize);
    return refcountAt(bytes, index, refcountOrder);
  }

  /**
   * Adds 1 to, or takes 1 from, the count of every cluster that a range of the file touches.
   * On failure all counts are as before.
   * @param freeing what becomes of clusters that are free by that
   * @throws Qcow2Error OUT_OF_RANGE above the width's maximum, CORRUPT below zero
   */
  async change(
    host: number,
    length: number,
    delta: 1 | -1,
    freeing: Freeing = {},
  ): Promise<'done' | 'again'> {
    const { clusterSize } = this.store.geometry;
    if (delta < 0) await this.store.order.refcountAfterEntry();
    const first = Math.floor(host / clusterSize);
    const last = Math.floor((host + length - 1) / clusterSize);
    const freed: number[] = [];
    const { refcountBlockEntries } = this.store.geometry;
    let announced = -1;
    for (let cluster = first; cluster <= last; ) {
      const slot = Math.floor(cluster / refcountBlockEntries);
      if (slot !== announced && this.store.storage.announce) await this.announceBlock(slot);
      announced = slot;
      const alike = this.changeAlike(cluster, last + 1, delta, freed);
      cluster += alike;
      if (alike > 0) continue;
      let state: 'done' | 'again';
      try {
        const changed = this.changeOne(cluster, delta, freed);
        state = settled(changed) ? changed : await changed;
      } catch (cause) {
        await this.undo(first, cluster, delta);
        throw cause;
      }
      if (state === 'again') {
        await this.undo(first, cluster, delta);
        // The search that follows finds the same clusters, unless the block has taken one.
        this.store.freeIndex = Math.min(this.store.freeIndex, first);
        return 'again';
      }
      cluster++;
    }
    if (freed.length > 0) {
      const { aside = false, discard } = freeing;
      const unneeded = discard !== undefined && this.store.passesDiscard(discard);
      await this.store.order.clustersFreed(freed, { aside, unneeded });
    }
    return 'done';
  }

  /** Whoever changes counts asks for their block anew, whether or not there is one in memory. */
  private async announceBlock(slot: number): Promise<void> {
    const { storage } = this.store;
    await storage.announce?.('refblock_alloc');
    if (this.store.refcountBlockAt(slot) !== 0) await storage.announce?.('refblock_load');
  }

  /** Takes back what was done to clusters [first, end). */
  private async undo(first: number, end: number, delta: 1 | -1): Promise<void> {
    for (let cluster = first; cluster < end; cluster++) {
      await this.changeOne(cluster, delta === 1 ? -1 : 1, []);
    }
  }

  /**
   * Changes counts in bulk, where their block is here: those of clusters that nobody has had so
   * far, or of such as are let go of.
   * @param freed gets the clusters that are free now
   * @returns how many were changed, of the clusters from the first on: 0 where each is a case of
   * its own
   */
  private changeAlike(cluster: number, end: number, delta: 1 | -1, freed: number[]): number {
    const { geometry, refcountBlocks } = this.store;
    const { refcountBlockEntries, refcountOrder, clusterSize } = geometry;
    const index = cluster % refcountBlockEntries;
    const count = Math.min(end - cluster, refcountBlockEntries - index);
    const block = this.store.refcountBlockAt((cluster - index) / refcountBlockEntries);
    const address = count < ALIKE_MIN || block === 0 ? undefined : refcountBlocks.peek(block);
    if (address === undefined) return 0;
    const { kernels } = this.store.scratch;
    if (delta === 1) {
      const fresh = this.freeInBlock(address, index, count);
      const { view, at } = refcountBlocks.bytesAt(block);
      for (let done = 0; done < fresh; done++) {
        putRefcount(view, at, index + done, refcountOrder, 1);
      }
      if (fresh > 0) refcountBlocks.markDirty(block);
      return fresh;
    }
    const own = block / clusterSize;
    if (own >= cluster && own < cluster + count) return 0;
    if (kernels.refcountAdd(address, index, count, refcountOrder, -1) !== count) return 0;
    refcountBlocks.markDirty(block);
    for (let at = index; at < index + count; ) {
      const run = this.freeInBlock(address, at, index + count - at);
      const start = cluster + at - index;
      if (run > 0) this.noteFree(start, run);
      for (let one = 0; one < run; one++) freed.push(start + one);
      // What stands behind the run is in use.
      at += run + 1;
    }
    return count;
  }

  /** Clusters of a block that count 0, from one on. */
  private freeInBlock(address: number, index: number, count: number): number {
    const { scratch, geometry } = this.store;
    const { at: out } = scratchPairs(this.store);
    const { kernels, bytes } = scratch;
    if (kernels.refcountFreeRuns(address, index, count, geometry.refcountOrder, out, 1) === 0) {
      return 0;
    }
    const pair = new DataView(bytes.buffer, out);
    return pair.getUint32(0, true) === index ? pair.getUint32(4, true) : 0;
  }

  /** @param freed gets the cluster where that is free now */
  private changeOne(cluster: number, delta: 1 | -1, freed: number[]): Awaitable<'done' | 'again'> {
    const { store } = this;
    const { geometry, refcountBlocks } = store;
    const index = cluster % geometry.refcountBlockEntries;
    const slot = (cluster - index) / geometry.refcountBlockEntries;
    const block = store.refcountBlockAt(slot);
    if (block === 0) {
      if (delta < 0) throw underflow(cluster * geometry.clusterSize);
      // The new block may lie where the caller meant to put something: it searches again.
      return this.makeBlock(cluster).then(() => 'again');
    }
    const loaded = refcountBlocks.load(block, block);
    if (!settled(loaded)) return loaded.then(() => this.changeOne(cluster, delta, freed));
    const count = this.peek(block, index) + delta;
    if (count < 0) throw underflow(cluster * geometry.clusterSize);
    // The highest count of 64 bits is read as one more.
    const most = Math.min(refcountMax(geometry.refcountOrder), 2 ** 64 - 2 ** 11);
    if (delta > 0 && count > most) {
      const message = `refcount of cluster ${cluster} exceeds ${2 ** geometry.refcountOrder} bits`;
      throw new Qcow2Error('OUT_OF_RANGE', message, cluster * geometry.clusterSize);
    }
    if (count === 0) {
      freed.push(cluster);
      if (cluster < store.freeIndex) store.freeIndex = cluster;
      // Nothing may be packed into a cluster that is free by now, and another's soon.
      if (Math.floor(store.freeByte / geometry.clusterSize) === cluster) store.freeByte = 0;
      // What the caches hold of a freed cluster must never be written.
      store.l2.drop(cluster * geometry.clusterSize, geometry.clusterSize);
      if (cluster * geometry.clusterSize !== block) {
        refcountBlocks.drop(cluster * geometry.clusterSize);
      }
    }
    const { view, at } = refcountBlocks.bytesAt(block);
    stepRefcount(view, at, index, geometry.refcountOrder, delta);
    refcountBlocks.markDirty(block);
    return 'done';
  }

  /**
   * The first run of `count` free clusters from the search position on; raises no count.
   * @returns cluster index
   */
  async findFree(count: number): Promise<number> {
    const { store } = this;
    store.freeIndex = Math.min(store.freeIndex, store.order.takeReleased());
    const start = store.freeIndex;
    let looked = start + SEARCH_MAX;
    for (let run = 0; run < count; ) {
      if (run === 0) store.freeIndex = await this.skipUsed(store.freeIndex);
      const free = await this.freeFrom(store.freeIndex, count - run);
      store.freeIndex += free;
      run += free;
      if (run < count) {
        store.freeIndex++;
        run = 0;
      }
      if (store.freeIndex < looked) continue;
      this.refuseSharedBlocks();
      looked = store.freeIndex + SEARCH_MAX;
    }
    return store.freeIndex - count;
  }

  /** Then a few bytes can claim that any number of clusters is in use. */
  private sharesBlocks(): boolean {
    const blocks = this.store.refcountTable.filter((host) => host !== 0);
    return new Set(blocks).size < blocks.length;
  }

  /** A table that names one block again and again has no end that a search would reach. */
  private refuseSharedBlocks(): void {
    if (!this.sharesBlocks()) return;
    const message = 'entries of the refcount table name the same block';
    throw new Qcow2Error('CORRUPT', message, this.store.header.refcountTableOffset);
  }

  /** The first cluster from `cluster` on that counts 0: a kernel looks at whole blocks. */
  private async skipUsed(cluster: number): Promise<number> {
    const { store } = this;
    const { refcountBlockEntries, refcountOrder } = store.geometry;
    const { at: out } = scratchPairs(store);
    let looked = 0;
    for (let from = cluster; ; from += refcountBlockEntries - (from % refcountBlockEntries)) {
      if (++looked % BLOCKS_AT_ONCE === 0) this.refuseSharedBlocks();
      const block = await this.loadBlock(from);
      if (block === 0) return from;
      const { view, at } = store.refcountBlocks.bytesAt(block);
      const index = from % refcountBlockEntries;
      const left = refcountBlockEntries - index;
      const address = view.byteOffset + at;
      const { kernels, bytes } = store.scratch;
      if (kernels.refcountFreeRuns(address, index, left, refcountOrder, out, 1) === 0) continue;
      return from - index + new DataView(bytes.buffer).getUint32(out, true);
    }
  }

  /** How many clusters from one on may be handed out, of so many. */
  async freeFrom(cluster: number, max: number): Promise<number> {
    const { geometry, refcountBlocks, order } = this.store;
    const { refcountBlockEntries } = geometry;
    let free = 0;
    while (free < max) {
      const index = (cluster + free) % refcountBlockEntries;
      const count = Math.min(max - free, refcountBlockEntries - index);
      const block = await this.loadBlock(cluster + free);
      const address = refcountBlocks.peek(block);
      // What no block counts is free.
      const found = block === 0 ? count : this.freeInBlock(address as number, index, count);
      for (let one = 0; one < found; one++, free++) {
        if (order.isSetAside(cluster + free)) return free;
      }
      if (found < count) break;
    }
    return free;
  }

  /** Makes the refcount block that counts `cluster`. */
  private async makeBlock(cluster: number): Promise<void> {
    const { store } = this;
    const { geometry, refcountBlocks, storage } = store;
    const { clusterSize, refcountBlockEntries, refcountOrder } = geometry;
    const slot = Math.floor(cluster / refcountBlockEntries);
    await store.l2.writeDirty();
    const at = (await this.findFree(1)) * clusterSize;
    if (at === 0) {
      throw strayWrite('Preventing invalid allocation of refcount block at offset 0', 0);
    }
    const own = at / clusterSize;
    if (Math.floor(own / refcountBlockEntries) === slot) {
      // It counts itself.
      await refcountBlocks.create(at);
      const bytes = refcountBlocks.bytesAt(at);
      putRefcount(bytes.view, bytes.at, own % refcountBlockEntries, refcountOrder, 1);
    } else {
      // Counted by another block, which may have to be made first: at most two deep.
      const state = await this.change(at, clusterSize, 1);
      if (state === 'again') return;
      await refcountBlocks.writeDirty();
      await refcountBlocks.create(at);
    }
    store.overlap.moved('refcount-block', 0, at);
    try {
      if (storage.announce) await storage.announce('refblock_alloc_write');
      await refcountBlocks.writeDirty();
      await store.order.flushStorage();
    } catch (cause) {
      refcountBlocks.drop(at);
      store.overlap.moved('refcount-block', at, 0);
      throw cause;
    }
    if (slot >= store.refcountTable.length) {
      const end = Math.max(cluster + 1, own);
      const start = divCeil(end, refcountBlockEntries) * refcountBlockEntries;
      await this.growTable(start, { slot, at });
      return;
    }
    const entry = store.header.refcountTableOffset + slot * 8;
    store.overlap.check(entry, 8, 'refcount-table');
    try {
      if (storage.announce) await storage.announce('refblock_alloc_hookup');
      await store.overwrite(entry, numberBytes(at), numberBytes(0));
    } catch (cause) {
      refcountBlocks.drop(at);
      store.overlap.moved('refcount-block', at, 0);
      throw cause;
    }
    store.refcountTable[slot] = at;
  }

  /**
   * Makes a new, larger refcount table at cluster `start`, behind all that is in use, with the
   * blocks that count it.
   */
  private async growTable(
    start: number,
    block: { readonly slot: number; readonly at: number },
  ): Promise<void> {
    const { store } = this;
    const { geometry, refcountBlocks, storage } = store;
    if (storage.announce) await storage.announce('reftable_grow');
    const { clusterSize, refcountBlockEntries, refcountOrder } = geometry;
    const { blocks: total } = refcountMetadata(start, {
      clusterSize,
      refcountOrder,
      generous: true,
    });
    const entries = alignUp(total + divCeil(total, 2), clusterSize / 8);
    if (entries * 8 > REFCOUNT_TABLE_BYTES_MAX) {
      throw new Qcow2Error('OUT_OF_RANGE', 'the image cannot grow: refcount table too large');
    }
    const table = new Array<number>(entries).fill(0);
    for (const [index, host] of store.soundRefcountTable().entries()) table[index] = host;
    table[block.slot] = block.at;

    const firstSlot = Math.floor(start / refcountBlockEntries);
    let place = start * clusterSize;
    const made = new Set<number>();
    for (let slot = firstSlot; slot < total; slot++) {
      if (table[slot] !== 0) continue;
      table[slot] = place;
      made.add(place);
      place += clusterSize;
    }
    const tableAt = place;
    const tableClusters = (entries * 8) / clusterSize;
    const end = tableAt / clusterSize + tableClusters;
    try {
      for (let slot = firstSlot; slot < total; slot++) {
        const host = table[slot] as number;
        if (made.has(host)) {
          await refcountBlocks.create(host);
          store.overlap.moved('refcount-block', 0, host);
        } else {
          await refcountBlocks.load(host, host);
          refcountBlocks.markDirty(host);
        }
        const bytes = refcountBlocks.bytesAt(host);
        const from = Math.max(slot * refcountBlockEntries, start);
        const to = Math.min((slot + 1) * refcountBlockEntries, end);
        for (let cluster = from; cluster < to; cluster++) {
          putRefcount(bytes.view, bytes.at, cluster % refcountBlockEntries, refcountOrder, 1);
        }
      }
      if (storage.announce) await storage.announce('refblock_alloc_write_blocks');
      await refcountBlocks.writeDirty();
      if (storage.announce) await storage.announce('refblock_alloc_write_table');
      await this.writeTable(tableAt, table);
      await store.order.flushStorage();
    } catch (cause) {
      for (const host of made) {
        refcountBlocks.drop(host);
        store.overlap.moved('refcount-block', host, 0);
      }
      throw cause;
    }
    if (storage.announce) await storage.announce('refblock_alloc_switch_table');
    await this.switchTable(tableAt, tableClusters, table);
  }

  private async writeTable(at: number, table: readonly number[]): Promise<void> {
    const bytes = new Uint8Array(table.length * 8);
    const view = viewOf(bytes);
    for (const [index, host] of table.entries()) serializeRefcountTableEntry(view, index * 8, host);
    await this.store.storage.write(at, bytes);
  }

  /** Hooks a table up in the header, and lets the old one go. */
  private async switchTable(at: number, clusters: number, table: number[]): Promise<void> {
    const { store } = this;
    const { refcountTableOffset, refcountTableClusters } = store.header;
    const fields = new Uint8Array(12);
    fields.set(numberBytes(at));
    viewOf(fields).setUint32(8, clusters);
    await store.writeHeader(48, fields);
    store.header = { ...store.header, refcountTableOffset: at, refcountTableClusters: clusters };
    store.refcountTable = table;
    const oldBytes = refcountTableClusters * store.geometry.clusterSize;
    await this.change(refcountTableOffset, oldBytes, -1, { discard: 'other' });
  }
}

function underflow(host: number): Qcow2Error {
  return new Qcow2Error('CORRUPT', 'a cluster in use has the refcount 0', host);
}
