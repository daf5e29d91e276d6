/** `map`: where in which files the bytes of a disk are. */
import { isQcow2Error } from '../../base/errors.ts';
import { type MapEntry, mapDisk } from '../../convert/map.ts';
import type { Disk } from '../../image/disk.ts';
import { Qcow2Image } from '../../image/qcow2/qcow2-image.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { errnoOf } from '../errno.ts';
import { parseCommandLine } from '../getopt.ts';
import { openImage } from '../open-image.ts';
import { given, type OptionSpec, valueGiven } from '../options.ts';
import { sizeArgument } from '../size-argument.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true },
  { name: 'output', value: true },
  { name: 'force-share', short: 'U', value: false },
  { name: 'start-offset', short: 's', value: true, check: startOffset },
  { name: 'max-length', short: 'l', value: true, check: maxLength },
  { name: 'bitmap', value: true, own: true },
  { name: 'untrusted', value: false, own: true },
];

/** Text that is printed at once: maps may have millions of lines. */
const PRINT_CHARS = 65536;
const COLUMN = 16;

/** What was asked for, checked. */
interface Request {
  readonly filename: string;
  readonly format: string | undefined;
  readonly json: boolean;
  readonly from: number;
  /** Bytes from there on; undefined: all. */
  readonly length: number | undefined;
  readonly bitmap: string | undefined;
  readonly forceShare: boolean;
  readonly untrusted: boolean;
}

/** The subcommand. */
export const map: Command = {
  name: 'map',
  options: OPTIONS,

  async run(args, host) {
    const request = parseRequest(args);
    const { filename, format, forceShare, untrusted, bitmap, json } = request;
    const disk = await openImage(host, filename, { format, forceShare, untrusted });
    const lines = new Lines(host);
    try {
      if (bitmap !== undefined) await listBitmap(disk, request, lines);
      else if (json) await listJson(disk, request, lines);
      else await listHuman(disk, request, lines);
      return 0;
    } catch (cause) {
      if (!isQcow2Error(cause)) throw cause;
      throw new UsageError(`Could not read file metadata: ${errnoOf(cause).text}`);
    } finally {
      lines.flush();
      await disk.close();
    }
  },
};

function startOffset(text: string): number {
  return sizeArgument('start offset', text);
}

function maxLength(text: string): number {
  return sizeArgument('max length', text);
}

function parseRequest(args: readonly string[]): Request {
  const parsed = parseCommandLine(args, OPTIONS);
  const from = valueGiven(parsed, 'start-offset');
  const length = valueGiven(parsed, 'max-length');
  const [filename, ...rest] = parsed.operands;
  if (filename === undefined || rest.length > 0) {
    throw new UsageError('Expecting one image file name', true);
  }
  const output = valueGiven(parsed, 'output') ?? 'human';
  if (output !== 'human' && output !== 'json') {
    throw new UsageError('--output must be used with human or json as argument.');
  }
  return {
    filename,
    format: valueGiven(parsed, 'format'),
    json: output === 'json',
    from: from === undefined ? 0 : startOffset(from),
    length: length === undefined ? undefined : maxLength(length),
    bitmap: valueGiven(parsed, 'bitmap'),
    forceShare: given(parsed, 'force-share'),
    untrusted: given(parsed, 'untrusted'),
  };
}

/** Prints many lines at a time. */
class Lines {
  private text = '';

  constructor(private readonly host: Host) {}

  add(text: string): void {
    this.text += text;
    if (this.text.length >= PRINT_CHARS) this.flush();
  }

  flush(): void {
    if (this.text !== '') this.host.out(this.text);
    this.text = '';
  }
}

function endOf(disk: Disk, { from, length }: Request): number {
  return length === undefined ? disk.size : Math.min(disk.size, from + length);
}

function row(...cells: readonly string[]): string {
  const last = cells.length - 1;
  return `${cells.map((cell, i) => (i < last ? cell.padEnd(COLUMN) : cell)).join('')}\n`;
}

/** As C's `%#x` has it: a zero has no prefix. */
function hex(value: number): string {
  return value === 0 ? '0' : `0x${BigInt(value).toString(16)}`;
}

async function listHuman(disk: Disk, request: Request, lines: Lines): Promise<void> {
  lines.add(row('Offset', 'Length', 'Mapped to', 'File'));
  for await (const entry of mapDisk(disk, request.from, endOf(disk, request))) {
    const { start, length, data, zero, offset, file = '' } = entry;
    if (data && offset === undefined) {
      throw new UsageError('File contains external, encrypted or compressed clusters.');
    }
    if (!data || zero) continue;
    lines.add(row(hex(start), hex(length), hex(offset as number), file));
  }
}

const NOWHERE = { offset: undefined, storage: undefined, file: undefined } as const;
/** What is listed where there is nothing to list. */
const NOTHING = { length: 0, depth: 0, present: false, zero: false, data: false } as const;

async function listJson(disk: Disk, request: Request, lines: Lines): Promise<void> {
  const { from } = request;
  lines.add('[');
  let separator = '';
  for await (const entry of mapDisk(disk, from, endOf(disk, request))) {
    lines.add(separator + member(entry));
    separator = ',\n';
  }
  if (separator === '') {
    lines.add(member({ start: from, ...NOTHING, ...NOWHERE }));
  }
  lines.add(']\n');
}

function member({ start, length, depth, present, zero, data, offset }: MapEntry): string {
  const place = offset === undefined ? '' : `, "offset": ${BigInt(offset)}`;
  return (
    `{ "start": ${BigInt(start)}, "length": ${BigInt(length)}, "depth": ${depth}, ` +
    `"present": ${present}, "zero": ${zero}, "data": ${data}${place}}`
  );
}

/** The ranges that a bitmap says have changed. */
async function listBitmap(disk: Disk, request: Request, lines: Lines): Promise<void> {
  const { bitmap, from, json } = request;
  const name = bitmap as string;
  const bitmaps = disk instanceof Qcow2Image ? disk.bitmaps : undefined;
  if (!bitmaps?.list().some((one) => one.name === name)) {
    throw new UsageError(`Dirty bitmap '${name}' not found`);
  }
  lines.add(json ? '[' : row('Offset', 'Length'));
  let separator = '';
  for await (const { guest, length } of bitmaps.ranges(name, from, endOf(disk, request))) {
    if (json) lines.add(`${separator}{ "start": ${BigInt(guest)}, "length": ${BigInt(length)}}`);
    else lines.add(row(hex(guest), hex(length)));
    separator = ',\n';
  }
  if (json) lines.add(']\n');
}
