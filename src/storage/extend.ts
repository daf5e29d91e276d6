/** Making storage longer, with room for what is new where that is asked for. */
import { settled } from '../base/awaitable.ts';
import { isQcow2Error, Qcow2Error } from '../base/errors.ts';
import { beginStorage } from './front.ts';
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

async function lengthen(storage: Storage, size: number): Promise<void> {
  const isEmpty = size > 0 && !storage.isFixed && (await storage.size()) === 0;
  await setLength(storage, size);
  if (isEmpty) await beginStorage(storage, size);
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
