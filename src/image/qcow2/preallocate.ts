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
import { alignDown, alignUp, divCeil } from '../../base/bits.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { REFCOUNT_TABLE_BYTES_MAX } from '../../base/limits.ts';
import { putRefcount } from '../../format/refcount-block.ts';
import { serializeRefcountTableEntry } from '../../format/refcount-table.ts';
import { extendStorage, type Reserve } from '../../storage/extend.ts';
import type { Preallocation } from '../disk.ts';
import { ALL, type CellPlace } from './l2-tables.ts';
import { numberBytes, viewOf } from './metadata-store.ts';
import { refcountMetadata } from './refcounts.ts';
import { writeRange } from './write.ts';
import type { WriteParts } from './write-parts.ts';

/** Guest bytes that get their places: from the disk's old end to its new one. */
interface Range {
  readonly from: number;
  readonly to: number;
}

/** No place in the file. */
const NOWHERE = -1;

/** Allocates a guest range behind the disk's end, whose L1 table is long enough already. */
export async function preallocate(
  parts: WriteParts,
  range: Range,
  mode: Exclude<Preallocation, 'off'>,
): Promise<void> {
  const reserve: Reserve = mode === 'metadata' ? 'off' : mode;
  if (reserve === 'off' || parts.store.hasDataFile) await allocateEach(parts, range, reserve);
  else await allocateAtOnce(parts, range, reserve);
}

/** Takes clusters as writing would take them. */
async function allocateEach(parts: WriteParts, range: Range, reserve: Reserve): Promise<void> {
  const { store } = parts;
  const { clusterSize } = store.geometry;
  const { to } = range;
  let at = await completeFirst(parts, range);
  let end = NOWHERE;
  while (at < to) {
    const from = at;
    const next = end;
    const step = await store.lock.run(() => allocateStep(parts, from, to, next));
    end = step.host + step.count * clusterSize;
    at += step.count * clusterSize;
  }
  if (end === NOWHERE) return;
  // A file that ends before its clusters do would be taken for one that was cut off.
  const unused = alignUp(to, clusterSize) - alignUp(to, store.geometry.subclusterSize);
  if ((await store.data.size()) < end - unused) {
    await extendStorage(store.data, end - unused, reserve);
  }
}

/**
 * The first cluster is in part the old disk's. One that has data stays where it is, or is copied
 * where it is shared or compressed.
 * @returns guest offset from which on clusters are missing
 */
async function completeFirst(parts: WriteParts, { from, to }: Range): Promise<number> {
  const { store, tables } = parts;
  const { clusterSize } = store.geometry;
  const start = alignDown(from, clusterSize);
  if (start === from) return from;
  const cell = await store.lock.run(async () => {
    const place = await tables.find(from);
    return place && tables.read(place);
  });
  const empty = cell === undefined || (cell.kind === 'plain' && cell.host < 0 && cell.zero === 0);
  // Its subclusters stay unallocated, so what they show stays, too.
  if (empty && store.geometry.extendedL2) return start;
  const head = new Uint8Array(from - start);
  await parts.reader.read(start, head);
  await writeRange(parts, start, head);
  return Math.min(to, start + clusterSize);
}

/** Takes clusters for entries of one slice, as many as can be had in one piece. */
async function allocateStep(
  parts: WriteParts,
  guest: number,
  to: number,
  next: number,
): Promise<{ readonly host: number; readonly count: number }> {
  const { store, tables, allocator } = parts;
  const { clusterSize } = store.geometry;
  const first = await tables.findForWrite(guest);
  let count = Math.min(divCeil(to - guest, clusterSize), tables.entriesLeft(first));
  let host = guest;
  if (!store.hasDataFile) {
    const free = next === NOWHERE ? 0 : await allocator.clustersAt(next, count);
    host = free > 0 ? next : await allocator.clusters(count * clusterSize);
    if (free > 0) count = free;
    await store.order.entryAfterRefcount();
  }
  await linkClusters(parts, { host, count, first: await tables.findForWrite(guest) });
  return { host, count };
}

/** Makes entries of one slice name clusters that follow each other. */
async function linkClusters(
  parts: WriteParts,
  run: { readonly host: number; readonly count: number; readonly first: CellPlace },
): Promise<void> {
  const { store, tables } = parts;
  const { clusterSize, extendedL2 } = store.geometry;
  for (let index = 0; index < run.count; index++) {
    tables.write(tables.advance(run.first, index), {
      kind: 'plain',
      host: run.host + index * clusterSize,
      copied: true,
      data: extendedL2 ? 0 : ALL,
      zero: 0,
    });
  }
  parts.reader.forget();
}

/** Takes one stretch behind the file's end for all clusters, and reserves or zeroes it. */
async function allocateAtOnce(parts: WriteParts, range: Range, reserve: Reserve): Promise<void> {
  const { store, tables, allocator } = parts;
  const { clusterSize, l2Span } = store.geometry;
  const from = await completeFirst(parts, range);
  // Also for none at all a new table is made, as QEMU does.
  const total = divCeil(range.to - from, clusterSize);
  const host = await store.lock.run(async () => {
    const start = await lastCluster(parts);
    // More tables than it takes, so that making them needs no further refcount block.
    const spare = divCeil(total, l2Span / clusterSize) + 2;
    const end = await makeRefcountArea(parts, start, total + spare);
    if (total > 0 && (await allocator.clustersAt(end * clusterSize, total)) !== total) {
      throw new Qcow2Error('IO', 'Failed to allocate clusters behind the end of the file');
    }
    return end * clusterSize;
  });
  try {
    await extendStorage(store.data, host + total * clusterSize, reserve);
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
      const first = await tables.findForWrite(from + at * clusterSize);
      const count = Math.min(total - at, tables.entriesLeft(first));
      await linkClusters(parts, { host: host + at * clusterSize, count, first });
      return count;
    });
  }
}

/** The first cluster behind all that are in use, as an index. */
async function lastCluster({ store, refcounts }: WriteParts): Promise<number> {
  const { clusterSize } = store.geometry;
  const end = divCeil(await store.storage.size(), clusterSize);
  for (let cluster = end; cluster > 0; cluster--) {
    if ((await refcounts.get(cluster - 1)) > 0) return cluster;
  }
  return end;
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
  const table = Array.from({ length: entries }, (_, slot) => store.refcountTable[slot] ?? 0);
  const firstSlot = Math.floor(start / perBlock);
  const made: number[] = [];
  for (let slot = firstSlot; slot < blocks; slot++) {
    if (table[slot] === 0) made.push(slot);
  }
  const tableAt = start + made.length;
  const tableClusters = (entries * 8) / clusterSize;
  const end = tableAt + tableClusters;
  for (const [index, slot] of made.entries()) table[slot] = (start + index) * clusterSize;
  for (let slot = firstSlot; slot < blocks; slot++) {
    const host = table[slot] as number;
    if (made.includes(slot)) {
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
  await allocator.free(oldAt, oldClusters * clusterSize);
  // The old table's clusters serve again at once.
  await store.order.flush();
  return end;
}
