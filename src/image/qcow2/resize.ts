/**
 * Changing the virtual size: the L1 table grows where it must, what lies beyond a smaller end is
 * let go of.
 */
import { alignUp } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { L1_BYTES_MAX, VIRTUAL_BYTES_MAX } from '../../base/limits.ts';
import { l1EntriesFor } from '../../format/geometry.ts';
import type { Preallocation } from '../disk.ts';
import { discardClusters } from './discard.ts';
import type { Mapping } from './mapping.ts';
import { numberBytes, viewOf } from './metadata-store.ts';
import { preallocate } from './preallocate.ts';
import { writeRange } from './write.ts';
import { type WriteParts, withRange } from './write-parts.ts';
import { zeroRange } from './zero.ts';

/**
 * Sets the virtual size.
 * @throws Qcow2Error UNSUPPORTED for images whose snapshots or bitmaps a new size would break
 */
export async function resizeDisk(
  parts: WriteParts,
  mapping: Mapping,
  sizes: { readonly from: number; readonly to: number; readonly preallocation: Preallocation },
): Promise<void> {
  const { from, to } = sizes;
  const { store } = parts;
  // A raw data file has every cluster at its place.
  const preallocation =
    parts.rawDataFile && sizes.preallocation === 'off' && to > from
      ? 'metadata'
      : sizes.preallocation;
  if (to % 512 !== 0 || to < 0 || to > VIRTUAL_BYTES_MAX) {
    throw new Qcow2Error('OUT_OF_RANGE', 'The new size must be a multiple of 512');
  }
  if (store.header.snapshotCount > 0 && store.header.version === 2) {
    throw new Qcow2Error('UNSUPPORTED', "Can't resize a v2 image which has snapshots");
  }
  const whole = { guest: 0, length: Math.max(from, to, 1) };
  await withRange(parts, whole, async () => {
    if (to < from) await shrink(parts, from, to);
    else {
      await growL1(parts, mapping, to);
      if (preallocation !== 'off') await preallocate(parts, { from, to }, preallocation);
      await zeroGrown(parts, from, to);
    }
    if (store.hasDataFile && preallocation === 'off') await store.data.truncate(to);
    await setSize(parts, to);
  });
}

/** Writes the size into the header: the moment at which the disk changes. */
async function setSize(parts: WriteParts, size: number): Promise<void> {
  const { store } = parts;
  await store.lock.run(async () => {
    await store.order.flush();
    await store.writeHeader(24, numberBytes(size));
    store.header = { ...store.header, size, sizeTail: 0 };
  });
}

async function shrink(parts: WriteParts, from: number, to: number): Promise<void> {
  const { clusterSize } = parts.store.geometry;
  const stop = alignUp(to, clusterSize);
  // The last cluster's rest must not come back when the disk grows again.
  const tail = Math.min(stop, from) - to;
  if (tail > 0) {
    const rest = new Uint8Array(tail);
    await parts.reader.read(to, rest);
    if (rest.some((byte) => byte !== 0)) await writeRange(parts, to, rest.fill(0));
  }
  const end = alignUp(from, clusterSize);
  if (stop < end) await discardClusters(parts, { from: stop, to: end, keepNothing: true });
}

/** What is new reads as zeros, also where the backing file has bytes there. */
async function zeroGrown(parts: WriteParts, from: number, to: number): Promise<void> {
  const end = Math.min(to, parts.backing?.size ?? 0);
  // A disk without any bytes is one that is being made: it shows its backing file.
  if (from === 0 || end <= from) return;
  const range = { guest: from, length: end - from, diskSize: to };
  await zeroRange(parts, range, { unmap: false });
}

/** Makes the L1 table long enough for a size: a new one, then the header, then the old one goes. */
export async function growL1(parts: WriteParts, mapping: Mapping, size: number): Promise<void> {
  const { store, allocator } = parts;
  const { clusterSize } = store.geometry;
  const entries = l1EntriesFor(size, store.geometry);
  if (entries <= store.l1Entries) return;
  if (entries * 8 > L1_BYTES_MAX) {
    throw new Qcow2Error('OUT_OF_RANGE', 'Active L1 table too large');
  }
  await store.lock.run(async () => {
    const grown = new Uint8Array(entries * 8);
    grown.set(store.l1);
    const at = await allocator.clusters(grown.length);
    await store.refcountBlocks.writeDirty();
    await store.order.flushStorage();
    store.overlap.check(at, grown.length, 'l1');
    await store.storage.write(at, grown);
    await store.order.flushStorage();
    const fields = new Uint8Array(12);
    viewOf(fields).setUint32(0, entries);
    fields.set(numberBytes(at), 4);
    await store.writeHeader(36, fields);
    const { l1Offset } = store.header;
    const oldLength = store.l1.length;
    store.header = { ...store.header, l1Entries: entries, l1Offset: at };
    store.l1 = grown;
    store.l1View = viewOf(grown);
    mapping.replaceL1(grown, at);
    if (oldLength > 0) await allocator.free(l1Offset, alignUp(oldLength, clusterSize));
  });
}
