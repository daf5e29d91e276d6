/** `read` and `readv`: bytes of the disk, looked at or compared with a pattern. */
import { formatBytes } from '../../base/sizes.ts';
import { dump } from './dump.ts';
import { getopt, letters } from './getopt.ts';
import { ANY, CommandFailure, type IoCommand, misuse } from './io-command.ts';
import { parseBytes, REQUEST_BYTES_MAX } from './number.ts';
import { parsePattern } from './pattern.ts';
import { reportText } from './report.ts';
import { needSectors, optionsOf, parseLengths, stopwatch } from './request.ts';
import type { Session } from './session.ts';
import { type ReadRequest, readGuest } from './transfer.ts';

/** What `read`, `readv` and `aio_read` are asked for. */
export interface ReadCall extends ReadRequest {
  readonly quiet: boolean;
  readonly machine: boolean;
}

/** Carries a read out: gives what there is to print, and whether the bytes were as expected. */
export async function runRead(
  session: Session,
  call: ReadCall,
): Promise<{ readonly text: string[]; readonly good: boolean }> {
  const elapsed = stopwatch();
  const { bytes, matches } = await readGuest(session.current, call);
  const seconds = elapsed();
  const text: string[] = [];
  const { guest, length, expected, quiet, machine } = call;
  if (!matches && expected) {
    const at = formatBytes(guest + expected.start);
    text.push(`Pattern verification failed at offset ${at}, ${expected.length} bytes\n`);
  }
  if (quiet) return { text, good: matches };
  if (bytes) dump(bytes, guest, (lines) => text.push(lines));
  text.push(reportText({ verb: 'read', guest, bytes: length, seconds }, { machine }));
  return { text, good: matches };
}

async function readNow(session: Session, name: string, call: ReadCall): Promise<void> {
  const { text, good } = await session.attempt(name, () => runRead(session, call));
  for (const lines of text) session.host.out(lines);
  if (!good) session.failed = true;
}

/** `read`. */
export const read: IoCommand = {
  name: 'read',
  alias: 'r',
  synopsis: '[-abCqv] [-P pattern [-s off] [-l len]] off len',
  summary: 'reads a number of bytes at a specified offset',
  details: `
Reads a range of the disk. Options:
 -C        one line of figures, for machines
 -q        no figures
 -v        show the bytes
 -P BYTE   the bytes have to be BYTE
 -s OFF    (with -P) they do from OFF on, counted from the range's start
 -l LEN    (with -P) they do for LEN bytes
 -b        read the state of a virtual machine, which lies behind the disk's end (qcow2)
 -p        accepted
`,
  count: [2, ANY],
  needs: 'disk',
  waits: true,

  async run(session, args, name) {
    let [pattern, start, length]: (number | undefined)[] = [];
    const { given, operands } = optionsOf(read, name, getopt(args, letters('bCl:pP:qs:v')), {
      host: session.host,
      take(letter, value) {
        if (letter === 'l') length = parseBytes(session, value);
        if (letter === 'P') pattern = parsePattern(value);
        if (letter === 's') start = parseBytes(session, value);
      },
    });
    if (operands.length !== 2) throw misuse(read);
    const guest = parseBytes(session, operands[0]!);
    const count = parseBytes(session, operands[1]!);
    if (count > REQUEST_BYTES_MAX) {
      const limit = `length cannot exceed ${REQUEST_BYTES_MAX}`;
      throw new CommandFailure(`${limit}, given ${operands[1]}`);
    }
    if (pattern === undefined && (length !== undefined || start !== undefined)) throw misuse(read);
    const from = start ?? 0;
    const wanted = length ?? count - from;
    if (from > count || from + wanted > count) {
      throw new CommandFailure('pattern verification range exceeds end of read data');
    }
    if (given.has('b')) needSectors(guest, count);
    await readNow(session, 'read', {
      guest,
      length: count,
      vmState: given.has('b'),
      ...(pattern === undefined
        ? {}
        : { expected: { byte: pattern, start: from, length: wanted } }),
      keep: given.has('v') && !given.has('q'),
      quiet: given.has('q'),
      machine: given.has('C'),
    });
  },
};

/** `readv`. */
export const readv: IoCommand = {
  name: 'readv',
  synopsis: '[-Cqv] [-P pattern] off len [len..]',
  summary: 'reads a number of bytes at a specified offset',
  details: `
Reads a range of the disk into buffers of the given lengths, one after the other. Options:
 -C        one line of figures, for machines
 -q        no figures
 -v        show the bytes
 -P BYTE   the bytes have to be BYTE
`,
  count: [2, ANY],
  needs: 'disk',
  waits: true,

  async run(session, args, name) {
    await readNow(session, 'readv', parseVectorRead(session, readv, args, name));
  },
};

/**
 * The arguments of `readv` and `aio_read`.
 * @param extra letters of options that the caller has beyond those of both
 */
export function parseVectorRead(
  session: Session,
  command: IoCommand,
  args: readonly string[],
  name: string,
  extra = '',
): ReadCall {
  let pattern: number | undefined;
  const found = getopt(args, letters(`CP:qv${extra}`));
  const { given, operands } = optionsOf(command, name, found, {
    host: session.host,
    take(letter, value) {
      if (letter === 'P') pattern = parsePattern(value);
    },
  });
  if (operands.length < 2) throw misuse(command);
  const guest = parseBytes(session, operands[0]!);
  const length = parseLengths(session, operands.slice(1));
  return {
    guest,
    length,
    ...(pattern === undefined ? {} : { expected: { byte: pattern, start: 0, length } }),
    keep: given.has('v') && !given.has('q'),
    quiet: given.has('q'),
    machine: given.has('C'),
  };
}
