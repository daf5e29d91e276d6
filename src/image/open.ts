/**
 * Opening a disk whatever its format. Names inside images go through the caller's gate, down the
 * whole chain.
 */
import type { Awaitable } from '../base/awaitable.ts';
import { Qcow2Error } from '../base/errors.ts';
import { CHAIN_DEPTH_MAX, L2_CACHE_BYTES_DEFAULT } from '../base/limits.ts';
import { Workspace } from '../kernels/arena.ts';
import type { Storage } from '../storage/storage.ts';
import type { Disk, WritableDisk } from './disk.ts';
import { type Format, isFormat, probeFormat } from './formats.ts';
import { closedGate, type Gate } from './gate.ts';
import type { CheckListener } from './qcow2/check-findings.ts';
import type { CorruptionListener } from './qcow2/corruption.ts';
import type { DiscardPolicy } from './qcow2/give-back.ts';
import type { Qcow2OpenOptions } from './qcow2/image-parts.ts';
import type { OverlapOptions } from './qcow2/overlap-options.ts';
import { Qcow2Image } from './qcow2/qcow2-image.ts';
import type { SnapshotSelector } from './qcow2/snapshots.ts';
import { RawImage } from './raw/raw-image.ts';
import type { Secret } from './secret.ts';

/** How a disk is opened. */
export interface OpenDiskOptions extends DiscardPolicy {
  /** What the file is; found out from its first bytes where absent. */
  readonly format?: Format | undefined;
  /** Opens backing and data files; the default refuses them. */
  readonly gate?: Gate;
  /** Reads as an internal snapshot (qcow2). */
  readonly snapshot?: SnapshotSelector | undefined;
  /**
   * Bytes of L2 tables to keep in memory for the disk's own image; each image further down its
   * chain has half as many, from 1 MiB on as many. Default 32 MiB.
   */
  readonly cacheBytes?: number;
  /** Passphrases of the encrypted images of the chain. */
  readonly secret?: Secret | undefined;
  /** PBKDF2 iterations that an encrypted image may ask for. Default 100 million. */
  readonly iterationsMax?: number | undefined;
  /**
   * What stands in for the backing file that the image names, or for none; asked once the image
   * itself is open, and shown the name that it has, or ''. What that throws is why the backing
   * file cannot be opened.
   */
  readonly backing?: 'none' | ((name: string) => BackingChoice) | undefined;
  /** Opens the data file, in place of the one that the image names, or where it names none. */
  readonly dataFile?: ((writable: boolean) => Awaitable<Storage>) | undefined;
  /** Makes the disk a `WritableDisk`; its backing chain stays read-only. */
  readonly writable?: boolean;
  /** The image so many steps down the chain is opened for writing, too. */
  readonly writableDepth?: number | undefined;
  /** Hears what is repaired of an image that was left dirty, which opening it for writing does. */
  readonly onRepair?: CheckListener | undefined;
  /** Hears of metadata of its images that cannot be as it is, when it is met. */
  readonly onCorruption?: CorruptionListener | undefined;
  /** Hears of images of the chain whose bitmaps nobody vouches for. */
  readonly onStaleBitmaps?: Qcow2OpenOptions['onStaleBitmaps'];
  /**
   * Hears what the disk's own image is, and where, before anything of it is read; what it throws
   * is why it cannot be opened.
   */
  readonly onFormat?: ((format: Format, storage: Storage) => void) | undefined;
  /** See `Qcow2OpenOptions`; for the disk's own image, where that is qcow2. */
  readonly onMetadata?: Qcow2OpenOptions['onMetadata'];
  /** Metadata of a writable qcow2 image that is guarded. Default: QEMU's, `cached`. */
  readonly overlapCheck?: OverlapOptions | undefined;
  /** Refcounts of a writable qcow2 image may lag behind, whatever it says itself (version 3). */
  readonly lazyRefcounts?: boolean | undefined;
  /** What QEMU's caches would be like; see `Qcow2OpenOptions`. For the disk's own image. */
  readonly qemuCaches?: Qcow2OpenOptions['qemuCaches'];
}

/** What a caller knows better about a backing file than the image in front of it. */
export interface BackingChoice {
  /** Opens the file, in place of the gate, also where the image names none. */
  readonly storage?: Gate | undefined;
  /** The file's format, in place of what the image says. */
  readonly format?: Format | undefined;
  /** See `OpenDiskOptions`. */
  readonly dataFile?: OpenDiskOptions['dataFile'];
  /** See `OpenDiskOptions`. */
  readonly onFormat?: OpenDiskOptions['onFormat'];
  /** See `OpenDiskOptions`. */
  readonly onMetadata?: OpenDiskOptions['onMetadata'];
  /** The same, for what lies behind it. */
  readonly backing?: OpenDiskOptions['backing'];
}

/**
 * Opens a disk and its backing chain, read-only unless told otherwise. Owns the storage from here
 * on, also on failure.
 * @throws Qcow2Error whatever its images or the gate throw; OUT_OF_RANGE where the chain is a ring
 * or longer than 200 images
 */
export function openDisk(
  storage: Storage,
  options: OpenDiskOptions & { readonly writable: true },
): Promise<WritableDisk>;
export function openDisk(storage: Storage, options?: OpenDiskOptions): Promise<Disk>;
export function openDisk(storage: Storage, options: OpenDiskOptions = {}): Promise<Disk> {
  return openAt(storage, options, { workspace: new Workspace(), depth: 0 });
}

interface ChainPlace {
  readonly workspace: Workspace;
  readonly depth: number;
}

/** Why nothing of a driver that has no snapshots can be read as one. */
export function withoutSnapshots(driver: string): Qcow2Error {
  const what = `Block format '${driver}' used by device ''`;
  const message = `${what} does not support temporarily loading internal snapshots`;
  return new Qcow2Error('UNSUPPORTED', message);
}

/** Refuses an image of a format that has no snapshots, where it is to be read as one. */
async function unlessSnapshot(image: Disk, snapshot: SnapshotSelector | undefined): Promise<Disk> {
  if (snapshot === undefined) return image;
  await image.close();
  throw withoutSnapshots(image.format);
}

async function openAt(
  storage: Storage,
  options: OpenDiskOptions,
  { workspace, depth }: ChainPlace,
): Promise<Disk> {
  const { gate = closedGate, snapshot, discard = 'unmap', writableDepth } = options;
  const writable = (options.writable ?? false) || depth === writableDepth;
  const { cacheBytes = L2_CACHE_BYTES_DEFAULT, secret, iterationsMax } = options;
  let format: Format;
  try {
    if (depth >= CHAIN_DEPTH_MAX) {
      throw new Qcow2Error('OUT_OF_RANGE', `backing chain of more than ${CHAIN_DEPTH_MAX} images`);
    }
    format = options.format ?? (await probeFormat(storage));
    options.onFormat?.(format, storage);
  } catch (cause) {
    await storage.close();
    throw cause;
  }
  if (format === 'luks') {
    const { LuksImage } = await import('./luks/luks-image.ts');
    const image = await LuksImage.open(storage, { secret, iterationsMax, depth, writable });
    return unlessSnapshot(image, snapshot);
  }
  if (format === 'raw') {
    const image = await RawImage.open(storage, { depth, writable, discard });
    return unlessSnapshot(image, snapshot);
  }
  const backing = options.backing === 'none' ? undefined : options.backing;
  const openBacking = async (name: string, ownFormat: string | undefined) => {
    const choice = backing?.(name);
    if (name === '' && !choice?.storage) {
      throw new Qcow2Error('UNSUPPORTED', 'A block device must be specified for "file"');
    }
    const formatName = choice?.format ?? ownFormat;
    if (formatName !== undefined && !isFormat(formatName)) {
      throw new Qcow2Error('UNSUPPORTED', `Unknown driver '${formatName}'`);
    }
    const isWritten = depth + 1 === writableDepth;
    const request = { kind: 'backing', name, from: storage.name, writable: isWritten } as const;
    const file = await (choice?.storage ?? gate)(request);
    // All the chain's tables share one memory, which a long chain must not outgrow.
    const chained = {
      gate,
      secret,
      iterationsMax,
      writableDepth,
      onRepair: options.onRepair,
      onCorruption: options.onCorruption,
      onStaleBitmaps: options.onStaleBitmaps,
      cacheBytes: Math.max(cacheBytes / 2, Math.min(cacheBytes, 2 ** 20)),
      backing: choice?.backing,
      dataFile: choice?.dataFile,
      onFormat: choice?.onFormat,
      onMetadata: choice?.onMetadata,
    };
    return openAt(file, { ...chained, format: formatName }, { workspace, depth: depth + 1 });
  };
  return Qcow2Image.open(storage, {
    workspace,
    depth,
    secret,
    iterationsMax,
    ...(snapshot === undefined ? {} : { snapshot }),
    cacheBytes,
    writable,
    discard,
    onRepair: options.onRepair,
    onCorruption: options.onCorruption,
    onStaleBitmaps: options.onStaleBitmaps,
    passDiscardRequest: options.passDiscardRequest,
    passDiscardSnapshot: options.passDiscardSnapshot,
    passDiscardOther: options.passDiscardOther,
    overlapCheck: options.overlapCheck,
    lazyRefcounts: options.lazyRefcounts,
    qemuCaches: options.qemuCaches,
    onMetadata: options.onMetadata,
    dataFile: async (name) => {
      if (options.dataFile) return options.dataFile(writable);
      return gate({ kind: 'data-file', name, from: storage.name, writable });
    },
    dataFileUnnamed: options.dataFile !== undefined,
    backing: options.backing === 'none' ? 'none' : openBacking,
    backingUnnamed: backing !== undefined,
  });
}
