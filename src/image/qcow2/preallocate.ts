/**
 * Preallocation: guest clusters get their places before anything is written to them.
 *
 *   metadata     clusters are taken as writing would take them, and the file ends behind the last
 *   falloc full  the file grows by all of them at once, one after another, behind a refcount table
 *                that counts them; their room is reserved, or zeros are written
 *
 * Places and order are QEMU's, so that the same options give the same file. With extended entries
 * the subclusters stay unallocated: a cluster has its place, and still shows the backing file.
 */
import { viewOf } from '../../base/be.ts';
import { alignDown, alignUp, divCeil } from '../../base/bits.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { REFCOUNT_TABLE_BYTES_MAX } from '../../base/limits.ts';
import { putRefcount } from '../../format/refcount-block.ts';
import { serializeRefcountTableEntry } from '../../format/refcount-table.ts';
import { extendStorage, type Reserve } from '../../storage/extend.ts';
import type { Preallocation } from '../disk.ts';
import { clustersInUse } from './clusters-in-use.ts';
import { inStep } from './failed-step.ts';
import { freeCell } from './free-cells.ts';
import { ALL, type Cell, type CellPlace, EMPTY } from './l2-tables.ts';
import { numberBytes } from './metadata-store.ts';
import { refcountMetadata } from './refcounts.ts';
import { writeData } from './write.ts';
import type { WriteParts } from './write-parts.ts';

/** Guest bytes that get their places: from the disk's old end to its new one. */
interface Range {
  readonly from: number;
  readonly to: number;
}

/** No place in the file. */
const NOWHERE = -1;

/**
 * Allocates a guest range behind the disk's end, whose L1 table is long enough already.
 * @returns true where the range reads as zeros by that, whatever the backing file has there
 */
export async function preallocate(
  parts: WriteParts,
  range: Range,
  mode: Exclude<Preallocation, 'off'>,
): Promise<boolean> {
  const reserve: Reserve = mode === 'metadata' ? 'off' : mode;
  if (reserve === 'off' || parts.store.hasDataFile) {
    await allocateEach(parts, range, reserve);
    return false;
  }
  await allocateAtOnce(parts, range, reserve);
  return true;
}

/** Takes clusters as writing would take them. */
async function allocateEach(parts: WriteParts, range: Range, reserve: Reserve): Promise<void> {
  const { store } = parts;
  const { clusterSize } = store.geometry;
  const { to } = range;
  let { at, head, end } = await startOf(parts, range);
  if (at >= to && end !== NOWHERE) await endWithin(parts, range, end - clusterSize, reserve);
  while (at < to) {
    const wanted = { guest: at, to, next: end, head, reserve };
    const step = await store.lock.run(() => allocateStep(parts, wanted));
    head = undefined;
    end = step.host + step.count * clusterSize;
    at += step.count * clusterSize;
  }
}

/**
 * The first cluster is in part the old disk's. One that has its place stays there; a new one gets
 * what the disk shows.
 * @returns guest offset from which on clusters are missing, bytes that the first starts with, and
 * the place that it gets if that is free: behind the cluster before
 */
async function startOf(
  parts: WriteParts,
  { from }: Range,
): Promise<{ at: number; head: Uint8Array | undefined; end: number }> {
  const { store, tables } = parts;
  const { clusterSize } = store.geometry;
  const start = alignDown(from, clusterSize);
  if (start === from) return { at: from, head: undefined, end: NOWHERE };
  const cell = await store.lock.run(async () => {
    const place = await tables.find(from);
    return place ? tables.read(place) : EMPTY;
  });
  if (cell.kind === 'plain' && cell.host >= 0 && (cell.copied || store.hasDataFile)) {
    return { at: start + clusterSize, head: undefined, end: cell.host + clusterSize };
  }
  // Its subclusters stay unallocated, so what they show stays, too.
  const open = cell.kind === 'plain' && cell.host < 0 && store.geometry.extendedL2;
  if (open) return { at: start, head: undefined, end: NOWHERE };
  const head = new Uint8Array(from - start);
  await parts.reader.read(start, head);
  return { at: start, head, end: NOWHERE };
}

/**
 * The disk still ends in a cluster that has its place: the file has to reach as far. Of a
 * subcluster that has none of its bytes there yet, the zeros behind the end are written.
 */
async function endWithin(
  parts: WriteParts,
  { from, to }: Range,
  host: number,
  reserve: Reserve,
): Promise<void> {
  const { store, tables } = parts;
  const { clusterSize, subclusterSize } = store.geometry;
  const start = alignDown(from, clusterSize);
  const subcluster = Math.floor((to - 1 - start) / subclusterSize);
  await store.lock.run(async () => {
    const place = await tables.find(from);
    const cell = place ? tables.read(place) : EMPTY;
    const isData = cell.kind === 'plain' && ((cell.data >>> subcluster) & 1) === 1;
    const isOpen = store.geometry.extendedL2 && !isData;
    const stop = isOpen ? alignUp(to, subclusterSize) : to;
    const end = host + stop - start;
    if ((await store.data.size()) < end) await extendStorage(store.data, end, reserve);
    if (stop === to) return;
    await writeData(parts, { guest: to, host: host + to - start }, new Uint8Array(stop - to));
  });
}

/** Takes clusters for entries of one slice, as many as can be had in one piece. */
async function allocateStep(
  parts: WriteParts,
  wanted: {
    readonly guest: number;
    readonly to: number;
    /** Where the step before ended in the file. */
    readonly next: number;
    /** Bytes that the first cluster starts with. */
    readonly head: Uint8Array | undefined;
    readonly reserve: Reserve;
  },
): Promise<{ readonly host: number; readonly count: number }> {
  const { guest, to, next, head, reserve } = wanted;
  const { store, tables, allocator } = parts;
  const { clusterSize, subclusterSize } = store.geometry;
  const first = await tables.findForWrite(guest);
  let count = Math.min(divCeil(to - guest, clusterSize), tables.entriesLeft(first));
  let host = guest;
  if (!store.hasDataFile) {
    const free = next === NOWHERE ? 0 : await allocator.clustersAt(next, count);
    host = free > 0 ? next : await allocator.clusters(count * clusterSize);
    if (free > 0) count = free;
    await store.order.entryAfterRefcount();
  }
  if (head) {
    await writeData(parts, { guest, host }, head);
  }
  // A file that ends before its clusters do would be taken for one that was cut off.
  const isLast = guest + count * clusterSize >= to;
  const unused = isLast ? alignUp(to, clusterSize) - alignUp(to, subclusterSize) : 0;
  const end = host + count * clusterSize - unused;
  if ((await store.data.size()) < end) await extendStorage(store.data, end, reserve);
  // Behind the disk's end there are zeros, written as QEMU does it: `map` shows data there.
  const rest = isLast ? alignUp(to, subclusterSize) - to : 0;
  if (rest > 0) {
    await writeData(parts, { guest: to, host: host + to - guest }, new Uint8Array(rest));
  }
  store.order.entryAfterData();
  const run = { host, count, first: await tables.findForWrite(guest), show: false };
  await linkClusters(parts, run);
  return { host, count };
}

/** Clusters that follow each other in the file, for entries of one slice. */
interface Run {
  readonly host: number;
  readonly count: number;
  readonly first: CellPlace;
  /** The clusters' bytes are the guest's, also where extended entries could leave that open. */
  readonly show: boolean;
}

/** Makes entries name clusters, and lets go of what they named before. */
async function linkClusters(parts: WriteParts, run: Run): Promise<void> {
  const { store, tables } = parts;
  const { clusterSize, extendedL2 } = store.geometry;
  if (tables.linkFresh(run.first, run.count, run.host)) {
    parts.reader.forget();
    return;
  }
  const replaced: Cell[] = [];
  for (let index = 0; index < run.count; index++) {
    const place = tables.advance(run.first, index);
    const old = tables.read(place);
    const shown = old.kind === 'plain' ? old : { data: ALL, zero: 0 };
    const { data, zero } = extendedL2 && !run.show ? shown : { data: ALL, zero: 0 };
    const host = run.host + index * clusterSize;
    tables.write(place, { kind: 'plain', host, copied: true, data, zero });
    if (old !== EMPTY) replaced.push(old);
  }
  parts.reader.forget();
  for (const old of replaced) await freeCell(parts, old);
}

/** Takes one stretch behind the file's end for all clusters, and reserves or zeroes it. */
async function allocateAtOnce(parts: WriteParts, range: Range, reserve: Reserve): Promise<void> {
  const { store, tables, allocator } = parts;
  const { clusterSize, l2Span } = store.geometry;
  // The cluster that is in part the old disk's moves along.
  const from = alignDown(range.from, clusterSize);
  const head = new Uint8Array(range.from - from);
  if (head.length > 0) await parts.reader.read(from, head);
  // The backing file's bytes must not show in what is new.
  const show = (parts.backing?.size ?? 0) > range.from;
  // Also for none at all a new table is made, as QEMU does.
  const total = divCeil(range.to - from, clusterSize);
  const host = await store.lock.run(async () => {
    const start = await clustersInUse(parts);
    // More tables than it takes, so that making them needs no further refcount block.
    const spare = divCeil(total, l2Span / clusterSize) + 2;
    const end = await inStep('Failed to resize refcount structures', () =>
      makeRefcountArea(parts, start, total + spare),
    );
    if (total > 0 && (await allocator.clustersAt(end * clusterSize, total)) !== total) {
      throw new Qcow2Error('IO', 'Failed to allocate clusters behind the end of the file');
    }
    return end * clusterSize;
  });
  try {
    await extendStorage(store.data, host + total * clusterSize, reserve);
    if (head.length > 0) await writeData(parts, { guest: from, host }, head);
  } catch (cause) {
    if (total > 0) {
      await store.lock.run(() => allocator.free(host, total * clusterSize)).catch(() => {});
    }
    if (!isQcow2Error(cause)) throw cause;
    const message = `Failed to resize underlying file: ${cause.message}`;
    throw new Qcow2Error(cause.code, message, cause.at, cause);
  }
  for (let done = 0; done < total; ) {
    const at = done;
    done += await store.lock.run(async () => {
      await store.order.entryAfterRefcount();
      store.order.entryAfterData();
      const first = await tables.findForWrite(from + at * clusterSize);
      const count = Math.min(total - at, tables.entriesLeft(first));
      await linkClusters(parts, { host: host + at * clusterSize, count, first, show });
      return count;
    });
  }
}

/**
 * Makes a new refcount table from cluster `start` on, where all is free, with the blocks that
 * `extra` clusters behind it need.
 * @returns the first cluster behind it, as an index
 */
async function makeRefcountArea(
  { store, allocator }: WriteParts,
  start: number,
  extra: number,
): Promise<number> {
  const { refcountBlocks, geometry } = store;
  const { clusterSize, refcountBlockEntries: perBlock, refcountOrder } = geometry;
  const { blocks } = refcountMetadata(start + extra, {
    clusterSize,
    refcountOrder,
    generous: false,
  });
  const entries = alignUp(blocks, clusterSize / 8);
  if (entries * 8 > REFCOUNT_TABLE_BYTES_MAX) {
    throw new Qcow2Error('OUT_OF_RANGE', 'the image cannot grow: refcount table too large');
  }
  const old = store.soundRefcountTable();
  const table = Array.from({ length: entries }, (_, slot) => old[slot] ?? 0);
  const firstSlot = Math.floor(start / perBlock);
  const made: number[] = [];
  for (let slot = firstSlot; slot < blocks; slot++) {
    if (table[slot] === 0) made.push(slot);
  }
  const tableAt = start + made.length;
  const tableClusters = (entries * 8) / clusterSize;
  const end = tableAt + tableClusters;
  for (const [index, slot] of made.entries()) table[slot] = (start + index) * clusterSize;
  const fresh = new Set(made);
  try {
    for (let slot = firstSlot; slot < blocks; slot++) {
      const host = table[slot] as number;
      if (fresh.has(slot)) {
        await refcountBlocks.create(host);
        store.overlap.moved('refcount-block', 0, host);
      } else {
        await refcountBlocks.load(host, host);
      }
      const { view, at } = refcountBlocks.bytesAt(host);
      const stop = Math.min((slot + 1) * perBlock, end);
      for (let cluster = Math.max(slot * perBlock, start); cluster < stop; cluster++) {
        putRefcount(view, at, cluster % perBlock, refcountOrder, 1);
      }
      refcountBlocks.markDirty(host);
    }
    await refcountBlocks.writeDirty();
    const bytes = new Uint8Array(entries * 8);
    const view = viewOf(bytes);
    for (const [slot, host] of table.entries()) serializeRefcountTableEntry(view, slot * 8, host);
    await store.storage.write(tableAt * clusterSize, bytes);
    await store.order.flushStorage();
  } catch (cause) {
    // No table names them: what others put there is no longer a block's place.
    for (const slot of made) {
      const host = table[slot] as number;
      refcountBlocks.drop(host);
      store.overlap.moved('refcount-block', host, 0);
    }
    throw cause;
  }

  const { refcountTableOffset: oldAt, refcountTableClusters: oldClusters } = store.header;
  const fields = new Uint8Array(12);
  fields.set(numberBytes(tableAt * clusterSize));
  viewOf(fields).setUint32(8, tableClusters);
  await store.writeHeader(48, fields);
  store.header = {
    ...store.header,
    refcountTableOffset: tableAt * clusterSize,
    refcountTableClusters: tableClusters,
  };
  store.refcountTable = table;
  await allocator.free(oldAt, oldClusters * clusterSize, { discard: 'other' });
  // The old table's clusters serve again at once.
  await store.order.flush();
  return end;
}
