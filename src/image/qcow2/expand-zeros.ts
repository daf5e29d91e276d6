/**
 * Version 2 has no entries that say zero: they become unallocated where nothing shows through, and
 * clusters full of zeros elsewhere, and where room of their own is reserved for them. The tables of
 * snapshots have theirs, too: nobody will write there, so that they need no room.
 */
import { checkSnapshotL1 } from '../../format/snapshot-table.ts';
import { discardClusters } from './discard.ts';
import { ALL, type CellPlace, EMPTY } from './l2-tables.ts';
import { readL1 } from './open.ts';
import { l2TablesOf, slicesOf } from './references.ts';
import { writeRange } from './write.ts';
import type { WriteParts } from './write-parts.ts';

/** Hears how many L1 entries are done. */
export type L1EntriesDone = (count: number) => void;

/** The active table's, by the engine: each step is safe by itself. The caller holds every range. */
export async function expandActiveZeros(parts: WriteParts, done: L1EntriesDone): Promise<void> {
  const { store, tables, backing } = parts;
  const { clusterSize, l2Span } = store.geometry;
  const { size } = store.header;
  const zeros = new Uint8Array(clusterSize);
  let entry = 0;
  for (let guest = 0; guest < store.l1Entries * l2Span; ) {
    const at = guest;
    while (entry < Math.floor(at / l2Span)) done(++entry);
    const found = await store.lock.run(async () => {
      const place = await tables.find(at);
      if (!place) return { next: at - (at % l2Span) + l2Span };
      let one: CellPlace = place;
      for (let left = tables.entriesLeft(place); left > 0; ) {
        const cell = tables.read(one);
        if (cell.kind === 'plain' && cell.zero !== 0) {
          return { next: one.guest, zero: { reserved: cell.host >= 0 && cell.copied } };
        }
        // Entries that say the same are no zeros either.
        const alike = tables.alike(one, left);
        one = tables.advance(one, alike);
        left -= alike;
      }
      return { next: one.guest };
    });
    guest = found.next;
    if (!found.zero) continue;
    if (guest >= size || !(backing || found.zero.reserved)) {
      const range = { from: guest, to: guest + clusterSize, keepNothing: true };
      await discardClusters(parts, range);
    } else await writeRange(parts, guest, zeros.subarray(0, Math.min(clusterSize, size - guest)));
    guest += clusterSize;
  }
  while (entry < store.l1Entries) done(++entry);
}

/**
 * Those of tables that only snapshots reach: in place, so that all of them see it. Called with the
 * metadata lock held, and under the dirty bit.
 */
export async function expandSnapshotZeros(parts: WriteParts, done: L1EntriesDone): Promise<void> {
  const { store } = parts;
  let count = 0;
  const seen = new Set<number>();
  const { clusterSize } = store.geometry;
  for (const snapshot of store.snapshots) {
    checkSnapshotL1(snapshot, clusterSize, store.header.snapshotsOffset);
    const { l1Offset: offset, l1Entries: entries } = snapshot;
    const l1 = await readL1(store.storage, { offset, entries });
    const before = count;
    for (const { host, index } of l2TablesOf(store, l1, offset)) {
      while (count < before + index) done(++count);
      if (seen.has(host)) continue;
      seen.add(host);
      for await (const slice of slicesOf(store, host)) await expandSlice(parts, host, slice);
    }
    while (count < before + entries) done(++count);
  }
}

async function expandSlice(parts: WriteParts, table: number, slice: number): Promise<void> {
  const { store, tables, refcounts, allocator, backing } = parts;
  const { clusterSize, l2EntryBytes } = store.geometry;
  const owners = await refcounts.get(table / clusterSize);
  for (let at = 0; at < store.l2.sliceBytes; at += l2EntryBytes) {
    const place: CellPlace = { slice, at, guest: 0 };
    // Finding a place for a cluster may have put the slice out of the cache.
    await store.l2.load(slice, table);
    const old = tables.read(place);
    if (old.kind !== 'plain' || old.zero === 0) continue;
    let cell: Parameters<typeof tables.write>[1] = EMPTY;
    if (backing) {
      const host = await allocator.clusters(clusterSize);
      for (let one = 1; one < owners; one++) await refcounts.change(host, clusterSize, 1);
      await store.data.write(host, new Uint8Array(clusterSize));
      store.order.entryAfterData();
      cell = { kind: 'plain', host, copied: false, data: ALL, zero: 0 };
      await store.l2.load(slice, table);
    }
    tables.write(place, cell);
    if (old.host < 0) continue;
    for (let one = 0; one < owners; one++) await allocator.free(old.host, clusterSize);
  }
}
