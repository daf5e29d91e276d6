/** Asking a disk for its extents, where an error is to tell later that it was this that failed. */
import { type Awaitable, settled } from '../base/awaitable.ts';
import { atGuest, isQcow2Error, type Qcow2Error } from '../base/errors.ts';
import type { Disk, ExtentList } from '../image/disk.ts';

const UNMAPPED = new WeakSet<Qcow2Error>();

/** True for an error of a disk that could not say what a range is made of. */
export function isUnmapped(cause: Qcow2Error): boolean {
  return UNMAPPED.has(cause);
}

/**
 * As `Disk.collectExtents`; what it throws has the place in the disk, by the disk's own count.
 * @throws Qcow2Error CORRUPT or IO, for which `isUnmapped` is true
 */
export function collectExtents(
  disk: Disk,
  [from, to]: readonly [from: number, to: number],
  list: ExtentList,
  sourceBase: number,
): Awaitable<void> {
  const fail = (cause: unknown): never => {
    if (isQcow2Error(cause)) UNMAPPED.add(atGuest(cause, from) as Qcow2Error);
    throw cause;
  };
  try {
    const collected = disk.collectExtents(from, to, list, sourceBase);
    return settled(collected) ? undefined : collected.catch(fail);
  } catch (cause) {
    return fail(cause);
  }
}
