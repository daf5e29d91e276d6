/**
 * Another width of refcounts: blocks and a table of their own, then one write of the header's first
 * sector, then the old ones go. A power cut shows the old or the new.
 *
 * What is new takes free clusters, and until the header is written the old blocks count these, too.
 * They are gone through until that asks for nothing more, as QEMU does it: the same requests give
 * the same file.
 */
import { type Awaitable, settled } from '../../base/awaitable.ts';
import { viewOf } from '../../base/be.ts';
import { alignUp } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { REFCOUNT_TABLE_BYTES_MAX } from '../../base/limits.ts';
import { headerGeometry } from '../../format/header.ts';
import { putRefcount, refcountAt, refcountMax } from '../../format/refcount-block.ts';
import { serializeRefcountTableEntry } from '../../format/refcount-table.ts';
import { inStep } from './failed-step.ts';
import { noteInactiveL2 } from './inactive-l2.ts';
import { type MetadataStore, numberBytes } from './metadata-store.ts';
import type { WriteParts } from './write-parts.ts';

/** Takes clusters, finds that none are missing, writes: there are no fewer walks than these. */
const WALKS_MIN = 3;

/** What stands in for the refcount structures that an image has. */
interface NewCounts {
  readonly order: number;
  /** Host offsets of blocks, by entry of the table; none where all counts are 0. */
  readonly blocks: Map<number, number>;
  tableOffset: number;
  /** 0: no clusters are taken for it yet. */
  tableBytes: number;
}

/** What happens to a new block, when all its counts are in `bytes`. */
type Visit = (slot: number, bytes: Uint8Array, isEmpty: boolean) => Awaitable<void>;

/**
 * Changes the width of version 3 refcounts. Called with the metadata lock held.
 * @param order two to the power of it is the number of bits
 * @param onStep hears of entries of the refcount table, as often as QEMU goes through them
 * @throws Qcow2Error OUT_OF_RANGE where a count does not fit: all is as it was
 */
export async function changeRefcountWidth(
  parts: WriteParts,
  order: number,
  onStep: (done: number, total: number) => void,
): Promise<void> {
  const { store, refcounts } = parts;
  await store.order.flush();
  store.soundRefcountTable();
  const counts: NewCounts = { order, blocks: new Map(), tableOffset: 0, tableBytes: 0 };
  try {
    await takeAndWrite(parts, counts, onStep);
    await store.order.flush();
    await store.refcountBlocks.writeDirty();
    await store.order.flushStorage();
  } catch (cause) {
    await giveBack(parts, counts).catch(() => {});
    throw cause;
  }
  const { clusterSize } = store.geometry;
  const old = {
    blocks: store.refcountTable.filter((host) => host !== 0),
    at: store.header.refcountTableOffset,
    bytes: store.header.refcountTableClusters * clusterSize,
  };
  await switchTable(store, counts);
  for (const host of old.blocks) await refcounts.change(host, clusterSize, -1);
  await refcounts.change(old.at, old.bytes, -1);
  await store.order.flush();
  await store.refcountBlocks.writeDirty();
}

/** Everything that is new, but for the header. */
async function takeAndWrite(
  parts: WriteParts,
  counts: NewCounts,
  onStep: (done: number, total: number) => void,
): Promise<void> {
  const { store } = parts;
  let walk = 0;
  const go = async (total: number, visit: Visit) => {
    await walkBlocks(store, counts.order, visit, (entry, entries) =>
      onStep(walk * entries + entry, total * entries),
    );
    walk++;
  };
  while (await takeMissing(parts, counts, (visit) => go(Math.max(walk + 2, WALKS_MIN), visit)));
  const table = new Uint8Array(counts.tableBytes);
  await go(walk + 1, (slot, bytes) => {
    const host = counts.blocks.get(slot);
    if (host === undefined) return undefined;
    serializeRefcountTableEntry(viewOf(table), slot * 8, host);
    store.overlap.check(host, bytes.length, 'refcount-block');
    return inStep('Failed to write refblock', async () => store.storage.write(host, bytes));
  });
  store.overlap.check(counts.tableOffset, table.length, 'refcount-table');
  await inStep('Failed to write the new reftable', async () =>
    store.storage.write(counts.tableOffset, table),
  );
}

/**
 * Goes through all counts once, and takes clusters for what has none so far.
 * @returns whether it took some: they are counted themselves, by blocks that may be missing yet
 */
async function takeMissing(
  { store, allocator }: WriteParts,
  counts: NewCounts,
  walk: (visit: Visit) => Promise<void>,
): Promise<boolean> {
  const { clusterSize } = store.geometry;
  const { blocks } = counts;
  const before = blocks.size;
  const take = async (slot: number) => {
    if ((slot + 1) * 8 > REFCOUNT_TABLE_BYTES_MAX) {
      throw new Qcow2Error('OUT_OF_RANGE', 'the refcount table would be too large');
    }
    const block = () => allocator.clusters(clusterSize);
    blocks.set(slot, await inStep('Failed to allocate refblock', block));
  };
  await walk((slot, _bytes, isEmpty) => (isEmpty || blocks.has(slot) ? undefined : take(slot)));
  if (blocks.size === before) return false;
  const { tableOffset, tableBytes } = counts;
  if (tableBytes > 0) {
    counts.tableBytes = 0;
    await allocator.free(tableOffset, tableBytes, { reusable: true });
  }
  const bytes = alignUp((Math.max(...blocks.keys()) + 1) * 8, clusterSize);
  counts.tableOffset = await inStep('Failed to allocate the new reftable', () =>
    allocator.clusters(bytes),
  );
  counts.tableBytes = bytes;
  return true;
}

/** What was taken is not needed. */
async function giveBack({ allocator, store }: WriteParts, counts: NewCounts): Promise<void> {
  const { tableOffset, tableBytes, blocks } = counts;
  for (const host of blocks.values()) await allocator.free(host, store.geometry.clusterSize);
  if (tableBytes > 0) await allocator.free(tableOffset, tableBytes);
}

/**
 * Puts the counts of the image into blocks of another width, one after another.
 * @param onEntry hears of each entry of the refcount table, and of how many there are
 * @throws Qcow2Error OUT_OF_RANGE where a count does not fit
 */
async function walkBlocks(
  store: MetadataStore,
  order: number,
  visit: Visit,
  onEntry: (entry: number, entries: number) => void,
): Promise<void> {
  const { clusterSize, refcountBlockEntries } = store.geometry;
  const perBlock = (clusterSize * 8) / 2 ** order;
  const piece = Math.min(perBlock, refcountBlockEntries);
  const bytes = new Uint8Array(clusterSize);
  let [slot, filled, isEmpty] = [0, 0, true];
  const complete = (): Awaitable<void> => {
    const visited = visit(slot++, bytes, isEmpty);
    filled = 0;
    if (isEmpty) return visited;
    isEmpty = true;
    if (settled(visited)) return void bytes.fill(0);
    return visited.then(() => void bytes.fill(0));
  };
  // The table grows where clusters that are taken meanwhile need it to.
  for (let entry = 0; entry < store.refcountTable.length; entry++) {
    onEntry(entry, store.refcountTable.length);
    const host = store.refcountBlockAt(entry);
    for (let from = 0; from < refcountBlockEntries; from += piece) {
      const old = { host, entry, from, piece };
      if (host !== 0 && (await copyCounts(store, old, { order, bytes, filled }))) isEmpty = false;
      filled += piece;
      const completed = filled === perBlock ? complete() : undefined;
      if (!settled(completed)) await completed;
    }
  }
  if (filled > 0) await complete();
  onEntry(store.refcountTable.length, store.refcountTable.length);
}

/**
 * Copies counts of an old block to a new one.
 * @returns whether there are any but 0
 */
async function copyCounts(
  store: MetadataStore,
  old: {
    readonly host: number;
    readonly entry: number;
    readonly from: number;
    readonly piece: number;
  },
  { order, bytes, filled }: { order: number; bytes: Uint8Array; filled: number },
): Promise<boolean> {
  const { refcountBlockEntries, refcountOrder } = store.geometry;
  const block = await blockAt(store, old.host);
  const view = viewOf(bytes);
  const most = refcountMax(order);
  let any = false;
  for (let index = 0; index < old.piece; index++) {
    const count = refcountAt(block, old.from + index, refcountOrder);
    if (count === 0) continue;
    const cluster = old.entry * refcountBlockEntries + old.from + index;
    if (count > most) throw tooNarrow(store, { order, cluster, count });
    putRefcount(view, 0, filled + index, order, count);
    any = true;
  }
  return any;
}

function tooNarrow(
  store: MetadataStore,
  { order, cluster, count }: { order: number; cluster: number; count: number },
): Qcow2Error {
  const at = (cluster * store.geometry.clusterSize).toString(16);
  const what = `Cannot decrease refcount entry width to ${2 ** order} bits`;
  const message = `${what}: Cluster at offset 0x${at} has a refcount of ${count}`;
  return new Qcow2Error('OUT_OF_RANGE', message);
}

/** The bytes of an old block. */
async function blockAt(store: MetadataStore, host: number): Promise<DataView> {
  await store.refcountBlocks.load(host, host);
  const { view, at } = store.refcountBlocks.bytesAt(host);
  return new DataView(view.buffer, view.byteOffset + at, store.geometry.clusterSize);
}

/** The moment of the change: table, its length and the width are in one sector. */
async function switchTable(store: MetadataStore, counts: NewCounts): Promise<void> {
  const { tableOffset, tableBytes, order } = counts;
  const clusters = tableBytes / store.geometry.clusterSize;
  const fields = new Uint8Array(52);
  await store.storage.read(48, fields);
  fields.set(numberBytes(tableOffset));
  viewOf(fields).setUint32(8, clusters);
  viewOf(fields).setUint32(48, order);
  await store.writeHeader(48, fields);
  store.header = {
    ...store.header,
    refcountTableOffset: tableOffset,
    refcountTableClusters: clusters,
    refcountOrder: order,
  };
  store.geometry = headerGeometry(store.header);
  store.refcountBlocks.forget();
  await store.loadRefcountTable();
  await noteInactiveL2(store);
}
