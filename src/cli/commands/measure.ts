/** `measure`: how many bytes an image would take. */
import { isQcow2Error } from '../../base/errors.ts';
import {
  type Measure,
  type MeasureTarget,
  measureQcow2,
  measureRaw,
} from '../../convert/measure.ts';
import type { Disk } from '../../image/disk.ts';
import { type Format, isFormat } from '../../image/formats.ts';
import { checkCreateOptions } from '../../image/qcow2/create.ts';
import type { SnapshotSelector } from '../../image/qcow2/snapshots.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { openSource } from '../convert-images.ts';
import { checkSnapshot, parseSnapshot } from '../convert-request.ts';
import { creationOptions } from '../creation-options.ts';
import { noMeasure } from '../driver-names.ts';
import { errnoOf } from '../errno.ts';
import { parseCommandLine } from '../getopt.ts';
import { formatJson } from '../json.ts';
import { checkOptionList, type ListValues, parseOptionList } from '../option-list.ts';
import { given, type OptionSpec, valueGiven, valuesGiven } from '../options.ts';
import { isOn, textOf } from '../qcow2-options.ts';
import { exactSize } from '../size-argument.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true, own: true },
  { name: 'output-format', short: 'O', value: true, own: true },
  { name: 'options', short: 'o', value: true, own: true, check: checkOptionList },
  { name: 'snapshot', short: 'l', value: true, own: true, check: checkSnapshot },
  { name: 'output', value: true, check: isJson },
  { name: 'size', value: true, check: imageSize },
  { name: 'force-share', short: 'U', value: false },
  { name: 'untrusted', value: false, own: true },
];

const SECTOR = 512n;

/** What was measured, to the byte, however large. */
interface Sizes extends Pick<Measure, 'bitmaps'> {
  readonly required: number | bigint;
  readonly fullyAllocated: number | bigint;
}

/** What was asked for, checked. */
interface Request {
  readonly filename: string | undefined;
  readonly format: string | undefined;
  readonly outputFormat: string;
  readonly list: string;
  readonly snapshot: SnapshotSelector | undefined;
  readonly size: bigint | undefined;
  readonly json: boolean;
  readonly forceShare: boolean;
  readonly untrusted: boolean;
}

/** The subcommand. */
export const measure: Command = {
  name: 'measure',
  options: OPTIONS,

  async run(args, host) {
    const request = parseRequest(host, args);
    const { filename, json } = request;
    const disk = filename === undefined ? undefined : await open(host, filename, request);
    try {
      const result = await measureAs(host, request, disk ?? (request.size as bigint));
      host.out(json ? jsonText(result) : humanText(result));
      return 0;
    } catch (cause) {
      if (!isQcow2Error(cause)) throw cause;
      const isUnreadable = disk && (cause.code === 'CORRUPT' || cause.code === 'IO');
      const what = `Unable to get block status: ${errnoOf(cause).text}`;
      throw new UsageError(isUnreadable ? what : cause.message);
    } finally {
      await disk?.close();
    }
  },
};

function imageSize(text: string): bigint {
  return exactSize('image size', text);
}

function isJson(output: string): boolean {
  if (output === 'human' || output === 'json') return output === 'json';
  throw new UsageError('--output must be used with human or json as argument.');
}

function parseRequest(host: Host, args: readonly string[]): Request {
  const parsed = parseCommandLine(args, OPTIONS);
  const sizeText = valueGiven(parsed, 'size');
  const size = sizeText === undefined ? undefined : imageSize(sizeText);
  const snapshot = parseSnapshot(valueGiven(parsed, 'snapshot'));
  const [filename, ...rest] = parsed.operands;
  if (rest.length > 0) throw new UsageError('At most one filename argument is allowed.');
  const format = valueGiven(parsed, 'format');
  if (filename === undefined) {
    if (host.imageOpts || format !== undefined || snapshot !== undefined) {
      throw new UsageError('--image-opts, -f, and -l require a filename argument.');
    }
    if (size === undefined) {
      throw new UsageError('Either --size N or one filename must be specified.');
    }
  } else if (size !== undefined) {
    throw new UsageError('--size N cannot be used together with a filename.');
  }
  return {
    filename,
    format,
    outputFormat: valueGiven(parsed, 'output-format') ?? 'raw',
    list: valuesGiven(parsed, 'options').join(','),
    snapshot,
    size,
    json: isJson(valueGiven(parsed, 'output') ?? 'human'),
    forceShare: given(parsed, 'force-share'),
    untrusted: given(parsed, 'untrusted'),
  };
}

function open(host: Host, filename: string, request: Request): Promise<Disk> {
  const { format, snapshot, forceShare, untrusted } = request;
  return openSource(host, filename, {
    format,
    snapshot,
    forceShare,
    untrusted,
    use: 'read',
    debugged: true,
  });
}

async function measureAs(
  host: Host,
  { outputFormat, list }: Request,
  source: Disk | bigint,
): Promise<Sizes> {
  if (!isFormat(outputFormat)) throw new UsageError(noMeasure(outputFormat));
  const values = parseValues(outputFormat, list);
  if (outputFormat === 'luks') return measureLuks(source, values, await headerBytes(host, values));
  const isSize = typeof source === 'bigint';
  const sectors = isSize ? ((source + SECTOR - 1n) / SECTOR) * SECTOR : 0n;
  if (outputFormat === 'raw') {
    return isSize ? { required: sectors, fullyAllocated: sectors } : measureRaw(source);
  }
  return measureQcow2(isSize ? Number(sectors) : source, await targetOf(host, values));
}

function parseValues(format: Format, list: string): ListValues {
  try {
    return parseOptionList(list, creationOptions(format));
  } catch (cause) {
    if (!(cause instanceof UsageError) || !/^Invalid parameter/.test(cause.message)) throw cause;
    const more = `Invalid options for file format '${format}'`;
    throw new UsageError(cause.message, false, 1, [more]);
  }
}

const VERSIONS: Readonly<Record<string, 2 | 3>> = { '0.10': 2, v2: 2, '1.1': 3, v3: 3 };
const MODES = ['off', 'metadata', 'falloc', 'full'];

/** Only what decides how large it is is looked at, in QEMU's order. */
async function targetOf(host: Host, values: ListValues): Promise<MeasureTarget> {
  const extendedL2 = isOn(values, 'extended_l2');
  const clusterSize = Number(values.get('cluster_size')?.number ?? 65536n);
  checkCreateOptions({ size: 0, clusterSize, extendedL2 });
  const compat = textOf(values, 'compat', '1.1');
  const version = Object.hasOwn(VERSIONS, compat) ? VERSIONS[compat] : undefined;
  if (!version) throw new UsageError(`Invalid compatibility level: '${compat}'`);
  const refcountBits = Number(values.get('refcount_bits')?.number ?? 16n);
  checkCreateOptions({ size: 0, refcountBits });
  if (version === 2 && refcountBits !== 16) {
    throw new UsageError(
      'Different refcount widths than 16 bits require compatibility level 1.1 or above ' +
        '(use compat=1.1 or greater)',
    );
  }
  const mode = textOf(values, 'preallocation', 'off');
  if (!MODES.includes(mode)) throw new UsageError(`invalid parameter value: ${mode}`);
  const isLuks = values.get('encrypt.format')?.text === 'luks';
  return {
    clusterSize,
    refcountBits,
    extendedL2,
    version,
    backing: values.has('backing_file'),
    allocates: mode === 'full' || mode === 'falloc',
    cryptoBytes: isLuks ? await headerBytes(host, values, 'encrypt.') : 0,
  };
}

/** A container has its header and all of the disk: what is encrypted has no holes. */
function measureLuks(source: Disk | bigint, values: ListValues, header: number): Sizes {
  const own = values.get('size')?.number ?? 0n;
  const size = typeof source === 'bigint' ? source : own || BigInt(source.size);
  const required = BigInt(header) + size;
  return { required, fullyAllocated: required, bitmaps: undefined };
}

/**
 * Bytes of the LUKS header: eight copies of the key, each of them 4000 times as long.
 * @throws UsageError, Qcow2Error for what no such header can be made of
 */
async function headerBytes(host: Host, values: ListValues, prefix = ''): Promise<number> {
  const { luksFormat } = await import('../encryption-options.ts');
  luksFormat(values, prefix);
  const secret = values.get(`${prefix}key-secret`)?.text;
  if (secret === undefined) {
    throw new UsageError(`Parameter '${prefix}key-secret' is required for cipher`);
  }
  await host.secrets.passphrase(secret);
  const bits = Number(/\d+$/.exec(textOf(values, `${prefix}cipher-alg`, 'aes-256'))?.[0] ?? 256);
  const keys = textOf(values, `${prefix}cipher-mode`, 'xts') === 'xts' ? 2 : 1;
  const slotBytes = Math.ceil(((bits / 8) * keys * 4000) / 4096) * 4096;
  return 4096 + 8 * slotBytes;
}

function humanText({ required, fullyAllocated, bitmaps }: Sizes): string {
  const lines = [`required size: ${BigInt(required)}`];
  lines.push(`fully allocated size: ${BigInt(fullyAllocated)}`);
  if (bitmaps !== undefined) lines.push(`bitmaps size: ${bitmaps}`);
  return `${lines.join('\n')}\n`;
}

/** Members in QEMU's order, which is that of its hash table. */
function jsonText({ required, fullyAllocated, bitmaps }: Sizes): string {
  return `${formatJson({ bitmaps, required, 'fully-allocated': fullyAllocated })}\n`;
}
