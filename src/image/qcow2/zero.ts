/**
 * Making guest ranges read as zeros. Whole subclusters (clusters, in standard images) say so in
 * their entry; what is left at the edges is written, unless all around it reads as zeros anyway.
 */
import { settled } from '../../base/awaitable.ts';
import { alignDown, alignUp } from '../../base/bits.ts';
import { type DataSource, type Disk, ExtentKind, ExtentList } from '../disk.ts';
import { discardClusters } from './discard.ts';
import { freeCells } from './free-cells.ts';
import { ALL, type Cell, type CellPlace, EMPTY } from './l2-tables.ts';
import { writeRange } from './write.ts';
import { isDebugged, needInside, type WriteParts, withRange } from './write-parts.ts';
import { touchedMask } from './write-step.ts';

/** Zeros written where an entry cannot say it, at most this many bytes at a time. */
const CHUNK_BYTES = 1024 * 1024;

/** Zeros a guest range that lies inside the disk. */
export function zeroGuest(
  parts: WriteParts,
  range: { readonly guest: number; readonly length: number; readonly diskSize: number },
  options: { readonly unmap: boolean },
): Promise<void> {
  const work = async () => {
    needInside(parts, range);
    const marked = parts.bitmaps.mark(range.guest, range.length);
    if (!settled(marked)) await marked;
    await zeroRange(parts, range, options);
  };
  return withRange(parts, range, work, { shared: isDebugged(parts) });
}

/** The same for a caller that holds the range. */
export async function zeroRange(
  parts: WriteParts,
  range: { readonly guest: number; readonly length: number; readonly diskSize: number },
  { unmap }: { readonly unmap: boolean },
): Promise<void> {
  const { guest, length, diskSize } = range;
  const { store } = parts;
  const end = guest + length;
  // Version 2 has no way to say zero, but where nothing shows through.
  if (store.header.version === 2 && parts.backing) return writeZeros(parts, guest, end);
  const { clusterSize, subclusterSize: unit } = store.geometry;
  const start = alignUp(guest, unit);
  // Behind the disk's end all is zeros already, so its last cluster goes whole. But as in QEMU a
  // piece of a subcluster at the end is taken by itself.
  const atEnd = end === diskSize;
  const stop = atEnd && end % unit === 0 ? alignUp(end, clusterSize) : alignDown(end, unit);
  // Within one subcluster. A range that only touches the border of two has an edge in each.
  if (start > stop) return zeroEdge(parts, guest, end, unmap);
  if (guest < start) await zeroEdge(parts, guest, start, unmap);
  const sure = atEnd ? end : stop;
  if (parts.rawDataFile && start < sure) await zeroDataFile(parts, start, sure, unmap);
  await zeroUnits(parts, start, stop, unmap);
  if (stop < end && atEnd) {
    const whole = stop % clusterSize === 0 ? clusterSize : unit;
    await zeroUnits(parts, stop, alignUp(end, whole), unmap);
  } else if (stop < end) await zeroEdge(parts, stop, end, unmap);
}

/** Zeros whole subclusters. */
async function zeroUnits(
  parts: WriteParts,
  from: number,
  to: number,
  unmap: boolean,
): Promise<void> {
  const { store } = parts;
  if (store.header.version === 2) {
    return discardClusters(parts, { from, to, keepNothing: false });
  }
  for (let at = from; at < to; ) {
    const start = at;
    const step = await store.lock.run(() => zeroStep(parts, start, to, unmap));
    // Part of a compressed cluster has no entry of its own: writing makes it a plain one.
    if (step.write) await writeZeros(parts, start, step.reached);
    at = step.reached;
  }
}

/** A raw data file must read right by itself, and keeps its room, as a raw disk does. */
async function zeroDataFile(
  { store }: WriteParts,
  from: number,
  to: number,
  unmap: boolean,
): Promise<void> {
  const zeroed = store.data.zero(from, to - from);
  if (!settled(zeroed)) await zeroed;
  if (!unmap) await store.data.allocate?.(from, to - from);
}

async function writeZeros(parts: WriteParts, from: number, to: number): Promise<void> {
  const zeros = new Uint8Array(Math.min(CHUNK_BYTES, to - from));
  for (let at = from; at < to; at += zeros.length) {
    await writeRange(parts, at, zeros.subarray(0, Math.min(zeros.length, to - at)));
  }
}

/**
 * Zeros a part of one subcluster: by its entry where the rest of it is zeros without data, here and
 * behind, else by writing. Data is not read for that, as QEMU does not.
 */
async function zeroEdge(
  parts: WriteParts,
  from: number,
  to: number,
  unmap: boolean,
): Promise<void> {
  const { store } = parts;
  const unit = store.geometry.subclusterSize;
  const start = alignDown(from, unit);
  const cell = await store.lock.run(async () => {
    const place = await parts.tables.find(from);
    return place && parts.tables.read(place, { unaligned: true });
  });
  const within = from % store.geometry.clusterSize;
  const touched = touchedMask(parts, within, within + to - from);
  const plain = cell === undefined || (cell.kind === 'plain' && (cell.data & touched) === 0);
  const isZero = cell?.kind === 'plain' && (cell.zero & touched) !== 0;
  const hasNothing = async (at: number, end: number) =>
    isZero || !parts.backing || holdsNothing(parts.backing, at, end);
  if (plain && (await hasNothing(start, from)) && (await hasNothing(to, start + unit))) {
    if (parts.rawDataFile) await zeroDataFile(parts, from, to, unmap);
    await zeroUnits(parts, start, start + unit, unmap);
    return;
  }
  await writeZeros(parts, from, to);
}

/** Whether a disk, and all behind it, has no data in [from, to): raw ones may have holes. */
async function holdsNothing(disk: Disk, from: number, to: number): Promise<boolean> {
  const end = Math.min(to, disk.size);
  if (from >= end) return true;
  const list = new ExtentList();
  await disk.collectExtents(from, end, list);
  for (let index = 0; index < list.count; index++) {
    const kind = list.kind(index);
    if (kind === ExtentKind.hole || kind === ExtentKind.zero) continue;
    const { storage, clusterSize, encrypted } = disk.sources[list.source(index)] as DataSource;
    if (kind !== ExtentKind.data || clusterSize !== 1 || encrypted) return false;
    const host = list.host(index);
    const ranges = storage.dataRanges?.(host, host + list.length(index), true);
    if (!ranges) return false;
    for (const _ of ranges) return false;
  }
  return true;
}

/** How far a step went; `write` where the range up to there must be written instead. */
interface ZeroStep {
  readonly reached: number;
  readonly write: boolean;
}

/** Zeros whole subclusters in the entries of one slice. */
async function zeroStep(
  parts: WriteParts,
  from: number,
  to: number,
  unmap: boolean,
): Promise<ZeroStep> {
  const { store, tables } = parts;
  const { clusterSize } = store.geometry;
  const first = await tables.findForWrite(from);
  const inFirst = from % clusterSize;
  const limit = Math.min(to - from, tables.entriesLeft(first) * clusterSize - inFirst);
  const freed: Cell[] = [];
  let reached = from + limit;
  for (let index = 0; index * clusterSize < inFirst + limit; index++) {
    const start = index === 0 ? inFirst : 0;
    const end = Math.min(clusterSize, inFirst + limit - index * clusterSize);
    const whole = start === 0 && end === clusterSize;
    const place = tables.advance(first, index);
    const old = tables.read(place, { unaligned: true });
    if (whole) zeroWhole(parts, place, old, unmap, freed);
    else if (old.kind === 'plain') {
      const touched = touchedMask(parts, start, end);
      const data = (old.data & ~touched) >>> 0;
      tables.write(place, { ...old, data, zero: (old.zero | touched) >>> 0 });
    } else {
      if (index === 0) return { reached: from + end - start, write: true };
      reached = place.guest;
      break;
    }
  }
  parts.reader.forget();
  // As with a discard, QEMU hands them out at once.
  await freeCells(parts, freed, { reusable: true, discard: 'request' });
  return { reached, write: false };
}

function zeroWhole(
  parts: WriteParts,
  place: CellPlace,
  old: Cell,
  unmap: boolean,
  freed: Cell[],
): void {
  if (old.kind === 'compressed' || (unmap && old.host >= 0)) {
    parts.tables.write(place, { ...EMPTY, zero: ALL });
    freed.push(old);
  } else if (old.zero !== ALL) {
    parts.tables.write(place, { ...old, data: 0, zero: ALL });
  }
}
