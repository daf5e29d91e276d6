/** Making storage longer, with room for what is new where that is asked for. */
import { settled } from '../base/awaitable.ts';
import { Qcow2Error } from '../base/errors.ts';
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
  if (reserve === 'off') {
    await storage.truncate(size);
    return;
  }
  if (storage.isFixed) {
    const what = `Preallocation mode '${reserve}' unsupported for this non-regular file`;
    throw new Qcow2Error('UNSUPPORTED', what);
  }
  const from = await storage.size();
  if (size < from) {
    throw new Qcow2Error('OUT_OF_RANGE', 'Cannot use preallocation for shrinking files');
  }
  if (size === from) return;
  if (reserve === 'falloc' && storage.allocate) {
    await storage.allocate(from, size - from);
    return;
  }
  const zeros = new Uint8Array(Math.min(ZEROS_BYTES, size - from));
  for (let at = from; at < size; at += zeros.length) {
    const written = storage.write(at, zeros.subarray(0, Math.min(zeros.length, size - at)));
    if (!settled(written)) await written;
  }
}
