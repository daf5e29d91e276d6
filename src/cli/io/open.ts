/** Opening the disk that commands work on: the one way to it. */
import { Qcow2Error } from '../../base/errors.ts';
import type { Disk, WritableDisk } from '../../image/disk.ts';
import type { Gate } from '../../image/gate.ts';
import { type Format, openDisk, probeFormat } from '../../image/open.ts';
import { Qcow2Image } from '../../image/qcow2/qcow2-image.ts';
import type { Storage } from '../../storage/storage.ts';
import type { Host } from '../command.ts';
import { warnOfGuess } from '../guessed-format.ts';
import { claimImageFile } from '../image-claims.ts';
import { secretSource } from '../image-name.ts';
import { sayRepairs } from '../open-image.ts';
import { pathGate } from '../path-gate.ts';
import type { OpenFlags } from './open-flags.ts';
import { OverlayDisk } from './overlay-disk.ts';
import { checkFormatSettings, type DiskPlace, resolvePlace } from './place.ts';
import { checkTuning, openTuning, type TunedImage } from './qcow2-settings.ts';
import type { Settings } from './settings.ts';

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
  const storage = host.openFile(path, { writable });
  const format = place.format ?? (await probeOrClose(storage));
  try {
    const use = writable ? 'write' : 'read';
    if (place.locking) claimImageFile(storage, format, { use, forceShare });
    checkFormatSettings(place, format);
    if (flags.nativeAio && !isDirect(flags.cache)) {
      throw refused(
        'aio=native was specified, but it requires cache.direct=on, which was not specified.',
      );
    }
  } catch (cause) {
    storage.close();
    throw cause;
  }
  const guessedRaw = place.format === undefined && format === 'raw';
  const gate = gateOf(host, place);
  const backing = place.backing?.path === '' ? ('none' as const) : place.backing;
  const image = await openDisk(storage, {
    format,
    gate,
    writable,
    discard: flags.discard ? 'unmap' : 'ignore',
    secret: secretSource(host, (depth) => secretIdAt(place.settings, depth)),
    ...openTuning(place.settings),
    ...(backing === undefined ? {} : { backing }),
    onRepair: sayRepairs(host),
  });
  try {
    if (flags.copyOnRead && readOnly) {
      throw refused("Can't use copy-on-read on read-only device");
    }
    if (image instanceof Qcow2Image) checkTuning(place.settings, tunedImage(image));
  } catch (cause) {
    await image.close();
    throw cause;
  }
  if (guessedRaw && !readOnly) warnOfGuess(host, path);
  const disk = snapshot ? new OverlayDisk(image) : image;
  return {
    place,
    flags,
    disk,
    writable: readOnly || !('write' in disk) ? undefined : (disk as WritableDisk),
    readOnly,
    guessedRaw: guessedRaw && writable,
  };
}

/** The name of the secret that settings have for an image of the chain. */
function secretIdAt(settings: Settings, depth: number): string | undefined {
  const prefix = 'backing.'.repeat(depth);
  return settings.get(`${prefix}encrypt.key-secret`) ?? settings.get(`${prefix}key-secret`);
}

/** What the settings of an image are judged by. */
export function tunedImage(image: Qcow2Image): TunedImage {
  const { clusterSize } = image.sources[0]!;
  return { clusterSize, size: image.size, version: image.header.version };
}

/** Opens what the image names, or what the settings put in its place. */
function gateOf(host: Host, { path, flags, dataFile }: DiskPlace): Gate {
  const claim = { use: 'read', forceShare: flags.forceShare } as const;
  const gate = pathGate(host, path, { untrusted: false, claim });
  return (request) => {
    const named = request.kind === 'data-file' && request.from === path ? dataFile : undefined;
    return gate(named === undefined ? request : { ...request, name: `file:${named}` });
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
