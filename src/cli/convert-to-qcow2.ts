/** New qcow2 targets of `convert`. */
import { beginsWithCopies } from '../convert/lane.ts';
import { type ConvertResult, concatenatedSize } from '../convert/options.ts';
import type { Disk } from '../image/disk.ts';
import type { Qcow2CreateOptions } from '../image/qcow2/create.ts';
import type { NodeFileStorage } from '../storage/node-file.ts';
import { fullBackingName } from './backing-name.ts';
import { checkCacheMode } from './cache-mode.ts';
import { type Host, UsageError } from './command.ts';
import { type Course, checkNewBitmaps, explainCreation } from './convert-course.ts';
import { beforeTargets, openTarget, withNewFile } from './convert-new-file.ts';
import { bitmapParts, type ConvertRequest } from './convert-request.ts';
import { encryptionChoice } from './encryption-options.ts';
import { beginDataFile } from './first-block.ts';
import { claimImageFile } from './image-claims.ts';
import { openImage } from './open-image.ts';
import { newPath, resolveName } from './path-gate.ts';
import { qcow2Options, textOf } from './qcow2-options.ts';
import { refuseSourceAsTarget, sameFileBy } from './same-file.ts';

/** The options of a new image, its size that of the sources. */
export function sized({ values }: ConvertRequest, disks: readonly Disk[]) {
  const size = BigInt(concatenatedSize(disks));
  return new Map(values).set('size', { text: String(size), number: size });
}

/** A device as a data file has to have room for the disks as they are to be made. */
function refuseDataDevice(
  data: NodeFileStorage,
  { target, values }: ConvertRequest,
  disks: readonly Disk[],
): void {
  if (!data.isFixed) return;
  const mode = textOf(values, 'preallocation', 'off');
  const reserves = mode === 'falloc' || mode === 'full';
  if (!reserves && data.size() >= concatenatedSize(disks)) return;
  const why = reserves
    ? `Preallocation mode '${mode}' unsupported for this non-regular file`
    : 'Cannot grow device files';
  throw new UsageError(`${target}: error while converting qcow2: Could not resize image: ${why}`);
}

/** Of a cluster, where nobody says otherwise. */
const CLUSTER_BYTES = 65536;

/** What the steps to a new image depend on. */
export function newTarget(
  { compress }: ConvertRequest,
  { clusterSize = CLUSTER_BYTES }: { readonly clusterSize?: number | undefined },
  backing?: Disk,
) {
  return {
    backingBytes: backing?.size,
    compressedBytes: compress ? clusterSize : undefined,
  };
}

/** Whether compressed clusters of the source come first, and the target takes them as they are. */
async function copiesFirst(
  { compress, salvage, overBacking }: ConvertRequest,
  disks: readonly Disk[],
  create: Qcow2CreateOptions,
): Promise<boolean> {
  if (!compress || compress.level !== undefined || salvage || overBacking) return false;
  const { compression: codec = 'deflate', clusterSize = CLUSTER_BYTES } = create;
  return beginsWithCopies(disks, { codec, clusterSize });
}

/** Into a new image, with its data file, above its backing file. */
export async function intoQcow2(
  host: Host,
  request: ConvertRequest,
  disks: readonly Disk[],
  course: Course,
): Promise<ConvertResult> {
  const { convertToQcow2 } = await import('../convert/to-qcow2.ts');
  const { target, compress, flush, values } = request;
  const dataName = values.get('data_file')?.text;
  const dataPath = dataName === undefined ? undefined : resolveName(dataName, '');
  const { create, backing } = await beforeTargets(host, request, {
    paths: [newPath(target), ...(dataPath === undefined ? [] : [dataPath])],
    settle: async () => {
      const create = await explainCreation(request, async () => {
        const encryption = await encryptionChoice(host, values, target);
        return qcow2Options(sized(request, disks), dataPath, encryption);
      });
      checkCacheMode(request.cache, 'cache');
      const backing = await openBacking(host, request);
      if (compress && create.dataFile) {
        await backing?.close();
        throw new UsageError('error while writing at byte 0: Operation not supported');
      }
      return { create, backing };
    },
  });
  const isNewData = dataPath !== undefined && !host.exists(dataPath);
  let data: NodeFileStorage | undefined;
  let done = false;
  try {
    const copies = await copiesFirst(request, disks, create);
    const result = await withNewFile(host, request, { disks, course, copies }, async (file) => {
      await checkNewBitmaps(request, create.version);
      claimImageFile(file, 'qcow2', { use: 'write' });
      if (file.kind === 'other') {
        const { refuseForgetful } = await import('./forgetful-device.ts');
        await explainCreation(request, async () => refuseForgetful(file));
      }
      if (dataPath !== undefined) {
        refuseSourceAsTarget(host, dataPath, disks);
        if (host.exists(dataPath) && host.realPath(dataPath) === host.realPath(newPath(target))) {
          throw new UsageError(`'${target}' cannot be its own data file`);
        }
        data = openTarget(host, request, dataPath);
        refuseDataDevice(data, request, disks);
        claimImageFile(data, 'data-file', { use: 'write' });
        await beginDataFile(data, sized(request, disks));
      }
      await course.onTarget?.(newTarget(request, create, backing));
      const written = await convertToQcow2(
        disks,
        {
          file,
          create,
          compress,
          making: (make) => explainCreation(request, make),
          ...(data ? { data } : {}),
          ...(backing ? { backing: { disk: backing, sameFile: sameFileBy(host) } } : {}),
          ...(request.bitmap === undefined ? {} : { bitmap: request.bitmap }),
        },
        { ...course, sparseBytes: request.sparseBytes },
      );
      if (request.bitmaps) {
        const { putBitmapsInto } = await bitmapParts();
        await putBitmapsInto(host, request, disks, { file, data });
      }
      if (flush) {
        data?.flush();
        file.flush();
      }
      return written;
    });
    done = true;
    return result;
  } finally {
    await backing?.close();
    data?.close();
    if (!done && data && isNewData && dataPath !== undefined) host.remove(dataPath);
  }
}

/** The backing file that the target is to have, open. */
async function openBacking(host: Host, request: ConvertRequest): Promise<Disk | undefined> {
  const { values, target, untrusted } = request;
  const name = values.get('backing_file')?.text;
  if (name === undefined) return undefined;
  const format = values.get('backing_fmt')?.text;
  const path = fullBackingName(name, target);
  try {
    return await openImage(host, path, { format, untrusted, use: 'convert', role: 'path' });
  } catch (cause) {
    if (!(cause instanceof UsageError)) throw cause;
    const why = cause.message.slice(`Could not open '${path}': `.length);
    throw new UsageError(`Could not open '${target}': Could not open backing file: ${why}`);
  }
}
