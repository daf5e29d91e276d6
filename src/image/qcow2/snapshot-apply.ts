/**
 * Going back to a snapshot: its L1 table becomes the active one, and its size the disk's. What
 * the snapshot reaches is counted once more, then the L1 table changes in one write, then what the
 * old one reached is let go of. A crash shows the disk as it was before, or as in the snapshot.
 */
import { viewOf } from '../../base/be.ts';
import { alignUp } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { l1EntriesFor } from '../../format/geometry.ts';
import { checkSnapshotL1, type Snapshot } from '../../format/snapshot-table.ts';
import { withDirtyBit } from './dirty-guard.ts';
import type { Mapping } from './mapping.ts';
import { numberBytes } from './metadata-store.ts';
import { readL1 } from './open.ts';
import { type FileRange, type L1Table, RefcountSweep, rebuildCopied } from './refcount-sweep.ts';
import { refuseDataFile } from './snapshot-create.ts';
import { writeHeaderOnce } from './snapshot-store.ts';
import { findSnapshot, type SnapshotSelector } from './snapshots.ts';
import { changing, type WriteParts } from './write-parts.ts';

/** What a power cut does not divide. */
const SECTOR = 512;

/**
 * Makes the disk what it was when a snapshot was taken. The caller holds every range.
 * @throws Qcow2Error OUT_OF_RANGE where there is none, or a refcount has no room: then nothing has
 * changed; UNSUPPORTED for another size in version 2; CORRUPT where the snapshot's tables are
 */
export async function applySnapshot(
  parts: WriteParts,
  mapping: Mapping,
  selector: SnapshotSelector,
): Promise<void> {
  refuseDataFile(parts);
  const { store } = parts;
  const snapshot = findSnapshot(store.snapshots, selector);
  checkSnapshotL1(snapshot, store.geometry.clusterSize, store.header.snapshotsOffset);
  if (snapshot.virtualSize !== store.header.size && store.header.version === 2) {
    throw new Qcow2Error('UNSUPPORTED', "Can't resize a v2 image which has snapshots");
  }
  // They would have to say what differs from the snapshot, which nobody knows.
  if (parts.bitmaps.bitmaps.length > 0) {
    throw new Qcow2Error('UNSUPPORTED', 'Device has active dirty bitmaps');
  }
  const { l1Offset: offset, l1Entries: entries } = snapshot;
  const own = await readL1(store.storage, { offset, entries });
  await changing(parts, () =>
    store.lock.run(async () => {
      const letGo = await withDirtyBit(store, () => goBack(parts, mapping, snapshot, own));
      await letGo.giveBack();
    }),
  );
}

async function goBack(
  parts: WriteParts,
  mapping: Mapping,
  snapshot: Snapshot,
  own: Uint8Array,
): Promise<RefcountSweep> {
  const { store, refcounts, allocator, reader } = parts;
  const { l1Offset: oldAt } = store.header;
  const old = store.l1.slice();
  const size = snapshot.virtualSize;
  const entries = Math.max(store.l1Entries, own.length / 8, l1EntriesFor(size, store.geometry));
  const next = new Uint8Array(entries * 8);
  next.set(own);
  // Of tables that two refer to from now on none may be written in place, whatever the flags say.
  for (let at = 0; at < next.length; at += 8) next[at]! &= 0x7f;

  const place = fitsInPlace(parts, old, next, size) ? oldAt : await allocator.clusters(next.length);
  const moves = place !== oldAt;
  const sweep = new RefcountSweep(store, refcounts);
  const reached = { bytes: own, at: snapshot.l1Offset };
  let raised = false;
  try {
    await sweep.run(reached, 1);
    raised = true;
    await store.order.flush();
    if (moves) {
      store.overlap.check(place, next.length, 'l1');
      await store.storage.write(place, next);
      await store.order.flushStorage();
    }
  } catch (cause) {
    await takeBack(parts, reached, { at: place, length: moves ? next.length : 0 }, raised);
    throw cause;
  }
  await switchL1(parts, next, { place, size });
  mapping.replaceL1(store.l1, place);
  reader.forget();
  store.overlap.rebuild();

  const letGo = new RefcountSweep(store, refcounts);
  try {
    await letGo.run({ bytes: old, at: oldAt }, -1);
    if (moves && old.length > 0) {
      const length = alignUp(old.length, store.geometry.clusterSize);
      await allocator.free(oldAt, length, { reusable: true });
    }
    await rebuildCopied(store, refcounts);
  } catch (cause) {
    store.unsound = true;
    throw cause;
  }
  return letGo;
}

/** It came to nothing: counts are put back. */
async function takeBack(
  { store, refcounts, allocator }: WriteParts,
  reached: L1Table,
  place: FileRange,
  raised: boolean,
): Promise<void> {
  try {
    if (raised) await new RefcountSweep(store, refcounts).run(reached, -1);
    if (place.length > 0) await allocator.free(place.at, place.length, { reusable: true });
  } catch {
    store.unsound = true;
  }
}

/** Whether one sector holds all that changes. */
function fitsInPlace(
  { store }: WriteParts,
  old: Uint8Array,
  next: Uint8Array,
  size: number,
): boolean {
  return size === store.header.size && next.length === old.length && next.length <= SECTOR;
}

/** The moment at which the disk changes: one sector is written. */
async function switchL1(
  { store }: WriteParts,
  next: Uint8Array,
  { place, size }: { readonly place: number; readonly size: number },
): Promise<void> {
  const { header } = store;
  if (place === header.l1Offset) {
    try {
      await store.replaceL1Entries(next);
      await store.order.flushStorage();
    } catch (cause) {
      store.unsound = true;
      throw cause;
    }
    return;
  }
  const fields = new Uint8Array(24);
  const sizeTail = size === header.size ? header.sizeTail : 0;
  fields.set(numberBytes(size + sizeTail));
  viewOf(fields).setUint32(8, header.cryptMethod);
  viewOf(fields).setUint32(12, next.length / 8);
  fields.set(numberBytes(place), 16);
  await writeHeaderOnce(store, 24, fields);
  store.header = {
    ...header,
    size,
    sizeTail,
    l1Entries: next.length / 8,
    l1Offset: place,
  };
  store.l1 = next;
  store.l1View = viewOf(next);
}
