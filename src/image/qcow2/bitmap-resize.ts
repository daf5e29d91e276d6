/**
 * Bitmaps of a disk whose size changes. All are in use on disk while it does: a crash leaves them
 * so, for another size than the disk has by then. Bits of what is new are clear.
 */
import { alignUp, divCeil } from '../../base/bits.ts';
import { isQcow2Error } from '../../base/errors.ts';
import type { BitmapState } from './bitmap-state.ts';
import type { BitmapStore } from './bitmap-store.ts';

/**
 * Resizes the bitmaps around a change of the disk's size. Inconsistent ones stay as they are.
 * @param change changes the disk's size
 */
export async function resizeBitmaps(
  bitmaps: BitmapStore,
  to: number,
  change: () => Promise<void>,
): Promise<void> {
  const { store } = bitmaps;
  const states = bitmaps.bitmaps.filter(({ inconsistent }) => !inconsistent);
  const from = store.header.size;
  await store.lock.run(async () => {
    await bitmaps.hold(states);
    for (const state of states) {
      await guarded(state, () => settleEnd(bitmaps, state, Math.min(from, to)));
    }
  });
  const before = new Map(states.map((state) => [state, state.entry]));
  try {
    await change();
    await store.lock.run(() => moveTables(bitmaps, states, to));
  } catch (cause) {
    // The disk may have either size: bitmaps of the other one stay in use, where they were.
    for (const [state, entry] of before) {
      if (entry === state.entry && store.header.size === from) continue;
      state.entry = entry;
      state.inconsistent = true;
    }
    throw cause;
  }
}

async function moveTables(
  bitmaps: BitmapStore,
  states: readonly BitmapState[],
  to: number,
): Promise<void> {
  const moved: { at: number; length: number }[] = [];
  for (const state of states) {
    await guarded(state, async () => {
      moved.push(...(await moveTable(bitmaps, state, to)));
    });
  }
  if (moved.length === 0) return;
  await bitmaps.replaceDirectory(bitmaps.bitmaps.slice());
  for (const { at, length } of moved) {
    bitmaps.data.drop(at, length);
    // The new directory is in force: what cannot be counted down is leaked.
    await bitmaps.allocator.free(at, length, { reusable: true }).catch(() => {});
  }
}

/** A bitmap that is damaged is given up; the disk's size changes all the same. */
async function guarded(state: BitmapState, work: () => Promise<void>): Promise<void> {
  if (state.inconsistent) return;
  try {
    await work();
  } catch (cause) {
    if (!isQcow2Error(cause, 'CORRUPT')) throw cause;
    state.inconsistent = true;
  }
}

/** The bits of the last cluster that stays are written out, and clear behind the disk's end. */
async function settleEnd(bitmaps: BitmapStore, state: BitmapState, size: number): Promise<void> {
  const { clusterSize } = bitmaps.store.geometry;
  const perCluster = clusterSize * 8;
  const bits = state.bitsFor(size);
  if (bits % perCluster === 0) return;
  const index = Math.floor(bits / perCluster);
  if (state.tableEntry(index, clusterSize).kind === 'zeros') return;
  await bitmaps.place(state, index);
  await bitmaps.clearBits(state, bits, (index + 1) * perCluster);
}

/** A table of the right length. @returns ranges of the file that are not needed then */
async function moveTable(bitmaps: BitmapStore, state: BitmapState, size: number) {
  const { store, allocator } = bitmaps;
  const { clusterSize } = store.geometry;
  const { tableOffset, tableEntries: old } = state.entry;
  const entries = Math.max(1, divCeil(divCeil(state.bitsFor(size), 8), clusterSize));
  if (entries === old) return [];
  const freed = [{ at: tableOffset, length: alignUp(old * 8, clusterSize) }];
  for (let index = entries; index < old; index++) {
    const entry = state.tableEntry(index, clusterSize);
    if (entry.kind === 'data') freed.push({ at: entry.host, length: clusterSize });
  }
  const table = new Uint8Array(entries * 8);
  table.set((state.table as Uint8Array).subarray(0, table.length));
  const at = await allocator.clusters(table.length);
  store.overlap.check(at, table.length, 'data');
  await bitmaps.data.writeDirty();
  await store.storage.write(at, table);
  state.table = table;
  state.tableDirty = false;
  state.entry = { ...state.entry, tableOffset: at, tableEntries: entries };
  return freed;
}
