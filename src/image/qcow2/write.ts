/**
 * Writing guest bytes. A request is cut into steps: a stretch of clusters that can be written in
 * place, or one that needs clusters, its edges filled with what the guest saw there before.
 */
import { settled } from '../../base/awaitable.ts';
import { alignDown, alignUp } from '../../base/bits.ts';
import { cHex } from '../../base/sizes.ts';
import { SECTOR_BYTES } from '../../crypto/sector-batch.ts';
import type { Storage } from '../../storage/storage.ts';
import type { FreeOptions } from './allocate.ts';
import { corruption } from './corruption.ts';
import { type Edge, edgeOf, largerEdge, zeroEdges } from './edges.ts';
import type { SectorPlace } from './encryption.ts';
import { discardRange } from './give-back.ts';
import { ALL, type Cell, type CellPlace } from './l2-tables.ts';
import { isDebugged, needInside, type WriteParts, withRange } from './write-parts.ts';

/** A stretch of guest bytes and how it is written. All numbers are bytes. */
interface Step {
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

/** How a request goes that others follow before it is done. */
export interface WriteAhead {
  /** The image's data, large pieces of it written by calls that answer later. */
  readonly data: Storage;
  /** Called when the next request may begin, which is given the clusters that it would be later. */
  readonly placed: () => void;
  /** Waits for all that began before it. */
  readonly settle: () => Promise<unknown>;
}

/** Encrypted bytes that are held at a time, before they are written. */
const CHUNK_BYTES = 1024 * 1024;

/** No place in the file. */
const NOWHERE = -1;

/** Writes guest bytes; the range lies inside the disk. */
export async function writeGuest(
  parts: WriteParts,
  guest: number,
  bytes: Uint8Array,
  ahead?: WriteAhead,
): Promise<void> {
  // Encrypted sectors are written whole, so that is how they are held.
  const { start, end } = sectorsAround(guest, guest + bytes.length);
  const range = parts.encryption
    ? { guest: start, length: end - start }
    : { guest, length: bytes.length };
  const shared = isDebugged(parts) && (await isInPlace(parts, range));
  const work = async () => {
    needInside(parts, { guest, length: bytes.length });
    const marked = parts.bitmaps.mark(guest, bytes.length);
    if (!settled(marked)) await marked;
    await writeRange(parts, guest, bytes, ahead);
  };
  await withRange(parts, range, work, { shared });
}

/** Whether all of a range has clusters that are the image's own. */
async function isInPlace(
  parts: WriteParts,
  { guest, length }: { readonly guest: number; readonly length: number },
): Promise<boolean> {
  const { store, tables } = parts;
  const { clusterSize } = store.geometry;
  const end = Math.min(guest + length, store.header.size);
  for (let at = guest; at < end; ) {
    const cluster = alignDown(at, clusterSize);
    const to = Math.min(end, cluster + clusterSize);
    const mask = touchedMask(parts, at - cluster, to - cluster);
    const mode = await store.lock.run(async () => {
      const place = await tables.find(at);
      return place ? modeOf(parts, tables.read(place, { unaligned: true }), mask) : 'new';
    });
    if (mode !== 'in-place') return false;
    at = to;
  }
  return true;
}

function sectorsAround(from: number, to: number): { readonly start: number; readonly end: number } {
  return { start: alignDown(from, SECTOR_BYTES), end: alignUp(to, SECTOR_BYTES) };
}

/** The same for a caller that holds the range. */
export async function writeRange(
  parts: WriteParts,
  from: number,
  wanted: Uint8Array,
  ahead?: WriteAhead,
): Promise<void> {
  const { start, end } = sectorsAround(from, from + wanted.length);
  if (!parts.encryption || end - start === wanted.length) {
    return writeSteps(parts, from, wanted, ahead);
  }
  await writeSteps(parts, start, await wholeSectors(parts, { start, end, from }, wanted), ahead);
}

async function writeSteps(
  parts: WriteParts,
  guest: number,
  bytes: Uint8Array,
  ahead: WriteAhead | undefined,
): Promise<void> {
  const { data } = ahead ?? parts.store;
  const underWay: Promise<void>[] = [];
  // When entries change decides when clusters that were let go of can be had again.
  const settle = async () => {
    await ahead?.settle();
    await Promise.allSettled(underWay);
  };
  // Where the step before ended in its file: what follows on goes there if it can, as in QEMU.
  let next = NOWHERE;
  try {
    for (let done = 0; done < bytes.length; ) {
      const wanted = { guest: guest + done, length: bytes.length - done, next };
      if (ahead && parts.store.order.setsAside) await settle();
      const step = await parts.store.lock.run(() => planStep(parts, wanted));
      if (ahead && step.letsGo) await settle();
      const written = writeStep(parts, step, bytes.subarray(done, done + step.length), data);
      if (ahead && !step.letsGo) {
        // Whoever waits for all of them hears of it.
        written.catch(() => {});
        underWay.push(written);
      } else await written;
      done += step.length;
      next = step.host + step.length;
    }
    ahead?.placed();
  } finally {
    await Promise.allSettled(underWay);
  }
  await Promise.all(underWay);
}

async function writeStep(
  parts: WriteParts,
  step: Step,
  bytes: Uint8Array,
  data: Storage,
): Promise<void> {
  if (step.mode === 'in-place') await writeData(parts, step, bytes, { data });
  else await writeAllocated(parts, step, bytes, data);
}

/** The sectors that a write touches, with what the guest reads in them now around its bytes. */
async function wholeSectors(
  parts: WriteParts,
  { start, end, from }: { readonly start: number; readonly end: number; readonly from: number },
  bytes: Uint8Array,
): Promise<Uint8Array> {
  const sectors = new Uint8Array(end - start);
  const last = end - SECTOR_BYTES;
  await parts.reader.read(start, sectors.subarray(0, SECTOR_BYTES));
  if (last > start) await parts.reader.read(last, sectors.subarray(last - start));
  sectors.set(bytes, from - start);
  return sectors;
}

/**
 * Writes bytes of plain clusters to their place, encrypted where the image is.
 * @param options.copied whether some of them were there before, elsewhere
 * @param options.data in place of the image's own
 */
export async function writeData(
  parts: WriteParts,
  place: SectorPlace,
  bytes: Uint8Array,
  { copied = false, data = parts.store.data }: { copied?: boolean; data?: Storage } = {},
): Promise<void> {
  const { store, encryption } = parts;
  const { host } = place;
  if (store.storage.announce) await store.storage.announce('write_aio');
  if (copied && store.storage.announce) await store.storage.announce('cow_write');
  if (!store.hasDataFile) store.overlap.check(host, bytes.length, 'data');
  for (let done = 0; done < bytes.length; done += CHUNK_BYTES) {
    let part = bytes;
    if (encryption) {
      // The caller's bytes stay as they are.
      part = bytes.slice(done, done + CHUNK_BYTES);
      encryption.encrypt(part, { guest: place.guest + done, host: host + done });
    }
    const written = data.write(host + done, part);
    if (!settled(written)) await written;
    if (!encryption) return;
  }
}

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

function modeOf(parts: WriteParts, cell: Cell, touched: number): Mode {
  if (cell.kind === 'compressed' || cell.host < 0) return 'new';
  if (!cell.copied && !parts.store.hasDataFile) return 'new';
  return (cell.data & touched) >>> 0 === touched ? 'in-place' : 'reuse';
}

/** Finds what to do with the bytes at `guest`, and takes clusters where they need them. */
async function planStep(
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

/** Writes data and what goes along with it, then shows it in the entries. */
async function writeAllocated(
  parts: WriteParts,
  step: Step,
  bytes: Uint8Array,
  data: Storage,
): Promise<void> {
  const { store } = parts;
  try {
    const place = { guest: step.from, host: step.host - (step.guest - step.from) };
    const zeroed = zeroEdges(parts, step, place.host, data);
    if (settled(zeroed) ? zeroed : await zeroed) {
      await writeData(parts, step, bytes, { data });
    } else {
      const whole = await withEdges(parts, step, bytes);
      await writeData(parts, place, whole, { copied: whole !== bytes, data });
    }
  } catch (cause) {
    if (step.mode === 'new') await giveBack(parts, step);
    throw cause;
  }
  await store.lock.run(() => link(parts, step));
}

/** The bytes of a step with its edges filled by what the guest reads there now. */
async function withEdges(parts: WriteParts, step: Step, bytes: Uint8Array): Promise<Uint8Array> {
  const { guest, length, from, to } = step;
  if (from === guest && to === guest + length) return bytes;
  const whole = new Uint8Array(to - from);
  const head = guest - from;
  const { storage } = parts.store;
  if (storage.announce) await storage.announce('cow_read');
  if (head > 0) await parts.reader.read(from, whole.subarray(0, head));
  whole.set(bytes, head);
  if (to > guest + length) await parts.reader.read(guest + length, whole.subarray(head + length));
  return whole;
}

function clustersOf(
  parts: WriteParts,
  step: Step,
): { readonly host: number; readonly count: number } {
  const { clusterSize } = parts.store.geometry;
  const inFirst = step.guest % clusterSize;
  return { host: step.host - inFirst, count: Math.ceil((inFirst + step.length) / clusterSize) };
}

/** Data could not be written: its clusters go back. That this fails too leaks them. */
async function giveBack(parts: WriteParts, step: Step): Promise<void> {
  const { store, allocator } = parts;
  if (store.hasDataFile || store.corruption.caught) return;
  const { host, count } = clustersOf(parts, step);
  const length = count * store.geometry.clusterSize;
  await store.lock.run(() => allocator.free(host, length)).catch(() => {});
}

/** Makes the entries show what was written, and lets go of what they showed before. */
async function link(parts: WriteParts, step: Step): Promise<void> {
  const { store, tables } = parts;
  const { clusterSize } = store.geometry;
  const { host, count } = clustersOf(parts, step);
  if (step.mode === 'new' && !store.hasDataFile) await store.order.entryAfterRefcount();
  store.order.entryAfterData();
  const first = await tables.findForWrite(step.guest);
  if (tables.linkFresh(first, count, host)) {
    parts.reader.forget();
    return;
  }
  const replaced: Cell[] = [];
  const start = alignDown(step.guest, clusterSize);
  for (let index = 0; index < count; index++) {
    const place = tables.advance(first, index);
    const old = tables.read(place, { unaligned: true });
    const from = Math.max(0, step.from - start - index * clusterSize);
    const to = Math.min(clusterSize, step.to - start - index * clusterSize);
    const touched = touchedMask(parts, from, to);
    const was = old.kind === 'plain' ? old : { data: ALL, zero: 0 };
    tables.write(place, {
      kind: 'plain',
      host: host + index * clusterSize,
      copied: true,
      data: (was.data | touched) >>> 0,
      zero: (was.zero & ~touched) >>> 0,
    });
    if (step.mode === 'new') replaced.push(old);
  }
  parts.reader.forget();
  for (const old of replaced) await freeCell(parts, old);
}

/** Lets go of what cells referred to; clusters that follow each other in the file go at once. */
export async function freeCells(
  parts: WriteParts,
  cells: readonly Cell[],
  options: FreeOptions,
): Promise<void> {
  const { clusterSize } = parts.store.geometry;
  const hosts = cells.map(({ kind, host }) => (kind === 'plain' ? host : -1));
  for (let index = 0; index < cells.length; ) {
    const host = hosts[index]!;
    let end = index + 1;
    if (host >= 0 && host % clusterSize === 0) {
      while (hosts[end] === host + (end - index) * clusterSize) end++;
    }
    await freeCell(parts, cells[index]!, options, end - index);
    index = end;
  }
}

/**
 * Lets go of what a cell referred to.
 * @param options.reusable what the cell showed may be anything until the next flush
 * @param count clusters that follow each other, from the cell's own on
 */
export async function freeCell(
  parts: WriteParts,
  cell: Cell,
  options: FreeOptions = {},
  count = 1,
): Promise<void> {
  const { store, allocator } = parts;
  const length = count * store.geometry.clusterSize;
  if (store.hasDataFile) {
    if (cell.kind === 'plain' && cell.host >= 0 && options.discard) {
      // Its place is its own, so no one can have taken it.
      if (store.passesDiscard(options.discard)) {
        await discardRange(store.data, cell.host, length);
      }
    }
    return;
  }
  if (cell.kind === 'compressed') {
    // Whole sectors, as the descriptor counts them. A stream must stay one that decodes.
    const start = cell.host - (cell.host % 512);
    const bytes = cell.host + cell.length - start;
    await allocator.free(start, bytes, { ...options, reusable: false });
  } else if (cell.host % store.geometry.clusterSize > 0) {
    store.corruption.tell(`Cannot free unaligned cluster ${cHex(cell.host)}`);
  } else if (cell.host >= 0) {
    await allocator.free(cell.host, length, options);
  }
}
