/**
 * One extended 16-byte L2 entry: a cluster, and the state of its 32 subclusters.
 *
 *   bytes 0–7   as a standard entry, but bit 0 is reserved
 *   bytes 8–15  63–32 subcluster reads as zero · 31–0 subcluster is allocated
 *               (bit i, and 32 + i, belong to subcluster i; both set is corruption)
 *
 * Bulk reading goes through the kernel `l2ExtendedRuns`.
 */
import { Qcow2Error } from '../base/errors.ts';
import { type L2Context, type L2Entry, parseL2Entry, serializeL2Entry } from './l2-entry.ts';

/** What one subcluster's bytes are. */
export type SubclusterState = 'unallocated' | 'zero' | 'data';

/** A decoded extended entry; a compressed cluster has no subclusters. */
export type L2ExtendedEntry =
  | Extract<L2Entry, { kind: 'compressed' }>
  | {
      readonly kind: 'subclusters';
      /** Host offset of the cluster; 0 where none is allocated. */
      readonly host: number;
      readonly copied: boolean;
      readonly allocated: number;
      readonly zero: number;
    };

/** @throws Qcow2Error CORRUPT for anything that the format forbids */
export function parseL2ExtendedEntry(
  view: DataView,
  at: number,
  context: L2Context,
): L2ExtendedEntry {
  const file = context.file ?? 0;
  const entry = parseL2Entry(view, at, { ...context, version: 2 });
  const zero = view.getUint32(at + 8);
  const allocated = view.getUint32(at + 12);
  if (entry.kind === 'compressed') {
    if (zero !== 0 || allocated !== 0) {
      const message = 'a compressed cluster has subcluster bits';
      throw new Qcow2Error('CORRUPT', message, file + at + 8);
    }
    return entry;
  }
  if ((zero & allocated) !== 0) {
    const message = 'a subcluster is both allocated and zero';
    throw new Qcow2Error('CORRUPT', message, file + at + 8);
  }
  if (allocated !== 0 && entry.kind === 'unallocated') {
    const message = 'subclusters are allocated in a cluster that is not';
    throw new Qcow2Error('CORRUPT', message, file + at + 8);
  }
  const host = entry.kind === 'unallocated' ? 0 : entry.host;
  const copied = view.getUint32(at) >= 0x8000_0000;
  return { kind: 'subclusters', host, copied, allocated, zero };
}

/** The state of subcluster `index` (0–31). */
export function subclusterState(
  entry: { readonly allocated: number; readonly zero: number },
  index: number,
): SubclusterState {
  if ((entry.zero >>> index) & 1) return 'zero';
  return (entry.allocated >>> index) & 1 ? 'data' : 'unallocated';
}

/** The opposite of `parseL2ExtendedEntry`. */
export function serializeL2ExtendedEntry(
  view: DataView,
  at: number,
  entry: L2ExtendedEntry,
  clusterBits: number,
): void {
  if (entry.kind === 'compressed') {
    serializeL2Entry(view, at, entry, clusterBits);
    view.setUint32(at + 8, 0);
    view.setUint32(at + 12, 0);
    return;
  }
  serializeL2Entry(view, at, { ...entry, kind: 'data' }, clusterBits);
  view.setUint32(at + 8, entry.zero);
  view.setUint32(at + 12, entry.allocated);
}
