/**
 * Deleting a snapshot: first it goes from the snapshot table, then what it alone referred to is
 * let go of. A crash in between leaks that.
 */
import { Qcow2Error } from '../../base/errors.ts';
import { checkSnapshotL1, type Snapshot } from '../../format/snapshot-table.ts';
import { withDirtyBit } from './dirty-guard.ts';
import { readL1 } from './open.ts';
import { RefcountSweep, rebuildCopied } from './refcount-sweep.ts';
import { refuseDataFile } from './snapshot-create.ts';
import { writeSnapshotTable } from './snapshot-store.ts';
import { findSnapshot, type SnapshotSelector } from './snapshots.ts';
import { changing, type WriteParts } from './write-parts.ts';

/**
 * Deletes a snapshot. The caller holds every range.
 * @throws Qcow2Error OUT_OF_RANGE where there is none; CORRUPT where its tables are: then it is
 * gone from the list, and clusters may be leaked
 */
export async function deleteSnapshot(parts: WriteParts, selector: SnapshotSelector): Promise<void> {
  refuseDataFile(parts);
  const { store } = parts;
  const snapshot = findSnapshot(store.snapshots, selector);
  checkSnapshotL1(snapshot, store.geometry.clusterSize, store.header.snapshotsOffset);
  const { l1Offset: offset, l1Entries: entries } = snapshot;
  const l1 = await readL1(store.storage, { offset, entries });
  await changing(parts, () =>
    store.lock.run(async () => {
      const sweep = await withDirtyBit(store, () => remove(parts, snapshot, l1));
      await sweep.giveBack();
    }),
  );
}

async function remove(
  parts: WriteParts,
  snapshot: Snapshot,
  l1: Uint8Array,
): Promise<RefcountSweep> {
  const { store, allocator, refcounts } = parts;
  await writeSnapshotTable(
    parts,
    store.snapshots.filter((one) => one !== snapshot),
  );
  const sweep = new RefcountSweep(store, refcounts);
  try {
    await sweep.run({ bytes: l1, at: snapshot.l1Offset }, -1);
    if (l1.length > 0)
      await allocator.free(snapshot.l1Offset, l1.length, { reusable: true, discard: 'snapshot' });
    await rebuildCopied(store, refcounts);
  } catch (cause) {
    // Whatever was let go of is so for good; flags may be behind.
    store.unsound = true;
    if (!(cause instanceof Qcow2Error)) throw cause;
    const message = `Failed to free the cluster and L1 table: ${cause.message}`;
    throw new Qcow2Error(cause.code, message, cause.at, cause);
  }
  return sweep;
}
