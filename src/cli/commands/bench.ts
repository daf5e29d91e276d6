/** `bench`: how fast an image answers requests. */
import { formatFixed } from '../../base/decimals.ts';
import { isQcow2Error } from '../../base/errors.ts';
import { benchDisk } from '../../convert/bench.ts';
import type { Disk } from '../../image/disk.ts';
import { hostInMode, isCacheMode } from '../cache-mode.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { errnoOf } from '../errno.ts';
import { parseCommandLine } from '../getopt.ts';
import { openImage, openWritableImage } from '../open-image.ts';
import { given, type OptionSpec, type ParsedOptions, parseInteger } from '../options.ts';
import { sizeArgument } from '../size-argument.ts';

const NAMES: readonly OptionSpec[] = [
  { name: 'count', short: 'c', value: true, own: true },
  { name: 'depth', short: 'd', value: true, own: true },
  { name: 'format', short: 'f', value: true, own: true },
  { name: 'flush-interval', value: true },
  { name: 'aio', short: 'i', value: true, own: true },
  { name: 'native', short: 'n', value: false, own: true },
  { name: 'no-drain', value: false },
  { name: 'offset', short: 'o', value: true, own: true },
  { name: 'pattern', value: true },
  { name: 'quiet', short: 'q', value: false, own: true },
  { name: 'buffer-size', short: 's', value: true, own: true },
  { name: 'step-size', short: 'S', value: true, own: true },
  { name: 'cache', short: 't', value: true, own: true },
  { name: 'write', short: 'w', value: false, own: true },
  { name: 'force-share', short: 'U', value: false },
  { name: 'untrusted', value: false, own: true },
];

const INT_MAX = 2 ** 31 - 1;
const AIO = ['threads', 'native', 'io_uring'];
/** Caches that QEMU bypasses the host's with. */
const DIRECT = ['none', 'off', 'directsync'];

/** What options say, before they are looked at together. */
interface Values {
  count: number;
  depth: number;
  flushInterval: number;
  native: boolean;
  offset: number;
  pattern: number;
  bytes: number;
  /** 0: as many as a request has bytes. */
  step: number;
  cache: string;
}

const PRESET: Values = {
  count: 75000,
  depth: 64,
  flushInterval: 0,
  native: false,
  offset: 0,
  pattern: 0,
  bytes: 4096,
  step: 0,
  cache: 'writeback',
};

/** What each option's value means; they are looked at in the order they were given. */
const TAKE: Readonly<Record<string, (values: Values, text: string) => void>> = {
  count(values, text) {
    values.count = wholeNumber('request count', text, INT_MAX);
  },
  depth(values, text) {
    values.depth = wholeNumber('queue depth', text, INT_MAX);
  },
  'flush-interval'(values, text) {
    values.flushInterval = wholeNumber('flush interval', text, INT_MAX);
  },
  aio(values, text) {
    if (!AIO.includes(text)) throw new UsageError(`Invalid aio option: ${text}`);
    values.native ||= text === 'native';
  },
  native(values) {
    values.native = true;
  },
  offset(values, text) {
    values.offset = sizeArgument('offset', text);
  },
  pattern(values, text) {
    values.pattern = wholeNumber('pattern byte', text, 0xff);
  },
  'buffer-size'(values, text) {
    values.bytes = sizeArgument('buffer size', text, { max: BigInt(INT_MAX) });
  },
  'step-size'(values, text) {
    values.step = sizeArgument('step_size', text, { max: BigInt(INT_MAX) });
  },
  cache(values, text) {
    if (!isCacheMode(text)) throw new UsageError('Invalid cache mode');
    values.cache = text;
  },
};

/** Values are looked at where they stand: what is wrong there is told before what follows. */
const OPTIONS: readonly OptionSpec[] = NAMES.map((option) => {
  const take = TAKE[option.name];
  return option.value && take
    ? { ...option, check: (text: string) => take({ ...PRESET }, text) }
    : option;
});

/** What was asked for, checked. */
interface Request extends Readonly<Values> {
  readonly filename: string;
  readonly format: string | undefined;
  readonly write: boolean;
  readonly drain: boolean;
  readonly forceShare: boolean;
  readonly untrusted: boolean;
}

/** The subcommand. */
export const bench: Command = {
  name: 'bench',
  options: OPTIONS,

  async run(args, host) {
    const request = parseRequest(args);
    const { filename, write } = request;
    refuseNative(host, request);
    const inMode = hostInMode(host, request.cache);
    const disk = await (write
      ? openWritableImage(inMode, filename, { ...request, warns: true })
      : openImage(inMode, filename, { ...request, debugged: true }));
    try {
      await send(host, disk, request);
      return 0;
    } finally {
      await disk.close();
    }
  },
};

function wholeNumber(what: string, text: string, max: number): number {
  const value = parseInteger(text);
  if (value === undefined || value < 0 || value > max) {
    throw new UsageError(`Invalid ${what} specified`);
  }
  return value;
}

function parseRequest(args: readonly string[]): Request {
  const parsed = parseCommandLine(args, OPTIONS);
  const values = { ...PRESET };
  for (const { name, value } of parsed.options) TAKE[name]?.(values, value);
  const [filename, ...rest] = parsed.operands;
  if (filename === undefined || rest.length > 0) {
    throw new UsageError('Expecting one image file name', true);
  }
  checkTogether(parsed, values);
  return {
    ...values,
    filename,
    format: parsed.options.findLast(({ name }) => name === 'format')?.value,
    write: given(parsed, 'write'),
    drain: !given(parsed, 'no-drain'),
    forceShare: given(parsed, 'force-share'),
    untrusted: given(parsed, 'untrusted'),
  };
}

function checkTogether(parsed: ParsedOptions, { flushInterval, depth }: Values): void {
  if (flushInterval > 0 && !given(parsed, 'write')) {
    throw new UsageError('--flush-interval is only available in write tests');
  }
  if (flushInterval > 0 && flushInterval < depth) {
    throw new UsageError("Flush interval can't be smaller than depth");
  }
  // QEMU's tool waits for ever.
  if (depth === 0) throw new UsageError('Invalid queue depth specified');
}

/** As QEMU has it; requests here are carried out in one way only. */
function refuseNative(host: Host, { native, cache, filename, format }: Request): void {
  if (!native || DIRECT.includes(cache) || host.imageOpts) return;
  if (format !== undefined && !['raw', 'qcow2', 'luks'].includes(format)) return;
  if (!host.exists(filename)) return;
  const why = 'aio=native was specified, but it requires cache.direct=on';
  throw new UsageError(`Could not open '${filename}': ${why}, which was not specified.`);
}

async function send(host: Host, disk: Disk, request: Request): Promise<void> {
  const { count, depth, bytes, offset, step, write, pattern, flushInterval, drain } = request;
  const text = `Sending ${count} ${write ? 'write' : 'read'} requests, ${bytes} bytes each, \
${depth} in parallel (starting at offset ${offset}, step size ${step || bytes})\n`;
  host.out(text);
  if (flushInterval > 0) host.out(`Sending flush every ${flushInterval} requests\n`);
  const start = performance.now();
  try {
    await benchDisk(disk, {
      requests: count,
      depth,
      bytes,
      offset,
      step: step || bytes,
      pattern: write ? pattern : undefined,
      flushEvery: flushInterval,
      drain,
      signal: host.interrupted,
    });
  } catch (cause) {
    if (!isQcow2Error(cause) || cause.code === 'ABORTED') throw cause;
    const isPastEnd = cause.code === 'OUT_OF_RANGE';
    throw new UsageError(`Failed request: ${isPastEnd ? PAST_END : errnoOf(cause).text}`);
  }
  const seconds = (performance.now() - start) / 1000;
  host.out(`Run completed in ${formatFixed(seconds, 3)} seconds.\n`);
}

/** What QEMU says of requests that reach past the end. */
const PAST_END = 'Input/output error';
