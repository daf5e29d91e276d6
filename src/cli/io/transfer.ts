/**
 * Guest bytes in and out, for all commands that read and write. Long requests are carried out in
 * pieces: they may be 2 GiB, and nobody looks at more than a piece at once.
 */
import { alignDown, alignUp } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { isQcow2 } from '../../format/header.ts';
import type { Disk, Extent, WritableDisk } from '../../image/disk.ts';
import { Qcow2Image } from '../../image/qcow2/qcow2-image.ts';
import { Refusal } from './errno.ts';
import type { OpenedDisk } from './open.ts';
import { writesThrough } from './open-flags.ts';
import { matches, type PatternSource } from './pattern.ts';
import type { Session } from './session.ts';

/** Bytes of a piece: a multiple of the largest cluster. */
const PIECE_BYTES = 16 * 2 ** 20;
const SECTOR = 512;

/** A read, and what is to be done with the bytes. */
export interface ReadRequest {
  readonly guest: number;
  readonly length: number;
  /** Bytes that have to be there: `start` counts from the request's. */
  readonly expected?: { readonly byte: number; readonly start: number; readonly length: number };
  /** Behind the disk's end. */
  readonly vmState?: boolean;
  /** Keep all bytes, to be shown. */
  readonly keep: boolean;
}

/** What a read found. */
export interface ReadResult {
  readonly bytes: Uint8Array | undefined;
  /** False where bytes are not the expected ones. */
  readonly matches: boolean;
}

/** @throws Qcow2Error as `Disk.read` does */
export async function readGuest(
  { disk, flags, writable }: OpenedDisk,
  request: ReadRequest,
): Promise<ReadResult> {
  const { guest, length, expected, keep, vmState } = request;
  const source = vmState ? vmStateOf(disk) : disk;
  if (!vmState) needInside(disk.size, guest, length);
  if (flags.copyOnRead && writable && !vmState) await copyUp(writable, guest, length);
  const all = keep ? new Uint8Array(length) : undefined;
  const piece = new Uint8Array(keep ? 0 : Math.min(length, PIECE_BYTES));
  let good = true;
  for (let done = 0; done < length; done += PIECE_BYTES) {
    const size = Math.min(PIECE_BYTES, length - done);
    const bytes = all ? all.subarray(done, done + size) : piece.subarray(0, size);
    await source.read(guest + done, bytes);
    if (!expected) continue;
    const [start, end] = [expected.start - done, expected.start + expected.length - done];
    good &&= matches(bytes.subarray(Math.max(0, start), Math.max(0, end)), expected.byte);
  }
  return { bytes: all, matches: good };
}

/** Where a disk keeps the state of a virtual machine. @throws Refusal where it has no such place */
function vmStateOf(disk: Disk) {
  if (!(disk instanceof Qcow2Image)) throw new Refusal('Operation not supported');
  return {
    read: (at: number, into: Uint8Array) => disk.readVmState(at, into),
    write: (at: number, from: Uint8Array) => disk.writeVmState(at, from),
  };
}

/** A write. */
export type WriteRequest = { readonly guest: number; readonly length: number } & (
  | { readonly kind: 'bytes' | 'compressed' | 'vm-state'; readonly source: PatternSource }
  | { readonly kind: 'zeros'; readonly unmap: boolean }
);

/**
 * @param options.sync make sure of it before it counts as done
 * @throws Qcow2Error as `WritableDisk` does
 */
export async function writeGuest(
  session: Session,
  request: WriteRequest,
  options: { readonly sync: boolean },
): Promise<void> {
  const { writable: disk, current } = session;
  const { guest, length, kind } = request;
  const { cache, detectZeroes } = current.flags;
  if (kind === 'compressed') needClusters(disk, guest, length);
  if (kind !== 'vm-state') needInside(disk.size, guest, length);
  if (current.flags.compress && kind === 'bytes') {
    await compressClusters(disk, guest, request.source(0, length));
  } else if (kind === 'zeros') {
    if (length > 0) await disk.zero(guest, length, { unmap: request.unmap });
  } else {
    for (let done = 0; done < length; done += PIECE_BYTES) {
      const bytes = request.source(done, Math.min(PIECE_BYTES, length - done));
      if (kind === 'vm-state') {
        await vmStateOf(disk).write(guest + done, bytes);
        continue;
      }
      if (current.guessedRaw && done === 0) await needStillRaw(disk, guest, bytes);
      if (kind === 'compressed') await disk.writeCompressed(guest + done, bytes);
      else if (detectZeroes !== 'off' && matches(bytes, 0)) {
        await disk.zero(guest + done, bytes.length, { unmap: detectZeroes === 'unmap' });
      } else await disk.write(guest + done, bytes);
    }
  }
  if (options.sync || writesThrough(cache)) await disk.flush();
}

/** Writes bytes compressed: what lies around them in their clusters is written along. */
async function compressClusters(disk: WritableDisk, guest: number, bytes: Uint8Array) {
  if (bytes.length === 0) return;
  const { clusterSize } = disk.sources[0]!;
  const start = alignDown(guest, clusterSize);
  const end = Math.min(alignUp(guest + bytes.length, clusterSize), disk.size);
  const whole = new Uint8Array(end - start);
  const head = guest - start;
  const tail = head + bytes.length;
  await disk.read(start, whole.subarray(0, head));
  await disk.read(start + tail, whole.subarray(tail));
  whole.set(bytes, head);
  await disk.writeCompressed(start, whole);
}

/** Requests are refused as a whole, before any piece of them is carried out. */
export function needInside(size: number, guest: number, length: number): void {
  if (guest + length <= size) return;
  throw new Qcow2Error('OUT_OF_RANGE', 'past the end of the disk', guest);
}

/** Compressed clusters are written whole, the disk's last one excepted. */
function needClusters(disk: WritableDisk, guest: number, length: number): void {
  const { clusterSize } = disk.sources[0]!;
  const end = guest + length;
  const whole = end % clusterSize === 0 || end === disk.size;
  if (guest % clusterSize !== 0 || (!whole && end < disk.size))
    throw new Refusal('Invalid argument');
}

/** A disk that was taken for raw must not come back as something else. */
async function needStillRaw(disk: WritableDisk, guest: number, bytes: Uint8Array): Promise<void> {
  if (guest >= SECTOR) return;
  const head = new Uint8Array(Math.min(SECTOR, disk.size));
  await disk.read(0, head);
  head.set(bytes.subarray(0, head.length - guest), guest);
  if (isQcow2(head)) throw new Refusal('Operation not permitted');
}

/** Copies what a read would find further down the chain into the disk itself. */
async function copyUp(disk: WritableDisk, guest: number, length: number): Promise<void> {
  const { clusterSize } = disk.sources[0]!;
  const start = alignDown(guest, clusterSize);
  const end = Math.min(alignUp(guest + length, clusterSize), disk.size);
  const missing: Extent[] = [];
  for await (const extent of disk.extents(start, end)) {
    // Also what no image of the chain has, and so reads as zeros.
    if (extent.depth > 0 || extent.kind === 'hole') missing.push(extent);
  }
  for (const extent of missing) {
    if (extent.kind === 'hole' || extent.kind === 'zero') {
      await disk.zero(extent.guest, extent.length);
      continue;
    }
    for (let done = 0; done < extent.length; done += PIECE_BYTES) {
      const bytes = new Uint8Array(Math.min(PIECE_BYTES, extent.length - done));
      await disk.read(extent.guest + done, bytes);
      if (matches(bytes, 0)) await disk.zero(extent.guest + done, bytes.length);
      else await disk.write(extent.guest + done, bytes);
    }
  }
}
