/** Targets of `convert -n`: disks that are there already and keep what they are. */
import { type ConvertResult, concatenatedSize } from '../convert/options.ts';
import { headerGeometry } from '../format/header.ts';
import type { Disk } from '../image/disk.ts';
import { Qcow2Image } from '../image/qcow2/qcow2-image.ts';
import { hostInMode } from './cache-mode.ts';
import { backingOf } from './chain.ts';
import { type Host, UsageError } from './command.ts';
import type { Course } from './convert-course.ts';
import {
  bitmapParts,
  type ConvertRequest,
  checkCompression,
  usesBitmaps,
} from './convert-request.ts';
import { openWritableImage } from './open-image.ts';
import { sameFileBy } from './same-file.ts';

/** Into an image that is there already, which keeps what it is. */
export async function intoExisting(
  host: Host,
  request: ConvertRequest,
  disks: readonly Disk[],
  course: Course,
): Promise<ConvertResult> {
  const { convertToDisk } = await import('../convert/to-disk.ts');
  const { target, untrusted, compress, sparseBytes, targetIsZero, flush } = request;
  if (host.targetImageOpts && request.outputGiven) {
    throw new UsageError('--image-opts and --format are mutually exclusive');
  }
  const disk = await openWritableImage(hostInMode(host, request.cache), target, {
    format: host.targetImageOpts ? undefined : request.outputFormat,
    untrusted,
    role: 'target',
  });
  try {
    const bitmapCode = usesBitmaps(request) ? await bitmapParts() : undefined;
    const version = disk instanceof Qcow2Image ? disk.header.version : 0;
    bitmapCode?.checkTargetBitmaps(request, { format: disk.format, version });
    if (compress) checkCompression(disk.format, request.values);
    if (disk.size < concatenatedSize(disks)) {
      throw new UsageError('output file is smaller than input file');
    }
    await course.onTarget?.({
      backingBytes: request.overBacking ? backingOf(disk)?.size : undefined,
      compressedBytes: compress ? disk.sources[0]?.clusterSize : undefined,
    });
    host.moveInBackground?.();
    const result =
      bitmapCode && request.bitmap !== undefined
        ? await bitmapCode.copyDirty(request, disks, disk, course)
        : await convertToDisk(disks, disk, {
            ...course,
            sparseBytes,
            targetIsZero,
            compress: compress !== undefined,
            overlay: request.overBacking ? overlayParts(host, request, disk) : undefined,
          });
    await bitmapCode?.putBitmaps(host, request, disks[0], disk);
    if (flush) await disk.flush();
    return result;
  } finally {
    await disk.close();
  }
}

/** What an image that is there already is compared in, where a backing file is spoken of. */
function overlayParts(host: Host, { compress }: ConvertRequest, disk: Disk) {
  if (!(disk instanceof Qcow2Image)) return undefined;
  const { clusterSize, subclusterSize } = headerGeometry(disk.header);
  return { unitBytes: compress ? clusterSize : subclusterSize, sameFile: sameFileBy(host) };
}
