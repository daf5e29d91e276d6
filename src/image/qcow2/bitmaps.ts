/** Persistent bitmaps of an image: reading their directory. */
import { Qcow2Error } from '../../base/errors.ts';
import {
  type BitmapDirectoryEntry,
  type BitmapExtension,
  parseBitmapDirectory,
} from '../../format/bitmap-directory.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { Storage } from '../../storage/storage.ts';

/**
 * Reads the bitmap directory.
 * @throws Qcow2Error CORRUPT, `at` = file offset of the entry or of the directory
 */
export async function readBitmapDirectory(
  storage: Storage,
  extension: BitmapExtension,
  options: { readonly clusterSize: number; readonly diskSize: number },
): Promise<BitmapDirectoryEntry[]> {
  const { directoryOffset: at, directoryBytes, count } = extension;
  if (at + directoryBytes > (await storage.size())) {
    throw new Qcow2Error('CORRUPT', 'bitmap directory lies past the end of the file', at);
  }
  const bytes = new Uint8Array(directoryBytes);
  await readFully(storage, at, bytes);
  return parseBitmapDirectory(bytes, at, { count, ...options });
}
