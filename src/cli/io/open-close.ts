/** `open`, `close` and `reopen`. */
import { isQcow2Error } from '../../base/errors.ts';
import { getopt, letters } from './getopt.ts';
import { ANY, CommandFailure, type IoCommand, misuse } from './io-command.ts';
import { openForIo } from './open.ts';
import {
  CACHE_MODES,
  DEFAULT_FLAGS,
  FLAG_LETTERS,
  type OpenFlags,
  oneOf,
  withFlag,
} from './open-flags.ts';
import { optionsOf } from './request.ts';
import type { Session } from './session.ts';

/** Options of qcow2's driver in QEMU that change no byte that a command could see. */
const TUNING = [
  'lazy-refcounts',
  'overlap-check',
  'cache-size',
  'l2-cache-size',
  'l2-cache-entry-size',
  'refcount-cache-size',
  'cache-clean-interval',
  'pass-discard-request',
  'pass-discard-snapshot',
  'pass-discard-other',
];

/**
 * Opens a disk for the commands that follow.
 * @throws CommandFailure where it cannot be opened, or another one is open
 */
export async function openNow(session: Session, filename: string, flags: OpenFlags): Promise<void> {
  if (session.opened) {
    throw new CommandFailure("file open already, try 'help close'", 'program');
  }
  try {
    session.opened = await openForIo(session.host, filename, flags);
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    throw new CommandFailure(`can't open device ${filename}: ${cause.message}`, 'program');
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
 -o OPTIONS  driver=raw or driver=qcow2
`,
  count: [1, ANY],
  needs: 'nothing',

  async run(session, args, name) {
    let flags = DEFAULT_FLAGS;
    let settings: ReadonlyMap<string, string> = new Map();
    const { operands } = optionsOf(open, name, getopt(args, letters(`${FLAG_LETTERS}o:`)), {
      host: session.host,
      take(letter, value) {
        flags = withFlag(flags, letter, value);
        if (letter === 'o') settings = new Map([...settings, ...parseSettings(value)]);
      },
    });
    const [filename, ...more] = operands;
    if (more.length > 0) throw misuse(open);
    if (filename === undefined) {
      throw new CommandFailure("can't open: a file name is needed", 'program');
    }
    const format = settings.get('driver');
    await openNow(session, filename, { ...flags, format });
    await refuseSettings(session, settings, filename);
  },
};

/** `name=value,name=value`; a comma in a value is written twice. */
function parseSettings(text: string): Map<string, string> {
  const parts = text.split(/(?<!,),(?!,)/).map((part) => part.replaceAll(',,', ','));
  return new Map(
    parts.map((part) => {
      const equals = part.indexOf('=');
      return equals < 0 ? [part, 'on'] : [part.slice(0, equals), part.slice(equals + 1)];
    }),
  );
}

/** Which settings there are depends on the format, so the disk is open by now. */
async function refuseSettings(
  session: Session,
  settings: ReadonlyMap<string, string>,
  filename: string,
): Promise<void> {
  const { format } = session.current.disk;
  for (const name of settings.keys()) {
    if (name === 'driver' || (format === 'qcow2' && TUNING.includes(name))) continue;
    await session.close();
    const why = `Block format '${format}' does not support the option '${name}'`;
    throw new CommandFailure(`can't open device ${filename}: ${why}`, 'program');
  }
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
    let settings: ReadonlyMap<string, string> = new Map();
    const { operands } = optionsOf(reopen, name, getopt(args, letters('c:o:rw')), {
      host: session.host,
      take(letter, value) {
        if (letter === 'c') cache = oneOf(CACHE_MODES, value, 'cache');
        if (letter === 'o') settings = new Map([...settings, ...parseSettings(value)]);
        if (letter !== 'r' && letter !== 'w') return;
        if (mode !== undefined) {
          throw new CommandFailure('Only one -r/-w option may be given', 'program');
        }
        mode = letter;
      },
    });
    if (operands.length > 0) throw misuse(reopen);
    refuseChanges(session, settings, { mode, cache });
    const { flags, readOnly } = session.current;
    await reopenWith(session, {
      ...flags,
      readOnly: mode === undefined ? readOnly : mode === 'r',
      cache: cache ?? flags.cache,
    });
  },
};

function refuseChanges(
  session: Session,
  settings: ReadonlyMap<string, string>,
  given: { readonly mode: string | undefined; readonly cache: string | undefined },
): void {
  const refuse = (message: string) => new CommandFailure(message, 'program');
  const { format } = session.current.disk;
  for (const [name, value] of settings) {
    if (name === 'read-only' && given.mode !== undefined) {
      throw refuse("Cannot set both -r/-w and 'read-only'");
    }
    if (name.startsWith('cache.') && given.cache !== undefined) {
      throw refuse('Cannot set both -c and the cache options');
    }
    const same = name === 'driver' && value === format;
    if (!same && !(format === 'qcow2' && TUNING.includes(name))) {
      throw refuse(`Cannot change the option '${name}'`);
    }
  }
}

/** The disk stays as it is, unless it was opened for reading and is to be written now. */
async function reopenWith(session: Session, flags: OpenFlags): Promise<void> {
  const { host, current } = session;
  const { filename, disk, writable } = current;
  if (flags.readOnly || writable) {
    await session.attempt('reopen', async () => writable?.flush());
    session.opened = { ...current, flags, readOnly: flags.readOnly };
    return;
  }
  try {
    const format = disk.format;
    const fresh = await openForIo(host, filename, { ...flags, format: flags.format ?? format });
    session.opened = { ...fresh, guessedRaw: flags.format === undefined && format === 'raw' };
    await disk.close();
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    throw new CommandFailure(cause.message, 'program');
  }
}
