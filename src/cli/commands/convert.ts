/** `convert`: disks, one after another, into a raw file, a block device or a pipe. */
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import {
  type ConvertOptions,
  concatenatedSize,
  convertToRaw,
  convertToStream,
} from '../../convert/convert.ts';
import type { Disk } from '../../image/disk.ts';
import { isFormat } from '../../image/open.ts';
import type { SnapshotSelector } from '../../image/qcow2/snapshots.ts';
import type { NodeFileStorage } from '../../storage/node-file.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { parseCommandLine } from '../getopt.ts';
import { RAW_WRITE } from '../image-claims.ts';
import { openImage } from '../open-image.ts';
import { given, type OptionSpec, type ParsedOptions, parseSize, valueGiven } from '../options.ts';
import { startProgress } from '../progress.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true },
  { name: 'output-format', short: 'O', value: true },
  { name: 'options', short: 'o', value: true },
  { name: 'progress', short: 'p', value: false },
  { name: 'quiet', short: 'q', value: false },
  { name: 'sparse-size', short: 'S', value: true },
  { name: 'no-create', short: 'n', value: false },
  { name: 'target-is-zero', value: false },
  { name: 'snapshot', short: 'l', value: true },
  { name: 'threads', short: 'm', value: true },
  { name: 'out-of-order', short: 'W', value: false },
  { name: 'force-share', short: 'U', value: false },
  { name: 'untrusted', value: false },
];

/** Largest -S, and what it is a multiple of (qemu-img's buffer limit). */
const SPARSE_MAX = 16 * 2 ** 20;
const SPARSE_UNIT = 512;
const THREADS_MAX = 16;

type Preallocation = 'off' | 'falloc' | 'full';

/** What was asked for, checked. */
interface Request {
  readonly sources: readonly string[];
  readonly target: string;
  readonly format: string | undefined;
  readonly snapshot: SnapshotSelector | undefined;
  readonly sparseBytes: number;
  readonly create: boolean;
  readonly targetIsZero: boolean;
  readonly preallocation: Preallocation;
  readonly threads: number | undefined;
  readonly progress: boolean;
  readonly untrusted: boolean;
  readonly forceShare: boolean;
}

/** The subcommand. */
export const convert: Command = {
  name: 'convert',
  usage:
    'convert [-f FMT] [-O raw] [-p] [-q] [-S SIZE] [-n [--target-is-zero]] [-l SNAPSHOT]\n' +
    '          [-m N] [-W] [-U] [-o OPTIONS] SRC… DST',

  async run(args, host) {
    const request = parseRequest(args);
    const disks: Disk[] = [];
    try {
      for (const source of request.sources) {
        const { format, untrusted, snapshot, forceShare } = request;
        const options = { format, untrusted, snapshot, forceShare, use: 'convert' } as const;
        disks.push(await openSource(host, source, options));
      }
      await convertInto(host, request, disks);
    } finally {
      for (const disk of disks) await disk.close();
    }
    return 0;
  },
};

function parseRequest(args: readonly string[]): Request {
  const parsed = parseCommandLine(args, OPTIONS);
  const sparseBytes = parseSparse(valueGiven(parsed, 'sparse-size'));
  const threads = parseThreads(valueGiven(parsed, 'threads'));
  const snapshot = parseSnapshot(valueGiven(parsed, 'snapshot'));
  const create = !given(parsed, 'no-create');
  const outputFormat = valueGiven(parsed, 'output-format') ?? 'raw';
  const operands = parsed.operands;
  if (!create && given(parsed, 'options')) {
    throw new UsageError('-o has no effect when skipping image creation');
  }
  if (create && given(parsed, 'target-is-zero')) {
    throw new UsageError('--target-is-zero requires use of -n flag');
  }
  const target = operands.at(-1);
  if (target === undefined || operands.length < 2) {
    throw new UsageError('Must specify image file name');
  }
  const sources = operands.slice(0, -1);
  if (snapshot !== undefined && sources.length > 1) {
    throw new UsageError('No support for concatenating multiple snapshot');
  }
  if (!isFormat(outputFormat)) throw new UsageError(`Unknown file format '${outputFormat}'`);
  if (outputFormat !== 'raw') {
    throw new UsageError(`This version writes raw images only, not '${outputFormat}'`);
  }
  return {
    sources,
    target,
    format: valueGiven(parsed, 'format'),
    snapshot,
    sparseBytes,
    create,
    targetIsZero: create || given(parsed, 'target-is-zero'),
    preallocation: parsePreallocation(parsed, target),
    threads,
    progress: given(parsed, 'progress') && !given(parsed, 'quiet'),
    untrusted: given(parsed, 'untrusted'),
    forceShare: given(parsed, 'force-share'),
  };
}

function parseSparse(text: string | undefined): number {
  if (text === undefined) return 4096;
  const bytes = parseSize(text);
  if (bytes === undefined) {
    throw new UsageError(
      'Invalid buffer size for sparse output specified. You may use k, M, G, T, P or E suffixes ' +
        'for\nkilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.',
    );
  }
  if (bytes % SPARSE_UNIT !== 0 || bytes > SPARSE_MAX) {
    throw new UsageError(
      'Invalid buffer size for sparse output specified. Valid sizes are multiples of ' +
        `${SPARSE_UNIT} up to ${SPARSE_MAX}. Select 0 to disable sparse detection ` +
        '(fully allocates output).',
    );
  }
  return bytes;
}

function parseThreads(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const threads = /^\d+$/.test(text) ? Number(text) : 0;
  if (threads < 1 || threads > THREADS_MAX) {
    throw new UsageError(
      `Invalid number of coroutines. Allowed number of coroutines is between 1 and ${THREADS_MAX}`,
    );
  }
  return threads;
}

/** `-l`: `snapshot.id=…` and `snapshot.name=…`, or one word that may be either. */
function parseSnapshot(text: string | undefined): SnapshotSelector | undefined {
  if (text === undefined || !text.startsWith('snapshot.')) return text;
  const selector: { id?: string; name?: string } = {};
  for (const part of text.split(',')) {
    const [key, ...value] = part.split('=');
    if (key === 'snapshot.id') selector.id = value.join('=');
    else if (key === 'snapshot.name') selector.name = value.join('=');
    else {
      throw new UsageError(
        `Invalid parameter '${key}'\nFailed in parsing snapshot param '${text}'`,
      );
    }
  }
  return selector;
}

/** `-o`: what a raw target knows. */
function parsePreallocation(parsed: ParsedOptions, target: string): Preallocation {
  let mode = 'off';
  for (const { name, value } of parsed.options) {
    if (name !== 'options') continue;
    for (const part of value.split(',')) {
      const [key, ...rest] = part.split('=');
      if (key === 'size') continue;
      if (key !== 'preallocation') throw new UsageError(`Invalid parameter '${key}'`);
      // A name without a value means "on", which is no mode: the message below says so.
      mode = rest.length === 0 ? 'on' : rest.join('=');
    }
  }
  if (mode === 'off' || mode === 'falloc' || mode === 'full') return mode;
  const why =
    mode === 'metadata'
      ? 'Unsupported preallocation mode: metadata'
      : `invalid parameter value: ${mode}`;
  throw new UsageError(`${target}: error while converting raw: ${why}`);
}

/** What of a message tells that the snapshot is to blame, and not the image. */
const SNAPSHOT_FAILURE = /(Can't find snapshot|Block format 'raw' .*)$/;

/** A snapshot that is not there has a message of its own. */
async function openSource(
  host: Host,
  source: string,
  options: Parameters<typeof openImage>[2],
): Promise<Disk> {
  try {
    return await openImage(host, source, options);
  } catch (cause) {
    const why = cause instanceof UsageError && SNAPSHOT_FAILURE.exec(cause.message)?.[0];
    if (!why) throw cause;
    throw new UsageError(`Failed to load snapshot: ${why}`);
  }
}

async function convertInto(host: Host, request: Request, disks: readonly Disk[]): Promise<void> {
  const { target } = request;
  const stream = request.create && (target === '-' || target === '/dev/stdout');
  const progress = startProgress(host, {
    enabled: request.progress,
    total: concatenatedSize(disks),
    stream,
  });
  const workers = Math.min(request.threads ?? host.threads, host.threads) - 1;
  const options = {
    sparseBytes: request.preallocation === 'off' ? request.sparseBytes : 0,
    targetIsZero: request.targetIsZero,
    signal: host.interrupted,
    onProgress: progress.update,
    workers,
    ...(host.startWorkers ? { startWorkers: host.startWorkers } : {}),
  };
  try {
    if (stream) await convertToStream(disks, host.openOutput(), options);
    else await convertToFile(host, request, disks, options);
    progress.end();
  } catch (cause) {
    progress.stop();
    throw explainFailure(cause);
  }
}

type Options = Parameters<typeof convertToRaw>[2];

async function convertToFile(
  host: Host,
  request: Request,
  disks: readonly Disk[],
  options: Options,
): Promise<void> {
  const { target, create } = request;
  refuseSourceAsTarget(host, target, disks);
  const isNew = create && !host.exists(target);
  const file = openTarget(host, request);
  let done = false;
  try {
    if (!create && file.size() < concatenatedSize(disks)) {
      throw new UsageError('output file is smaller than input file');
    }
    await convertToRaw(disks, file, { ...options, ...prepareTarget(file, request, disks) });
    done = true;
  } finally {
    // What is not whole must not look whole: a new file goes, an old one that was emptied stays so.
    if (!done && create && file.kind === 'regular') file.truncate(0);
    file.close();
    if (!done && isNew && file.kind === 'regular') host.remove(target);
  }
}

/** What can be had for the whole target at once, rather than piece by piece while it is written. */
function prepareTarget(
  file: NodeFileStorage,
  { target, targetIsZero, preallocation, sparseBytes }: Request,
  disks: readonly Disk[],
): Pick<ConvertOptions, 'sparseBytes' | 'targetIsZero'> {
  const size = concatenatedSize(disks);
  try {
    if (preallocation === 'falloc' && file.tryAllocate(0, size, { keepSize: true })) {
      return { sparseBytes };
    }
    if (!targetIsZero && sparseBytes > 0 && file.tryZero(0, size)) return { targetIsZero: true };
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    throw new UsageError(`${target}: error while converting raw: ${cause.message}`);
  }
  return {};
}

function openTarget(host: Host, { target, create }: Request): NodeFileStorage {
  try {
    return host.openFile(target, { writable: true, create, claim: RAW_WRITE });
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    const why = cause.message.replace(/^Could not open/, 'Could not create');
    const message = create
      ? `${target}: error while converting raw: ${why}`
      : `Could not open '${target}': ${cause.message}`;
    throw new UsageError(message);
  }
}

/** Writing the target must not destroy what is to be read: no file of any source's chain. */
function refuseSourceAsTarget(host: Host, target: string, disks: readonly Disk[]): void {
  if (!host.exists(target)) return;
  const real = host.realPath(target);
  for (const { storage } of disks.flatMap(({ sources }) => sources)) {
    if (host.realPath(storage.name) === real) {
      throw new UsageError(`'${target}' is both a source and the target`);
    }
  }
}

function explainFailure(cause: unknown): unknown {
  if (!isQcow2Error(cause) || cause.code === 'ABORTED') return cause;
  if (cause.code === 'CORRUPT') {
    const place = cause.at === undefined ? '' : ` (at offset 0x${cause.at.toString(16)})`;
    return new Qcow2Error(cause.code, `error while reading the source: ${cause.message}${place}`);
  }
  return cause;
}
