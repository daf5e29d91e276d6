/** The targets of `convert`: new files, those that are there already, standard output. */
import { isQcow2Error, Qcow2Error } from '../base/errors.ts';
import { isUnmapped } from '../convert/collect.ts';
import { beginsInLanes, beginsWithCopies } from '../convert/lane.ts';
import type { ConvertOptions, ConvertResult } from '../convert/options.ts';
import { concatenatedSize, worthWorkers } from '../convert/options.ts';
import { allSources } from '../convert/plan.ts';
import type { CopyStepOptions } from '../convert/progress-marks.ts';
import { convertToRaw, convertToStream } from '../convert/to-raw.ts';
import { headerGeometry } from '../format/header.ts';
import type { Disk } from '../image/disk.ts';
import { isTold } from '../image/qcow2/corruption.ts';
import type { Qcow2CreateOptions } from '../image/qcow2/create.ts';
import { Qcow2Image } from '../image/qcow2/qcow2-image.ts';
import { borrowed } from '../storage/borrowed.ts';
import type { NodeFileStorage } from '../storage/node-file.ts';
import { fullBackingName } from './backing-name.ts';
import { checkCacheMode, hostInMode } from './cache-mode.ts';
import { backingOf } from './chain.ts';
import { type Host, UsageError } from './command.ts';
import {
  bitmapParts,
  type ConvertRequest,
  checkCompression,
  usesBitmaps,
} from './convert-request.ts';
import { encryptionChoice, givenPassphrase, luksFormat } from './encryption-options.ts';
import { errnoOf } from './errno.ts';
import { explainOpen } from './explain-open.ts';
import { firstBlockBytes } from './first-block.ts';
import { refuseForgetful } from './forgetful-device.ts';
import { claimImageFile, RAW_WRITE } from './image-claims.ts';
import { nameImage } from './image-name.ts';
import { openImage, openWritableImage } from './open-image.ts';
import { resolveName } from './path-gate.ts';
import { qcow2Options, textOf } from './qcow2-options.ts';
import { refuseSourceAsTarget, sameFileBy } from './same-file.ts';

/** How a conversion goes, apart from its target. */
export type Course = ConvertOptions & {
  readonly onLength?: (bytes: number) => void;
  /** Told of the target before the first byte: what decides how qemu-img counts progress. */
  readonly onTarget?: ((target: Omit<CopyStepOptions, 'sparseBytes'>) => Promise<void>) | undefined;
};

/** The target is standard output. */
export function isStream({ create, target }: ConvertRequest): boolean {
  return create && (target === '-' || target === '/dev/stdout');
}

/** Converts into whatever the request says. */
export async function convertInto(
  host: Host,
  request: ConvertRequest,
  disks: readonly Disk[],
  course: Course,
): Promise<ConvertResult> {
  if (isStream(request) && usesBitmaps(request)) {
    throw new UsageError('Bitmaps are of no use with this target');
  }
  if (isStream(request)) return intoStream(host, request, disks, course);
  if (!request.create && !host.targetImageOpts && request.unopenable) throw request.unopenable;
  const format = request.create || host.targetImageOpts ? undefined : nameOf(request);
  const name = async () => nameImage(host, request.target, format, { role: 'target' });
  // What is no name of anything can be neither made nor opened.
  const { path, node } = await (request.create ? name() : explainOpen(request.target, name));
  refuseSourceAsTarget(host, path, disks);
  const isFile = request.outputFormat === 'raw' && node.file.driver === 'file';
  if (!request.create && (host.targetImageOpts || !isFile || node.settings.size > 0)) {
    return intoExisting(host, request, disks, course);
  }
  if (request.outputFormat === 'raw') return intoRaw(host, request, disks, course);
  if (request.outputFormat === 'luks') return intoLuks(host, request, disks, course);
  return intoQcow2(host, request, disks, course);
}

/** @throws UsageError for bitmaps that a new target could not have */
async function checkNewBitmaps(request: ConvertRequest, version = 0): Promise<void> {
  if (!usesBitmaps(request)) return;
  const { checkTargetBitmaps } = await bitmapParts();
  const { outputFormat: format } = request;
  checkTargetBitmaps(request, { format, version });
  if (format === 'luks') throw new UsageError('Bitmaps are of no use with this target');
}

async function intoStream(
  host: Host,
  request: ConvertRequest,
  disks: readonly Disk[],
  course: Course,
): Promise<ConvertResult> {
  if (request.outputFormat === 'luks') {
    throw new UsageError('A LUKS container cannot be written to standard output');
  }
  const output = host.openOutput();
  if (request.outputFormat === 'raw') {
    await course.onTarget?.({});
    return convertToStream(disks, output, course);
  }
  const { convertToQcow2Stream } = await import('../convert/to-qcow2.ts');
  const { size: _, ...create } = await explainCreation(request, () =>
    qcow2Options(sized(request, disks), undefined),
  );
  const { compress } = request;
  const { onLength } = course;
  await course.onTarget?.(newTarget(request, create));
  return convertToQcow2Stream(
    disks,
    { file: output, create, compress, ...(onLength ? { onLength } : {}) },
    course,
  );
}

// ---- raw -------------------------------------------------------------------------------------

type Preallocation = 'off' | 'falloc' | 'full';

/** What a raw target knows of preallocation. */
function rawPreallocation(host: Host, request: ConvertRequest): Preallocation {
  const { values, target } = request;
  const mode = textOf(values, 'preallocation', 'off');
  const onDevice = request.targetDriver === 'host_device';
  const isKnown = mode === 'falloc' || mode === 'full';
  if (mode === 'off' || (isKnown && !onDevice)) return mode;
  const unsupported =
    onDevice || isDevice(host, resolveName(target, ''))
      ? `Unsupported preallocation mode '${mode}'`
      : 'Unsupported preallocation mode: metadata';
  const why = isKnown || mode === 'metadata' ? unsupported : `invalid parameter value: ${mode}`;
  throw new UsageError(`${target}: error while converting ${nameOf(request)}: ${why}`);
}

/** What the target's format was called. */
const nameOf = ({ targetDriver, outputFormat }: ConvertRequest) => targetDriver ?? outputFormat;

function isDevice(host: Host, path: string): boolean {
  if (!host.exists(path)) return false;
  try {
    const file = host.openFile(path);
    file.close();
    return file.isFixed;
  } catch (cause) {
    // Who opens it to be written, says why it cannot be.
    if (!isQcow2Error(cause)) throw cause;
    return false;
  }
}

async function intoRaw(
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
    else if (create) file.write(0, new Uint8Array(firstBlockBytes(concatenatedSize(disks))));
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

/** Runs `fill` on the target; what does not come to its end leaves nothing that looks whole. */
async function withNewFile(
  host: Host,
  request: ConvertRequest,
  {
    disks,
    course,
    copies = false,
  }: {
    readonly disks: readonly Disk[];
    readonly course: Course;
    /** The host copies what comes first, and needs no workers for it. */
    readonly copies?: boolean;
  },
  fill: (file: NodeFileStorage) => Promise<ConvertResult>,
): Promise<ConvertResult> {
  const { target, create } = request;
  const path = resolveName(target, '');
  const isNew = create && !host.exists(path);
  const { workers = 0 } = course;
  const compress = request.compress !== undefined;
  // Emptying a large file takes as long as a thread does to start.
  const isMuch = workers > 0 && (await worthWorkers(allSources(disks), { compress }));
  const movesOnly = !compress && request.outputFormat !== 'luks' && !isEncrypted(request);
  if (isMuch && (copies || (movesOnly && (await beginsInLanes(disks)))) && host.moveInBackground) {
    host.moveInBackground();
  } else if (isMuch) await host.warmWorkers?.(workers);
  const file = openTarget(host, request, path);
  let done = false;
  try {
    const result = await fill(file);
    done = true;
    return result;
  } finally {
    // What is not whole must not look whole: a new file goes, an old one that was emptied stays so.
    if (!done && create && file.kind === 'regular') file.truncate(0);
    file.close();
    if (!done && isNew && file.kind === 'regular') host.remove(path);
  }
}

const isEncrypted = ({ values }: ConvertRequest) => values.has('encrypt.format');

/**
 * Runs what is to be settled before the files of a target are made. Where that fails, what is wrong
 * with these files is told instead: QEMU makes them first.
 */
async function beforeTargets<T>(
  host: Host,
  request: ConvertRequest,
  { paths, settle }: { readonly paths: readonly string[]; readonly settle: () => Promise<T> },
): Promise<T> {
  try {
    return await settle();
  } catch (cause) {
    for (const path of paths) {
      const isNew = !host.exists(path);
      openTarget(host, request, path, { keeps: !isNew }).close();
      if (isNew) host.remove(path);
    }
    throw cause;
  }
}

function openTarget(
  host: Host,
  request: ConvertRequest,
  path: string,
  { keeps = false }: { readonly keeps?: boolean } = {},
): NodeFileStorage {
  const { target, create, cache, targetDriver: driver } = request;
  const outputFormat = nameOf(request);
  const isMade = create && driver !== 'host_device';
  try {
    const target = create ? host : hostInMode(host, cache);
    const how = { writable: true, create: isMade && !keeps, claim: RAW_WRITE, driver };
    return target.openFile(path, how);
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    if (create && !isMade) {
      const what = "Protocol driver 'host_device' does not support image creation";
      const why = `${what}, and opening the image failed: ${cause.message}`;
      throw new UsageError(`${target}: error while converting ${outputFormat}: ${why}`);
    }
    const cut = 'Could not resize file: Invalid argument';
    const isCut = isMade && driver === 'file' && isDevice(host, path);
    const why = isCut ? cut : cause.message.replace(/^Could not open/, 'Could not create');
    const message = create
      ? `${target}: error while converting ${outputFormat}: ${why}`
      : `Could not open '${path}': ${cause.message}`;
    throw new UsageError(message);
  }
}

/** A LUKS container: a raw target behind a header, all of it written, since holes are no zeros. */
async function intoLuks(
  host: Host,
  request: ConvertRequest,
  disks: readonly Disk[],
  course: Course,
): Promise<ConvertResult> {
  const { LuksImage } = await import('../image/luks/luks-image.ts');
  const { target, values, flush } = request;
  const format = await explainCreation(request, async () => luksFormat(values, ''));
  const name = 'key-secret';
  const passphrase = await beforeTargets(host, request, {
    paths: [resolveName(target, '')],
    settle: () =>
      explainCreation(request, () => givenPassphrase(host, values, { name, path: target })),
  });
  const choice = { ...format, passphrase, size: 0 };
  return withNewFile(host, request, { disks, course }, async (file) => {
    checkCacheMode(request.cache, 'cache');
    await checkNewBitmaps(request);
    claimImageFile(file, 'luks', { use: 'write' });
    const image = await LuksImage.create(borrowed(file), choice);
    const { storage } = image.sources[0] as (typeof image.sources)[number];
    await course.onTarget?.({});
    const result = await convertToRaw(disks, storage, { ...course, sparseBytes: 0 });
    if (flush) file.flush();
    return result;
  });
}

// ---- qcow2 -----------------------------------------------------------------------------------

/** The options of a new image, its size that of the sources. */
function sized({ values }: ConvertRequest, disks: readonly Disk[]) {
  const size = BigInt(concatenatedSize(disks));
  return new Map(values).set('size', { text: String(size), number: size });
}

/** What is wrong with the options of a new image is said with the image's name in front. */
async function explainCreation<T>(
  { target, outputFormat }: ConvertRequest,
  parse: () => T | Promise<T>,
): Promise<T> {
  try {
    return await parse();
  } catch (cause) {
    if (!isQcow2Error(cause) && !(cause instanceof UsageError)) throw cause;
    throw new UsageError(`${target}: error while converting ${outputFormat}: ${cause.message}`);
  }
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
function newTarget(
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

async function intoQcow2(
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
    paths: [resolveName(target, ''), ...(dataPath === undefined ? [] : [dataPath])],
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
      await explainCreation(request, async () => refuseForgetful(file));
      if (dataPath !== undefined) {
        refuseSourceAsTarget(host, dataPath, disks);
        if (
          host.exists(dataPath) &&
          host.realPath(dataPath) === host.realPath(resolveName(target, ''))
        ) {
          throw new UsageError(`'${target}' cannot be its own data file`);
        }
        data = openTarget(host, request, dataPath);
        refuseDataDevice(data, request, disks);
        claimImageFile(data, 'data-file', { use: 'write' });
      }
      await course.onTarget?.(newTarget(request, create, backing));
      const written = await convertToQcow2(
        disks,
        {
          file,
          create,
          compress,
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

/** Into an image that is there already, which keeps what it is. */
async function intoExisting(
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

/** A failure in the words of a person who waits for a copy. */
export function explainFailure(cause: unknown): unknown {
  if (!isQcow2Error(cause) || cause.code === 'ABORTED') return cause;
  const { code, guest, message } = cause;
  const where = guest === undefined ? 'the source' : `at byte ${guest}`;
  const isNotSaid = isTold(cause) || (code === 'IO' && isUnmapped(cause));
  if (guest !== undefined && isNotSaid) {
    const what = `error while reading block status at offset ${guest}: ${errnoOf(cause).text}`;
    return new Qcow2Error(code, what);
  }
  if (code === 'CORRUPT') {
    const place = cause.at === undefined ? '' : ` (at offset 0x${cause.at.toString(16)})`;
    return new Qcow2Error(code, `error while reading ${where}: ${message}${place}`);
  }
  if (code === 'UNSUPPORTED' && guest !== undefined) {
    return new Qcow2Error(code, `error while writing ${where}: Operation not supported`);
  }
  if (guest !== undefined) return new Qcow2Error(code, `error while reading ${where}: ${message}`);
  return cause;
}
