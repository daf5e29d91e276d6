/** Internal snapshots of an image: reading their table, finding one, and what can be done. */
import { Qcow2Error } from '../../base/errors.ts';
import { SNAPSHOT_TABLE_BYTES_MAX } from '../../base/limits.ts';
import type { Header } from '../../format/header.ts';
import {
  parseSnapshotTable,
  SNAPSHOT_ENTRY_BYTES,
  SNAPSHOT_ENTRY_BYTES_MAX,
  type Snapshot,
} from '../../format/snapshot-table.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { Storage } from '../../storage/storage.ts';
import type { GuestReader } from './read.ts';
import type { SnapshotOptions } from './snapshot-create.ts';
import type { ImageWriter } from './writer.ts';

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
  // Who may write must know every snapshot's place; who only reads, no more than the one asked for.
  const lenient = !storage.writable;
  // Past the end of the file there are zeros, as for QEMU: what is left of an entry that is cut
  // short, then entries of the smallest kind.
  const spare = lenient ? SNAPSHOT_ENTRY_BYTES_MAX + count * SNAPSHOT_ENTRY_BYTES : 0;
  const limit = Math.min(
    SNAPSHOT_TABLE_BYTES_MAX,
    Math.max(0, (await storage.size()) - at) + spare,
  );
  const context = { count, diskSize, lenient };
  let length = Math.min(limit, count * ENTRY_BYTES_GUESS);
  for (;;) {
    const bytes = new Uint8Array(Math.max(0, length));
    if (length > 0) await readFully(storage, at, bytes);
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

/** What the snapshots of an image work on. */
export interface SnapshotOwner {
  list(): readonly Snapshot[];
  /** @throws Qcow2Error READ_ONLY */
  writer(): ImageWriter;
  /** A reader of what a snapshot's L1 table maps, without the backing file. */
  stateReader(snapshot: Snapshot): Promise<GuestReader>;
  /** Guest offset of a snapshot's VM state. */
  stateOffset(snapshot: Snapshot): number;
}

/** The internal snapshots of an open image. What changes them needs the image writable. */
export class Snapshots {
  constructor(private readonly owner: SnapshotOwner) {}

  /** All of them, in the order they were taken. */
  list(): readonly Snapshot[] {
    return this.owner.list();
  }

  /** @throws Qcow2Error OUT_OF_RANGE where there is none */
  find(selector: SnapshotSelector): Snapshot {
    return findSnapshot(this.owner.list(), selector);
  }

  /**
   * Takes a snapshot of the disk as it is. A crash leaves it taken, or not.
   * @throws Qcow2Error UNSUPPORTED with an external data file; OUT_OF_RANGE where a refcount has no
   * room for one more reference: then nothing has changed
   */
  create(options: SnapshotOptions): Promise<Snapshot> {
    return this.owner.writer().alone(async (parts, mapping) => {
      const { createSnapshot } = await import('./snapshot-create.ts');
      return createSnapshot(parts, mapping, options);
    });
  }

  /**
   * Makes the disk what it was when a snapshot was taken, its size included. A crash leaves it as
   * it was, or as it is then.
   * @throws Qcow2Error OUT_OF_RANGE where there is none, or a refcount has no room
   */
  apply(selector: SnapshotSelector): Promise<void> {
    return this.owner.writer().alone(async (parts, mapping) => {
      const { applySnapshot } = await import('./snapshot-apply.ts');
      return applySnapshot(parts, mapping, selector);
    });
  }

  /** Deletes a snapshot. @throws Qcow2Error OUT_OF_RANGE where there is none */
  delete(selector: SnapshotSelector): Promise<void> {
    return this.owner.writer().alone(async (parts) => {
      const { deleteSnapshot } = await import('./snapshot-delete.ts');
      return deleteSnapshot(parts, selector);
    });
  }

  /**
   * Reads the state of the virtual machine that a snapshot keeps: `vmStateBytes` of it.
   * @param at bytes from the state's start
   * @throws Qcow2Error OUT_OF_RANGE past its end
   */
  async readVmState(selector: SnapshotSelector, at: number, into: Uint8Array): Promise<void> {
    const snapshot = this.find(selector);
    if (at < 0 || at + into.length > snapshot.vmStateBytes) {
      throw new Qcow2Error('OUT_OF_RANGE', 'read past the end of the VM state', at);
    }
    const reader = await this.owner.stateReader(snapshot);
    await reader.read(this.owner.stateOffset(snapshot) + at, into);
  }
}
