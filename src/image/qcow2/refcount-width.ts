/**
 * Another width of refcounts: blocks and a table of their own behind all that is in use, then one
 * write of the header's first sector, then the old ones go. A power cut shows the old or the new.
 */
import { viewOf } from '../../base/be.ts';
import { divCeil } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { REFCOUNT_TABLE_BYTES_MAX } from '../../base/limits.ts';
import { headerGeometry } from '../../format/header.ts';
import { putRefcount, refcountAt, refcountMax } from '../../format/refcount-block.ts';
import { serializeRefcountTableEntry } from '../../format/refcount-table.ts';
import { noteInactiveL2 } from './inactive-l2.ts';
import { type MetadataStore, numberBytes } from './metadata-store.ts';
import { refcountMetadata } from './refcounts.ts';
import type { WriteParts } from './write-parts.ts';

/**
 * QEMU goes through the table to find room for new blocks, to see that this took nothing that needs
 * another one, and to fill them. Here the first pass does it all.
 */
const PASSES = 3;

/**
 * Changes the width of version 3 refcounts. Called with the metadata lock held.
 * @param order two to the power of it is the number of bits
 * @param onStep hears of entries of the refcount table, as often as QEMU goes through them
 * @throws Qcow2Error OUT_OF_RANGE where a count does not fit: nothing has changed
 */
export async function changeRefcountWidth(
  parts: WriteParts,
  order: number,
  onStep: (done: number, total: number) => void,
): Promise<void> {
  const { store, refcounts } = parts;
  await store.order.flush();
  await store.refcountBlocks.writeDirty();
  await store.order.flushStorage();
  const { clusterSize } = store.geometry;
  const entries = store.refcountTable.length;
  const steps = PASSES * entries;
  const counted = await checkCounts(store, order, (slot) => onStep(slot, steps));
  const start = Math.max(counted, divCeil(await store.storage.size(), clusterSize));
  const plan = refcountMetadata(start, { clusterSize, refcountOrder: order, generous: false });
  if (plan.tableClusters * clusterSize > REFCOUNT_TABLE_BYTES_MAX) {
    throw new Qcow2Error('OUT_OF_RANGE', 'the refcount table would be too large');
  }
  const old = {
    blocks: store.refcountTable.filter((host) => host !== 0),
    at: store.header.refcountTableOffset,
    bytes: store.header.refcountTableClusters * clusterSize,
  };
  const table = await writeBlocks(store, { order, start, ...plan });
  const tableAt = (start + plan.blocks) * clusterSize;
  await store.storage.write(tableAt, table);
  await store.order.flushStorage();
  await switchTable(store, { at: tableAt, clusters: plan.tableClusters, order });
  for (const host of old.blocks) await refcounts.change(host, clusterSize, -1);
  await refcounts.change(old.at, old.bytes, -1);
  await store.order.flush();
  await store.refcountBlocks.writeDirty();
  for (let pass = 2; pass <= PASSES; pass++) {
    for (let slot = 1; slot <= entries; slot++) onStep((pass - 1) * entries + slot, steps);
  }
}

/** The bytes of an old block. */
async function blockAt(store: MetadataStore, host: number): Promise<DataView> {
  await store.refcountBlocks.load(host, host);
  const { view, at } = store.refcountBlocks.bytesAt(host);
  return new DataView(view.buffer, view.byteOffset + at, store.geometry.clusterSize);
}

/** @returns the first cluster behind all that is counted */
async function checkCounts(
  store: MetadataStore,
  order: number,
  onSlot: (done: number) => void,
): Promise<number> {
  const { refcountBlockEntries, refcountOrder, clusterSize } = store.geometry;
  const most = refcountMax(order);
  let end = 0;
  const table = store.soundRefcountTable();
  for (const [slot, host] of table.entries()) {
    onSlot(slot);
    if (host === 0) continue;
    const block = await blockAt(store, host);
    for (let index = 0; index < refcountBlockEntries; index++) {
      const count = refcountAt(block, index, refcountOrder);
      if (count === 0) continue;
      end = slot * refcountBlockEntries + index + 1;
      if (count <= most) continue;
      const at = ((end - 1) * clusterSize).toString(16);
      const what = `Cannot decrease refcount entry width to ${2 ** order} bits`;
      const message = `${what}: Cluster at offset 0x${at} has a refcount of ${count}`;
      throw new Qcow2Error('OUT_OF_RANGE', message);
    }
  }
  onSlot(table.length);
  return end;
}

interface NewCounts {
  readonly order: number;
  /** Cluster index of the first new block; all blocks come first, then the table. */
  readonly start: number;
  readonly blocks: number;
  readonly tableClusters: number;
}

/** Writes the new blocks, one after another; gives the bytes of the table. */
async function writeBlocks(store: MetadataStore, plan: NewCounts): Promise<Uint8Array> {
  const { order, start, blocks, tableClusters } = plan;
  const { clusterSize, refcountOrder, refcountBlockEntries } = store.geometry;
  const perBlock = (clusterSize * 8) / 2 ** order;
  const end = start + blocks + tableClusters;
  const table = new Uint8Array(tableClusters * clusterSize);
  for (let slot = 0; slot < blocks; slot++) {
    const bytes = new Uint8Array(clusterSize);
    const view = viewOf(bytes);
    const first = slot * perBlock;
    for (let cluster = first; cluster < Math.min(end, first + perBlock); ) {
      const index = cluster % refcountBlockEntries;
      const until = Math.min(end, first + perBlock, cluster - index + refcountBlockEntries);
      const host = store.refcountTable[(cluster - index) / refcountBlockEntries] ?? 0;
      const block = host === 0 ? undefined : await blockAt(store, host);
      for (let at = cluster; at < until; at++) {
        const counted = block ? refcountAt(block, index + at - cluster, refcountOrder) : 0;
        const count = at >= start ? 1 : counted;
        if (count !== 0) putRefcount(view, 0, at - first, order, count);
      }
      cluster = until;
    }
    const host = (start + slot) * clusterSize;
    await store.storage.write(host, bytes);
    serializeRefcountTableEntry(viewOf(table), slot * 8, host);
  }
  return table;
}

/** The moment of the change: table, its length and the width are in one sector. */
async function switchTable(
  store: MetadataStore,
  {
    at,
    clusters,
    order,
  }: { readonly at: number; readonly clusters: number; readonly order: number },
): Promise<void> {
  const fields = new Uint8Array(52);
  await store.storage.read(48, fields);
  fields.set(numberBytes(at));
  viewOf(fields).setUint32(8, clusters);
  viewOf(fields).setUint32(48, order);
  await store.writeHeader(48, fields);
  store.header = {
    ...store.header,
    refcountTableOffset: at,
    refcountTableClusters: clusters,
    refcountOrder: order,
  };
  store.geometry = headerGeometry(store.header);
  store.refcountBlocks.forget();
  store.freeIndex = 0;
  store.freeByte = 0;
  await store.loadRefcountTable();
  await noteInactiveL2(store);
}
