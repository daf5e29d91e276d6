/**
 * Writing guest bytes. A request is cut into steps: a stretch of clusters that can be written in
 * place, or one that needs clusters, its edges filled with what the guest saw there before.
 */
import { settled } from '../../base/awaitable.ts';
import { alignDown, alignUp } from '../../base/bits.ts';
import { SECTOR_BYTES } from '../../crypto/sector-batch.ts';
import type { Storage } from '../../storage/storage.ts';
import { zeroEdges } from './edges.ts';
import type { SectorPlace } from './encryption.ts';
import { freeCell } from './free-cells.ts';
import { ALL, type Cell } from './l2-tables.ts';
import { isDebugged, needInside, type WriteParts, withRange } from './write-parts.ts';
import { modeOf, NOWHERE, planStep, type Step, touchedMask } from './write-step.ts';

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
