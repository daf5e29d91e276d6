/** Internal snapshots of an image: reading their table and finding one. */
import { Qcow2Error } from '../../base/errors.ts';
import { SNAPSHOT_TABLE_BYTES_MAX } from '../../base/limits.ts';
import type { Header } from '../../format/header.ts';
import { parseSnapshotTable, type Snapshot } from '../../format/snapshot-table.ts';
import type { Storage } from '../../storage/storage.ts';

/** Guess of what one entry takes; a longer table is read again in full. */
const ENTRY_BYTES_GUESS = 256;

/**
 * Reads the snapshot table.
 * @throws Qcow2Error CORRUPT or UNSUPPORTED, `at` = file offset of the field
 */
export async function readSnapshots(
  storage: Storage,
  header: Header,
  diskSize: number,
): Promise<Snapshot[]> {
  const { snapshotCount: count, snapshotsOffset: at } = header;
  if (count === 0) return [];
  const limit = Math.min(SNAPSHOT_TABLE_BYTES_MAX, (await storage.size()) - at);
  const context = { count, diskSize };
  let length = Math.min(limit, count * ENTRY_BYTES_GUESS);
  for (;;) {
    const bytes = new Uint8Array(Math.max(0, length));
    if (length > 0) await storage.read(at, bytes);
    try {
      return parseSnapshotTable(bytes, at, context);
    } catch (cause) {
      // The guess may have been too small: only the whole table says that it is cut short.
      if (length >= limit) throw cause;
      length = limit;
    }
  }
}

/** How a snapshot is named: by id or name, or by one of them alone. */
export type SnapshotSelector =
  | string
  | { readonly id?: string | undefined; readonly name?: string | undefined };

/**
 * Finds a snapshot. A plain string is an id first, and a name where no id is like it.
 * @throws Qcow2Error OUT_OF_RANGE where there is none
 */
export function findSnapshot(snapshots: readonly Snapshot[], selector: SnapshotSelector): Snapshot {
  const found =
    typeof selector === 'string'
      ? (snapshots.find(({ id }) => id === selector) ??
        snapshots.find(({ name }) => name === selector))
      : snapshots.find(
          ({ id, name }) =>
            (selector.id === undefined || selector.id === id) &&
            (selector.name === undefined || selector.name === name),
        );
  if (found === undefined) throw new Qcow2Error('OUT_OF_RANGE', "Can't find snapshot");
  return found;
}
