/**
 * Taking a snapshot: a copy of the L1 table, one more reference for all that it reaches, and an
 * entry in the snapshot table. Layout and order are QEMU's.
 */

import { alignUp } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { SNAPSHOTS_MAX } from '../../base/limits.ts';
import { byteLength } from '../../base/text.ts';
import { SNAPSHOT_EXTRA_BYTES, type Snapshot } from '../../format/snapshot-table.ts';
import { withDirtyBit } from './dirty-guard.ts';
import { discardClusters } from './discard.ts';
import type { Mapping } from './mapping.ts';
import { RefcountSweep, rebuildCopied } from './refcount-sweep.ts';
import { growL1To } from './resize.ts';
import { nextSnapshotId, writeSnapshotTable } from './snapshot-store.ts';
import { vmStateOffset } from './vm-state.ts';
import { writeRange } from './write.ts';
import { changing, type WriteParts } from './write-parts.ts';

/** What a new snapshot says of itself. */
export interface SnapshotOptions {
  readonly name: string;
  /** When it was taken. Default: now. */
  readonly date?: Date | undefined;
  /** Nanoseconds within the second, where the date is too coarse. */
  readonly dateNanoseconds?: number | undefined;
  /** Guest time since boot, nanoseconds. Default 0. */
  readonly clock?: Snapshot['clock'] | undefined;
  /** Instructions executed; default 0, which is what QEMU's tool writes. `none`: not counted. */
  readonly icount?: Snapshot['clock'] | 'none' | undefined;
  /** State of the virtual machine, kept in the snapshot alone; in pieces of any length. */
  readonly vmState?: Uint8Array | AsyncIterable<Uint8Array> | Iterable<Uint8Array> | undefined;
}

/** Bytes of VM state that are written at once. */
const STATE_CHUNK_BYTES = 1024 * 1024;

/**
 * Takes a snapshot of the disk as it is. The caller holds every range.
 * @throws Qcow2Error UNSUPPORTED with an external data file; OUT_OF_RANGE where a refcount or the
 * table has no room for one more: then nothing has changed
 */
export async function createSnapshot(
  parts: WriteParts,
  mapping: Mapping,
  options: SnapshotOptions,
): Promise<Snapshot> {
  refuseDataFile(parts);
  if (parts.store.snapshots.length >= SNAPSHOTS_MAX) {
    const message = 'the image has as many snapshots as it can have';
    throw new Qcow2Error('OUT_OF_RANGE', message, undefined, { code: 'EFBIG' });
  }
  if (byteLength(options.name) > 0xffff) {
    throw new Qcow2Error('OUT_OF_RANGE', 'a snapshot name is at most 65535 bytes');
  }
  return changing(parts, async () => {
    const { store } = parts;
    const { vmState } = options;
    const at = vmStateOffset(store.header.size, store.geometry);
    let end = at;
    try {
      if (vmState) end += await writeVmState(parts, mapping, at, vmState);
      return await store.lock.run(() => {
        const snapshot = describe(parts, options, end - at);
        return withDirtyBit(store, () => take(parts, snapshot));
      });
    } finally {
      // The active image has no use for it, and the next snapshot would count it.
      const to = alignUp(end, store.geometry.clusterSize);
      if (to > at) await discardClusters(parts, { from: at, to, keepNothing: true });
    }
  });
}

/** Images with an external data file have no snapshots: one file cannot keep two contents. */
export function refuseDataFile({ store }: WriteParts): void {
  if (!store.hasDataFile) return;
  const message = 'images with an external data file hold no snapshots';
  throw new Qcow2Error('UNSUPPORTED', message);
}

function describe({ store }: WriteParts, options: SnapshotOptions, vmBytes: number): Snapshot {
  const { date = new Date(), clock = { high: 0, low: 0 }, icount = { high: 0, low: 0 } } = options;
  const milliseconds = date.getTime();
  return {
    id: nextSnapshotId(store.snapshots),
    name: options.name,
    l1Offset: 0,
    l1Entries: store.l1Entries,
    dateSeconds: Math.floor(milliseconds / 1000) >>> 0,
    dateNanoseconds: options.dateNanoseconds ?? (milliseconds % 1000) * 1e6,
    clock,
    vmStateBytes: vmBytes,
    virtualSize: store.header.size,
    icount: icount === 'none' ? { high: 0xffff_ffff, low: 0xffff_ffff } : icount,
    extraBytes: SNAPSHOT_EXTRA_BYTES,
    unknownExtra: new Uint8Array(),
  };
}

async function take(parts: WriteParts, description: Snapshot): Promise<Snapshot> {
  const { store, allocator, refcounts } = parts;
  const bytes = store.l1.slice();
  const l1Offset = bytes.length === 0 ? 0 : await allocator.clusters(bytes.length);
  const snapshot = { ...description, l1Offset };
  const sweep = new RefcountSweep(store, refcounts);
  const active = { bytes, at: store.header.l1Offset };
  let raised = false;
  try {
    if (bytes.length > 0) {
      store.overlap.check(l1Offset, bytes.length, 'inactive-l1');
      await store.storage.write(l1Offset, bytes);
    }
    await sweep.run(active, 1);
    raised = true;
    await rebuildCopied(store, refcounts);
    // All that the table's entry will stand for is on disk before it.
    await store.order.flush();
    await writeSnapshotTable(parts, [...store.snapshots, snapshot]);
  } catch (cause) {
    // Unsound: perhaps the header names the new table. Then everything stays counted.
    if (!store.unsound) await takeBack(parts, active.bytes, snapshot, raised);
    throw cause;
  }
  return store.snapshots.at(-1) as Snapshot;
}

/** A snapshot came to nothing: counts and flags are put back. */
async function takeBack(
  { store, allocator, refcounts }: WriteParts,
  bytes: Uint8Array,
  { l1Offset }: Snapshot,
  raised: boolean,
): Promise<void> {
  try {
    const sweep = new RefcountSweep(store, refcounts);
    if (raised) await sweep.run({ bytes, at: store.header.l1Offset }, -1);
    if (bytes.length > 0) await allocator.free(l1Offset, bytes.length, { reusable: true });
    if (raised) await rebuildCopied(store, refcounts);
  } catch {
    store.unsound = true;
  }
}

/** Writes VM state behind the disk's end. @returns how many bytes it has */
async function writeVmState(
  parts: WriteParts,
  mapping: Mapping,
  at: number,
  state: NonNullable<SnapshotOptions['vmState']>,
): Promise<number> {
  const { clusterSize, l2Span } = parts.store.geometry;
  const buffer = new Uint8Array(alignUp(STATE_CHUNK_BYTES, clusterSize));
  let filled = 0;
  let written = 0;
  const put = async () => {
    // Whole clusters, so that nothing else is copied along.
    const length = alignUp(filled, clusterSize);
    const entries = Math.ceil((at + written + length) / l2Span);
    await growL1To(parts, mapping, grownEntries(parts.store.l1Entries, entries));
    await writeRange(parts, at + written, buffer.fill(0, filled).subarray(0, length));
    written += filled;
    filled = 0;
  };
  for await (const piece of state instanceof Uint8Array ? [state] : state) {
    for (let done = 0; done < piece.length; ) {
      const part = piece.subarray(done, done + buffer.length - filled);
      buffer.set(part, filled);
      filled += part.length;
      done += part.length;
      if (filled === buffer.length) await put();
    }
  }
  if (filled > 0) await put();
  return written;
}

/** As QEMU grows an L1 table that it expects to grow on: half as large again, step by step. */
function grownEntries(entries: number, needed: number): number {
  let grown = Math.max(entries, 1);
  while (grown < needed) grown = Math.ceil((grown * 3) / 2);
  return grown;
}
