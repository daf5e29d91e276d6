/** `create`: a new raw or qcow2 image. */
import { alignUp } from '../../base/bits.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { VIRTUAL_BYTES_MAX } from '../../base/limits.ts';
import type { Preallocation } from '../../image/disk.ts';
import { type Format, isFormat, openDisk } from '../../image/open.ts';
import { checkCreateOptions, type Qcow2CreateOptions } from '../../image/qcow2/create.ts';
import { Qcow2Image } from '../../image/qcow2/qcow2-image.ts';
import { RawImage } from '../../image/raw/raw-image.ts';
import type { NodeFileStorage } from '../../storage/node-file.ts';
import { fullBackingName } from '../backing-name.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { creationHelp, creationOptions, formattingLine } from '../creation-options.ts';
import { parseCommandLine } from '../getopt.ts';
import { claimImageFile, RAW_WRITE } from '../image-claims.ts';
import {
  asksForHelp,
  HintedError,
  isOptionList,
  type ListValues,
  parseOptionList,
  scanSize,
} from '../option-list.ts';
import { given, type OptionSpec, type ParsedOptions, valueGiven } from '../options.ts';
import { pathGate, resolveName } from '../path-gate.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true },
  { name: 'quiet', short: 'q', value: false },
  { name: 'backing-file', short: 'b', value: true },
  { name: 'backing-format', short: 'F', value: true },
  { name: 'unsafe', short: 'u', value: false },
  { name: 'options', short: 'o', value: true },
  { name: 'untrusted', value: false },
];

const SIZE_LIMIT = 2n ** 63n;

/** What was asked for, as far as the command line alone says. */
interface Request {
  readonly filename: string;
  readonly format: string;
  readonly size: bigint | undefined;
  readonly options: string | undefined;
  readonly backingFile: string | undefined;
  readonly backingFormat: string | undefined;
  /** Do not look whether the backing file is there. */
  readonly unsafe: boolean;
  readonly quiet: boolean;
  readonly untrusted: boolean;
}

/** What is to be made. */
interface Plan {
  readonly format: Format;
  readonly values: ListValues;
  readonly path: string;
}

/** The subcommand. */
export const create: Command = {
  name: 'create',
  usage: 'create [-q] [-f FMT] [-b BACKING_FILE [-F FMT]] [-u] [-o OPTIONS] FILENAME [SIZE]',

  async run(args, host) {
    const parsed = parseCommandLine(args, OPTIONS);
    const format = valueGiven(parsed, 'format') ?? 'raw';
    const options = joinOptions(parsed);
    if (options !== undefined && asksForHelp(options)) {
      if (!isFormat(format)) throw new UsageError(`Unknown file format '${format}'`);
      host.out(creationHelp(format, parsed.operands.length > 0));
      return 0;
    }
    const request = parseRequest(parsed, format, options);
    try {
      await createImage(host, request);
      return 0;
    } catch (cause) {
      if (!(cause instanceof UsageError) && !isQcow2Error(cause)) throw cause;
      host.error(`${request.filename}: ${cause.message}`);
      if (cause instanceof HintedError) host.note(cause.hintText);
      return 1;
    }
  },
};

function joinOptions(parsed: ParsedOptions): string | undefined {
  const lists = parsed.options.filter(({ name }) => name === 'options').map(({ value }) => value);
  const wrong = lists.find((list) => !isOptionList(list));
  if (wrong !== undefined) throw new UsageError(`Invalid option list: ${wrong}`);
  return lists.length === 0 ? undefined : lists.join(',');
}

function parseRequest(parsed: ParsedOptions, format: string, options: string | undefined): Request {
  const [filename, size, ...rest] = parsed.operands;
  if (filename === undefined) throw new UsageError('Expecting image file name', true);
  const bytes = size === undefined ? undefined : parseSizeOperand(size);
  if (rest[0] !== undefined) throw new UsageError(`Unexpected argument: ${rest[0]}`, true);
  return {
    filename,
    format,
    size: bytes,
    options,
    backingFile: valueGiven(parsed, 'backing-file'),
    backingFormat: valueGiven(parsed, 'backing-format'),
    unsafe: given(parsed, 'unsafe'),
    quiet: given(parsed, 'quiet'),
    untrusted: given(parsed, 'untrusted'),
  };
}

function parseSizeOperand(text: string): bigint {
  const bytes = scanSize(text);
  if (bytes === 'invalid') {
    throw new UsageError(
      'Invalid image size specified. You may use k, M, G, T, P or E suffixes for\n' +
        'kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.',
    );
  }
  if (bytes === 'range' || bytes >= SIZE_LIMIT) {
    throw new UsageError(`Invalid image size specified. Must be between 0 and ${SIZE_LIMIT - 1n}.`);
  }
  return bytes;
}

async function createImage(host: Host, request: Request): Promise<void> {
  const { format, filename } = request;
  if (!isFormat(format)) throw new UsageError(`Unknown file format '${format}'`);
  const path = resolveName(filename, '');
  const values = parseValues(request, format);
  await completeFromBacking(host, request, values);
  if (!values.has('size')) throw new UsageError('Image creation needs a size parameter');
  if (!request.quiet) host.out(formattingLine(filename, format, values));
  const plan = { format, values, path };
  if (format === 'raw') await createRaw(host, plan);
  else await createQcow2(host, plan);
}

/** The options of `-o`, and those that have a letter of their own. */
function parseValues(request: Request, format: Format): ListValues {
  const { filename, size, backingFile, backingFormat } = request;
  const known = creationOptions(format);
  const values = parseOptionList(request.options ?? '', known);
  if (size !== undefined) {
    if (values.has('size')) throw new UsageError('The image size must be specified only once');
    setSize(values, size);
  }
  const set = (name: string, text: string | undefined, what: string) => {
    if (text === undefined) return;
    if (!known.some((option) => option.name === name)) {
      throw new UsageError(`${what} not supported for file format '${format}'`);
    }
    values.set(name, { text, number: 0n });
  };
  set('backing_file', backingFile, 'Backing file');
  set('backing_fmt', backingFormat, 'Backing file format');
  const backing = values.get('backing_file')?.text;
  if (backing === filename) {
    throw new UsageError(
      'Error: Trying to create an image with the same filename as the backing file',
    );
  }
  if (backing === '') throw new UsageError('Expected backing file name, got empty string');
  return values;
}

function setSize(values: ListValues, size: bigint): void {
  values.set('size', { text: String(size), number: size });
}

/** Opens the backing file to see that it can be, and for its size where none was given. */
async function completeFromBacking(
  host: Host,
  { filename, unsafe, untrusted }: Request,
  values: ListValues,
): Promise<void> {
  const name = values.get('backing_file')?.text;
  const format = values.get('backing_fmt')?.text;
  if (name === undefined) return;
  const noFormat = 'Backing file specified without backing format';
  if (unsafe) {
    if (format === undefined) throw new UsageError(noFormat);
    return;
  }
  const found = await lookAtBacking(host, fullBackingName(name, filename), { format, untrusted });
  if (format === undefined) throw new HintedError(noFormat, `Detected format of ${found.format}.`);
  if (!values.has('size')) setSize(values, BigInt(found.size));
}

async function lookAtBacking(
  host: Host,
  name: string,
  { format, untrusted }: { readonly format: string | undefined; readonly untrusted: boolean },
): Promise<{ readonly format: Format; readonly size: number }> {
  try {
    if (format !== undefined && !isFormat(format)) {
      throw new UsageError(`Unknown driver '${format}'`);
    }
    const path = resolveName(name, '');
    const file = host.openFile(path);
    try {
      claimImageFile(file, format, { use: 'read' });
    } catch (cause) {
      file.close();
      throw cause;
    }
    const gate = pathGate(host, path, { untrusted, claim: { use: 'read' } });
    const disk = await openDisk(file, { format, gate, cacheBytes: 2 ** 20 });
    const found = { format: disk.format, size: disk.size };
    await disk.close();
    return found;
  } catch (cause) {
    if (!(cause instanceof UsageError) && !isQcow2Error(cause)) throw cause;
    throw new HintedError(cause.message, 'Could not open backing image.\n');
  }
}

/** A file that is to hold a new image. Nothing of it is lost before the options are known good. */
interface Target {
  readonly path: string;
  /** It was made here and now. */
  readonly isNew: boolean;
}

/** Makes sure that a file can be written, and makes it where there is none. */
function claimTarget(host: Host, path: string): Target {
  const isNew = path === '' || !host.exists(path);
  openTarget(host, path, isNew).close();
  return { path, isNew };
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

function textOf(values: ListValues, name: string, preset: string): string {
  return values.get(name)?.text ?? preset;
}

function isOn(values: ListValues, name: string): boolean {
  return values.get(name)?.number === 1n;
}

async function createRaw(host: Host, { values, path }: Plan): Promise<void> {
  const modes = ['off', 'metadata', 'falloc', 'full'] as const;
  const mode = textOf(values, 'preallocation', 'off');
  const preallocation = modes.find((one) => one === mode);
  if (!preallocation) throw new UsageError(`invalid parameter value: ${mode}`);
  const size = Number(values.get('size')?.number);
  const target = claimTarget(host, path);
  try {
    if (preallocation === 'metadata') {
      throw new UsageError('Unsupported preallocation mode: metadata');
    }
    if (size > Number.MAX_SAFE_INTEGER) throw tooLarge('raw');
    const disk = await RawImage.open(openTarget(host, path, true), { writable: true });
    try {
      await disk.resize(alignUp(size, 512), { preallocation });
    } finally {
      await disk.close();
    }
  } catch (cause) {
    dropNew(host, [target]);
    throw isTooLarge(cause) ? tooLarge('raw') : cause;
  }
}

/** What a file is told that was made for an image which then could not be. */
function dropNew(host: Host, targets: readonly (Target | undefined)[]): void {
  for (const target of targets) if (target?.isNew) host.remove(target.path);
}

function isTooLarge(cause: unknown): boolean {
  const inner = isQcow2Error(cause) ? cause.cause : undefined;
  if (isQcow2Error(inner)) return isTooLarge(inner);
  return (inner as { code?: unknown } | undefined)?.code === 'EFBIG';
}

function tooLarge(format: Format): UsageError {
  const hint = format === 'qcow2' ? ' (try using a larger cluster size)' : '';
  return new UsageError(`The image size is too large for file format '${format}'${hint}`);
}

async function createQcow2(host: Host, { values, path }: Plan): Promise<void> {
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
    const options = qcow2Options(values, dataPath);
    const file = openTarget(host, path, true);
    claimImageFile(file, 'qcow2', { use: 'write' });
    const image = await Qcow2Image.create(file, options, {
      backing: 'none',
      dataFile: async (name) => {
        const storage = openTarget(host, name, true);
        claimImageFile(storage, 'data-file', { use: 'write' });
        return storage;
      },
      cacheBytes: 2 ** 22,
    });
    await image.close();
  } catch (cause) {
    dropNew(host, [target, data]);
    throw isTooLarge(cause) ? tooLarge('qcow2') : cause;
  }
}

/** The value of an option that has few. */
function oneOf<T extends string>(
  values: ListValues,
  name: string,
  { choices, preset, label }: { choices: Record<string, T>; preset: T; label: string },
): T {
  const text = values.get(name)?.text;
  if (text === undefined) return preset;
  if (!Object.hasOwn(choices, text)) {
    throw new UsageError(`Parameter '${label}' does not accept value '${text}'`);
  }
  return choices[text] as T;
}

/** @throws UsageError, Qcow2Error for what does not go together, in QEMU's order */
function qcow2Options(values: ListValues, dataPath: string | undefined): Qcow2CreateOptions {
  refuseEncryptionTwice(values);
  const version = oneOf(values, 'compat', {
    choices: { '0.10': '2', v2: '2', '1.1': '3', v3: '3' },
    preset: '3',
    label: 'version',
  });
  const backingName = values.get('backing_file')?.text;
  const backingFormat = values.get('backing_fmt')?.text;
  if (backingFormat !== undefined && !isFormat(backingFormat)) {
    throw new UsageError(`Parameter 'backing-fmt' does not accept value '${backingFormat}'`);
  }
  const encryption = encryptionOf(values);
  const preallocation = oneOf<Preallocation>(values, 'preallocation', {
    choices: { off: 'off', metadata: 'metadata', falloc: 'falloc', full: 'full' },
    preset: 'off',
    label: 'preallocation',
  });
  const compression = oneOf(values, 'compression_type', {
    choices: { zlib: 'deflate', zstd: 'zstd' },
    preset: 'deflate',
    label: 'compression-type',
  });
  const raw = isOn(values, 'data_file_raw');
  const { number: clusterSize = 65536n } = values.get('cluster_size') ?? {};
  const { number: refcountBits = 16n } = values.get('refcount_bits') ?? {};
  const options: Qcow2CreateOptions = {
    size: 0,
    version: version === '2' ? 2 : 3,
    clusterSize: Number(clusterSize),
    refcountBits: Number(refcountBits),
    lazyRefcounts: isOn(values, 'lazy_refcounts'),
    extendedL2: isOn(values, 'extended_l2'),
    compression,
    preallocation,
    ...(backingName === undefined
      ? {}
      : { backing: { name: backingName, ...(backingFormat ? { format: backingFormat } : {}) } }),
    ...(dataPath === undefined ? {} : { dataFile: { name: dataPath, raw } }),
  };
  // Sizes come last, and where they are too large for any disk, in other words.
  checkCreateOptions(options, {
    backingFormat: backingFormat !== undefined && backingName === undefined,
    dataFileRaw: raw && dataPath === undefined,
  });
  if (encryption) {
    throw new Qcow2Error('UNSUPPORTED', 'Encrypted images cannot be created yet');
  }
  refuseSize(values);
  const sized = { ...options, size: Number(values.get('size')?.number) };
  checkCreateOptions(sized);
  return sized;
}

function refuseEncryptionTwice(values: ListValues): void {
  if (values.has('encryption') && values.has('encrypt.format')) {
    const names = "'encrypt.format' and its alias 'encryption'";
    throw new UsageError(`${names} can't be used at the same time`);
  }
}

/** The image is to be encrypted. */
function encryptionOf(values: ListValues): boolean {
  const format = values.get('encrypt.format')?.text;
  if (format !== undefined && format !== 'aes' && format !== 'luks') {
    throw new UsageError(`Parameter 'format' does not accept value '${format}'`);
  }
  const encrypted = format !== undefined || isOn(values, 'encryption');
  if (!encrypted && [...values.keys()].some((name) => name.startsWith('encrypt.'))) {
    throw new UsageError("Parameter 'encrypt.format' is missing");
  }
  return encrypted;
}

/** Sizes that no disk can have, with all their digits. */
function refuseSize(values: ListValues): void {
  const bytes = ((values.get('size')?.number ?? 0n) + 511n) & ~511n;
  const most = BigInt(VIRTUAL_BYTES_MAX);
  if (bytes >= SIZE_LIMIT) {
    throw new UsageError('Could not resize image: Image size cannot be negative');
  }
  if (bytes > most) {
    throw new UsageError(`Could not resize image: offset(${bytes}) exceeds maximum(${most})`);
  }
}
