/**
 * What can be done with the bitmaps of a writable image, one function for each. The caller holds
 * every range; messages and limits are QEMU's.
 */

import { alignUp, divCeil } from '../../base/bits.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import {
  BITMAP_BYTES_MAX,
  BITMAP_DIRECTORY_BYTES_MAX,
  BITMAP_GRANULARITY_BITS_MAX,
  BITMAP_NAME_BYTES_MAX,
  BITMAPS_MAX,
} from '../../base/limits.ts';
import { byteLength } from '../../base/text.ts';
import { BitmapFlag } from '../../format/bitmap-directory.ts';
import type { BitmapSlice, BitmapSource, GuestRange } from './bitmap-ranges.ts';
import { BitmapState } from './bitmap-state.ts';
import { type BitmapStore, directoryBytes } from './bitmap-store.ts';
import { scratchPairs } from './references.ts';

/** How a bitmap is made. */
export interface BitmapOptions {
  /**
   * Guest bytes of one bit: a power of two from 512 to 2 GiB. Default: the cluster size, between
   * 4 KiB and 64 KiB.
   */
  readonly granularity?: number | undefined;
  /** Whether it follows what is written. Default true. */
  readonly enabled?: boolean | undefined;
}

const defaultGranularity = (clusterSize: number) => Math.min(65536, Math.max(4096, clusterSize));

/**
 * Judges what a bitmap is to be, whatever image is to have it.
 * @param granularity bytes that one bit stands for
 * @returns their logarithm
 * @throws Qcow2Error OUT_OF_RANGE
 */
export function judgeBitmap(name: string, granularity: number): number {
  if (name === '') throw new Qcow2Error('OUT_OF_RANGE', 'Bitmap name cannot be empty');
  const bits = Math.log2(granularity);
  if (Number.isInteger(bits) && bits >= 9 && granularity < 2 ** 32) return bits;
  throw new Qcow2Error('OUT_OF_RANGE', 'Granularity must be power of 2 and at least 512');
}

/**
 * Makes an empty bitmap.
 * @throws Qcow2Error OUT_OF_RANGE for a name or granularity that no bitmap can have; UNSUPPORTED
 * where the image cannot hold it
 */
export async function addBitmap(
  bitmaps: BitmapStore,
  name: string,
  { granularity, enabled = true }: BitmapOptions,
): Promise<void> {
  const { store } = bitmaps;
  const { clusterSize } = store.geometry;
  const granularityBits = judgeBitmap(name, granularity || defaultGranularity(clusterSize));
  const bytes = 2 ** granularityBits;
  const tableEntries = divCeil(divCeil(divCeil(store.header.size, bytes), 8), clusterSize);
  const entry = {
    tableOffset: 0,
    tableEntries,
    flags: enabled ? BitmapFlag.auto : 0,
    granularityBits,
    extraData: new Uint8Array(),
    name,
  };
  refuseUnstorable(bitmaps, new BitmapState(entry));
  if (bitmaps.bitmaps.some((one) => one.name === name)) {
    throw new Qcow2Error('OUT_OF_RANGE', `Bitmap already exists: ${name}`);
  }
  await store.lock.run(async () => {
    const tableOffset = await freshTable(bitmaps, tableEntries);
    const state = new BitmapState({ ...entry, tableOffset });
    try {
      await bitmaps.replaceDirectory([...bitmaps.bitmaps, state]);
    } catch (cause) {
      if (isQcow2Error(cause, 'NO_SPACE')) await release(bitmaps, tableOffset, tableEntries * 8);
      throw cause;
    }
  });
}

/** A table of zeros: every bit clear. @returns its place */
async function freshTable({ store, allocator }: BitmapStore, entries: number): Promise<number> {
  const { clusterSize } = store.geometry;
  const length = alignUp(Math.max(entries, 1) * 8, clusterSize);
  const at = await allocator.clusters(length);
  store.overlap.check(at, length, 'data');
  await store.storage.write(at, new Uint8Array(entries * 8));
  return at;
}

function refuseUnstorable(bitmaps: BitmapStore, state: BitmapState): void {
  const { store } = bitmaps;
  const fail = (message: string): never => {
    throw new Qcow2Error('UNSUPPORTED', message);
  };
  const { name, entry } = state;
  if (store.header.version < 3) fail('Cannot store dirty bitmaps in qcow2 v2 files');
  if (entry.granularityBits > BITMAP_GRANULARITY_BITS_MAX) {
    fail(`Granularity exceeds maximum (${2 ** BITMAP_GRANULARITY_BITS_MAX} bytes)`);
  }
  const bytes = entry.tableEntries * store.geometry.clusterSize;
  if (bytes > BITMAP_BYTES_MAX || entry.tableEntries * 8 > BITMAP_BYTES_MAX / 8) {
    fail('Too much space will be occupied by the bitmap. Use larger granularity');
  }
  if (byteLength(name) > BITMAP_NAME_BYTES_MAX) {
    fail(`Name length exceeds maximum (${BITMAP_NAME_BYTES_MAX} characters)`);
  }
  if (bitmaps.bitmaps.length >= BITMAPS_MAX) {
    fail('Maximum number of persistent bitmaps is already reached');
  }
  const { length } = directoryBytes([...bitmaps.bitmaps, state]);
  if (length > BITMAP_DIRECTORY_BYTES_MAX) fail('Not enough space in the bitmap directory');
}

/** Removes a bitmap, also an inconsistent one. @throws Qcow2Error OUT_OF_RANGE: there is none */
export async function removeBitmap(bitmaps: BitmapStore, name: string): Promise<void> {
  const state = bitmaps.find(name, { inconsistent: true });
  await bitmaps.store.lock.run(async () => {
    const { tableOffset, tableEntries } = state.entry;
    const hosts = await dataClusters(bitmaps, state);
    await bitmaps.replaceDirectory(bitmaps.bitmaps.filter((one) => one !== state));
    await releaseData(bitmaps, hosts);
    await release(bitmaps, tableOffset, tableEntries * 8);
  });
}

/** Clears all bits: a table of zeros takes the place of the old one at once. */
export async function clearBitmap(bitmaps: BitmapStore, name: string): Promise<void> {
  const state = bitmaps.find(name);
  await bitmaps.store.lock.run(async () => {
    const { tableOffset, tableEntries } = state.entry;
    const hosts = await dataClusters(bitmaps, state);
    if (hosts.length === 0 && !(await hasOnes(bitmaps, state))) return;
    const fresh = await freshTable(bitmaps, tableEntries);
    const before = { entry: state.entry, table: state.table, tableDirty: state.tableDirty };
    state.entry = { ...state.entry, tableOffset: fresh };
    state.table = state.held ? new Uint8Array(tableEntries * 8) : undefined;
    state.tableDirty = false;
    try {
      await bitmaps.replaceDirectory(bitmaps.bitmaps.slice());
    } catch (cause) {
      Object.assign(state, before);
      throw cause;
    }
    await releaseData(bitmaps, hosts);
    await release(bitmaps, tableOffset, tableEntries * 8);
  });
}

async function hasOnes(bitmaps: BitmapStore, state: BitmapState): Promise<boolean> {
  const table = await state.loadTable(bitmaps.store.storage);
  return table.some((byte) => byte !== 0);
}

/** Where a bitmap's bits are. Of a table that nobody can read, nowhere: they are leaked. */
async function dataClusters(bitmaps: BitmapStore, state: BitmapState): Promise<number[]> {
  const { clusterSize } = bitmaps.store.geometry;
  const hosts: number[] = [];
  try {
    await state.loadTable(bitmaps.store.storage);
    for (let index = 0; index < state.entry.tableEntries; index++) {
      const entry = state.tableEntry(index, clusterSize);
      if (entry.kind === 'data') hosts.push(entry.host);
    }
  } catch (cause) {
    if (!isQcow2Error(cause, 'CORRUPT') || !state.inconsistent) throw cause;
    return [];
  }
  return hosts;
}

async function releaseData(bitmaps: BitmapStore, hosts: readonly number[]): Promise<void> {
  const { clusterSize } = bitmaps.store.geometry;
  for (const host of hosts) {
    bitmaps.data.drop(host, clusterSize);
    await release(bitmaps, host, clusterSize);
  }
}

/** Lets go of clusters that nothing on disk refers to. Counts that are wrong stay so. */
async function release({ allocator }: BitmapStore, at: number, length: number): Promise<void> {
  try {
    if (length > 0) await allocator.free(at, length, { reusable: true });
  } catch (cause) {
    if (!isQcow2Error(cause, 'CORRUPT')) throw cause;
  }
}

/** Makes a bitmap follow what is written, or not, durably. */
export async function enableBitmap(
  bitmaps: BitmapStore,
  name: string,
  enabled: boolean,
): Promise<void> {
  const state = bitmaps.find(name);
  if (state.enabled === enabled) return;
  await bitmaps.store.lock.run(async () => {
    state.setFlag(BitmapFlag.auto, enabled);
    try {
      await bitmaps.writeFlags();
      await bitmaps.store.order.flushStorage();
    } catch (cause) {
      state.setFlag(BitmapFlag.auto, !enabled);
      throw cause;
    }
  });
  bitmaps.changed();
}

/** Sets or clears the bits that guest ranges touch. On disk when the image is closed. */
export async function putRanges(
  bitmaps: BitmapStore,
  name: string,
  ranges: AsyncIterable<GuestRange> | Iterable<GuestRange>,
  value: boolean,
): Promise<void> {
  const state = bitmaps.find(name);
  const { store } = bitmaps;
  const { granularity } = state;
  for await (const { guest, length } of ranges) {
    if (guest < 0 || length < 0 || guest + length > store.header.size) {
      throw new Qcow2Error('OUT_OF_RANGE', 'range past the end of the disk', guest);
    }
    if (length === 0) continue;
    const from = Math.floor(guest / granularity);
    const to = divCeil(guest + length, granularity);
    await store.lock.run(async () => {
      await bitmaps.hold([state]);
      if (value) await bitmaps.setBits(state, from, to);
      else await bitmaps.clearBits(state, from, to);
    });
  }
}

/** Sets the bits of a bitmap that are set in another. @throws Qcow2Error OUT_OF_RANGE: sizes */
export async function mergeBitmap(
  bitmaps: BitmapStore,
  name: string,
  source: BitmapSource,
): Promise<void> {
  const state = bitmaps.find(name);
  const { store } = bitmaps;
  if (store.header.size !== source.diskSize) {
    const message =
      `Bitmaps are of different sizes (destination size is ${store.header.size}, ` +
      `source size is ${source.diskSize}) and can't be merged`;
    throw new Qcow2Error('OUT_OF_RANGE', message);
  }
  const shift = Math.log2(state.granularity / source.granularity);
  await store.lock.run(() => bitmaps.hold([state]));
  for await (const { first, bits, bytes } of source.slices()) {
    // No more at a time than one slice of the target has: it passes through memory of that size.
    const piece = bitmaps.sliceBytes * 8;
    for (let done = 0; done < bits; done += piece) {
      const count = Math.min(piece, bits - done);
      const part = bytes?.subarray(done / 8, (done + count + 7) >> 3);
      const slice = { first: first + done, bits: count, bytes: part };
      await store.lock.run(() => mergeSlice(bitmaps, state, slice, shift));
    }
  }
}

/** ORs a slice of a source into a bitmap, part by part as slices of that take it. */
async function mergeSlice(
  bitmaps: BitmapStore,
  state: BitmapState,
  { first, bits, bytes }: BitmapSlice,
  shift: number,
): Promise<void> {
  const { store, sliceBytes } = bitmaps;
  const { scratch } = store;
  const perSlice = sliceBytes * 8;
  const scale = 2 ** shift;
  const total = state.bitsFor(store.header.size);
  const end = Math.min(total, Math.ceil((first + bits) / scale));
  if (!bytes) return bitmaps.setBits(state, Math.floor(first / scale), end);
  for (let bit = Math.floor(first / scale); bit < end; ) {
    const inSlice = bit % perSlice;
    const stop = Math.min(end, bit - inSlice + perSlice);
    // Source bits that these target bits stand for; the last may reach past the disk's end.
    const from = Math.max(first, Math.floor(bit * scale)) - first;
    const to = Math.min(first + bits, Math.ceil(stop * scale)) - first;
    const whole = shift < 0 ? Math.min(to - from, Math.floor((stop - bit) * scale)) : to - from;
    scratch.bytes.set(bytes);
    const place = anySet(bitmaps, from, to) && (await bitmaps.sliceFor(state, bit));
    if (place) {
      scratch.bytes.set(bytes);
      const dst = place.view.byteOffset + place.at;
      const { kernels } = scratch;
      if (kernels.bitmapMerge(dst, inSlice, scratch.at, from, whole, shift) === 1) {
        bitmaps.data.markDirty(place.file);
      }
      const last = (bytes[(to - 1) >> 3] as number) >> ((to - 1) & 7);
      if (whole < to - from && last & 1) await bitmaps.setBits(state, bit + whole / scale, stop);
    }
    bit = stop;
  }
}

/** Whether any bit of the scratch memory is set. */
function anySet({ store }: BitmapStore, from: number, to: number): boolean {
  const { scratch } = store;
  const pairs = scratchPairs(store).at;
  return scratch.kernels.bitmapRuns(scratch.at, from, to - from, pairs, 1) > 0;
}
