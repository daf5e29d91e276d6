/** `open`, `close` and `reopen`. */
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import type { Disk } from '../../image/disk.ts';
import { Qcow2Image } from '../../image/qcow2/qcow2-image.ts';
import { repairHint } from '../explain-open.ts';
import { driverAbove } from '../image-node.ts';
import { HintedError } from '../option-list.ts';
import { checkTuning, isTuning, joinTuning } from '../qcow2-settings.ts';
import { parseSettings, type Settings, switchOf, textOf } from '../settings.ts';
import { getopt, letters } from './getopt.ts';
import { ANY, CommandFailure, type IoCommand, misuse } from './io-command.ts';
import { type OpenedDisk, openForIo } from './open.ts';
import {
  CACHE_MODES,
  DEFAULT_FLAGS,
  FLAG_LETTERS,
  type OpenFlags,
  oneOf,
  withFlag,
} from './open-flags.ts';
import { withSwitches } from './place.ts';
import { optionsOf } from './request.ts';
import type { Session } from './session.ts';

/**
 * Opens a disk for the commands that follow.
 * @throws CommandFailure where it cannot be opened, or another one is open
 */
export async function openNow(
  session: Session,
  filename: string | undefined,
  flags: OpenFlags,
): Promise<void> {
  if (session.opened) {
    throw new CommandFailure("file open already, try 'help close'", 'program');
  }
  try {
    session.opened = await openForIo(session.host, filename, flags);
  } catch (cause) {
    const what = filename === undefined ? "can't open" : `can't open device ${filename}`;
    throw failureOf(cause, `${what}: `);
  }
}

/** `open`. */
export const open: IoCommand = {
  name: 'open',
  alias: 'o',
  synopsis: '[-rsCnkU] [-t cache] [-d discard] [-o options] [path]',
  summary: 'open the file specified by path',
  details: `
Opens a disk for the commands that follow. Options:
 -r          read-only
 -s          changes go to memory, and are gone when the disk is closed
 -C          reads copy what they find in a backing file
 -n          as -t none
 -U          read-only, although another process may be writing
 -k, -i AIO  accepted
 -t CACHE    none, writeback, writethrough, directsync or unsafe
 -d DISCARD  unmap or ignore
 -o OPTIONS  settings: driver=raw, file.filename=PATH, ...
`,
  count: [1, ANY],
  needs: 'nothing',

  async run(session, args, name) {
    let flags = DEFAULT_FLAGS;
    const lists: string[] = [];
    const { operands } = optionsOf(open, name, getopt(args, letters(`${FLAG_LETTERS}o:`)), {
      host: session.host,
      take(letter, value) {
        flags = withFlag(flags, letter, value);
        if (letter !== 'o') return;
        if (session.imageOptions) {
          throw new CommandFailure("--image-opts and 'open -o' are mutually exclusive");
        }
        lists.push(value);
      },
    });
    // With --image-opts a list may stand where the path does.
    const isList = session.imageOptions && operands.length === 1;
    if (isList) lists.push(...operands);
    const [filename, ...more] = isList ? [] : operands;
    if (more.length > 0) throw misuse(open);
    const settings = mergedSettings(session, lists);
    await openNow(session, filename, { ...flags, settings });
  },
};

/** Lists of settings as one: the last one counts. */
export function mergedSettings({ host }: Session, lists: readonly string[]): Settings {
  return new Map(lists.flatMap((list) => [...parseSettings(host, list)]));
}

/** `close`. */
export const close: IoCommand = {
  name: 'close',
  alias: 'c',
  summary: 'close the current open file',
  count: [0, 0],
  needs: 'disk',

  async run(session) {
    await session.attempt('close', () => session.close());
  },
};

/** `reopen`. */
export const reopen: IoCommand = {
  name: 'reopen',
  synopsis: '[(-r|-w)] [-c cache] [-o options]',
  summary: 'reopens an image with new options',
  details: `
Changes how the open disk was opened. Options:
 -r          read-only from now on
 -w          writable from now on
 -c CACHE    none, writeback, writethrough, directsync or unsafe
 -o OPTIONS  settings of the qcow2 format
`,
  count: [0, ANY],
  needs: 'disk',
  waits: true,

  async run(session, args, name) {
    let [mode, cache]: [string?, string?] = [];
    const lists: string[] = [];
    const { operands } = optionsOf(reopen, name, getopt(args, letters('c:o:rw')), {
      host: session.host,
      take(letter, value) {
        if (letter === 'c') cache = oneOf(CACHE_MODES, value, 'cache');
        if (letter === 'o') lists.push(value);
        if (letter !== 'r' && letter !== 'w') return;
        if (mode !== undefined) {
          throw new CommandFailure('Only one -r/-w option may be given', 'program');
        }
        mode = letter;
      },
    });
    if (operands.length > 0) throw misuse(reopen);
    const settings = mergedSettings(session, lists);
    const { flags, readOnly } = session.current;
    const wanted = {
      ...flags,
      readOnly: mode === undefined ? readOnly : mode === 'r',
      cache: cache ?? flags.cache,
    };
    try {
      refuseChanges(session.current, settings, { mode, cache });
      const tuning = tuningOf(session.current, settings);
      await reopenWith(session, withSwitches(wanted, settings), tuning);
    } catch (cause) {
      throw failureOf(cause, '');
    }
  },
};

/** A failure to open as a command's. @throws what is neither the library's error nor a hint */
function failureOf(cause: unknown, prefix: string): CommandFailure {
  if (cause instanceof HintedError) {
    return new CommandFailure(`${prefix}${cause.message}`, 'program', cause.hintText);
  }
  if (!isQcow2Error(cause)) throw cause;
  return new CommandFailure(`${prefix}${cause.message}`, 'program', repairHint(cause));
}

/** @throws Qcow2Error for what cannot be set, or only when a disk is opened */
function refuseChanges(
  opened: OpenedDisk,
  settings: Settings,
  given: { readonly mode: string | undefined; readonly cache: string | undefined },
): void {
  const refuse = (message: string) => new Qcow2Error('REFUSED', message);
  if (settings.has('read-only') && given.mode !== undefined) {
    throw refuse("Cannot set both -r/-w and 'read-only'");
  }
  const ofCache = [...settings.keys()].some((name) => name.startsWith('cache.'));
  if (ofCache && given.cache !== undefined) {
    throw refuse('Cannot set both -c and the cache options');
  }
  const { disk, place } = opened;
  const isQcow2 = disk instanceof Qcow2Image;
  for (const [name, value] of settings) {
    if (CHANGEABLE.includes(name) || isTuningOf(opened, name)) continue;
    // Keys are looked for when an image is opened, and at no other time.
    if (isQcow2 && name.startsWith('encrypt.')) continue;
    const { now, inNode } = settingNow(opened, name);
    if (value === now) continue;
    if (REFERENCES.includes(inNode)) refuseUnknownNode(place.asked.settings, value);
    throw refuse(`Cannot change the option '${inNode}'`);
  }
  if (isQcow2) {
    const { clusterSize } = disk.sources[0]!;
    const judged = { header: disk.header, geometry: { clusterSize } };
    checkTuning(joinTuning(place.settings, settings), judged);
  }
  if (switchOf(settings, 'read-only') && opened.writable && !opened.readOnly) {
    const node = textOf(place.settings, 'node-name') ?? '#block100';
    throw refuse(`Read-only block node '${node}' cannot support read-write users`);
  }
}

/** Settings of any disk that may change while it is open. */
const CHANGEABLE = [
  'read-only',
  'auto-read-only',
  'cache.direct',
  'cache.no-flush',
  'discard',
  'detect-zeroes',
];

/** Settings of how the format is driven: of a raw disk, which part of its file it is. */
function tuningOf(opened: OpenedDisk, settings: Settings): Settings {
  return new Map([...settings].filter(([name]) => isTuningOf(opened, name)));
}

function isTuningOf({ disk, place }: OpenedDisk, name: string): boolean {
  if (disk instanceof Qcow2Image) return isTuning(name);
  return disk.format === 'raw' && !place.bare && (name === 'offset' || name === 'size');
}

/** Settings that name the node below. */
const REFERENCES = ['file', 'backing'];

/** @throws Qcow2Error REFUSED where no node of the disk has that name */
function refuseUnknownNode(settings: Settings, value: string): void {
  const names = [...settings].filter(([key]) => /(^|\.)node-name$/.test(key));
  if (names.some(([, known]) => known === value)) return;
  throw new Qcow2Error('REFUSED', `Cannot find device='' nor node-name='${value}'`);
}

/** What a setting is now, and its name in the node of the disk that it is about. */
function settingNow(
  { disk: top, place }: OpenedDisk,
  name: string,
): { readonly now: string | undefined; readonly inNode: string } {
  let disk: Disk = top;
  let inNode = name;
  while (inNode.startsWith('backing.') && disk instanceof Qcow2Image && disk.backing) {
    disk = disk.backing;
    inNode = inNode.slice('backing.'.length);
  }
  const isFile = inNode.startsWith('file.');
  if (isFile) inNode = inNode.slice('file.'.length);
  const isTop = disk === top;
  const bare = isTop && place.bare;
  const given = REFERENCES.includes(name) ? `${name}.node-name` : name;
  if (place.asked.settings.has(given)) return { now: place.asked.settings.get(given), inNode };
  const known: Readonly<Record<string, string | undefined>> = isFile
    ? { driver: 'file', filename: isTop ? place.path : disk.sources[0]?.storage.name }
    : { driver: bare ? 'file' : disk.format, 'read-only': isTop ? undefined : 'on' };
  return { now: isFile && bare ? undefined : known[inNode], inNode };
}

/**
 * The disk stays as it is, unless what may be done to it changes: then it is closed and opened
 * again, for the two have different claims among those who lock images.
 */
async function reopenWith(session: Session, flags: OpenFlags, tuning: Settings): Promise<void> {
  const { host, current } = session;
  const { place, disk, writable } = current;
  const discards = flags.discard === current.flags.discard;
  const keeps = tuning.size === 0 && discards && !flags.readOnly;
  if (writable && (flags.snapshot || keeps)) {
    await session.attempt('reopen', () => writable.flush());
    session.opened = { ...current, flags, readOnly: flags.readOnly };
    return;
  }
  if (!writable && flags.readOnly) {
    session.opened = { ...current, flags, readOnly: true };
    return;
  }
  const { filename, settings: asked } = place.asked;
  const old = new Map(asked);
  for (const name of CHANGEABLE) old.delete(name);
  // What it was found to be it stays, whatever stands in its first bytes by now.
  const format = driverAbove(place) ?? disk.format;
  const again = (how: OpenFlags, settings: Settings) =>
    openForIo(host, filename, { ...how, settings, format });
  await session.close();
  const { guessedRaw } = current;
  try {
    session.opened = { ...(await again(flags, joinTuning(old, tuning))), guessedRaw };
  } catch (cause) {
    session.opened = { ...(await again(current.flags, old)), guessedRaw };
    throw cause;
  }
}
