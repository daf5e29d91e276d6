/**
 * Rebasing: an image gets another backing file and shows what it did. What it does not hold itself
 * is compared, in the old chain and in the new one; where they differ, the image takes the old.
 */
import { Qcow2Error } from '../base/errors.ts';
import { headerGeometry } from '../format/header.ts';
import { type DataSource, type Disk, ExtentKind } from '../image/disk.ts';
import type { Qcow2Image } from '../image/qcow2/qcow2-image.ts';
import type { Storage } from '../storage/storage.ts';
import { writeDifferences } from './differences.ts';
import type { ConvertOptions } from './options.ts';

/** The backing file that an image is to have. */
export interface NewBacking {
  /** As the image will name it. */
  readonly name: string;
  readonly format: string;
  /** The same, open. */
  readonly disk: Disk;
}

/** How a rebase goes. */
export interface RebaseOptions extends Pick<ConvertOptions, 'signal' | 'onProgress'> {
  /** What the image takes is compressed. */
  readonly compress?: boolean;
  /** Whether two storages are one file: what both chains have in common is not read then. */
  readonly sameFile?: (a: Storage, b: Storage) => boolean;
  /** Puts in other words why the image could not be written. */
  readonly explainWrite?: (cause: unknown) => unknown;
}

/** No backing file: a disk of no bytes. */
const NOTHING: Pick<Disk, 'size' | 'sources' | 'collectExtents'> = {
  size: 0,
  sources: [],
  collectExtents() {},
};

/**
 * Gives an image another backing file, or none (`undefined`). The header changes at the end, when
 * all that the image took is on stable storage: a rebase that fails leaves the old backing file,
 * and the guest sees the same bytes at every moment.
 * @param image open for writing, with its old backing file
 * @throws Qcow2Error of any kind; OUT_OF_RANGE where the name has no place in the header;
 * UNSUPPORTED, before anything is written, where there can be no backing file; ABORTED
 */
export async function rebaseImage(
  image: Qcow2Image,
  backing: NewBacking | undefined,
  options: RebaseOptions = {},
): Promise<void> {
  if (!image.writable) throw new Qcow2Error('READ_ONLY', 'the image is open for reading only');
  if (backing) image.refuseBacking();
  const { compress = false, sameFile = (a, b) => a === b } = options;
  const { clusterSize, subclusterSize } = headerGeometry(image.header);
  const depth = (image.sources[0] as DataSource).depth;
  const own = image.sources.filter((source) => source.depth === depth).length;
  await writeDifferences([image], backing?.disk ?? NOTHING, image, {
    ...options,
    unitBytes: compress ? clusterSize : subclusterSize,
    sameFile,
    keeps: (kind, source) => kind !== ExtentKind.hole && source < own,
    compress,
    unmap: false,
  });
  await image.flush();
  await image.setBackingName(backing);
}
