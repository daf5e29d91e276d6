/** What a new raw file has, however sparse it is. */
import { alignUp } from '../base/bits.ts';
import type { NodeFileStorage } from '../storage/node-file.ts';
import type { ListValues } from './option-list.ts';
import { textOf } from './qcow2-options.ts';

/**
 * Bytes at the front of a new file that QEMU gives their room: whoever opens it without the host's
 * cache finds out by reading them how requests have to be aligned, which a hole does not tell.
 */
export function firstBlockBytes(size: number): number {
  return size < 4096 ? Math.min(alignUp(size, 512), 512) : 4096;
}

/** A data file is a raw file: its front has its room where nothing else gives it any. */
export function beginDataFile(file: NodeFileStorage, values: ListValues): void {
  const mode = textOf(values, 'preallocation', 'off');
  if (file.size() > 0 || mode === 'falloc' || mode === 'full') return;
  file.write(0, new Uint8Array(firstBlockBytes(Number(values.get('size')?.number))));
}
