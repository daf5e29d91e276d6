/** `dd`: a range of a disk as a new image, in blocks as dd counts them. */
import { alignUp } from '../../base/bits.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { type CopyStep, copyPlain } from '../../convert/copy-plain.ts';
import type { Disk } from '../../image/disk.ts';
import { type Format, isFormat } from '../../image/formats.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { errnoOf } from '../errno.ts';
import { parseCommandLine } from '../getopt.ts';
import { createNewImage } from '../new-image.ts';
import { openImage, openWritableImage } from '../open-image.ts';
import { given, type OptionSpec, valueGiven } from '../options.ts';
import { newPath } from '../path-gate.ts';
import { refuseSourceAsTarget } from '../same-file.ts';
import { sizeArgument } from '../size-argument.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true, own: true },
  { name: 'output-format', short: 'O', value: true, own: true },
  { name: 'force-share', short: 'U', value: false },
  { name: 'untrusted', value: false, own: true },
];

const BLOCK_BYTES_MAX = 2n ** 31n - 1n;

/** What operands say; a block is so many bytes, the others count blocks. */
interface Operands {
  input: string | undefined;
  output: string | undefined;
  blockBytes: number;
  count: number | undefined;
  skip: number;
}

/** What each operand does. */
const OPERANDS: Readonly<Record<string, (operands: Operands, text: string) => void>> = {
  bs(operands, text) {
    operands.blockBytes = sizeArgument('bs', text, { min: 1n, max: BLOCK_BYTES_MAX });
  },
  count(operands, text) {
    operands.count = sizeArgument('count', text);
  },
  if(operands, text) {
    operands.input = text;
  },
  of(operands, text) {
    operands.output = text;
  },
  skip(operands, text) {
    operands.skip = sizeArgument('skip', text);
  },
};

/** What was asked for, checked. */
interface Request {
  readonly input: string;
  readonly output: string;
  readonly blockBytes: number;
  readonly count: number | undefined;
  readonly skip: number;
  readonly format: string | undefined;
  readonly outputFormat: string;
  readonly forceShare: boolean;
  readonly untrusted: boolean;
}

/** The subcommand. */
export const dd: Command = {
  name: 'dd',
  options: OPTIONS,

  async run(args, host) {
    const request = parseRequest(args);
    const { input, format, forceShare, untrusted } = request;
    const source = await openImage(host, input, { format, forceShare, untrusted, debugged: true });
    try {
      await copy(host, source, request);
      return 0;
    } finally {
      await source.close();
    }
  },
};

function parseRequest(args: readonly string[]): Request {
  const parsed = parseCommandLine(args, OPTIONS);
  const operands: Operands = {
    input: undefined,
    output: undefined,
    blockBytes: 512,
    count: undefined,
    skip: 0,
  };
  for (const operand of parsed.operands) {
    const equals = operand.indexOf('=');
    const name = equals < 0 ? operand : operand.slice(0, equals);
    const take = Object.hasOwn(OPERANDS, name) ? OPERANDS[name] : undefined;
    if (equals < 0 || !take) throw new UsageError(`unrecognized operand ${name}`);
    take(operands, operand.slice(equals + 1));
  }
  const { input, output } = operands;
  if (input === undefined || output === undefined) {
    throw new UsageError('Must specify both input and output files');
  }
  return {
    ...operands,
    input,
    output,
    format: valueGiven(parsed, 'format'),
    outputFormat: valueGiven(parsed, 'output-format') ?? 'raw',
    forceShare: given(parsed, 'force-share'),
    untrusted: given(parsed, 'untrusted'),
  };
}

async function copy(host: Host, source: Disk, request: Request): Promise<void> {
  const { input, output, outputFormat, blockBytes, count, skip } = request;
  if (!isFormat(outputFormat)) throw new UsageError('Unknown file format');
  const path = newPath(output);
  refuseSourceAsTarget(host, path, [source]);
  // As in QEMU's tool, the count starts at the disk's first byte, and not behind what is skipped.
  const end = Math.min(source.size, (count ?? Number.POSITIVE_INFINITY) * blockBytes);
  const from = skip * blockBytes;
  const length = Math.max(0, end - from);
  const isNew = !host.exists(path);
  await create(host, request, { path, format: outputFormat, length });
  if (from > end) host.error(`${input}: cannot skip to specified offset`);
  if (length === 0) return;
  host.moveInBackground?.();
  const { untrusted } = request;
  const options = { format: outputFormat, untrusted, role: 'target' } as const;
  try {
    const target = await openWritableImage(host, output, options);
    try {
      await copyPlain(source, target, { from, length, signal: host.interrupted }, explain);
    } finally {
      await target.close();
    }
  } catch (cause) {
    dropTarget(host, path, { isNew });
    throw cause;
  }
}

/** What is not whole must not look whole: a new file goes, an old one is emptied. */
function dropTarget(host: Host, path: string, { isNew }: { readonly isNew: boolean }): void {
  if (isNew) {
    host.remove(path);
    return;
  }
  const file = host.openFile(path, { writable: true });
  if (file.kind === 'regular') file.truncate(0);
  file.close();
}

async function create(
  host: Host,
  { output }: Request,
  {
    path,
    format,
    length,
  }: { readonly path: string; readonly format: Format; readonly length: number },
): Promise<void> {
  const number = BigInt(alignUp(length, 512));
  const values = new Map([['size', { text: String(number), number }]]);
  try {
    await createNewImage(host, { format, values, path });
  } catch (cause) {
    if (!(cause instanceof UsageError) && !isQcow2Error(cause)) throw cause;
    throw new UsageError(`${output}: error while creating output image: ${cause.message}`);
  }
}

function explain(step: CopyStep, cause: unknown): unknown {
  if (!isQcow2Error(cause) || cause.code === 'ABORTED') return cause;
  const what = { read: 'reading from input', write: 'writing to output' }[step];
  const message = `error while ${what} image file: ${errnoOf(cause).text}`;
  return new Qcow2Error(cause.code, message, undefined, cause);
}
