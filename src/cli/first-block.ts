/** What a new raw file has, however sparse it is. */
import { alignUp } from '../base/bits.ts';
import { isQcow2Error } from '../base/errors.ts';
import type { NodeFileStorage } from '../storage/node-file.ts';
import type { ListValues } from './option-list.ts';
import { textOf } from './qcow2-options.ts';

/**
 * Gives the front of a new, empty file its room, as QEMU does: whoever opens it without the host's
 * cache finds out by reading it how requests have to be aligned, which a hole does not tell. Where
 * there is no room, it has none: nothing has been lost yet.
 * @param size bytes that the file is going to have
 */
export function beginFile(file: NodeFileStorage, size: number): void {
  const bytes = size < 4096 ? Math.min(alignUp(size, 512), 512) : 4096;
  try {
    file.write(0, new Uint8Array(bytes));
  } catch (cause) {
    if (!isQcow2Error(cause, 'IO', 'NO_SPACE')) throw cause;
  }
}

/** A data file is a raw file: its front has its room where nothing else gives it any. */
export function beginDataFile(file: NodeFileStorage, values: ListValues): void {
  const mode = textOf(values, 'preallocation', 'off');
  if (file.size() > 0 || mode === 'falloc' || mode === 'full') return;
  beginFile(file, Number(values.get('size')?.number));
}
