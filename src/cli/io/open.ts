/** Opening the disk that commands work on: the one way to it. */
import { Qcow2Error } from '../../base/errors.ts';
import type { Disk, WritableDisk } from '../../image/disk.ts';
import { type Format, isFormat, openDisk, probeFormat } from '../../image/open.ts';
import type { Storage } from '../../storage/storage.ts';
import type { Host } from '../command.ts';
import { warnOfGuess } from '../guessed-format.ts';
import { claimImageFile } from '../image-claims.ts';
import { pathGate } from '../path-gate.ts';
import type { OpenFlags } from './open-flags.ts';
import { OverlayDisk } from './overlay-disk.ts';

/** A disk, and what may be done to it. */
export interface OpenedDisk {
  readonly filename: string;
  readonly flags: OpenFlags;
  readonly disk: Disk;
  /** The same disk, where this library can write it. */
  readonly writable: WritableDisk | undefined;
  /** Commands may not write, whatever the disk could. */
  readonly readOnly: boolean;
  /** Raw by guess alone: nobody may write what would make the guess wrong. */
  readonly guessedRaw: boolean;
}

/** Both need the host's cache out of the way. */
function isDirect(cache: string): boolean {
  return cache === 'none' || cache === 'off' || cache === 'directsync';
}

/**
 * Opens a disk for commands.
 * @throws Qcow2Error as `openDisk` does, and where the flags do not go together
 */
export async function openForIo(
  host: Host,
  filename: string,
  flags: OpenFlags,
): Promise<OpenedDisk> {
  const { readOnly, snapshot } = flags;
  if (flags.format !== undefined && !isFormat(flags.format)) {
    throw new Qcow2Error('UNSUPPORTED', `Unknown driver '${flags.format}'`);
  }
  if (flags.forceShare && !readOnly) {
    throw refused('force-share=on can only be used with read-only images');
  }
  const writable = !readOnly && !snapshot;
  const storage = host.openFile(filename, { writable });
  const format = flags.format ?? (await probeOrClose(storage));
  const { forceShare } = flags;
  try {
    claimImageFile(storage, format, { use: writable ? 'write' : 'read', forceShare });
  } catch (cause) {
    storage.close();
    throw cause;
  }
  const guessedRaw = flags.format === undefined && format === 'raw';
  const claim = { use: 'read', forceShare } as const;
  const gate = pathGate(host, filename, { untrusted: false, claim });
  if (flags.nativeAio && !isDirect(flags.cache)) {
    await storage.close();
    throw refused(
      'aio=native was specified, but it requires cache.direct=on, which was not specified.',
    );
  }
  const image = await openDisk(storage, {
    format,
    gate,
    writable,
    discard: flags.discard ? 'unmap' : 'ignore',
  });
  if (flags.copyOnRead && readOnly) {
    await image.close();
    throw refused("Can't use copy-on-read on read-only device");
  }
  if (guessedRaw && !readOnly) warnOfGuess(host, filename);
  const disk = snapshot ? new OverlayDisk(image) : image;
  return {
    filename,
    flags,
    disk,
    writable: readOnly || !('write' in disk) ? undefined : (disk as WritableDisk),
    readOnly,
    guessedRaw: guessedRaw && writable,
  };
}

async function probeOrClose(storage: Storage): Promise<Format> {
  try {
    return await probeFormat(storage);
  } catch (cause) {
    await storage.close();
    throw cause;
  }
}

function refused(message: string): Qcow2Error {
  return new Qcow2Error('REFUSED', message);
}
