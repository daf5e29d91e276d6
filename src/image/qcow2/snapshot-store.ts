/** Writing the snapshot table: always as a new one, which the header then names at once. */
import { viewOf } from '../../base/be.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { SNAPSHOT_TABLE_BYTES_MAX } from '../../base/limits.ts';
import {
  SNAPSHOT_EXTRA_BYTES,
  type Snapshot,
  serializeSnapshotTable,
} from '../../format/snapshot-table.ts';
import { noteInactiveL2 } from './inactive-l2.ts';
import { type MetadataStore, numberBytes } from './metadata-store.ts';
import type { MetadataRange } from './overlap.ts';
import type { WriteParts } from './write-parts.ts';

/** Icount of a snapshot that has none. */
const NO_ICOUNT = { high: 0xffff_ffff, low: 0xffff_ffff };

/** As QEMU writes an entry, whatever it was read from: with all extra data that is known. */
function complete(snapshot: Snapshot): Snapshot {
  const { extraBytes, icount = NO_ICOUNT } = snapshot;
  return { ...snapshot, icount, extraBytes: Math.max(extraBytes, SNAPSHOT_EXTRA_BYTES) };
}

/**
 * Replaces the snapshot table, durably. On failure the old one is in force, unless the store is
 * unsound then: nobody knows which one the header names. Called with the metadata lock held; what
 * the new entries refer to is on disk, or put there first.
 * @throws Qcow2Error OUT_OF_RANGE for a table that is too large
 */
export async function writeSnapshotTable(
  parts: WriteParts,
  list: readonly Snapshot[],
): Promise<void> {
  const { store, allocator } = parts;
  const snapshots = list.map(complete);
  const bytes = serializeSnapshotTable(snapshots);
  if (bytes.length > SNAPSHOT_TABLE_BYTES_MAX) {
    throw new Qcow2Error('OUT_OF_RANGE', 'Snapshot table is too big');
  }
  const { snapshotsOffset: oldAt } = store.header;
  const oldBytes = serializeSnapshotTable(store.snapshots).length;
  const at = bytes.length === 0 ? 0 : await allocator.clusters(bytes.length);
  try {
    await store.order.flush();
    if (bytes.length > 0) {
      store.overlap.check(at, bytes.length, 'snapshot-table');
      await store.storage.write(at, bytes);
      await store.order.flushStorage();
    }
  } catch (cause) {
    if (bytes.length > 0) await allocator.free(at, bytes.length).catch(() => {});
    throw cause;
  }
  const fields = new Uint8Array(12);
  viewOf(fields).setUint32(0, snapshots.length);
  fields.set(numberBytes(at), 4);
  await writeHeaderOnce(store, 60, fields);
  store.header = { ...store.header, snapshotCount: snapshots.length, snapshotsOffset: at };
  store.snapshots = snapshots;
  store.overlap.fixed = [
    ...store.overlap.fixed.filter(({ kind }) => !SNAPSHOT_KINDS.includes(kind)),
    ...snapshotRanges(snapshots, at),
  ];
  await noteInactiveL2(store);
  if (oldBytes === 0) return;
  try {
    await allocator.free(oldAt, oldBytes, { reusable: true, discard: 'snapshot' });
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    // The new table is in force, and all is well but for the old one's room.
    store.corruption.leaked(cause);
  }
}

/** Writes to the header what decides; a failure leaves it open which decision was made. */
export async function writeHeaderOnce(
  store: MetadataStore,
  at: number,
  fields: Uint8Array,
): Promise<void> {
  try {
    await store.writeHeader(at, fields);
  } catch (cause) {
    store.unsound = true;
    throw cause;
  }
}

const SNAPSHOT_KINDS: readonly MetadataRange['kind'][] = ['snapshot-table', 'inactive-l1'];

/** Where the snapshot table and the snapshots' L1 tables are. */
export function snapshotRanges(snapshots: readonly Snapshot[], at: number): MetadataRange[] {
  if (snapshots.length === 0) return [];
  const { length } = serializeSnapshotTable(snapshots);
  const ranges: MetadataRange[] = [{ kind: 'snapshot-table', at, length }];
  for (const { l1Offset, l1Entries } of snapshots) {
    if (l1Entries > 0) ranges.push({ kind: 'inactive-l1', at: l1Offset, length: l1Entries * 8 });
  }
  return ranges;
}

/** The id that QEMU gives the next snapshot: one more than the highest number there is. */
export function nextSnapshotId(snapshots: readonly Snapshot[]): string {
  let highest = 0n;
  const most = 2n ** 64n - 1n;
  for (const { id } of snapshots) {
    // As C's strtoul reads it: blanks, a sign, the digits in front.
    const match = /^[ \t\n\v\f\r]*([+-]?)(\d+)/.exec(id);
    if (!match) continue;
    const digits = BigInt(match[2] as string);
    const value = digits > most ? most : match[1] === '-' ? BigInt.asUintN(64, -digits) : digits;
    if (value > highest) highest = value;
  }
  return String(BigInt.asUintN(64, highest + 1n));
}
