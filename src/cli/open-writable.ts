/** Opening the image that a command changes, with the messages of QEMU's tools. */
import type { WritableDisk } from '../image/disk.ts';
import type { Host } from './command.ts';
import { openWritableImage } from './open-image.ts';

/** How an image of the command line is opened for writing. */
export interface OpenWritableOptions {
  readonly format: string | undefined;
  readonly untrusted: boolean;
  readonly forceShare?: boolean;
  /** The backing file that the image names is left alone. */
  readonly backing?: 'none';
  /** Its size is to change. */
  readonly resizes?: boolean;
}

/**
 * Opens an image for writing, and what it is backed by for reading; warns where it is raw by
 * guess.
 * @throws UsageError where it cannot be opened
 */
export function openWritable(
  host: Host,
  filename: string,
  options: OpenWritableOptions,
): Promise<WritableDisk> {
  return openWritableImage(host, filename, { ...options, warns: true });
}
