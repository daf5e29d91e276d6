/** New raw targets of `convert`: files and devices. */
import { isQcow2Error } from '../base/errors.ts';
import { type ConvertOptions, type ConvertResult, concatenatedSize } from '../convert/options.ts';
import { convertToRaw } from '../convert/to-raw.ts';
import type { Disk } from '../image/disk.ts';
import { beginStorage } from '../storage/front.ts';
import type { NodeFileStorage } from '../storage/node-file.ts';
import { checkCacheMode } from './cache-mode.ts';
import { type Host, UsageError } from './command.ts';
import { type Course, checkNewBitmaps, nameOf } from './convert-course.ts';
import { isDevice, withNewFile } from './convert-new-file.ts';
import { bitmapParts, type ConvertRequest, checkCompression } from './convert-request.ts';
import { newPath } from './path-gate.ts';
import { textOf } from './qcow2-options.ts';

type Preallocation = 'off' | 'falloc' | 'full';

/** What a raw target knows of preallocation. */
function rawPreallocation(host: Host, request: ConvertRequest): Preallocation {
  const { values, target } = request;
  const mode = textOf(values, 'preallocation', 'off');
  const onDevice = request.targetDriver === 'host_device';
  const isKnown = mode === 'falloc' || mode === 'full';
  if (mode === 'off' || (isKnown && !onDevice)) return mode;
  const unsupported =
    onDevice || isDevice(host, newPath(target))
      ? `Unsupported preallocation mode '${mode}'`
      : 'Unsupported preallocation mode: metadata';
  const why = isKnown || mode === 'metadata' ? unsupported : `invalid parameter value: ${mode}`;
  throw new UsageError(`${target}: error while converting ${nameOf(request)}: ${why}`);
}

/** Into a raw file or device. */
export async function intoRaw(
  host: Host,
  request: ConvertRequest,
  disks: readonly Disk[],
  course: Course,
): Promise<ConvertResult> {
  const { create, compress, values, flush } = request;
  const preallocation = rawPreallocation(host, request);
  return withNewFile(host, request, { disks, course }, async (file) => {
    checkCacheMode(request.cache, 'cache');
    await checkNewBitmaps(request);
    if (compress) checkCompression('raw', values);
    if (!create && file.size() < concatenatedSize(disks)) {
      throw new UsageError('output file is smaller than input file');
    }
    const sparseBytes = preallocation === 'off' ? request.sparseBytes : 0;
    if (request.bitmap !== undefined) {
      const { copyDirtyToRaw } = await bitmapParts();
      return copyDirtyToRaw(request, disks, file, course);
    }
    if (create && file.isFixed) refuseSmallDevice(file, request, disks);
    else if (create) await beginStorage(file, concatenatedSize(disks));
    // A device is never new: it holds what it held.
    const targetIsZero = request.targetIsZero && !(create && file.isFixed);
    const wanted = { ...request, sparseBytes, preallocation, targetIsZero };
    const prepared = prepareRaw(file, wanted, disks);
    const options = { ...course, targetIsZero, sparseBytes, ...prepared };
    await course.onTarget?.({});
    const result = await convertToRaw(disks, file, options);
    if (flush) file.flush();
    return result;
  });
}

/** Makes sure that a device has room for the disks, and can be had as it is to be made. */
function refuseSmallDevice(
  file: NodeFileStorage,
  request: ConvertRequest,
  disks: readonly Disk[],
): void {
  const { target, values } = request;
  const mode = textOf(values, 'preallocation', 'off');
  let why = mode === 'off' ? undefined : `Unsupported preallocation mode '${mode}'`;
  if (file.size() < concatenatedSize(disks)) why ??= 'Cannot grow device files';
  if (why === undefined) return;
  throw new UsageError(`${target}: error while converting ${nameOf(request)}: ${why}`);
}

/** What can be had for the whole target at once, rather than piece by piece while it is written. */
function prepareRaw(
  file: NodeFileStorage,
  request: ConvertRequest & { readonly preallocation: Preallocation },
  disks: readonly Disk[],
): ConvertOptions {
  const { target, targetIsZero, preallocation, sparseBytes } = request;
  const size = concatenatedSize(disks);
  try {
    if (preallocation === 'falloc' && file.tryAllocate(0, size, { keepSize: true })) {
      return { sparseBytes: 4096 };
    }
    if (!targetIsZero && sparseBytes > 0 && file.tryZero(0, size)) return { targetIsZero: true };
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    throw new UsageError(`${target}: error while converting raw: ${cause.message}`);
  }
  return {};
}
