/**
 * Refcounts of all that an L1 table reaches, changed in bulk: each L2 table and each cluster once
 * for every entry that refers to it. And the COPIED flags that say which refcounts are one.
 *
 * Methods are called with the metadata lock held, and all caches written.
 */
import { viewOf } from '../../base/be.ts';
import { alignDown } from '../../base/bits.ts';
import { assert, Qcow2Error } from '../../base/errors.ts';
import { serializeL1Entry } from '../../format/l1-entry.ts';
import { discardRange } from './give-back.ts';
import type { MetadataStore } from './metadata-store.ts';
import type { Refcounts } from './refcounts.ts';
import { l2TablesOf, referencesOf, scratchPairs, slicesOf } from './references.ts';

/** An L1 table, and where it is in the file. */
export interface L1Table {
  readonly bytes: Uint8Array;
  readonly at: number;
}

/** Freed runs that a sweep remembers; what is freed beyond is freed, and not reported. */
const FREED_RUNS_MAX = 65536;

/** A range of the file. */
export interface FileRange {
  readonly at: number;
  readonly length: number;
}

/** Changes refcounts of what an L1 table reaches. */
export class RefcountSweep {
  /** What has become free, for those who give it back to the host. */
  readonly freed: FileRange[] = [];
  /** Pieces that were changed, and those that a sweep back must change. */
  private done = 0;
  private limit = Number.POSITIVE_INFINITY;

  constructor(
    private readonly store: MetadataStore,
    private readonly refcounts: Refcounts,
  ) {}

  /**
   * Adds `delta` to every count. Where raising fails they are as before; where lowering does, some
   * are lower already: what referred to them is gone in any case.
   * @throws Qcow2Error OUT_OF_RANGE above the width's maximum; CORRUPT for a reference to what is
   * free, or to what the format forbids
   */
  async run(l1: L1Table, delta: 1 | -1): Promise<void> {
    this.done = 0;
    this.limit = Number.POSITIVE_INFINITY;
    try {
      await this.walk(l1, delta);
    } catch (cause) {
      if (delta === -1) throw cause;
      this.limit = this.done;
      this.done = 0;
      try {
        await this.walk(l1, -1);
      } catch {
        // Counts are higher than they should be, or the storage is gone: repair must count anew.
        this.store.unsound = true;
      }
      throw cause;
    }
  }

  private async walk({ bytes, at }: L1Table, delta: 1 | -1): Promise<void> {
    const { store } = this;
    const { clusterSize } = store.geometry;
    for (const { host } of l2TablesOf(store, bytes, at)) {
      if (this.done >= this.limit) return;
      // A table that goes can still be read: nothing takes its place before the sweep is over.
      await this.change(host, clusterSize, delta);
      for await (const slice of slicesOf(store, host)) {
        for (const run of referencesOf(store, slice)) {
          await this.change(run.host, run.length, delta);
          if (this.done >= this.limit) return;
        }
      }
    }
  }

  /** Changes the counts of the clusters that a range touches, block by block. */
  private async change(host: number, length: number, delta: 1 | -1): Promise<void> {
    const { clusterSize, refcountBlockEntries } = this.store.geometry;
    const end = Math.floor((host + length - 1) / clusterSize) + 1;
    for (let cluster = Math.floor(host / clusterSize); cluster < end; ) {
      const blockEnd = alignDown(cluster, refcountBlockEntries) + refcountBlockEntries;
      const count = Math.min(end, blockEnd) - cluster;
      if (this.done >= this.limit) return;
      await this.changeInBlock(cluster, count, delta);
      this.done++;
      cluster += count;
    }
  }

  private async changeInBlock(cluster: number, count: number, delta: 1 | -1): Promise<void> {
    const { store, refcounts } = this;
    const { refcountOrder, clusterSize, refcountBlockEntries } = store.geometry;
    const index = cluster % refcountBlockEntries;
    const block = await refcounts.loadBlock(cluster);
    if (block === 0) throw inUseAndFree(cluster * clusterSize);
    const address = store.refcountBlocks.peek(block);
    assert(address !== undefined, 'the refcount block was just loaded');
    const { kernels } = store.scratch;
    const result = kernels.refcountAdd(address, index, count, refcountOrder, delta);
    if (result !== count) {
      const bad = cluster + (-1 - result);
      if ((await refcounts.get(bad)) === 0) throw inUseAndFree(bad * clusterSize);
      const bits = 2 ** refcountOrder;
      const message = `refcount of cluster ${bad} does not fit into ${bits} bits`;
      throw new Qcow2Error('OUT_OF_RANGE', message, bad * clusterSize);
    }
    store.refcountBlocks.markDirty(block);
    if (delta === -1) this.noteFreed(address, cluster, index, count);
  }

  /** Which of the clusters that were lowered are free now. */
  private noteFreed(address: number, cluster: number, index: number, count: number): void {
    const { store, refcounts } = this;
    const { refcountOrder, clusterSize } = store.geometry;
    const { kernels } = store.scratch;
    const out = scratchPairs(store);
    const view = new DataView(store.scratch.bytes.buffer, out.at);
    for (let from = index; from < index + count; ) {
      const left = index + count - from;
      const pairs = kernels.refcountFreeRuns(address, from, left, refcountOrder, out.at, out.max);
      for (let pair = 0; pair < pairs; pair++) {
        const first = view.getUint32(pair * 8, true);
        const length = view.getUint32(pair * 8 + 4, true);
        const start = cluster + first - index;
        refcounts.noteFree(start, length);
        this.remember(start * clusterSize, length * clusterSize);
        from = first + length;
      }
      if (pairs < out.max) return;
    }
  }

  /** Gives what has become free back to the host, once nothing on disk refers to it any more. */
  async giveBack(): Promise<void> {
    const { store } = this;
    if (!store.passesDiscard('snapshot')) return;
    const size = await store.storage.size();
    for (const { at, length } of this.freed) {
      const end = Math.min(at + length, size);
      if (at < end) await discardRange(store.storage, at, end - at);
    }
  }

  private remember(at: number, length: number): void {
    const last = this.freed.at(-1);
    if (last && last.at + last.length === at) {
      this.freed[this.freed.length - 1] = { at: last.at, length: last.length + length };
    } else if (this.freed.length < FREED_RUNS_MAX) this.freed.push({ at, length });
  }
}

function inUseAndFree(host: number): Qcow2Error {
  return new Qcow2Error('CORRUPT', 'a cluster in use has the refcount 0', host);
}

/** Makes the COPIED flags of the active tables say what the refcounts do. */
export async function rebuildCopied(store: MetadataStore, refcounts: Refcounts): Promise<void> {
  const { geometry } = store;
  const l1 = store.l1.slice();
  const view = viewOf(l1);
  for (const { index, host } of l2TablesOf(store, l1, store.header.l1Offset)) {
    const copied = (await refcounts.get(host / geometry.clusterSize)) === 1;
    serializeL1Entry(view, index * 8, { host, copied });
    for await (const slice of slicesOf(store, host)) await rebuildSlice(store, refcounts, slice);
  }
  await store.replaceL1Entries(l1);
}

async function rebuildSlice(
  store: MetadataStore,
  refcounts: Refcounts,
  slice: number,
): Promise<void> {
  const { geometry, l2, scratch, refcountBlocks } = store;
  const { clusterSize, refcountOrder, refcountBlockEntries, l2EntryBytes } = geometry;
  let changed = 0;
  for (const run of referencesOf(store, slice)) {
    if (run.compressed) continue;
    const first = run.host / clusterSize;
    for (let done = 0; done < run.entries; ) {
      const index = (first + done) % refcountBlockEntries;
      const count = Math.min(run.entries - done, refcountBlockEntries - index);
      const block = await refcounts.loadBlock(first + done);
      if (block === 0) throw inUseAndFree((first + done) * clusterSize);
      const address = refcountBlocks.peek(block);
      const entries = l2.peek(slice);
      assert(address !== undefined && entries !== undefined, 'both tables are loaded');
      const at = entries + (run.entry + done) * l2EntryBytes;
      const { kernels } = scratch;
      changed += kernels.l2CopiedFlags(at, count, l2EntryBytes, address, index, refcountOrder);
      done += count;
    }
  }
  if (changed > 0) l2.markDirty(slice);
}
