/** Making storage longer, with room for what is new where that is asked for. */
import { settled } from '../base/awaitable.ts';
import { isQcow2Error, Qcow2Error } from '../base/errors.ts';
import type { Storage } from './storage.ts';

/** `off`: what is new may be a hole. `falloc`: it has its room. `full`: zeros are written. */
export type Reserve = 'off' | 'falloc' | 'full';

const ZEROS_BYTES = 1024 * 1024;

/**
 * Makes storage `size` bytes long; shorter is possible only with `off`.
 * @throws Qcow2Error OUT_OF_RANGE, UNSUPPORTED, NO_SPACE or IO
 */
export async function extendStorage(
  storage: Storage,
  size: number,
  reserve: Reserve,
): Promise<void> {
  if (reserve === 'off') return lengthen(storage, size);
  if (storage.isFixed) {
    const what = `Preallocation mode '${reserve}' unsupported for this non-regular file`;
    throw new Qcow2Error('UNSUPPORTED', what);
  }
  const from = await storage.size();
  if (size < from) {
    throw new Qcow2Error('OUT_OF_RANGE', 'Cannot use preallocation for shrinking files');
  }
  if (size === from) return;
  try {
    if (reserve === 'falloc' && storage.allocate) await storage.allocate(from, size - from);
    else {
      await setLength(storage, size);
      await writeZeros(storage, from, size);
    }
  } catch (cause) {
    // Room that is of no use is given back.
    await storage.truncate(from);
    throw cause;
  }
}

/** Bytes at the front of a file that was empty: they have their room, however sparse it is. */
const FRONT_BYTES = 4096;

/**
 * As QEMU does it, what was empty begins with zeros that are written: whoever opens a file without
 * the host's cache finds out by reading its front how requests have to be aligned, which a hole
 * does not tell. Where there is no room for them nothing is lost.
 */
async function lengthen(storage: Storage, size: number): Promise<void> {
  const isEmpty = size > 0 && !storage.isFixed && (await storage.size()) === 0;
  await setLength(storage, size);
  if (!isEmpty) return;
  try {
    await storage.write(0, new Uint8Array(size < FRONT_BYTES ? Math.min(512, size) : FRONT_BYTES));
  } catch (cause) {
    if (!isQcow2Error(cause, 'IO', 'NO_SPACE')) throw cause;
  }
}

async function setLength(storage: Storage, size: number): Promise<void> {
  try {
    await storage.truncate(size);
  } catch (cause) {
    // A device says itself what it cannot do.
    throw storage.isFixed ? cause : failed('Could not resize file', cause);
  }
}

async function writeZeros(storage: Storage, from: number, to: number): Promise<void> {
  const zeros = new Uint8Array(Math.min(ZEROS_BYTES, to - from));
  try {
    for (let at = from; at < to; at += zeros.length) {
      const written = storage.write(at, zeros.subarray(0, Math.min(zeros.length, to - at)));
      if (!settled(written)) await written;
    }
  } catch (cause) {
    throw failed('Could not write zeros for preallocation', cause);
  }
}

/** An error of the storage, which says what it did and why it could not, in QEMU's words. */
function failed(what: string, cause: unknown): unknown {
  if (!isQcow2Error(cause) || cause.cause === undefined) return cause;
  const why = cause.message.replace(/^.*: /s, '');
  return new Qcow2Error(cause.code, `${what}: ${why}`, undefined, cause.cause);
}
