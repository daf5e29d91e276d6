/** `commit`: writes what an image holds into its backing file. */
import { isQcow2Error } from '../../base/errors.ts';
import { commitDisk } from '../../convert/commit.ts';
import type { Disk, WritableDisk } from '../../image/disk.ts';
import { Qcow2Image } from '../../image/qcow2/qcow2-image.ts';
import { checkCacheMode, hostInMode } from '../cache-mode.ts';
import { chainOf, depthOfBacking } from '../chain.ts';
import { type Command, type Host, silent, UsageError } from '../command.ts';
import { errnoOf } from '../errno.ts';
import { parseCommandLine } from '../getopt.ts';
import { openImage, openWritableImage } from '../open-image.ts';
import { given, type OptionSpec, valueGiven } from '../options.ts';
import { type Progress, startProgress } from '../progress.ts';
import { parseRate } from '../rate.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true, own: true },
  { name: 'cache', short: 't', value: true, own: true },
  { name: 'base', short: 'b', value: true, own: true },
  { name: 'rate', short: 'r', value: true, own: true, check: parseRate },
  { name: 'drop', short: 'd', value: false, own: true },
  { name: 'progress', short: 'p', value: false, own: true },
  { name: 'quiet', short: 'q', value: false, own: true },
  { name: 'untrusted', value: false, own: true },
];

/** What was asked for, checked. */
interface Request {
  readonly filename: string;
  readonly format: string | undefined;
  readonly cache: string | undefined;
  readonly base: string | undefined;
  readonly bytesPerSecond: number | undefined;
  /** The image is not needed any more: it stays as it is. */
  readonly drop: boolean;
  readonly progress: boolean;
  readonly quiet: boolean;
  readonly untrusted: boolean;
}

/** The subcommand. */
export const commit: Command = {
  name: 'commit',
  options: OPTIONS,

  async run(args, outer) {
    const request = parseRequest(args);
    const host = hostInMode(outer, request.cache);
    const { filename, quiet } = request;
    const depth = await findBase(host, request).catch((cause) => explainBase(host, request, cause));
    const disk = await openWritableImage(host, filename, {
      ...request,
      writableDepth: depth,
      warns: true,
    });
    try {
      await commitInto(host, disk, depth, request);
    } catch (cause) {
      // What went wrong first says more than what that leaves behind.
      await Promise.resolve(disk.close()).catch(() => {});
      throw cause;
    }
    await disk.close();
    if (!quiet) host.tell('Image committed.\n');
    return 0;
  },
};

function parseRequest(args: readonly string[]): Request {
  const parsed = parseCommandLine(args, OPTIONS);
  const bytesPerSecond = parseRate(valueGiven(parsed, 'rate'));
  const [filename, ...rest] = parsed.operands;
  if (filename === undefined || rest.length > 0) {
    throw new UsageError('Expecting one image file name', true);
  }
  const cache = valueGiven(parsed, 'cache');
  checkCacheMode(cache, 'cache');
  const quiet = given(parsed, 'quiet');
  const base = valueGiven(parsed, 'base');
  return {
    filename,
    format: valueGiven(parsed, 'format'),
    cache,
    base,
    bytesPerSecond,
    // What lies between the image and the base would be out of date.
    drop: given(parsed, 'drop') || base !== undefined,
    progress: given(parsed, 'progress') && !quiet,
    quiet,
    untrusted: given(parsed, 'untrusted'),
  };
}

/** How many steps down the chain the base is. */
async function findBase(host: Host, { filename, format, untrusted, base }: Request) {
  if (base === undefined) return 1;
  // It is opened once more, to be written, which tells what there is to tell.
  const disk = await openImage(silent(host), filename, { format, untrusted });
  try {
    const depth = depthOfBacking(host, chainOf(disk), base);
    if (depth !== undefined) return depth;
    throw new UsageError(`Did not find '${base}' in the backing chain of '${filename}'`);
  } finally {
    await disk.close();
  }
}

/** Says what else is wrong with the image first, as one does who opens it to be written. */
async function explainBase(host: Host, request: Request, cause: unknown): Promise<never> {
  const disk = await openWritableImage(host, request.filename, { ...request, warns: true });
  await disk.close();
  show(host, request, 0).stop();
  throw cause;
}

function show(host: Host, { progress: enabled }: Request, total: number): Progress {
  return startProgress(host, { enabled, total: () => total, stream: false });
}

async function commitInto(
  host: Host,
  disk: WritableDisk,
  depth: number,
  request: Request,
): Promise<void> {
  const progress = show(host, request, disk.size);
  host.moveInBackground?.();
  try {
    const base: Disk | undefined = chainOf(disk)[depth];
    if (!base) throw new UsageError('Image does not have a backing file');
    await commitDisk(disk, base as WritableDisk, {
      signal: host.interrupted,
      onProgress: progress.update,
      bytesPerSecond: request.bytesPerSecond,
    }).catch(explainJob);
    if (!request.drop && disk instanceof Qcow2Image) await makeEmpty(disk, request);
  } catch (cause) {
    progress.stop();
    throw cause;
  }
  progress.end();
}

function explainJob(cause: unknown): never {
  if (!isQcow2Error(cause) || cause.code === 'ABORTED') throw cause;
  throw new UsageError(`Block job failed: ${errnoOf(cause).text}`);
}

async function makeEmpty(image: Qcow2Image, { filename }: Request): Promise<void> {
  try {
    await image.makeEmpty();
  } catch (cause) {
    throw new UsageError(`Failed to empty ${filename}: ${errnoOf(cause).text}`);
  }
}
