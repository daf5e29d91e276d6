/** `resize`: changes the virtual size of an image. */
import { VIRTUAL_BYTES_MAX } from '../../base/limits.ts';
import type { Preallocation, WritableDisk } from '../../image/disk.ts';
import { Qcow2Image } from '../../image/qcow2/qcow2-image.ts';
import { RawImage } from '../../image/raw/raw-image.ts';
import { type Command, UsageError } from '../command.ts';
import { parseCommandLine } from '../getopt.ts';
import { openWritable } from '../open-writable.ts';
import { HintedError, parseSizeParameter } from '../option-list.ts';
import { given, type OptionSpec, valueGiven } from '../options.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true, own: true },
  { name: 'preallocation', value: true, check: parseMode },
  { name: 'quiet', short: 'q', value: false, own: true },
  { name: 'shrink', value: false },
  { name: 'untrusted', value: false, own: true },
];

const MODES = ['off', 'metadata', 'falloc', 'full'] as const;

/** What was asked for, checked. */
interface Request {
  readonly filename: string;
  readonly format: string | undefined;
  /** Bytes to add or take away, or all that there are to be. */
  readonly size: { readonly sign: '+' | '-' | ''; readonly bytes: bigint };
  readonly preallocation: Preallocation;
  readonly shrink: boolean;
  readonly quiet: boolean;
  readonly untrusted: boolean;
}

/** The subcommand. */
export const resize: Command = {
  name: 'resize',
  options: OPTIONS,
  // `-1G` is no option.
  lastIsOperand: true,
  argumentsMin: 2,

  async run(args, host) {
    try {
      const request = parseRequest(args);
      const disk = await openWritable(host, request.filename, { ...request, resizes: true });
      try {
        await changeSize(disk, request);
      } finally {
        await disk.close();
      }
      if (!request.quiet) host.tell('Image resized.\n');
      return 0;
    } catch (cause) {
      if (!(cause instanceof HintedError)) throw cause;
      host.error(cause.message);
      host.note(cause.hintText);
      return 1;
    }
  },
};

function parseMode(text: string): Preallocation {
  const mode = MODES.find((one) => one === text);
  if (mode) return mode;
  throw new UsageError(`Invalid preallocation mode '${text}'`);
}

function parseRequest(args: readonly string[]): Request {
  // The size comes last, whatever it looks like: `-1G` is no option.
  const text = args.at(-1);
  if (text === undefined) throw new UsageError('Not enough arguments', true);
  const parsed = parseCommandLine(args.slice(0, -1), OPTIONS);
  const preallocation = parseMode(valueGiven(parsed, 'preallocation') ?? 'off');
  const [filename, ...rest] = parsed.operands;
  if (filename === undefined || rest.length > 0) {
    throw new UsageError('Expecting image file name and size', true);
  }
  const sign = text.startsWith('+') ? '+' : text.startsWith('-') ? '-' : '';
  return {
    filename,
    format: valueGiven(parsed, 'format'),
    size: { sign, bytes: parseSizeParameter('size', text.slice(sign.length)) },
    preallocation,
    shrink: given(parsed, 'shrink'),
    quiet: given(parsed, 'quiet'),
    untrusted: given(parsed, 'untrusted'),
  };
}

/** Whose bits are not known cannot be given another size. @throws HintedError */
function refuseInconsistentBitmaps(disk: WritableDisk): void {
  if (!(disk instanceof Qcow2Image)) return;
  const one = disk.bitmaps.list().find(({ inconsistent }) => inconsistent);
  if (!one) return;
  throw new HintedError(
    `Bitmap '${one.name}' is inconsistent and cannot be used`,
    'Try block-dirty-bitmap-remove to delete this bitmap from disk\n',
  );
}

async function changeSize(disk: WritableDisk, request: Request): Promise<void> {
  const { size, preallocation, shrink } = request;
  const before = BigInt(disk.size);
  const change = size.sign === '-' ? -size.bytes : size.bytes;
  const bytes = BigInt.asIntN(64, size.sign === '' ? change : before + change);
  if (bytes <= 0n) throw new UsageError('New image size must be positive');
  if (bytes <= before && preallocation !== 'off') {
    throw new UsageError('Preallocation can only be used for growing images');
  }
  if (bytes < before && !shrink) {
    throw new UsageError('Use the --shrink option to perform a shrink operation.', false, 1, [
      "warning: Shrinking an image will delete all data beyond the shrunken image's end. " +
        'Before performing such an operation, make sure there is no important data there.',
    ]);
  }
  refuseTooLarge(disk, bytes);
  refuseInconsistentBitmaps(disk);
  if (disk instanceof RawImage && disk.isFixed && bytes !== before) {
    if (preallocation !== 'off') {
      const what = `Preallocation mode '${preallocation}' unsupported for this non-regular file`;
      throw new UsageError(what);
    }
    throw new UsageError('Cannot resize device files');
  }
  await disk.resize(Number(bytes), { preallocation });
}

/** Sizes that are no whole numbers here, or that no disk can have. */
function refuseTooLarge(disk: WritableDisk, bytes: bigint): void {
  const most = BigInt(VIRTUAL_BYTES_MAX);
  if (bytes > most) throw new UsageError(`offset(${bytes}) exceeds maximum(${most})`);
  if (disk.format === 'raw' && bytes > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new UsageError('Could not resize file: File too large');
  }
  if (bytes % 512n !== 0n && disk.format === 'qcow2') {
    throw new UsageError('The new size must be a multiple of 512');
  }
}
