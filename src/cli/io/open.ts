/** Opening the disk that commands work on: the one way to it. */
import { Qcow2Error } from '../../base/errors.ts';
import type { Disk, WritableDisk } from '../../image/disk.ts';
import type { DebugRules } from '../../storage/debug-rules.ts';
import { DebugStorage } from '../../storage/debug-storage.ts';
import type { Host } from '../command.ts';
import { warnOfGuess } from '../guessed-format.ts';
import { sayRepairs } from '../open-image.ts';
import { openImageNode } from '../open-node.ts';
import { type DebuggedDisk, debugDisk } from './debug-disk.ts';
import type { OpenFlags } from './open-flags.ts';
import { OverlayDisk } from './overlay-disk.ts';
import { type DiskPlace, resolvePlace } from './place.ts';

/** A disk, and what may be done to it. */
export interface OpenedDisk {
  readonly place: DiskPlace;
  readonly flags: OpenFlags;
  readonly disk: Disk;
  /** The same disk, where this library can write it. */
  readonly writable: WritableDisk | undefined;
  /** Commands may not write, whatever the disk could. */
  readonly readOnly: boolean;
  /** Raw by guess alone: nobody may write what would make the guess wrong. */
  readonly guessedRaw: boolean;
  /** The topmost rules that requests meet. */
  readonly rules?: DebugRules;
}

/** Both need the host's cache out of the way. */
function isDirect(cache: string): boolean {
  return cache === 'none' || cache === 'off' || cache === 'directsync';
}

/**
 * Opens a disk for commands.
 * @param filename a path or `json:`; undefined where the flags' settings name the file
 * @throws Qcow2Error as `openDisk` does, and where the flags do not go together
 */
export async function openForIo(
  host: Host,
  filename: string | undefined,
  given: OpenFlags,
): Promise<OpenedDisk> {
  const place = resolvePlace(host, filename, given);
  const { path, flags } = place;
  const { readOnly, snapshot, forceShare } = flags;
  if (forceShare && !readOnly) {
    throw refused('force-share=on can only be used with read-only images');
  }
  const writable = !readOnly && !snapshot;
  const { disk: image, guessedRaw } = await openImageNode(host, place, {
    writable,
    untrusted: false,
    discard: flags.discard ? 'unmap' : 'ignore',
    claim: { use: writable ? 'write' : 'read', forceShare },
    onRepair: sayRepairs(host),
    check() {
      if (flags.nativeAio && !isDirect(flags.cache)) {
        throw refused(
          'aio=native was specified, but it requires cache.direct=on, which was not specified.',
        );
      }
    },
  });
  if (flags.copyOnRead && readOnly) {
    await image.close();
    throw refused("Can't use copy-on-read on read-only device");
  }
  if (guessedRaw && !readOnly) warnOfGuess(host, path);
  const debugged = await debug(host, place, image, { writable });
  const disk = snapshot ? new OverlayDisk(debugged.disk) : debugged.disk;
  return {
    place,
    flags,
    disk,
    writable: readOnly || !('write' in disk) ? undefined : (disk as WritableDisk),
    readOnly,
    guessedRaw: guessedRaw && writable,
    ...(debugged.rules ? { rules: debugged.rules } : {}),
  };
}

type MaybeDebugged = Pick<DebuggedDisk, 'disk'> & Partial<DebuggedDisk>;

/**
 * Rules may stand before the disk, or before its file.
 * @throws Qcow2Error REFUSED for a disk to be written whose end no aligned request would meet
 */
async function debug(
  host: Host,
  { filters }: DiskPlace,
  disk: Disk,
  { writable }: { readonly writable: boolean },
): Promise<MaybeDebugged> {
  try {
    const storage = disk.sources[0]?.storage;
    const debugged: MaybeDebugged = filters?.debug
      ? debugDisk(host, filters.debug, disk)
      : storage instanceof DebugStorage
        ? { disk, rules: storage.rules, limits: storage.limits }
        : { disk };
    // An image grows the file that it is in; a raw disk is all of its file.
    const ends = filters?.debug || disk.format === 'raw';
    if (writable && ends && disk.size % (debugged.limits?.align ?? 1) !== 0) {
      const why = 'Image size is not a multiple of request alignment';
      throw refused(`Cannot get 'write' permission without 'resize': ${why}`);
    }
    return debugged;
  } catch (cause) {
    await disk.close();
    throw cause;
  }
}

function refused(message: string): Qcow2Error {
  return new Qcow2Error('REFUSED', message);
}
