/** `create`: a new raw or qcow2 image. */
import { alignUp } from '../../base/bits.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { type Format, isFormat, probeFormat } from '../../image/formats.ts';
import { openDisk } from '../../image/open.ts';
import { Qcow2Image } from '../../image/qcow2/qcow2-image.ts';
import { RawImage } from '../../image/raw/raw-image.ts';
import type { NodeFileStorage } from '../../storage/node-file.ts';
import { fullBackingName } from '../backing-name.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { creationHelp, creationOptions, formattingLine } from '../creation-options.ts';
import { encryptionChoice, givenPassphrase, luksFormat } from '../encryption-options.ts';
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
import { qcow2Options, SIZE_LIMIT, textOf } from '../qcow2-options.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true },
  { name: 'quiet', short: 'q', value: false },
  { name: 'backing-file', short: 'b', value: true },
  { name: 'backing-format', short: 'F', value: true },
  { name: 'unsafe', short: 'u', value: false },
  { name: 'options', short: 'o', value: true },
  { name: 'untrusted', value: false },
];

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
  options: OPTIONS,

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
  else if (format === 'luks') await createLuks(host, plan);
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
    // Looked at without a claim, as by qemu-img: a running machine may have it, and writes it.
    const gate = pathGate(host, path, { untrusted });
    const locked = await lookAtEncrypted(host, path, { format, untrusted });
    if (locked) return locked;
    const disk = await openDisk(host.openFile(path), { format, gate, cacheBytes: 2 ** 20 });
    const found = { format: disk.format, size: disk.size };
    await disk.close();
    return found;
  } catch (cause) {
    if (!(cause instanceof UsageError) && !isQcow2Error(cause)) throw cause;
    throw new HintedError(cause.message, 'Could not open backing image.\n');
  }
}

/** An encrypted backing file says how large it is without its key, which is not asked for. */
async function lookAtEncrypted(
  host: Host,
  path: string,
  { format, untrusted }: { readonly format: Format | undefined; readonly untrusted: boolean },
): Promise<{ readonly format: Format; readonly size: number } | undefined> {
  const file = host.openFile(path);
  try {
    const found = format ?? (await probeFormat(file));
    if (found === 'raw') return;
    const { reportImage } = await import('../image-report.ts');
    const resolve = (name: string) => fullBackingName(name, path);
    const report = await reportImage(file, {
      filename: path,
      format: found,
      allocatedBytes: 0,
      resolve,
    });
    if (!report.encrypted) return;
    const { backing } = report;
    if (backing) {
      const gate = pathGate(host, path, { untrusted });
      const request = { kind: 'backing', name: backing.name, from: path, writable: false } as const;
      await (await gate(request)).close();
      await lookAtBacking(host, backing.path, { format: backing.format, untrusted });
    }
    return { format: found, size: report.virtualSize };
  } finally {
    await file.close();
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

async function createLuks(host: Host, { values, path }: Plan): Promise<void> {
  const { LuksImage } = await import('../../image/luks/luks-image.ts');
  const choice = luksFormat(values, '');
  const preallocation = (['off', 'falloc', 'full'] as const).find(
    (mode) => mode === textOf(values, 'preallocation', 'off'),
  );
  if (!preallocation) {
    throw new UsageError(`invalid parameter value: ${textOf(values, 'preallocation', '')}`);
  }
  const size = Number(values.get('size')?.number);
  if (size > Number.MAX_SAFE_INTEGER) throw tooLarge('luks');
  const passphrase = await givenPassphrase(host, values, { name: 'key-secret', path });
  const target = claimTarget(host, path);
  try {
    const file = openTarget(host, path, true);
    claimImageFile(file, 'luks', { use: 'write' });
    const image = await LuksImage.create(file, { ...choice, passphrase, size: 0 });
    try {
      await image.resize(alignUp(size, 512), { preallocation });
    } finally {
      await image.close();
    }
  } catch (cause) {
    dropNew(host, [target]);
    throw isTooLarge(cause) ? tooLarge('luks') : cause;
  }
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
    const encryption = await encryptionChoice(host, values, path);
    const options = qcow2Options(values, dataPath, encryption);
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
