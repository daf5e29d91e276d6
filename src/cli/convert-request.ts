/** What `convert` is asked for: its options, checked in the order and words of qemu-img. */
import { type Format, isFormat } from '../image/formats.ts';
import type { SnapshotSelector } from '../image/qcow2/snapshots.ts';
import { checkCacheMode } from './cache-mode.ts';
import { type Host, UsageError } from './command.ts';
import { creationHelp, creationOptions } from './creation-options.ts';
import { noCreation } from './driver-names.ts';
import { parseCommandLine } from './getopt.ts';
import {
  asksForHelp,
  checkOptionList,
  type ListOption,
  type ListValues,
  parseOptionList,
} from './option-list.ts';
import {
  given,
  type OptionGiven,
  type OptionSpec,
  type ParsedOptions,
  parseInteger,
  valueGiven,
  valuesGiven,
} from './options.ts';
import { parseRate } from './rate.ts';
import { shortForm, splitList, warnOfShortForm } from './settings.ts';
import { sizeArgument } from './size-argument.ts';

/** Options of `convert`. */
export const CONVERT_OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true, own: true },
  { name: 'output-format', short: 'O', value: true, own: true },
  { name: 'backing-file', short: 'B', value: true, own: true },
  { name: 'backing-format', short: 'F', value: true, own: true },
  { name: 'compress', short: 'c', value: false, own: true },
  { name: 'copy-range', short: 'C', value: false, own: true },
  { name: 'options', short: 'o', value: true, own: true, check: checkOptionList },
  { name: 'progress', short: 'p', value: false, own: true },
  { name: 'quiet', short: 'q', value: false, own: true },
  { name: 'sparse-size', short: 'S', value: true, own: true, check: parseSparse },
  { name: 'no-create', short: 'n', value: false, own: true },
  { name: 'target-is-zero', value: false },
  { name: 'snapshot', short: 'l', value: true, own: true, check: checkSnapshot },
  { name: 'threads', short: 'm', value: true, own: true, check: parseThreads },
  { name: 'out-of-order', short: 'W', value: false, own: true },
  { name: 'rate', short: 'r', value: true, own: true, check: parseRate },
  { name: 'cache', short: 't', value: true, own: true },
  { name: 'source-cache', short: 'T', value: true, own: true },
  { name: 'salvage', value: false },
  { name: 'bitmaps', value: false },
  { name: 'skip-broken-bitmaps', value: false },
  { name: 'bitmap', value: true, own: true },
  { name: 'output', value: true, own: true },
  { name: 'force-share', short: 'U', value: false },
  { name: 'untrusted', value: false, own: true },
  { name: 'batch', value: true, own: true },
  { name: 'target-image-opts', value: false },
];

/** Largest -S, and what it is a multiple of (qemu-img's buffer limit). */
const SPARSE_MAX = 16 * 2 ** 20;
const SPARSE_UNIT = 512;
const THREADS_MAX = 16;
const LEVEL_MAX = 9;

/** Options of a target beyond those of an image: how well compressed clusters are. */
const LEVEL_OPTION: ListOption = {
  name: 'compression_level',
  type: 'num',
  help: 'Effort of compression, from 1 (fastest) to 9 (smallest)',
};

/** Drivers that QEMU takes for formats of targets: what is written lies there as in raw images. */
export type TargetDriver = 'file' | 'host_device';

/** What was asked for, checked. */
export interface ConvertRequest {
  readonly sources: readonly string[];
  readonly target: string;
  readonly format: string | undefined;
  readonly outputFormat: Format;
  /** The driver that was named where a format belongs: what it reaches is written as it is. */
  readonly targetDriver: TargetDriver | undefined;
  /** Somebody said so. */
  readonly outputGiven: boolean;
  /** Why there can be no such target: said once the sources are open. */
  readonly refusal: UsageError | undefined;
  /** Why one that is there already cannot be opened: said where it would be. */
  readonly unopenable: UsageError | undefined;
  readonly snapshot: SnapshotSelector | undefined;
  /** As given with -S; undefined: not at all. */
  readonly sparseBytes: number;
  readonly create: boolean;
  /** What a new target is to be. */
  readonly values: ListValues;
  /** Somebody said what backing file the target has, or is to have. */
  readonly overBacking: boolean;
  readonly targetIsZero: boolean;
  readonly compress: { readonly level: number | undefined } | undefined;
  readonly copyRange: boolean;
  /** The sources' cache mode, as it was given. */
  readonly sourceCache: string | undefined;
  /** The target's cache mode, as it was given. */
  readonly cache: string;
  /** Nothing is on stable storage until this says so. */
  readonly flush: boolean;
  readonly bytesPerSecond: number | undefined;
  readonly salvage: boolean;
  /** Bitmaps are copied; those that are inconsistent are an error or left out. */
  readonly bitmaps: 'all' | 'skip-broken' | undefined;
  /** Only what this bitmap of the source says is dirty is copied. */
  readonly bitmap: string | undefined;
  readonly threads: number | undefined;
  readonly progress: boolean;
  readonly quiet: boolean;
  /** What was done is told as JSON. */
  readonly json: boolean;
  readonly untrusted: boolean;
  readonly forceShare: boolean;
}

/** Whether a conversion has to do with bitmaps, and needs their code. */
export function usesBitmaps({ bitmap, bitmaps }: ConvertRequest): boolean {
  return bitmap !== undefined || bitmaps !== undefined;
}

/** The code of bitmaps. */
export const bitmapParts = () => import('./convert-bitmaps.ts');

/** The options that only ask for help: what to print. */
export interface HelpRequest {
  readonly help: string;
}

/** @throws UsageError for what does not make sense */
export function parseConvert(args: readonly string[]): ConvertRequest | HelpRequest {
  const parsed = parseCommandLine(args, CONVERT_OPTIONS);
  const sparse = valueGiven(parsed, 'sparse-size');
  const sparseBytes = parseSparse(sparse);
  const threads = parseThreads(valueGiven(parsed, 'threads'));
  const snapshot = parseSnapshot(valueGiven(parsed, 'snapshot'));
  const bytesPerSecond = parseRate(valueGiven(parsed, 'rate'));
  const lists = valuesGiven(parsed, 'options');
  const create = !given(parsed, 'no-create');
  const bitmaps = parseBitmaps(parsed);
  const bitmap = valueGiven(parsed, 'bitmap');
  const output = valueGiven(parsed, 'output-format') ?? 'raw';
  const targetDriver = output === 'file' || output === 'host_device' ? output : undefined;
  const outputFormat = targetDriver ? 'raw' : output;
  const copyRange = given(parsed, 'copy-range');
  const compress = given(parsed, 'compress');
  if (compress && copyRange) throw new UsageError('Cannot enable copy offloading when -c is used');
  if (sparse !== undefined && copyRange) {
    throw new UsageError('Cannot enable copy offloading when -S is used');
  }
  const salvage = given(parsed, 'salvage');
  if (salvage && copyRange) {
    throw new UsageError('Cannot use copy offloading in salvaging mode');
  }
  if (!create && lists.length > 0) {
    throw new UsageError('-o has no effect when skipping image creation');
  }
  if (create && given(parsed, 'target-is-zero')) {
    throw new UsageError('--target-is-zero requires use of -n flag');
  }
  const { operands } = parsed;
  const target = operands.length > 1 ? (operands.at(-1) as string) : undefined;
  const list = lists.join(',');
  if (lists.length > 0 && asksForHelp(list)) {
    if (!isFormat(outputFormat)) throw new UsageError(noCreation(outputFormat));
    return { help: creationHelp(outputFormat, target !== undefined) };
  }
  if (target === undefined) throw new UsageError('Must specify image file name');
  const sources = operands.slice(0, -1);
  checkCacheMode(valueGiven(parsed, 'source-cache'), 'source cache');
  const several = sources.length > 1;
  const { format, values, refusal } = parseTarget(() => {
    if (typeof snapshot === 'string' && several) {
      throw new UsageError('No support for concatenating multiple snapshot');
    }
    if (create && !isFormat(outputFormat)) {
      throw new UsageError(noCreation(outputFormat));
    }
    const values = create
      ? parseValues(parsed, outputFormat as Format, { list, output })
      : new Map();
    const backing = values.get('backing_file') ?? valueGiven(parsed, 'backing-file');
    if (backing !== undefined) checkBacking(parsed, values, sources.length);
    if (compress && create) checkCompression(outputFormat, values);
    if (bitmaps && several) {
      throw new UsageError('Copying bitmaps only possible with single source');
    }
    if (bitmap !== undefined && several) throw new UsageError('--bitmap takes a single source');
    return { format: isFormat(outputFormat) ? outputFormat : 'raw', values };
  });
  const cache = valueGiven(parsed, 'cache') ?? 'unsafe';
  return {
    sources,
    target,
    format: valueGiven(parsed, 'format'),
    outputFormat: format,
    targetDriver,
    outputGiven: given(parsed, 'output-format'),
    refusal,
    unopenable: isFormat(outputFormat)
      ? undefined
      : new UsageError(`Could not open '${target}': Unknown driver '${outputFormat}'`),
    snapshot: typeof snapshot === 'string' && several ? undefined : snapshot,
    sparseBytes,
    create,
    values,
    overBacking: values.has('backing_file') || given(parsed, 'backing-file'),
    targetIsZero: create || given(parsed, 'target-is-zero'),
    compress: compress ? { level: parseLevel(values) } : undefined,
    copyRange,
    sourceCache: valueGiven(parsed, 'source-cache'),
    cache,
    flush: cache !== 'unsafe',
    bytesPerSecond,
    salvage,
    bitmaps,
    bitmap,
    threads,
    progress: given(parsed, 'progress') && !given(parsed, 'quiet'),
    quiet: given(parsed, 'quiet'),
    json: parseOutput(valueGiven(parsed, 'output')),
    untrusted: given(parsed, 'untrusted'),
    forceShare: given(parsed, 'force-share'),
  };
}

/** What a target is to be, or why there can be none. */
interface ParsedTarget {
  readonly format: Format;
  readonly values: ListValues;
  readonly refusal?: UsageError;
}

function parseTarget(parse: () => ParsedTarget): ParsedTarget {
  try {
    return parse();
  } catch (cause) {
    if (!(cause instanceof UsageError)) throw cause;
    return { format: 'raw', values: new Map(), refusal: cause };
  }
}

function parseOutput(output = 'human'): boolean {
  if (output === 'json' || output === 'human') return output === 'json';
  throw new UsageError('--output must be used with human or json as argument.');
}

function parseBitmaps(parsed: ParsedOptions): ConvertRequest['bitmaps'] {
  const skipsBroken = given(parsed, 'skip-broken-bitmaps');
  if (given(parsed, 'bitmaps')) return skipsBroken ? 'skip-broken' : 'all';
  if (!skipsBroken) return undefined;
  throw new UsageError('Use of --skip-broken-bitmaps requires --bitmaps');
}

/** The options of `-o`, and the backing file's, which have a letter of their own. */
function parseValues(
  parsed: ParsedOptions,
  format: Format,
  { list, output }: { readonly list: string; readonly output: string },
): ListValues {
  const known = [...creationOptions(format), ...(format === 'qcow2' ? [LEVEL_OPTION] : [])];
  const values = parseOptionList(list, known);
  const set = (name: string, text: string | undefined, what: string) => {
    if (text === undefined) return;
    if (!known.some((option) => option.name === name)) {
      throw new UsageError(`${what} not supported for file format '${output}'`);
    }
    values.set(name, { text, number: 0n });
  };
  set('backing_file', valueGiven(parsed, 'backing-file'), 'Backing file');
  set('backing_fmt', valueGiven(parsed, 'backing-format'), 'Backing file format');
  return values;
}

function checkBacking(parsed: ParsedOptions, values: ListValues, sources: number): void {
  if (given(parsed, 'target-is-zero')) {
    const message = 'Cannot use --target-is-zero when the destination image has a backing file';
    throw new UsageError(message);
  }
  if (sources > 1) {
    throw new UsageError(
      'Having a backing file for the target makes no sense when concatenating multiple input ' +
        'images',
    );
  }
  if (!given(parsed, 'no-create') && !values.has('backing_fmt')) {
    throw new UsageError('Use of backing file requires explicit backing format');
  }
}

/** What cannot be compressed, or not with such options. @throws UsageError */
export function checkCompression(format: string, values: ListValues): void {
  if (format !== 'qcow2') {
    throw new UsageError('Compression not supported for this file format');
  }
  if (values.get('encryption')?.number === 1n || values.has('encrypt.format')) {
    throw new UsageError('Compression and encryption not supported at the same time');
  }
  const mode = values.get('preallocation')?.text;
  if (mode !== undefined && mode !== 'off') {
    throw new UsageError('Compression and preallocation not supported at the same time');
  }
}

function parseLevel(values: ListValues): number | undefined {
  const given = values.get('compression_level');
  if (given === undefined) return undefined;
  const level = Number(given.number);
  if (level < 1 || level > LEVEL_MAX) {
    throw new UsageError(`compression_level must be between 1 and ${LEVEL_MAX}`);
  }
  return level;
}

function parseSparse(text: string | undefined): number {
  if (text === undefined) return 4096;
  const what = 'buffer size for sparse output';
  const bytes = sizeArgument(what, text);
  if (bytes % SPARSE_UNIT !== 0 || bytes > SPARSE_MAX) {
    throw new UsageError(
      `Invalid ${what} specified. Valid sizes are multiples of ${SPARSE_UNIT} up to ` +
        `${SPARSE_MAX}. Select 0 to disable sparse detection (fully allocates output).`,
    );
  }
  return bytes;
}

function parseThreads(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const threads = parseInteger(text) ?? 0;
  if (threads < 1 || threads > THREADS_MAX) {
    throw new UsageError(
      `Invalid number of coroutines. Allowed number of coroutines is between 1 and ${THREADS_MAX}`,
    );
  }
  return threads;
}

const SNAPSHOT_HELP = `snapshot options:
  snapshot.id=<str>      - snapshot id
  snapshot.name=<str>    - snapshot name
`;

/**
 * Looks at a value of `-l` as it is met, and tells of what is out of fashion in it.
 * @throws UsageError
 */
export function checkSnapshot(text: string, _earlier: readonly OptionGiven[], host: Host): void {
  parseSnapshot(text, host);
}

/**
 * `-l`: `snapshot.id=…` and `snapshot.name=…`, with commas of their values written twice, or one
 * word that may be either.
 * @param host who is told of names alone, and of what there is; absent: nobody
 * @throws UsageError
 */
export function parseSnapshot(text: string | undefined, host?: Host): SnapshotSelector | undefined {
  if (text === undefined || !text.startsWith('snapshot.')) return text;
  const refused = (message: string, further: readonly string[] = []) =>
    new UsageError(message, false, 1, further);
  const failed = `Failed in parsing snapshot param '${text}'`;
  const selector: { id?: string; name?: string } = {};
  for (const part of splitList(text)) {
    if (part === 'help' || part === '?') {
      host?.tell(SNAPSHOT_HELP);
      throw refused(failed);
    }
    const equals = part.indexOf('=');
    if (equals < 0 && host) warnOfShortForm(host, part);
    const { name, value } =
      equals < 0 ? shortForm(part) : { name: part.slice(0, equals), value: part.slice(equals + 1) };
    if (name === 'snapshot.id') selector.id = value;
    else if (name === 'snapshot.name') selector.name = value;
    else throw refused(`Invalid parameter '${name}'`, [failed]);
  }
  return selector;
}
