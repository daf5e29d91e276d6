/**
 * Steps of a write, and planning them: a stretch of clusters that can be written in place, or one
 * that needs clusters, which are taken then.
 */
import { cHex } from '../../base/sizes.ts';
import { corruption } from './corruption.ts';
import { type Edge, edgeOf, largerEdge } from './edges.ts';
import { ALL, type Cell, type CellPlace } from './l2-tables.ts';
import type { WriteParts } from './write-parts.ts';

/** A stretch of guest bytes and how it is written. All numbers are bytes. */
export interface Step {
  readonly guest: number;
  readonly length: number;
  /** `in-place`: the bytes have a place. `reuse`: their clusters have, but some of their entries
   * must change. `new`: clusters were just taken. */
  readonly mode: 'in-place' | 'reuse' | 'new';
  /** Host offset of the byte at `guest`. */
  readonly host: number;
  /** The range that is written: `guest` and `length`, and what is copied along on both sides. */
  readonly from: number;
  readonly to: number;
  /** What the guest reads on both sides of the data, up to there. */
  readonly edges: Edge;
  /** Clusters of it are left behind, and serve the next who needs some. */
  readonly letsGo: boolean;
}

/** No place in the file. */
export const NOWHERE = -1;

/** The subclusters of a cluster that the bytes [from, to) of it touch, as a mask. */
export function touchedMask(parts: WriteParts, from: number, to: number): number {
  const { extendedL2, subclusterSize } = parts.store.geometry;
  if (!extendedL2) return ALL;
  const first = Math.floor(from / subclusterSize);
  const last = Math.floor((to - 1) / subclusterSize);
  const upTo = last === 31 ? ALL : 2 ** (last + 1) - 1;
  return (upTo & ~(2 ** first - 1)) >>> 0;
}

type Mode = Step['mode'];

/** How a cluster is written. @param touched the subclusters that are, as a mask */
export function modeOf(parts: WriteParts, cell: Cell, touched: number): Mode {
  if (cell.kind === 'compressed' || cell.host < 0) return 'new';
  if (!cell.copied && !parts.store.hasDataFile) return 'new';
  return (cell.data & touched) >>> 0 === touched ? 'in-place' : 'reuse';
}

/** Finds what to do with the bytes at `guest`, and takes clusters where they need them. */
export async function planStep(
  parts: WriteParts,
  wanted: { readonly guest: number; readonly length: number; readonly next: number },
): Promise<Step> {
  const { guest } = wanted;
  const { clusterSize } = parts.store.geometry;
  const inFirst = guest % clusterSize;
  const first = await parts.tables.findForWrite(guest);
  const { mode, edges, cell, alike, others, length } = findStretch(
    parts,
    first,
    inFirst,
    wanted.length,
  );
  const count = alike + others.length;
  const taken = await hostForStep(parts, { mode, cell, place: first, count }, wanted);
  const last = others[taken.count - 1 - alike] ?? cell;
  const covered = Math.min(length, taken.count * clusterSize - inFirst);
  const host = taken.host + inFirst;
  if (mode === 'in-place') {
    const to = guest + covered;
    return { guest, length: covered, mode, host, from: guest, to, edges: 'none', letsGo: false };
  }
  const letsGo = mode === 'new' && [cell, ...others].some(hasCluster);
  const end = (inFirst + covered) % clusterSize;
  const head = headBytes(parts, edges[0], cell, inFirst);
  const tail = tailBytes(parts, edges[1], last, end);
  const [from, to] = [guest - head, guest + covered + tail];
  const both = largerEdge(
    head > 0 ? edgeOf(parts, cell, touchedMask(parts, inFirst - head, inFirst)) : 'none',
    tail > 0 ? edgeOf(parts, last, touchedMask(parts, end, end + tail)) : 'none',
  );
  return { guest, length: covered, mode, host, from, to, edges: both, letsGo };
}

/** Clusters that are written in one request. */
interface Stretch {
  readonly mode: Mode;
  /** What it would be for the first cluster alone, and for the last one. */
  readonly edges: readonly [Mode, Mode];
  /** The first cell, how many there are that say the same, and those behind them. */
  readonly cell: Cell;
  readonly alike: number;
  readonly others: readonly Cell[];
  readonly length: number;
}

/**
 * The clusters from `first` on that are written in one request, within one slice: all of them new
 * ones, or such as follow each other in the file, whatever their entries say of them.
 */
function findStretch(
  parts: WriteParts,
  first: CellPlace,
  inFirst: number,
  length: number,
): Stretch {
  const { tables, store } = parts;
  const { clusterSize } = store.geometry;
  const limit = Math.min(length, tables.entriesLeft(first) * clusterSize - inFirst);
  const modeAt = (index: number, cell: Cell) => {
    const from = index === 0 ? inFirst : 0;
    const to = Math.min(clusterSize, inFirst + limit - index * clusterSize);
    return modeOf(parts, cell, touchedMask(parts, from, to));
  };
  const cell = tables.read(first, { unaligned: true });
  const { guest } = first;
  if (modeAt(0, cell) !== 'new') needAligned(cell, { clusterSize, guest: guest + inFirst });
  const head = modeAt(0, cell);
  let [mode, tail] = [head, head];
  const others: Cell[] = [];
  const alike = tables.alike(first, Math.ceil((inFirst + limit) / clusterSize));
  for (let index = alike; index * clusterSize < inFirst + limit; index++) {
    const next = tables.read(tables.advance(first, index), { unaligned: true });
    const own = modeAt(index, next);
    if ((own === 'new') !== (mode === 'new')) break;
    if (mode !== 'new' && hostOf(next) !== hostOf(cell) + index * clusterSize) break;
    if (own === 'reuse') mode = own;
    tail = own;
    others.push(next);
  }
  return { mode, edges: [head, tail], cell, alike, others, length: limit };
}

/** @throws Qcow2Error CORRUPT for a cluster that cannot be where its entry says */
function needAligned(
  cell: Cell,
  { clusterSize, guest }: { readonly clusterSize: number; readonly guest: number },
): void {
  const host = hostOf(cell);
  if (host < 0 || host % clusterSize === 0) return;
  const what = cell.kind === 'plain' && cell.data === 0 ? 'Preallocated zero' : 'Data';
  const place = `(guest offset: ${cHex(guest)})`;
  throw corruption(`${what} cluster offset ${cHex(host)} unaligned ${place}`, host);
}

function hasCluster(cell: Cell): boolean {
  return cell.kind === 'compressed' || cell.host >= 0;
}

function hostOf(cell: Cell): number {
  return cell.kind === 'plain' ? cell.host : -1;
}

/** The clusters of a stretch: where they are, or new ones; a data file has them in guest order. */
async function hostForStep(
  parts: WriteParts,
  stretch: {
    readonly mode: Mode;
    readonly cell: Cell;
    readonly place: CellPlace;
    readonly count: number;
  },
  { next }: { readonly next: number },
): Promise<{ readonly host: number; readonly count: number }> {
  const { mode, cell, place, count } = stretch;
  const { clusterSize } = parts.store.geometry;
  if (mode !== 'new') return { host: hostOf(cell), count };
  if (parts.store.hasDataFile) return { host: place.guest, count };
  if (next !== NOWHERE && next % clusterSize === 0) {
    const free = await parts.allocator.clustersAt(next, count);
    if (free > 0) return { host: next, count: free };
  }
  return { host: await parts.allocator.clusters(count * clusterSize), count };
}

/** Must all of a cluster go where it moves to? (A compressed one, or one without subclusters.) */
function movesWhole(parts: WriteParts, cell: Cell): boolean {
  return !parts.store.geometry.extendedL2 || cell.kind === 'compressed';
}

/** Subclusters of a cluster that is left behind, which have data that goes along. */
function movedData(mode: Mode, cell: Cell): number {
  return mode === 'new' && cell.kind === 'plain' ? cell.data : 0;
}

/** Bytes before the data that are copied along, `at` bytes into the first cluster. */
function headBytes(parts: WriteParts, mode: Mode, cell: Cell, at: number): number {
  const { subclusterSize } = parts.store.geometry;
  if (mode === 'in-place') return 0;
  if (movesWhole(parts, cell)) return at;
  const touched = Math.floor(at / subclusterSize);
  const moved = movedData(mode, cell);
  // From the first one with data on, and what lies in between with it: one request, as in QEMU.
  const first = moved === 0 ? touched : Math.min(touched, 31 - Math.clz32(moved & -moved));
  const head = at - first * subclusterSize;
  return mode === 'reuse' && hasData(cell, touched) ? 0 : head;
}

/** Bytes behind the data that are copied along; the data ends `at` bytes into the last cluster. */
function tailBytes(parts: WriteParts, mode: Mode, cell: Cell, at: number): number {
  if (at === 0 || mode === 'in-place') return 0;
  const { subclusterSize, clusterSize } = parts.store.geometry;
  if (movesWhole(parts, cell)) return clusterSize - at;
  const touched = Math.floor((at - 1) / subclusterSize);
  const moved = movedData(mode, cell);
  const last = moved === 0 ? touched : Math.max(touched, 31 - Math.clz32(moved));
  const tail = (last + 1) * subclusterSize - at;
  return mode === 'reuse' && hasData(cell, touched) ? 0 : tail;
}

function hasData(cell: Cell, subcluster: number): boolean {
  return cell.kind === 'plain' && ((cell.data >>> subcluster) & 1) === 1;
}
