/** What a check has to know of an image before it looks at it, and which images it leaves alone. */
import { viewOf } from '../../base/be.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { BitmapFlag, checkTableLength } from '../../format/bitmap-directory.ts';
import { parseBitmapTableEntry } from '../../format/bitmap-table.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { Storage } from '../../storage/storage.ts';
import { type Metadata, readMetadata } from './open.ts';

/**
 * Reads an image's header and extensions for a check: what a repair can put right does not keep it
 * from being opened.
 * @throws Qcow2Error as `readMetadata` does, and CORRUPT for bitmaps that cannot be loaded
 */
export async function readCheckMetadata(storage: Storage): Promise<Metadata> {
  const metadata = await readMetadata(storage, { lenient: true });
  const { clusterSize } = metadata.geometry;
  const limits = { clusterSize, diskSize: metadata.header.size };
  for (const bitmap of metadata.bitmaps) {
    const { name, flags, tableOffset, tableEntries } = bitmap;
    // What is in a bitmap in use is of no interest to anybody.
    if (flags & BitmapFlag.inUse) continue;
    const table = new Uint8Array(tableEntries * 8);
    await readFully(storage, tableOffset, table);
    try {
      bitmapClusters(table, clusterSize, tableOffset);
    } catch (cause) {
      if (!isQcow2Error(cause)) throw cause;
      const what = `Could not read bitmap_table table from image for bitmap '${name}'`;
      throw new Qcow2Error('CORRUPT', `${what}: Invalid argument`, cause.at, cause);
    }
    checkTableLength(bitmap, limits);
  }
  return metadata;
}

/**
 * Host offsets of the clusters that a bitmap's table names.
 * @param file offset of the table
 * @throws Qcow2Error CORRUPT for an entry that makes no sense
 */
export function bitmapClusters(table: Uint8Array, clusterSize: number, file: number): number[] {
  const view = viewOf(table);
  const hosts: number[] = [];
  for (let at = 0; at < table.length; at += 8) {
    const entry = parseBitmapTableEntry(view, at, clusterSize, file);
    if (entry.kind === 'data') hosts.push(entry.host);
  }
  return hosts;
}
