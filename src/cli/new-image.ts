/** Making new images, for the commands that make one. */
import { alignUp } from '../base/bits.ts';
import { isQcow2Error, Qcow2Error } from '../base/errors.ts';
import type { Format } from '../image/formats.ts';
import { Qcow2Image } from '../image/qcow2/qcow2-image.ts';
import { RawImage } from '../image/raw/raw-image.ts';
import type { NodeFileStorage } from '../storage/node-file.ts';
import { standIn } from '../storage/stand-in.ts';
import { type Host, UsageError } from './command.ts';
import { encryptionChoice, givenPassphrase, luksFormat } from './encryption-options.ts';
import { beginDataFile } from './first-block.ts';
import { refuseForgetful } from './forgetful-device.ts';
import { claimImageFile, RAW_WRITE } from './image-claims.ts';
import type { ListValues } from './option-list.ts';
import { resolveName } from './path-gate.ts';
import { qcow2Options, textOf } from './qcow2-options.ts';

/** What is to be made. */
export interface NewImage {
  readonly format: Format;
  /** What it is made with; its size is among it. */
  readonly values: ListValues;
  readonly path: string;
}

/**
 * Makes an image, over what was there before. On failure what was not there is not there.
 * @throws UsageError, Qcow2Error
 */
export function createNewImage(host: Host, image: NewImage): Promise<void> {
  if (image.format === 'raw') return createRaw(host, image);
  return image.format === 'luks' ? createLuks(host, image) : createQcow2(host, image);
}

const MODES = ['off', 'metadata', 'falloc', 'full'] as const;

/** A file that is to hold a new image. Nothing of it is lost before the options are known good. */
interface Target {
  readonly path: string;
  /** It was made here and now. */
  readonly isNew: boolean;
  /** What it had is gone: the new image was begun. */
  isBegun: boolean;
  /** A device. */
  readonly isFixed: boolean;
}

/** Makes sure that a file can be written, and makes it where there is none. */
function claimTarget(host: Host, path: string): Target {
  const isNew = path === '' || !host.exists(path);
  const file = openTarget(host, path, isNew);
  file.close();
  return { path, isNew, isBegun: false, isFixed: file.isFixed };
}

function openTarget(host: Host, path: string, create: boolean): NodeFileStorage {
  try {
    return host.openFile(path, { writable: true, create, claim: RAW_WRITE });
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    const message = cause.message.replace(/^Could not open/, 'Could not create');
    throw new Qcow2Error(cause.code, message, undefined, cause);
  }
}

async function createRaw(host: Host, { values, path }: NewImage): Promise<void> {
  const mode = textOf(values, 'preallocation', 'off');
  const preallocation = MODES.find((one) => one === mode);
  if (!preallocation) throw new UsageError(`invalid parameter value: ${mode}`);
  const size = Number(values.get('size')?.number);
  const target = claimTarget(host, path);
  try {
    if (preallocation !== 'off' && target.isFixed) {
      throw new UsageError(`Unsupported preallocation mode '${preallocation}'`);
    }
    if (preallocation === 'metadata') {
      throw new UsageError('Unsupported preallocation mode: metadata');
    }
    if (size > Number.MAX_SAFE_INTEGER) throw tooLarge();
    const disk = await RawImage.open(openTarget(host, path, true), { writable: true });
    try {
      await disk.resize(alignUp(size, 512), { preallocation });
      // What a device began with must not tell readers of some format.
      const begin = disk.isFixed ? Math.min(disk.size, 512) : 0;
      if (begin > 0) await disk.write(0, new Uint8Array(begin));
    } finally {
      await disk.close();
    }
  } catch (cause) {
    dropUnfinished(host, [target]);
    throw cause;
  }
}

/** Files that were made for an image which then could not be, or have parts of it, are removed. */
function dropUnfinished(host: Host, targets: readonly (Target | undefined)[]): void {
  for (const target of targets) {
    if (target?.isNew || (target?.isBegun && !target.isFixed)) host.remove(target.path);
  }
}

/** The storage of a target, which knows when it is emptied. */
function watched(file: NodeFileStorage, target: Target): NodeFileStorage {
  return standIn(file, {
    truncate: (size) => {
      target.isBegun = true;
      return file.truncate(size);
    },
  });
}

/** True for an error of an image that no file can hold. */
export function isTooLarge(cause: unknown): boolean {
  const inner = isQcow2Error(cause) ? cause.cause : undefined;
  if (isQcow2Error(inner)) return isTooLarge(inner);
  return (inner as { code?: unknown } | undefined)?.code === 'EFBIG';
}

function tooLarge(): Qcow2Error {
  const message = 'Could not resize file: File too large';
  return new Qcow2Error('OUT_OF_RANGE', message, undefined, { code: 'EFBIG' });
}

async function createLuks(host: Host, { values, path }: NewImage): Promise<void> {
  const { LuksImage } = await import('../image/luks/luks-image.ts');
  const choice = luksFormat(values, '');
  const mode = textOf(values, 'preallocation', 'off');
  const known = MODES.find((one) => one === mode);
  if (!known) throw new UsageError(`invalid parameter value: ${mode}`);
  // What a container has of metadata is there from the first.
  const preallocation = known === 'metadata' ? 'off' : known;
  const size = Number(values.get('size')?.number);
  if (size > Number.MAX_SAFE_INTEGER) throw tooLarge();
  const target = claimTarget(host, path);
  try {
    const passphrase = await givenPassphrase(host, values, { name: 'key-secret', path });
    const file = openTarget(host, path, true);
    claimImageFile(file, 'luks', { use: 'write' });
    const image = await LuksImage.create(file, { ...choice, passphrase, size: 0 });
    try {
      await image.resize(alignUp(size, 512), { preallocation });
    } finally {
      await image.close();
    }
  } catch (cause) {
    dropUnfinished(host, [target]);
    throw cause;
  }
}

async function createQcow2(host: Host, { values, path }: NewImage): Promise<void> {
  const target = claimTarget(host, path);
  let data: Target | undefined;
  try {
    const dataName = values.get('data_file')?.text;
    const dataPath = dataName === undefined ? undefined : resolveName(dataName, '');
    if (dataPath !== undefined) {
      data = claimTarget(host, dataPath);
      if (host.realPath(dataPath) === host.realPath(path)) {
        throw new UsageError(`'${path}' cannot be its own data file`);
      }
    }
    const encryption = await encryptionChoice(host, values, path);
    const options = qcow2Options(values, dataPath, encryption);
    const file = openTarget(host, path, true);
    claimImageFile(file, 'qcow2', { use: 'write' });
    refuseForgetful(file);
    const image = await Qcow2Image.create(watched(file, target), options, {
      backing: 'none',
      dataFile: async (name) => {
        const storage = openTarget(host, name, true);
        if (data) data.isBegun = true;
        claimImageFile(storage, 'data-file', { use: 'write' });
        await beginDataFile(storage, values);
        return storage;
      },
      cacheBytes: 2 ** 22,
    });
    await image.close();
  } catch (cause) {
    dropUnfinished(host, [target, data]);
    throw cause;
  }
}
