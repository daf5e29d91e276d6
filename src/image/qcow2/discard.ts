/**
 * Discarding: whole clusters go, and read as zeros afterwards, also where a backing file would
 * show through.
 */
import { settled } from '../../base/awaitable.ts';
import { alignDown, alignUp } from '../../base/bits.ts';
import { freeCells } from './free-cells.ts';
import { ALL, type Cell, type CellPlace, EMPTY } from './l2-tables.ts';
import { isDebugged, needInside, type WriteParts, withRange } from './write-parts.ts';

/** Discards what of a guest range covers whole clusters; the disk's last one may be partial. */
export async function discardGuest(
  parts: WriteParts,
  range: { readonly guest: number; readonly length: number; readonly diskSize: number },
): Promise<void> {
  const { store } = parts;
  const { clusterSize } = store.geometry;
  const end = range.guest + range.length;
  const start = alignUp(range.guest, clusterSize);
  const stop = end === range.diskSize ? alignUp(end, clusterSize) : alignDown(end, clusterSize);
  if (start >= stop) return;
  // Without a zero flag the backing file's bytes would come back.
  if (store.header.version === 2 && parts.backing) return;
  const clusters = { guest: start, length: stop - start };
  const work = async () => {
    needInside(parts, range);
    const marked = parts.bitmaps.mark(range.guest, range.length);
    if (!settled(marked)) await marked;
    if (parts.rawDataFile) {
      await store.data.zero(start, Math.min(stop, range.diskSize) - start);
    }
    await discardClusters(parts, { from: start, to: stop, keepNothing: false });
  };
  await withRange(parts, clusters, work, { shared: isDebugged(parts) });
}

/**
 * Discards whole clusters for a caller that holds the range.
 * @param range.keepNothing leaves them unallocated: what lies behind the disk's end is nobody's
 */
export async function discardClusters(
  parts: WriteParts,
  range: { readonly from: number; readonly to: number; readonly keepNothing: boolean },
): Promise<void> {
  const { store } = parts;
  const { l2Span } = store.geometry;
  for (let at = range.from; at < range.to; ) {
    const { host } = store.l1Entry(Math.floor(at / l2Span));
    if (host === 0 && (range.keepNothing || !parts.backing)) {
      at = Math.min(range.to, alignDown(at, l2Span) + l2Span);
      continue;
    }
    const from = at;
    at = await store.lock.run(() => discardStep(parts, from, range.to, range.keepNothing));
  }
}

const readEntry = ({ tables }: WriteParts, place: CellPlace) =>
  tables.read(place, { unaligned: true });

/** What reads as zeros stays as it is, unless it is to be nothing at all. */
function staysAsItIs({ backing }: WriteParts, cell: Cell, keepNothing: boolean): boolean {
  if (cell.kind === 'compressed' || cell.host >= 0) return false;
  return keepNothing ? cell.zero === 0 : !backing || cell.zero === ALL;
}

async function discardStep(
  parts: WriteParts,
  from: number,
  to: number,
  keepNothing: boolean,
): Promise<number> {
  const { store, tables } = parts;
  const { clusterSize } = store.geometry;
  const entriesFrom = (place: CellPlace) =>
    Math.min((to - from) / clusterSize, tables.entriesLeft(place));
  const there = await tables.find(from);
  const isPlain = (place: CellPlace) => staysAsItIs(parts, readEntry(parts, place), keepNothing);
  if (there) {
    // A table that a snapshot has, too, is not copied for nothing.
    const count = entriesFrom(there);
    let index = 0;
    while (index < count) {
      const place = tables.advance(there, index);
      if (!isPlain(place)) break;
      index += tables.alike(place, count - index);
    }
    if (index === count) return from + count * clusterSize;
  }
  const first = await tables.findForWrite(from);
  const count = entriesFrom(first);
  const freed: Cell[] = [];
  for (let index = 0; index < count; index++) {
    const place = tables.advance(first, index);
    const old = readEntry(parts, place);
    if (staysAsItIs(parts, old, keepNothing)) continue;
    const zero = keepNothing || store.header.version === 2 ? 0 : ALL;
    tables.write(place, zero === 0 ? EMPTY : { ...EMPTY, zero });
    freed.push(old);
  }
  parts.reader.forget();
  // Until the next flush a discarded range may show anything that can be read: QEMU hands such
  // clusters out at once, and so do we.
  const discard = keepNothing ? 'shrink' : 'request';
  await freeCells(parts, freed, { reusable: true, discard });
  return from + count * clusterSize;
}
