/**
 * Making refcounts right again: counts every reference in the image, and sets each cluster's count
 * to it. For images whose dirty bit says that their counts were let be.
 */
import { divCeil } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { parseBitmapTableEntry } from '../../format/bitmap-table.ts';
import { parseL1Entry } from '../../format/l1-entry.ts';
import { parseL2Entry } from '../../format/l2-entry.ts';
import { refcountMax } from '../../format/refcount-block.ts';
import { serializeSnapshot } from '../../format/snapshot-table.ts';
import { type MetadataStore, viewOf } from './metadata-store.ts';
import type { Metadata } from './open.ts';
import type { Refcounts } from './refcounts.ts';

/** References by cluster index. */
class References {
  private counts = new Uint32Array(1024);
  /** Clusters that have ever been counted. */
  length = 0;

  add(host: number, bytes: number, clusterSize: number): void {
    if (bytes <= 0) return;
    const first = Math.floor(host / clusterSize);
    const end = divCeil(host + bytes, clusterSize);
    if (end > this.counts.length) {
      const grown = new Uint32Array(Math.max(end, this.counts.length * 2));
      grown.set(this.counts);
      this.counts = grown;
    }
    for (let cluster = first; cluster < end; cluster++) this.counts[cluster]!++;
    this.length = Math.max(this.length, end);
  }

  of(cluster: number): number {
    return this.counts[cluster] ?? 0;
  }
}

/**
 * Sets every refcount to the number of references. Runs before anything else uses the image.
 * @throws Qcow2Error CORRUPT where the tables themselves are broken, OUT_OF_RANGE where a count
 * does not fit
 */
export async function repairRefcounts(
  store: MetadataStore,
  refcounts: Refcounts,
  metadata: Metadata,
): Promise<void> {
  const references = await countReferences(store, metadata);
  const { geometry } = store;
  const fileClusters = divCeil(await store.storage.size(), geometry.clusterSize);
  const covered = store.refcountTable.length * geometry.refcountBlockEntries;
  const clusters = Math.max(references.length, Math.min(fileClusters, covered));
  // Counts that are too low make clusters look free: new blocks go behind all that is in use.
  store.freeIndex = Math.max(references.length, fileClusters);
  for (let cluster = 0; cluster < clusters; cluster++) {
    const wanted = references.of(cluster);
    if (wanted > refcountMax(geometry.refcountOrder)) {
      const message = `cluster ${cluster} has more references than its refcount can hold`;
      throw new Qcow2Error('OUT_OF_RANGE', message, cluster * geometry.clusterSize);
    }
    await refcounts.set(cluster, wanted);
  }
  store.freeIndex = 0;
}

async function countReferences(store: MetadataStore, metadata: Metadata): Promise<References> {
  const references = new References();
  const { clusterSize } = store.geometry;
  const { header } = store;
  const limit = (await store.storage.size()) + clusterSize;
  const add = (host: number, bytes: number) => {
    if (host + bytes > limit + clusterSize) {
      throw new Qcow2Error(
        'CORRUPT',
        'an entry refers to what lies past the end of the file',
        host,
      );
    }
    references.add(host, bytes, clusterSize);
  };
  add(0, clusterSize);
  add(header.refcountTableOffset, header.refcountTableClusters * clusterSize);
  for (const host of store.refcountTable) if (host !== 0) add(host, clusterSize);
  await countL1(store, header.l1Offset, header.l1Entries, add);
  for (const { l1Offset, l1Entries } of metadata.snapshots) {
    await countL1(store, l1Offset, l1Entries, add);
  }
  const tableBytes = metadata.snapshots.reduce((sum, s) => sum + serializeSnapshot(s).length, 0);
  if (tableBytes > 0) add(header.snapshotsOffset, tableBytes);
  const { cryptoHeader, bitmaps } = metadata.extensions;
  if (cryptoHeader) add(cryptoHeader.offset, cryptoHeader.length);
  if (bitmaps) {
    add(bitmaps.directoryOffset, bitmaps.directoryBytes);
    await countBitmaps(store, metadata, add);
  }
  return references;
}

type Add = (host: number, bytes: number) => void;

async function countL1(
  store: MetadataStore,
  offset: number,
  entries: number,
  add: Add,
): Promise<void> {
  if (entries === 0) return;
  const { clusterSize } = store.geometry;
  const l1 = new Uint8Array(entries * 8);
  await store.storage.read(offset, l1);
  add(offset, l1.length);
  const view = viewOf(l1);
  for (let at = 0; at < l1.length; at += 8) {
    const { host } = parseL1Entry(view, at, clusterSize, offset);
    if (host === 0) continue;
    add(host, clusterSize);
    await countL2(store, host, add);
  }
}

async function countL2(store: MetadataStore, offset: number, add: Add): Promise<void> {
  const { geometry, header, hasDataFile } = store;
  const table = new Uint8Array(geometry.clusterSize);
  await store.storage.read(offset, table);
  const view = viewOf(table);
  const context = {
    clusterBits: geometry.clusterBits,
    version: geometry.extendedL2 ? (2 as const) : header.version,
    dataFile: hasDataFile,
    file: offset,
  };
  for (let at = 0; at < table.length; at += geometry.l2EntryBytes) {
    const entry = parseL2Entry(view, at, context);
    if (entry.kind === 'compressed') {
      const start = entry.host - (entry.host % 512);
      add(start, entry.host + entry.length - start);
    } else if (entry.kind !== 'unallocated' && entry.host !== 0 && !hasDataFile) {
      add(entry.host, geometry.clusterSize);
    }
  }
}

async function countBitmaps(store: MetadataStore, metadata: Metadata, add: Add): Promise<void> {
  const { clusterSize } = store.geometry;
  for (const { tableOffset, tableEntries } of metadata.bitmaps) {
    add(tableOffset, tableEntries * 8);
    const table = new Uint8Array(tableEntries * 8);
    await store.storage.read(tableOffset, table);
    const view = viewOf(table);
    for (let at = 0; at < table.length; at += 8) {
      const entry = parseBitmapTableEntry(view, at, clusterSize, tableOffset);
      if (entry.kind === 'data') add(entry.host, clusterSize);
    }
  }
}
