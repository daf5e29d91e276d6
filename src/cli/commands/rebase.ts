/** `rebase`: gives an image another backing file. */
import { isQcow2Error } from '../../base/errors.ts';
import { BACKING_NAME_BYTES_MAX } from '../../base/limits.ts';
import { rebaseImage } from '../../convert/rebase.ts';
import type { Disk } from '../../image/disk.ts';
import { isFormat } from '../../image/formats.ts';
import { Qcow2Image } from '../../image/qcow2/qcow2-image.ts';
import { fullBackingName } from '../backing-name.ts';
import { checkCacheMode } from '../cache-mode.ts';
import { pathOf } from '../chain.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { parseCommandLine } from '../getopt.ts';
import { openImage, openWritableImage } from '../open-image.ts';
import { given, type OptionSpec, valueGiven } from '../options.ts';
import { startProgress } from '../progress.ts';
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
  readonly compress: boolean;
  readonly progress: boolean;
  /** Others may write the new backing file meanwhile. */
  readonly forceShare: boolean;
  readonly untrusted: boolean;
}

/** The subcommand. */
export const rebase: Command = {
  name: 'rebase',
  options: OPTIONS,

  async run(args, host) {
    const request = parseRequest(args);
    const { filename, format, untrusted, unsafe } = request;
    const backing = unsafe ? 'none' : undefined;
    const image = await openWritableImage(host, filename, { format, untrusted, backing });
    try {
      await changeBacking(host, image, request);
    } finally {
      await image.close();
    }
    return 0;
  },
};

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
  checkCacheMode(valueGiven(parsed, 'cache'), 'cache');
  checkCacheMode(valueGiven(parsed, 'source-cache'), 'source cache');
  return {
    filename,
    format: valueGiven(parsed, 'format'),
    backing,
    backingFormat: valueGiven(parsed, 'backing-format'),
    unsafe,
    compress: given(parsed, 'compress'),
    progress: given(parsed, 'progress') && !given(parsed, 'quiet'),
    forceShare: given(parsed, 'force-share'),
    untrusted: given(parsed, 'untrusted'),
  };
}

async function changeBacking(host: Host, image: Disk, request: Request): Promise<void> {
  const { backing: name = '', backingFormat: format, unsafe } = request;
  if (format !== undefined && !isFormat(format)) {
    throw new UsageError(`Invalid format name: '${format}'`);
  }
  const disk = unsafe || name === '' ? undefined : await openBacking(host, image, request);
  try {
    if (!(image instanceof Qcow2Image)) throw refused(request, 'Operation not supported');
    if (name !== '' && format === undefined) {
      throw refused(request, 'backing format must be specified');
    }
    if (new TextEncoder().encode(name).length > BACKING_NAME_BYTES_MAX) {
      throw refused(request, 'Invalid argument');
    }
    const named = name === '' ? undefined : { name, format: format as string };
    if (unsafe) await image.setBackingName(named);
    else await compareAndChange(host, image, named && disk && { ...named, disk }, request);
  } catch (cause) {
    if (!isQcow2Error(cause, 'OUT_OF_RANGE')) throw cause;
    throw refused(request, 'No space left in the file header');
  } finally {
    await disk?.close();
  }
}

async function compareAndChange(
  host: Host,
  image: Qcow2Image,
  backing: Parameters<typeof rebaseImage>[1],
  request: Request,
): Promise<void> {
  const { progress: enabled, compress } = request;
  const progress = startProgress(host, { enabled, total: image.size, stream: false });
  const sameFile = sameFileBy(host);
  try {
    const { signal, onProgress } = { signal: host.interrupted, onProgress: progress.update };
    await rebaseImage(image, backing, { signal, onProgress, compress, sameFile });
  } catch (cause) {
    progress.stop();
    throw cause;
  }
  progress.end();
}

/** The new backing file: a relative name is one in the image's folder. */
async function openBacking(host: Host, image: Disk, request: Request): Promise<Disk> {
  const { backing = '', backingFormat: format, untrusted, forceShare } = request;
  const path = fullBackingName(backing, pathOf(image));
  try {
    return await openImage(host, path, { format, untrusted, forceShare, role: 'path' });
  } catch (cause) {
    if (!(cause instanceof UsageError)) throw cause;
    // The outer words say which file it is.
    const why = cause.message.replace(`Could not open '${path}': `, '');
    throw new UsageError(`Could not open new backing file '${backing}': ${why}`);
  }
}

function refused({ backing = '' }: Request, why: string): UsageError {
  return new UsageError(`Could not change the backing file to '${backing}': ${why}`);
}
