/** `create`: a new raw or qcow2 image. */
import { isQcow2Error } from '../../base/errors.ts';
import { type Format, isFormat, probeFormat } from '../../image/formats.ts';
import { openDisk } from '../../image/open.ts';
import { fullBackingName } from '../backing-name.ts';
import { warnOfBitmaps } from '../bitmaps-warning.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { creationHelp, creationOptions, formattingLine } from '../creation-options.ts';
import { noCreation } from '../driver-names.ts';
import { parseCommandLine } from '../getopt.ts';
import { resolveImage } from '../image-node.ts';
import { createNewImage, isTooLarge } from '../new-image.ts';
import { openFileNode } from '../open-file-node.ts';
import {
  asksForHelp,
  checkOptionList,
  HintedError,
  type ListValues,
  parseOptionList,
} from '../option-list.ts';
import {
  given,
  type OptionSpec,
  type ParsedOptions,
  scanSize,
  valueGiven,
  valuesGiven,
} from '../options.ts';
import { newPath, pathGate, resolveName } from '../path-gate.ts';
import { SIZE_LIMIT } from '../qcow2-options.ts';
import { notASize } from '../size-argument.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true, own: true },
  { name: 'quiet', short: 'q', value: false, own: true },
  { name: 'backing-file', short: 'b', value: true, own: true },
  { name: 'backing-format', short: 'F', value: true, own: true },
  { name: 'unsafe', short: 'u', value: false, own: true },
  { name: 'options', short: 'o', value: true, own: true, check: checkOptionList },
  { name: 'untrusted', value: false, own: true },
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

/** The subcommand. */
export const create: Command = {
  name: 'create',
  options: OPTIONS,

  async run(args, host) {
    const parsed = parseCommandLine(args, OPTIONS);
    const format = valueGiven(parsed, 'format') ?? 'raw';
    const options = joinOptions(parsed);
    if (options !== undefined && asksForHelp(options)) {
      if (!isFormat(format)) throw new UsageError(noCreation(format));
      // Where the file is to be has options of its own.
      if (parsed.operands[0] !== undefined) newPath(parsed.operands[0]);
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
  const lists = valuesGiven(parsed, 'options');
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
    throw notASize('image size');
  }
  if (bytes === 'range' || bytes >= SIZE_LIMIT) {
    throw new UsageError(`Invalid image size specified. Must be between 0 and ${SIZE_LIMIT - 1n}.`);
  }
  return bytes;
}

async function createImage(host: Host, request: Request): Promise<void> {
  const { format, filename } = request;
  if (!isFormat(format)) throw new UsageError(noCreation(format));
  const path = newPath(filename);
  const values = parseValues(request, format);
  await completeFromBacking(host, request, values);
  if (!values.has('size')) throw new UsageError('Image creation needs a size parameter');
  if (!request.quiet) host.tell(formattingLine(filename, format, values));
  try {
    await createNewImage(host, { format, values, path });
  } catch (cause) {
    if (!isTooLarge(cause)) throw cause;
    const hint = format === 'qcow2' ? ' (try using a larger cluster size)' : '';
    throw new UsageError(`The image size is too large for file format '${format}'${hint}`);
  }
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
  const found = isNode(name)
    ? await lookAtNode(host, name, { format, untrusted })
    : await lookAtBacking(host, fullBackingName(name, filename), { format, untrusted });
  if (format === undefined) throw new HintedError(noFormat, `Detected format of ${found.format}.`);
  if (!values.has('size')) setSize(values, BigInt(found.size));
}

/** A name that settings stand in: a person may give such a one, and the image gets it as it is. */
function isNode(name: string): boolean {
  return /^(json|blkdebug|null-co|null-aio):/.test(name);
}

async function lookAtNode(
  host: Host,
  name: string,
  { format, untrusted }: { readonly format: string | undefined; readonly untrusted: boolean },
): Promise<{ readonly format: string; readonly size: number }> {
  try {
    const node = resolveImage(host, name, { format });
    // Shared: looked at without a claim, as a path is.
    const claim = { use: 'inspect', forceShare: true } as const;
    const { storage, format: found } = await openFileNode(host, node.file, {
      writable: false,
      untrusted,
      format: node.format,
      claim,
    });
    try {
      const { reportImage } = await import('../image-report.ts');
      const context = { filename: name, allocatedBytes: 0, resolve: (own: string) => own };
      const report = await reportImage(storage, { ...context, format: found });
      if (report.encrypted) return { format: found, size: report.virtualSize };
    } finally {
      await storage.close();
    }
    const { openImageNode } = await import('../open-node.ts');
    const { disk } = await openImageNode(host, node, { writable: false, untrusted, claim });
    const { size } = disk;
    await disk.close();
    return { format: node.bare ? node.file.driver : found, size };
  } catch (cause) {
    throw notOpened(cause);
  }
}

/** The reason why a backing file cannot be looked at. */
function notOpened(cause: unknown): unknown {
  if (!(cause instanceof UsageError) && !isQcow2Error(cause)) return cause;
  return new HintedError(cause.message, 'Could not open backing image.\n');
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
    const disk = await openDisk(host.openFile(path), {
      format,
      gate,
      cacheBytes: 2 ** 20,
      onStaleBitmaps: (version) => warnOfBitmaps(host, version),
    });
    const found = { format: disk.format, size: disk.size };
    await disk.close();
    return found;
  } catch (cause) {
    throw notOpened(cause);
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
