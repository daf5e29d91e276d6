/** Where the L2 tables of snapshots are: for the guard that is asked to know (`overlap.ts`). */
import { viewOf } from '../../base/be.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { INACTIVE_L1_BYTES_MAX } from '../../base/limits.ts';
import { parseL1Offset } from '../../format/l1-entry.ts';
import type { MetadataStore } from './metadata-store.ts';
import { readL1 } from './open.ts';

/**
 * Tells the guard where they are, if it is to guard them: after opening, and whenever the list of
 * snapshots has changed.
 * @throws Qcow2Error UNSUPPORTED for more of them than are kept in memory
 */
export async function noteInactiveL2(store: MetadataStore): Promise<void> {
  const { overlap, snapshots, storage } = store;
  if (!overlap.guards('inactive-l2')) return;
  const tables = new Set<number>();
  // An image may name one L1 table as often as it likes.
  const places = new Map(snapshots.map((one) => [`${one.l1Offset} ${one.l1Entries}`, one]));
  let bytes = 0;
  for (const { l1Offset, l1Entries } of places.values()) {
    bytes += l1Entries * 8;
    if (bytes > INACTIVE_L1_BYTES_MAX) {
      throw new Qcow2Error('UNSUPPORTED', "Too many snapshots for 'overlap-check=all'");
    }
    const l1 = await readL1(storage, { offset: l1Offset, entries: l1Entries });
    const view = viewOf(l1);
    for (let at = 0; at < l1.length; at += 8) {
      const host = parseL1Offset(view, at, 512, l1Offset);
      if (host !== 0) tables.add(host);
    }
  }
  overlap.inactiveL2 = tables;
}
