/** `convert --bitmaps`, which copies bitmaps, and `--bitmap NAME`, which copies what is dirty. */
import { convertDirty, copyBitmaps } from '../convert/dirty.ts';
import type { ConvertOptions, ConvertResult } from '../convert/options.ts';
import type { Disk, WritableDisk } from '../image/disk.ts';
import { Qcow2Image } from '../image/qcow2/qcow2-image.ts';
import { RawImage } from '../image/raw/raw-image.ts';
import { borrowed } from '../storage/borrowed.ts';
import type { Storage } from '../storage/storage.ts';
import { type Host, UsageError } from './command.ts';
import type { ConvertRequest } from './convert-request.ts';
import { HintedError } from './option-list.ts';

/**
 * Refuses a source without bitmaps, and inconsistent ones, before anything is made.
 * @throws UsageError
 */
export function checkSourceBitmaps(
  { program }: Host,
  { bitmaps, bitmap }: ConvertRequest,
  [source]: readonly Disk[],
): void {
  const isQcow2 = source instanceof Qcow2Image;
  if (bitmap !== undefined) {
    const found = isQcow2 && source.bitmaps.list().find(({ name }) => name === bitmap);
    if (!found) throw new UsageError(`Dirty bitmap '${bitmap}' not found`);
    if (found.inconsistent) {
      throw new UsageError(`Bitmap '${bitmap}' is inconsistent and cannot be used`);
    }
  }
  if (!bitmaps) return;
  if (!isQcow2 || source.header.version < 3) throw new UsageError('Source lacks bitmap support');
  const broken = source.bitmaps.list().find(({ inconsistent }) => inconsistent);
  if (broken && bitmaps !== 'skip-broken') {
    throw new HintedError(
      `Cannot copy inconsistent bitmap '${broken.name}'`,
      `Try --skip-broken-bitmaps, or use '${program} bitmap --remove' to delete it\n`,
    );
  }
}

/**
 * Refuses a target without bitmaps, whether or not there are any to copy.
 * @throws UsageError
 */
export function checkTargetBitmaps(
  { bitmaps }: ConvertRequest,
  { format, version }: { readonly format: string; readonly version: number },
): void {
  if (!bitmaps || (format === 'qcow2' && version > 2)) return;
  throw new UsageError(`Format driver '${format}' does not support bitmaps`);
}

/** Copies the bitmaps of a source into the target, where that was asked for. */
export async function putBitmaps(
  host: Host,
  request: ConvertRequest,
  source: Disk | undefined,
  target: Disk,
): Promise<void> {
  if (!request.bitmaps || !(source instanceof Qcow2Image)) return;
  if (!(target instanceof Qcow2Image)) return;
  await copyBitmaps(source, target, {
    onSkipped: (name) =>
      host.note(`${host.program}: warning: Skipping inconsistent bitmap '${name}'\n`),
  });
}

/** The same for a new image, which is closed already. */
export async function putBitmapsInto(
  host: Host,
  request: ConvertRequest,
  disks: readonly Disk[],
  files: { readonly file: Storage; readonly data: Storage | undefined },
): Promise<void> {
  const { file, data } = files;
  const image = await Qcow2Image.open(borrowed(file), {
    writable: true,
    backing: 'none',
    ...(data ? { dataFile: async () => borrowed(data) } : {}),
  });
  try {
    await putBitmaps(host, request, disks[0], image);
  } finally {
    await image.close();
  }
}

/** Copies what a bitmap says is dirty. */
export function copyDirty(
  request: ConvertRequest,
  [source]: readonly Disk[],
  target: WritableDisk,
  course: ConvertOptions,
): Promise<ConvertResult> {
  const { bitmap = '', compress } = request;
  return convertDirty(source as Qcow2Image, target, {
    ...course,
    bitmap,
    compress: compress !== undefined,
  });
}

/** The same into a raw file: a new one has zeros around it. */
export async function copyDirtyToRaw(
  request: ConvertRequest,
  disks: readonly Disk[],
  file: Storage,
  course: ConvertOptions,
): Promise<ConvertResult> {
  const size = disks[0]?.size ?? 0;
  const disk = await RawImage.open(borrowed(file), { writable: true });
  if (disk.size < size) await disk.resize(size);
  try {
    return await copyDirty(request, disks, disk, course);
  } finally {
    await disk.close();
  }
}
