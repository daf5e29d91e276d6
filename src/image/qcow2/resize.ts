/**
 * Changing the virtual size: the L1 table grows where it must; what lies beyond a smaller end is
 * let go of, with the L2 tables and refcount blocks that it had, and the file ends where it can.
 */
import { viewOf } from '../../base/be.ts';
import { alignUp } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { L1_BYTES_MAX, VIRTUAL_BYTES_MAX } from '../../base/limits.ts';
import { l1EntriesFor } from '../../format/geometry.ts';
import { putRefcount } from '../../format/refcount-block.ts';
import { serializeRefcountTableEntry } from '../../format/refcount-table.ts';
import { extendStorage } from '../../storage/extend.ts';
import type { Preallocation } from '../disk.ts';
import { clustersInUse } from './clusters-in-use.ts';
import { discardClusters } from './discard.ts';
import { inStep } from './failed-step.ts';
import type { Mapping } from './mapping.ts';
import { type MetadataStore, numberBytes } from './metadata-store.ts';
import { writeRange } from './write.ts';
import { type WriteParts, withRange } from './write-parts.ts';
import { zeroRange } from './zero.ts';

/**
 * Sets the virtual size.
 * @throws Qcow2Error UNSUPPORTED for images whose snapshots or bitmaps a new size would break
 */
export async function resizeDisk(
  parts: WriteParts,
  mapping: Mapping,
  wanted: { readonly to: number; readonly preallocation: Preallocation },
): Promise<void> {
  const { to } = wanted;
  const { store } = parts;
  if (to % 512 !== 0 || to < 0 || to > VIRTUAL_BYTES_MAX) {
    throw new Qcow2Error('OUT_OF_RANGE', 'The new size must be a multiple of 512');
  }
  // Behind all requests that came before, resizes among them: the size may be another by then.
  const whole = { guest: 0, length: Number.POSITIVE_INFINITY };
  await withRange(parts, whole, async () => {
    const from = store.header.size;
    if (store.header.snapshotCount > 0 && store.header.version === 2) {
      throw new Qcow2Error('UNSUPPORTED', "Can't resize a v2 image which has snapshots");
    }
    refuseSharedTables(store, Math.min(from, to));
    // A raw data file has every cluster at its place.
    const everything = parts.rawDataFile && wanted.preallocation === 'off' && to > from;
    const preallocation = everything ? 'metadata' : wanted.preallocation;
    if (to < from) {
      await shrink(parts, from, to);
      if (store.hasDataFile) await store.data.truncate(to);
    } else {
      // What a crash has left behind the end, or another writer, is not what is new.
      const mapped = store.l1Entries * store.geometry.l2Span;
      if (mapped > from) await dropBehind(parts, from, Math.min(to, mapped));
      await inStep('Failed to grow the L1 table', () => growL1(parts, mapping, to));
      const covers = preallocation !== 'off' && (await reserve(parts, { from, to }, preallocation));
      if (!covers)
        await inStep('Failed to zero out new clusters', () => zeroGrown(parts, from, to));
      if (store.hasDataFile && preallocation === 'off') await extendStorage(store.data, to, 'off');
      await setSize(parts, to);
    }
  });
}

/** Writes the size into the header: the moment at which the disk changes. */
async function setSize(parts: WriteParts, size: number): Promise<void> {
  const { store } = parts;
  await inStep('Failed to update the image size', () =>
    store.lock.run(async () => {
      await store.order.flush();
      await store.writeHeader(24, numberBytes(size));
      store.header = { ...store.header, size, sizeTail: 0 };
    }),
  );
}

/**
 * Lets go of all that lies behind the new end, then of what it took to keep track of it. The size
 * comes first: what goes must not uncover a backing file on a disk that still has its old size.
 */
async function shrink(parts: WriteParts, from: number, to: number): Promise<void> {
  const { store } = parts;
  const { clusterSize } = store.geometry;
  const stop = alignUp(to, clusterSize);
  await clearTail(parts, to, Math.min(stop, from));
  await setSize(parts, to);
  await letGoBehind(parts, to);
}

/**
 * Lets go of whole clusters behind an end, of the tables that they had, and of what of the file
 * nothing lies in any more. The caller holds the range. That is not only what the disk had there:
 * behind its old end, too, tables may name clusters, which would leak without them.
 */
export async function letGoBehind(parts: WriteParts, to: number): Promise<void> {
  const { store } = parts;
  const { clusterSize, l2Span } = store.geometry;
  await inStep('Failed to discard cropped clusters', () =>
    dropBehind(parts, to, store.l1Entries * l2Span),
  );
  await store.lock.run(async () => {
    await inStep('Failed to reduce the number of L2 tables', () => shrinkL1(parts, to));
    await inStep('Failed to discard unused refblocks', () => dropRefcountBlocks(parts));
    // What was let go of is so on disk before it goes from the file.
    await store.order.flush();
    const size = (await clustersInUse(parts)) * clusterSize;
    if (size < (await store.storage.size())) await store.storage.truncate(size);
  });
}

/**
 * Each L2 table behind an end is one L1 entry's: of a hostile image, millions may name one, which
 * would be gone through for each.
 * @throws Qcow2Error CORRUPT
 */
function refuseSharedTables(store: MetadataStore, end: number): void {
  const first = Math.floor(end / store.geometry.l2Span);
  const hosts = new Float64Array(Math.max(0, store.l1Entries - first));
  for (const index of hosts.keys()) hosts[index] = store.l1Entry(first + index).host;
  hosts.sort();
  const twice = hosts.find((host, index) => host !== 0 && host === hosts[index - 1]);
  if (twice === undefined) return;
  throw new Qcow2Error('CORRUPT', 'several L1 entries name one L2 table', twice);
}

/** Lets go of whole clusters behind an end. */
async function dropBehind(parts: WriteParts, end: number, to: number): Promise<void> {
  const { clusterSize } = parts.store.geometry;
  const range = { from: alignUp(end, clusterSize), to: alignUp(to, clusterSize) };
  if (range.from < range.to) await discardClusters(parts, { ...range, keepNothing: true });
}

/**
 * The last cluster's own bytes behind the end must not come back when the disk grows again. Those
 * of the backing file do not: growing covers them.
 */
async function clearTail(parts: WriteParts, from: number, to: number): Promise<void> {
  if (from >= to) return;
  const { store, tables } = parts;
  const cell = await store.lock.run(async () => {
    const place = await tables.find(from);
    return place && tables.read(place);
  });
  if (!cell || (cell.kind === 'plain' && cell.host < 0)) return;
  const rest = new Uint8Array(to - from);
  await parts.reader.read(from, rest);
  if (rest.some((byte) => byte !== 0)) await writeRange(parts, from, rest.fill(0));
}

/** Clears the L1 entries behind the end; the table itself keeps its length, as QEMU's does. */
async function shrinkL1({ store, allocator, reader }: WriteParts, size: number): Promise<void> {
  const { clusterSize } = store.geometry;
  const first = l1EntriesFor(size, store.geometry);
  const tables: number[] = [];
  for (let index = first; index < store.l1Entries; index++) {
    const { host } = store.l1Entry(index);
    if (host !== 0) tables.push(host);
  }
  if (tables.length === 0) return;
  // Their entries let go of clusters before they go themselves.
  await store.order.flush();
  const at = first * 8;
  const l1Offset = store.header.l1Offset + at;
  const before = store.l1.slice(at);
  store.overlap.check(l1Offset, before.length, 'l1');
  if (store.storage.announce) await store.storage.announce('l1_shrink_write_table');
  await store.overwrite(l1Offset, new Uint8Array(before.length), before);
  store.l1.fill(0, at);
  reader.forget();
  for (const host of tables) {
    store.overlap.moved('l2', host, 0);
    await allocator.free(host, clusterSize, { discard: 'shrink' });
  }
}

/** Lets go of refcount blocks that count nothing but themselves. */
async function dropRefcountBlocks(parts: WriteParts): Promise<void> {
  const { store, allocator } = parts;
  const { clusterSize, refcountBlockEntries } = store.geometry;
  const refcountTable = store.soundRefcountTable();
  const unused = new Set<number>();
  for (const [slot, host] of refcountTable.entries()) {
    if (host !== 0 && (await countsNothing(parts, slot, host))) unused.add(slot);
  }
  if (unused.size === 0) return;
  await store.order.flush();
  const kept = refcountTable.map((host, slot) => (unused.has(slot) ? 0 : host));
  const bytes = tableBytes(kept);
  const { refcountTableOffset } = store.header;
  store.overlap.check(refcountTableOffset, bytes.length, 'refcount-table');
  await store.overwrite(refcountTableOffset, bytes, tableBytes(refcountTable));
  store.refcountTable = kept;
  for (const slot of unused) {
    const host = refcountTable[slot] as number;
    store.overlap.moved('refcount-block', host, 0);
    const cluster = host / clusterSize;
    if (kept[Math.floor(cluster / refcountBlockEntries)] !== 0) {
      await allocator.free(host, clusterSize, { discard: 'shrink' });
    } else {
      store.freeIndex = Math.min(store.freeIndex, cluster);
    }
    store.refcountBlocks.drop(host);
  }
}

function tableBytes(refcountTable: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(refcountTable.length * 8);
  const view = viewOf(bytes);
  for (const [slot, host] of refcountTable.entries()) {
    serializeRefcountTableEntry(view, slot * 8, host);
  }
  return bytes;
}

async function countsNothing({ store }: WriteParts, slot: number, host: number): Promise<boolean> {
  const { clusterSize, refcountBlockEntries, refcountOrder } = store.geometry;
  await store.refcountBlocks.load(host, host);
  const { view, at } = store.refcountBlocks.bytesAt(host);
  const block = new Uint8Array(view.buffer, view.byteOffset + at, clusterSize).slice();
  const own = host / clusterSize;
  if (Math.floor(own / refcountBlockEntries) === slot) {
    putRefcount(viewOf(block), 0, own % refcountBlockEntries, refcountOrder, 0);
  }
  return block.every((byte) => byte === 0);
}

/**
 * What is new reads as zeros, also where the backing file has bytes there or may have some day: if
 * it has any now, all of the new range says so.
 */
async function zeroGrown(parts: WriteParts, from: number, to: number): Promise<void> {
  // A disk without any bytes is one that is being made: it shows its backing file.
  if (from === 0 || (parts.backing?.size ?? 0) <= from || from >= to) return;
  const start = Math.min(to, alignUp(from, parts.store.geometry.subclusterSize));
  for (const [at, end] of [[start, to] as const, [from, start] as const]) {
    const range = { guest: at, length: end - at, diskSize: to };
    if (end > at) await zeroRange(parts, range, { unmap: false });
  }
}

/** Makes the L1 table long enough for a size: a new one, then the header, then the old one goes. */
export function growL1(parts: WriteParts, mapping: Mapping, size: number): Promise<void> {
  return growL1To(parts, mapping, l1EntriesFor(size, parts.store.geometry));
}

/** The same for a number of entries. */
export async function growL1To(
  parts: WriteParts,
  mapping: Mapping,
  entries: number,
): Promise<void> {
  const { store, allocator } = parts;
  const { clusterSize } = store.geometry;
  if (entries <= store.l1Entries) return;
  if (entries * 8 > L1_BYTES_MAX) {
    const message = 'Failed to grow the L1 table: File too large';
    throw new Qcow2Error('OUT_OF_RANGE', message, undefined, { code: 'EFBIG' });
  }
  await store.lock.run(async () => {
    const grown = new Uint8Array(entries * 8);
    grown.set(store.l1);
    if (store.storage.announce) await store.storage.announce('l1_grow_alloc_table');
    const at = await allocator.clusters(grown.length);
    try {
      await store.refcountBlocks.writeDirty();
      await store.order.flushStorage();
      store.overlap.check(at, grown.length, 'l1');
      if (store.storage.announce) await store.storage.announce('l1_grow_write_table');
      await store.storage.write(at, grown);
      await store.order.flushStorage();
    } catch (cause) {
      // Nothing names it yet.
      await allocator.free(at, alignUp(grown.length, clusterSize)).catch(() => {});
      throw cause;
    }
    const fields = new Uint8Array(12);
    viewOf(fields).setUint32(0, entries);
    fields.set(numberBytes(at), 4);
    await store.writeHeader(36, fields, 'l1_grow_activate_table');
    const { l1Offset } = store.header;
    const oldLength = store.l1.length;
    store.header = { ...store.header, l1Entries: entries, l1Offset: at };
    store.l1 = grown;
    store.l1View = viewOf(grown);
    mapping.replaceL1(grown, at);
    if (oldLength === 0) return;
    await allocator.free(l1Offset, alignUp(oldLength, clusterSize), { discard: 'other' });
    // Nothing on disk refers to the old table any more: its clusters serve again at once.
    await store.order.flush();
  });
}

/** Few disks have their clusters before they are written. */
async function reserve(
  ...wanted: Parameters<typeof import('./preallocate.ts').preallocate>
): Promise<boolean> {
  const { preallocate } = await import('./preallocate.ts');
  return preallocate(...wanted);
}
