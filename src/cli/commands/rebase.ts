/** `rebase`: gives an image another backing file. */

import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { BACKING_NAME_BYTES_MAX } from '../../base/limits.ts';
import { byteLength } from '../../base/text.ts';
import { rebaseImage } from '../../convert/rebase.ts';
import type { Disk } from '../../image/disk.ts';
import { Qcow2Image } from '../../image/qcow2/qcow2-image.ts';
import { fullBackingName } from '../backing-name.ts';
import { checkCacheMode, hostInMode } from '../cache-mode.ts';
import { chainOf, isSameFile, pathOf } from '../chain.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { isDriverName } from '../driver-names.ts';
import { errnoOf } from '../errno.ts';
import { parseCommandLine } from '../getopt.ts';
import type { ImageNode } from '../image-node.ts';
import { nodeName } from '../node-name.ts';
import { openImage, openWritableNode } from '../open-image.ts';
import { given, type OptionSpec, valueGiven } from '../options.ts';
import { type Progress, startProgress } from '../progress.ts';
import { sameFileBy } from '../same-file.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true, own: true },
  { name: 'backing', short: 'b', value: true, own: true },
  { name: 'backing-format', short: 'F', value: true, own: true },
  { name: 'cache', short: 't', value: true, own: true },
  { name: 'source-cache', short: 'T', value: true, own: true },
  { name: 'unsafe', short: 'u', value: false, own: true },
  { name: 'compress', short: 'c', value: false, own: true },
  { name: 'progress', short: 'p', value: false, own: true },
  { name: 'quiet', short: 'q', value: false, own: true },
  { name: 'force-share', short: 'U', value: false },
  { name: 'untrusted', value: false, own: true },
];

/** What was asked for, checked. */
interface Request {
  readonly filename: string;
  readonly format: string | undefined;
  /** Empty or undefined: the image is to stand alone. */
  readonly backing: string | undefined;
  readonly backingFormat: string | undefined;
  readonly unsafe: boolean;
  readonly cache: string | undefined;
  readonly sourceCache: string | undefined;
  readonly compress: boolean;
  readonly progress: boolean;
  /** Others may write the new backing file meanwhile. */
  readonly forceShare: boolean;
  readonly untrusted: boolean;
}

/** Percent that are too little for a line of their own. */
const STEP_PERCENT = 2;

/** The subcommand. */
export const rebase: Command = {
  name: 'rebase',
  options: OPTIONS,

  async run(args, host) {
    const request = parseRequest(args);
    const progress = startProgress(host, {
      enabled: request.progress,
      total: () => 0,
      stream: false,
      stepPercent: STEP_PERCENT,
    });
    try {
      await openAndChange(host, request, progress);
    } catch (cause) {
      // As in qemu-img, all that there was to do is done where only the name was refused.
      if (cause instanceof NameRefused) progress.end();
      else progress.stop();
      throw cause;
    }
    progress.end();
    return 0;
  },
};

async function openAndChange(host: Host, request: Request, progress: Progress): Promise<void> {
  const { filename, format, untrusted, unsafe } = request;
  checkCacheMode(request.cache, 'cache');
  checkCacheMode(request.sourceCache, 'source cache');
  const backing = unsafe ? ('none' as const) : undefined;
  const options = { format, untrusted, backing, warns: true } as const;
  const { disk: image, node } = await openWritableNode(
    hostInMode(host, request.cache),
    filename,
    options,
  );
  try {
    await changeBacking(host, image, { ...request, node }, progress);
  } finally {
    await image.close();
  }
}

function parseRequest(args: readonly string[]): Request {
  const parsed = parseCommandLine(args, OPTIONS);
  const [filename, ...rest] = parsed.operands;
  if (filename === undefined || rest.length > 0) {
    throw new UsageError('Expecting one image file name', true);
  }
  const backing = valueGiven(parsed, 'backing');
  const unsafe = given(parsed, 'unsafe');
  if (backing === undefined && !unsafe) {
    throw new UsageError('Must specify backing file (-b) or use unsafe mode (-u)', true);
  }
  return {
    filename,
    format: valueGiven(parsed, 'format'),
    backing,
    backingFormat: valueGiven(parsed, 'backing-format'),
    unsafe,
    cache: valueGiven(parsed, 'cache'),
    sourceCache: valueGiven(parsed, 'source-cache'),
    compress: given(parsed, 'compress'),
    progress: given(parsed, 'progress') && !given(parsed, 'quiet'),
    forceShare: given(parsed, 'force-share'),
    untrusted: given(parsed, 'untrusted'),
  };
}

async function changeBacking(
  host: Host,
  image: Disk,
  request: Request & { readonly node: ImageNode },
  progress: Progress,
): Promise<void> {
  const { backing: name = '', backingFormat: format, unsafe } = request;
  if (format !== undefined && !isDriverName(format)) {
    throw new UsageError(`Invalid format name: '${format}'`);
  }
  const disk = unsafe || name === '' ? undefined : await openBacking(host, image, request);
  try {
    if (name !== '' && format === undefined) {
      throw refused(request, 'backing format must be specified');
    }
    if (!(image instanceof Qcow2Image)) throw refused(request, 'Operation not supported');
    if (name !== '' && !image.mayHaveBacking) throw refused(request, 'Invalid argument');
    if (byteLength(name) > BACKING_NAME_BYTES_MAX) {
      throw refused(request, 'Invalid argument');
    }
    const named = name === '' ? undefined : { name, format: format as string };
    if (unsafe) await image.setBackingName(named);
    else {
      host.moveInBackground?.();
      if (progress.follow) await follow(host, progress, { image, disk });
      await rebaseImage(image, named && disk && { ...named, disk }, {
        signal: host.interrupted,
        onProgress: progress.update,
        compress: request.compress,
        sameFile: sameFileBy(host),
        explainWrite,
      });
    }
  } catch (cause) {
    if (!isQcow2Error(cause, 'OUT_OF_RANGE')) throw cause;
    throw refused(request, 'No space left in the file header');
  } finally {
    await disk?.close();
  }
}

/** Why the image could not be written, with the C library's words where the host refused it. */
function explainWrite(cause: unknown): unknown {
  if (!isQcow2Error(cause, 'IO', 'NO_SPACE')) return cause;
  const message = `Error while writing to COW image: ${errnoOf(cause).text}`;
  return new Qcow2Error(cause.code, message, undefined, cause.cause);
}

async function follow(
  host: Host,
  progress: Progress,
  { image, disk }: { readonly image: Qcow2Image; readonly disk: Disk | undefined },
): Promise<void> {
  const { followMarks } = await import('../progress-marks.ts');
  const { rebaseMarks } = await import('../../convert/progress-marks.ts');
  const isNew = (one: Disk) => disk && isSameFile(host, pathOf(one), pathOf(disk));
  const options = {
    backing: disk,
    depth: Math.max(0, chainOf(image).findIndex(isNew)),
  };
  await followMarks(progress, STEP_PERCENT, (isTold) => rebaseMarks(image, options, isTold));
}

/** The new backing file: a relative name is one in the image's folder. */
async function openBacking(
  host: Host,
  image: Disk,
  request: Request & { readonly node: ImageNode },
): Promise<Disk> {
  const { backing = '', backingFormat: format, untrusted, forceShare, node } = request;
  if (fullBackingName(backing, '/') !== backing) refuseRelative(node, image);
  const path = fullBackingName(backing, pathOf(image));
  try {
    const inMode = hostInMode(host, request.sourceCache);
    return await openImage(inMode, path, { format, untrusted, forceShare, role: 'path' });
  } catch (cause) {
    if (!(cause instanceof UsageError)) throw cause;
    // The outer words say which file it is.
    const why = cause.message.replace(`Could not open '${path}': `, '');
    throw new UsageError(`Could not open new backing file '${backing}': ${why}`);
  }
}

/** An image that only settings name is in no folder. @throws UsageError */
function refuseRelative(node: ImageNode, image: Disk): void {
  const own = image instanceof Qcow2Image ? image.backingName.name : undefined;
  const backing = own && fullBackingName(own, pathOf(image));
  const name = nodeName(node, image.format, { backing });
  if (!name.startsWith('json:')) return;
  const why = `Cannot use relative backing file names for '${name}'`;
  throw new UsageError(`Could not resolve backing filename: ${why}`);
}

/** The image could not be given the name; no name is one of C's strings that are not there. */
class NameRefused extends UsageError {}

function refused({ backing = '(null)' }: Request, why: string): NameRefused {
  return new NameRefused(`Could not change the backing file to '${backing}': ${why}`);
}
