/** What a new raw file has, however sparse it is. */
import { alignUp } from '../base/bits.ts';

/**
 * Bytes at the front of a new file that QEMU gives their room: whoever opens it without the host's
 * cache finds out by reading them how requests have to be aligned, which a hole does not tell.
 */
export function firstBlockBytes(size: number): number {
  return size < 4096 ? Math.min(alignUp(size, 512), 512) : 4096;
}
