/** `snapshot`: lists, takes, goes back to and deletes internal snapshots. */

import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { decodeText, encodeText } from '../../base/text.ts';
import { Qcow2Image } from '../../image/qcow2/qcow2-image.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { type Errno, errnoOf } from '../errno.ts';
import { parseCommandLine } from '../getopt.ts';
import { warnOfGuess } from '../guessed-format.ts';
import { snapshotMembers } from '../image-report.ts';
import { formatJson } from '../json.ts';
import { openImage, openWritableNode } from '../open-image.ts';
import { given, type OptionGiven, type OptionSpec, valueGiven } from '../options.ts';
import { snapshotList } from '../snapshot-list.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'list', short: 'l', value: false, own: true, check: onlyOne },
  { name: 'apply', short: 'a', value: true, own: true, check: onlyOne },
  { name: 'create', short: 'c', value: true, own: true, check: onlyOne },
  { name: 'delete', short: 'd', value: true, own: true, check: onlyOne },
  { name: 'quiet', short: 'q', value: false, own: true },
  { name: 'force-share', short: 'U', value: false },
  { name: 'output', value: true, own: true },
  { name: 'untrusted', value: false, own: true },
];

const ACTIONS = ['list', 'apply', 'create', 'delete'] as const;

/** A name longer than this is cut off, as QEMU's tool does it. */
const NAME_BYTES_MAX = 255;

/** What was asked for, checked. */
interface Request {
  readonly filename: string;
  readonly action: (typeof ACTIONS)[number] | undefined;
  readonly name: string;
  readonly json: boolean;
  readonly forceShare: boolean;
  readonly untrusted: boolean;
}

/** The subcommand. */
export const snapshot: Command = {
  name: 'snapshot',
  options: OPTIONS,

  async run(args, host) {
    const request = parseRequest(args);
    if (request.action === 'list') return list(host, request);
    return change(host, request);
  },
};

/** One action at a time. */
function onlyOne(_: string, earlier: readonly OptionGiven[]): void {
  if (!earlier.some(({ name }) => ACTIONS.some((action) => action === name))) return;
  throw new UsageError("Cannot mix '-l', '-a', '-c', '-d'", true);
}

function parseRequest(args: readonly string[]): Request {
  const parsed = parseCommandLine(args, OPTIONS);
  const actions = parsed.options.filter(({ name }) => ACTIONS.some((action) => action === name));
  const [filename, ...rest] = parsed.operands;
  if (filename === undefined || rest.length > 0) {
    throw new UsageError('Expecting one image file name', true);
  }
  const output = valueGiven(parsed, 'output') ?? 'human';
  if (output !== 'json' && output !== 'human') {
    throw new UsageError('--output must be used with human or json as argument.');
  }
  return {
    filename,
    action: ACTIONS.find((action) => action === actions[0]?.name),
    name: actions[0]?.value ?? '',
    json: output === 'json',
    forceShare: given(parsed, 'force-share'),
    untrusted: given(parsed, 'untrusted'),
  };
}

async function list(host: Host, { filename, json, forceShare, untrusted }: Request) {
  const disk = await openImage(host, filename, {
    format: undefined,
    forceShare,
    untrusted,
    innermost: true,
  });
  try {
    const snapshots = disk instanceof Qcow2Image ? disk.snapshots.list() : [];
    if (json) host.out(`${formatJson(snapshots.map(snapshotMembers))}\n`);
    else if (snapshots.length > 0) {
      host.out(`Snapshot list:\n${snapshotList(snapshots).join('\n')}\n`);
    }
    return 0;
  } finally {
    await disk.close();
  }
}

async function change(host: Host, request: Request): Promise<number> {
  const { filename, action, name, forceShare, untrusted } = request;
  const flags = { warns: true, innermost: true } as const;
  const options = { format: undefined, forceShare, untrusted, ...flags };
  const { disk, guessed } = await openWritableNode(host, filename, options);
  try {
    const image = disk instanceof Qcow2Image ? disk : undefined;
    // What an action is about: after it, or before it is gone.
    const before = image?.snapshots.list() ?? [];
    if (action === 'create') await create(image, name);
    else if (action === 'apply') await apply(host, image, { name, guessed });
    else if (action === 'delete') await remove(image, name);
    if (request.json) {
      const one =
        action === 'create'
          ? image?.snapshots.list().at(-1)
          : (before.find(({ id }) => id === name && action === 'apply') ??
            before.find((snapshot) => snapshot.name === name));
      const members = one && { action: action as string, snapshot: snapshotMembers(one) };
      host.out(`${formatJson(members ?? {})}\n`);
    }
    return 0;
  } finally {
    await disk.close();
  }
}

async function create(image: Qcow2Image | undefined, name: string): Promise<void> {
  try {
    const now = performance.timeOrigin + performance.now();
    // Microseconds, as QEMU's tool has them.
    const dateNanoseconds = Math.floor((now % 1000) * 1000) * 1000;
    await needQcow2(image).snapshots.create({
      name: cutToBytes(name, NAME_BYTES_MAX),
      date: new Date(now),
      dateNanoseconds,
    });
  } catch (cause) {
    const { number, text } = errnoOf(cause);
    throw new UsageError(`Could not create snapshot '${name}': -${number} (${text})`);
  }
}

async function apply(
  host: Host,
  image: Qcow2Image | undefined,
  { name, guessed }: { readonly name: string; readonly guessed: string | undefined },
): Promise<void> {
  const failed = (why: string) => new UsageError(`Could not apply snapshot '${name}': ${why}`);
  if (!image) {
    // QEMU opens the file once more, to go back in what lies below, and warns once more.
    if (guessed !== undefined) warnOfGuess(host, guessed);
    throw failed('Block driver does not support snapshots');
  }
  if (image.bitmaps.list().length > 0) throw failed('Device has active dirty bitmaps');
  try {
    await image.snapshots.apply(name);
  } catch (cause) {
    const found = image.snapshots.list().some((one) => one.id === name || one.name === name);
    const missing = isQcow2Error(cause, 'OUT_OF_RANGE') && !found;
    // What QEMU reports on the way, before it says what came of it.
    if (isQcow2Error(cause) && /v2 image|L1 table/.test(cause.message)) host.error(cause.message);
    const { text } = missing ? NOT_FOUND : errnoOf(cause);
    throw failed(`Failed to load snapshot: ${text}`);
  }
}

const NOT_FOUND: Errno = { number: 2, text: 'No such file or directory' };

/** By its name alone: an id would be the wrong one as easily. */
async function remove(image: Qcow2Image | undefined, name: string): Promise<void> {
  const found = image?.snapshots.list().find((one) => one.name === name);
  const failed = (why: string) => new UsageError(`Could not delete snapshot '${name}': ${why}`);
  if (!image || !found) throw failed('snapshot not found');
  try {
    await image.snapshots.delete({ id: found.id, name: found.name });
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    throw failed(cause.message);
  }
}

function needQcow2(image: Qcow2Image | undefined): Qcow2Image {
  if (!image) throw new Qcow2Error('UNSUPPORTED', 'raw images hold no snapshots');
  return image;
}

/** The longest beginning of a text that has so many bytes at most. */
function cutToBytes(text: string, most: number): string {
  const bytes = encodeText(text);
  if (bytes.length <= most) return text;
  let end = most;
  while (end > 0 && ((bytes[end] as number) & 0xc0) === 0x80) end--;
  return decodeText(bytes.subarray(0, end));
}
