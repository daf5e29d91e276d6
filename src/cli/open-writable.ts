/** Opening the image that a command changes, with the messages of QEMU's tools. */
import type { WritableDisk } from '../image/disk.ts';
import { isFormat, openDisk } from '../image/open.ts';
import { type Host, UsageError } from './command.ts';
import { warnOfGuess } from './guessed-format.ts';
import { claimImageFile } from './image-claims.ts';
import { nameImage } from './image-name.ts';
import { explainOpen } from './open-image.ts';
import { pathGate } from './path-gate.ts';

/** How an image of the command line is opened for writing. */
export interface OpenWritableOptions {
  readonly format: string | undefined;
  readonly untrusted: boolean;
  readonly forceShare?: boolean;
}

/** L2 tables that the image keeps in memory: commands go through it front to back. */
const CACHE_BYTES = 2 ** 22;

/**
 * Opens an image for writing, and what it is backed by for reading.
 * @throws UsageError where it cannot be opened
 */
export function openWritable(
  host: Host,
  filename: string,
  { format: given, untrusted, forceShare }: OpenWritableOptions,
): Promise<WritableDisk> {
  return explainOpen(filename, async () => {
    const { path, format, secret } = nameImage(host, filename, given);
    if (format !== undefined && !isFormat(format)) {
      throw new UsageError(`Could not open '${filename}': Unknown driver '${format}'`);
    }
    const file = host.openFile(path, { writable: true });
    try {
      claimImageFile(file, format, { use: 'write', forceShare });
    } catch (cause) {
      file.close();
      throw cause;
    }
    const gate = pathGate(host, path, { untrusted, claim: { use: 'read' } });
    const cacheBytes = CACHE_BYTES;
    const disk = await openDisk(file, { format, gate, secret, writable: true, cacheBytes });
    if (format === undefined && disk.format === 'raw') warnOfGuess(host, filename);
    return disk;
  });
}
