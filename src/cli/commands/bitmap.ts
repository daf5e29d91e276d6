/** `bitmap`: changes the persistent dirty bitmaps of an image, or lists them. */
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import type { WritableDisk } from '../../image/disk.ts';
import type { BitmapDescription } from '../../image/qcow2/bitmap-state.ts';
import { judgeBitmap } from '../../image/qcow2/bitmap-verbs.ts';
import { Qcow2Image } from '../../image/qcow2/qcow2-image.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { parseCommandLine } from '../getopt.ts';
import { nodeNameGiven } from '../image-node.ts';
import { formatJson } from '../json.ts';
import { openImage, openWritableNode } from '../open-image.ts';
import { given, type OptionSpec, type ParsedOptions, valueGiven } from '../options.ts';
import { sizeArgument } from '../size-argument.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'add', value: false },
  { name: 'remove', value: false },
  { name: 'clear', value: false },
  { name: 'enable', value: false },
  { name: 'disable', value: false },
  { name: 'merge', value: true },
  { name: 'list', value: false, own: true },
  { name: 'granularity', short: 'g', value: true, check: parseGranularity },
  { name: 'source-file', short: 'b', value: true },
  { name: 'source-format', short: 'F', value: true },
  { name: 'format', short: 'f', value: true, own: true },
  { name: 'output', value: true, own: true },
  { name: 'untrusted', value: false, own: true },
];

const ACTIONS = ['add', 'remove', 'clear', 'enable', 'disable', 'merge'] as const;
type Action = (typeof ACTIONS)[number];

/** The name that QEMU gives a node without one is another in every run; ours is this one. */
const UNNAMED = '#block100';

/** What was asked for, checked. */
interface Request {
  readonly filename: string;
  readonly format: string | undefined;
  readonly bitmap: string;
  readonly actions: readonly { readonly action: Action; readonly value: string }[];
  readonly granularity: number;
  readonly source: { readonly filename: string; readonly format: string | undefined } | undefined;
  /** Lists the bitmaps that there are in the end. */
  readonly json: boolean;
  readonly untrusted: boolean;
}

/** The subcommand. */
export const bitmap: Command = {
  name: 'bitmap',
  options: OPTIONS,

  async run(args, host) {
    const parsed = parseCommandLine(args, OPTIONS);
    if (given(parsed, 'list')) return list(host, parsed);
    return change(host, parseRequest(parsed));
  },
};

function parseGranularity(text: string): number {
  return sizeArgument('granularity', text);
}

function parseRequest(parsed: ParsedOptions): Request {
  const value = (name: string) => valueGiven(parsed, name);
  // 0: as it comes.
  const granularity = parseGranularity(value('granularity') ?? '0');
  const isAction = (name: string): name is Action => ACTIONS.some((action) => action === name);
  const actions = parsed.options.flatMap((option) =>
    isAction(option.name) ? [{ action: option.name, value: option.value }] : [],
  );
  if (actions.length === 0) {
    throw new UsageError(
      'Need at least one of --add, --remove, --clear, --enable, --disable, or --merge',
    );
  }
  if (granularity !== 0 && !given(parsed, 'add')) {
    throw new UsageError('granularity only supported with --add');
  }
  const source = value('source-file');
  if (value('source-format') !== undefined && source === undefined) {
    throw new UsageError('-F only supported with -b');
  }
  if (source !== undefined && !given(parsed, 'merge')) {
    throw new UsageError('Merge bitmap source file only supported with --merge');
  }
  const [filename, name, ...rest] = parsed.operands;
  if (filename === undefined || name === undefined || rest.length > 0) {
    throw new UsageError('Expecting filename and bitmap name');
  }
  return {
    filename,
    format: value('format'),
    bitmap: name,
    actions,
    granularity,
    source: source === undefined ? undefined : { filename: source, format: value('source-format') },
    json: wantsJson(parsed),
    untrusted: given(parsed, 'untrusted'),
  };
}

async function change(host: Host, request: Request): Promise<number> {
  const { filename, format, source, untrusted } = request;
  // Bitmaps are of an image's own; what lies behind it needs not be there.
  const options = { format, untrusted, backing: 'none', warns: true } as const;
  const { disk, driver, node } = await openWritableNode(host, filename, options);
  try {
    // It is a name, also where the image's own is a list of options.
    const plain = { untrusted, backing: 'none', role: 'path' } as const;
    const top = { driver, node: nodeNameGiven(node) ?? UNNAMED };
    const from = source ? await openImage(host, source.filename, { ...source, ...plain }) : disk;
    try {
      for (const { action, value } of request.actions) {
        await act(disk, request, { action, source: from, value, ...top });
      }
    } finally {
      if (from !== disk) await from.close();
    }
    if (request.json && disk instanceof Qcow2Image) host.out(jsonText(disk.bitmaps.list()));
  } catch (cause) {
    if (!(cause instanceof InconsistentBitmap)) throw cause;
    host.error(cause.message);
    host.note('Try block-dirty-bitmap-remove to delete this bitmap from disk\n');
    return 1;
  } finally {
    await disk.close();
  }
  return 0;
}

/** A message that has a hint behind it. */
class InconsistentBitmap extends Error {}

/** One operation, with what QEMU says of one that fails. */
async function act(
  disk: WritableDisk,
  { bitmap: name, granularity }: Request,
  step: {
    readonly action: Action;
    readonly value: string;
    readonly source: unknown;
    /** What stands at the top: a format, or what stands above one. */
    readonly driver: string;
    readonly node: string;
  },
): Promise<void> {
  const { action, driver, node } = step;
  try {
    // Wherever it is to be, it has to be one.
    if (action === 'add') judgeBitmap(name, granularity || 65536);
    const image = needQcow2(disk, { ...step, name });
    const { bitmaps } = image;
    if (action === 'add') await bitmaps.add(name, { granularity });
    else if (action === 'remove') await bitmaps.remove(name);
    else if (action === 'clear') await bitmaps.clear(name);
    else if (action === 'enable') await bitmaps.enable(name);
    else if (action === 'disable') await bitmaps.disable(name);
    else await merge(image, name, step);
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    const why =
      action === 'add' && cause.code === 'UNSUPPORTED' && driver === 'qcow2'
        ? `Can't make bitmap '${name}' persistent in '${node}': ${cause.message}`
        : cause.message;
    const message = `Operation ${action} on bitmap ${name} failed: ${why}`;
    if (/is inconsistent and cannot be used$/.test(message)) throw new InconsistentBitmap(message);
    throw new UsageError(message);
  }
}

function needQcow2(
  disk: WritableDisk,
  {
    action,
    name,
    driver,
    node,
  }: {
    readonly action: Action;
    readonly name: string;
    readonly driver: string;
    readonly node: string;
  },
): Qcow2Image {
  if (disk instanceof Qcow2Image && driver === disk.format) return disk;
  const message =
    action === 'add'
      ? `Can't store persistent bitmaps to ${node}: Operation not supported`
      : `Dirty bitmap '${name}' not found`;
  throw new Qcow2Error('UNSUPPORTED', message);
}

async function merge(
  image: Qcow2Image,
  name: string,
  { value, source }: { readonly value: string; readonly source: unknown },
): Promise<void> {
  if (source instanceof Qcow2Image) {
    await image.bitmaps.merge(name, value, source.bitmaps);
    return;
  }
  // The target is looked for first.
  if (image.bitmaps.list().some((one) => one.name === name)) {
    throw new Qcow2Error('OUT_OF_RANGE', `Dirty bitmap '${value}' not found`);
  }
  throw new Qcow2Error('OUT_OF_RANGE', `Dirty bitmap '${name}' not found`);
}

async function list(host: Host, parsed: ParsedOptions): Promise<number> {
  const [filename, ...rest] = parsed.operands;
  if (filename === undefined || rest.length > 0) {
    throw new UsageError('Expecting one image file name', true);
  }
  const isJson = wantsJson(parsed);
  const format = valueGiven(parsed, 'format');
  const untrusted = given(parsed, 'untrusted');
  const disk = await openImage(host, filename, { format, untrusted, use: 'inspect' });
  try {
    const bitmaps = disk instanceof Qcow2Image ? disk.bitmaps.list() : [];
    host.out(isJson ? jsonText(bitmaps) : humanText(bitmaps));
    return 0;
  } finally {
    await disk.close();
  }
}

function wantsJson(parsed: ParsedOptions): boolean {
  const output = valueGiven(parsed, 'output') ?? 'human';
  if (output !== 'json' && output !== 'human') {
    throw new UsageError('--output must be used with human or json as argument.');
  }
  return output === 'json';
}

function jsonText(bitmaps: readonly BitmapDescription[]): string {
  const members = bitmaps.map(({ name, granularity, enabled, inconsistent }) => ({
    name,
    granularity,
    enabled,
    inconsistent,
  }));
  return `${formatJson(members)}\n`;
}

function humanText(bitmaps: readonly BitmapDescription[]): string {
  if (bitmaps.length === 0) return '';
  const lines = bitmaps.map(({ name, granularity, enabled, inconsistent }) => {
    const state = inconsistent ? 'inconsistent' : enabled ? 'enabled' : 'disabled';
    return `${String(granularity).padStart(11)}  ${state.padEnd(12)}  ${name}\n`;
  });
  return `${'GRANULARITY'.padStart(11)}  STATE         NAME\n${lines.join('')}`;
}
