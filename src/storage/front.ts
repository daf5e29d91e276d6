/** What a file that was empty begins with, however sparse it is. */
import { isQcow2Error } from '../base/errors.ts';
import type { Storage } from './storage.ts';

const FRONT_BYTES = 4096;

/**
 * Gives the front of an empty file its room, as QEMU does: whoever opens it without the host's
 * cache finds out by reading it how requests have to be aligned, which a hole does not tell. Where
 * there is no room, it has none: nothing has been lost yet.
 * @param size bytes that the file has, or is going to have
 * @throws Qcow2Error of any kind, but those that say that the host refused it
 */
export async function beginStorage(storage: Pick<Storage, 'write'>, size: number): Promise<void> {
  const bytes = size < FRONT_BYTES ? Math.min(size, 512) : FRONT_BYTES;
  try {
    await storage.write(0, new Uint8Array(bytes));
  } catch (cause) {
    if (!isQcow2Error(cause, 'IO', 'NO_SPACE')) throw cause;
  }
}
