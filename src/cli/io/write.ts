/** `write` and `writev`: bytes, zeros and compressed clusters. */
import { getopt, letters } from './getopt.ts';
import { ANY, CommandFailure, type IoCommand, misuse } from './io-command.ts';
import { parseBytes, REQUEST_BYTES_MAX } from './number.ts';
import { bytePattern, DEFAULT_PATTERN, filePattern, parsePattern } from './pattern.ts';
import { reportText } from './report.ts';
import { needSectors, optionsOf, parseLengths, stopwatch } from './request.ts';
import type { Session } from './session.ts';
import { type WriteRequest, writeGuest } from './transfer.ts';

/** What `write`, `writev` and `aio_write` are asked for. */
export interface WriteCall {
  readonly request: WriteRequest;
  readonly sync: boolean;
  readonly quiet: boolean;
  readonly machine: boolean;
}

/** Carries a write out and gives what there is to print. */
export async function runWrite(session: Session, call: WriteCall): Promise<string> {
  const elapsed = stopwatch();
  const { request, machine } = call;
  await writeGuest(session, request, call);
  if (call.quiet) return '';
  const { guest, length: bytes } = request;
  return reportText({ verb: 'wrote', guest, bytes, seconds: elapsed() }, { machine });
}

/** `write`. */
export const write: IoCommand = {
  name: 'write',
  alias: 'w',
  synopsis: '[-bcCfnquz] [-P pattern | -s source_file] off len',
  summary: 'writes a number of bytes at a specified offset',
  details: `
Writes a range of the disk, with bytes of 0xcd where no option says otherwise. Options:
 -P BYTE   write BYTE
 -s FILE   write the content of FILE, again and again
 -z        write zeros, without writing them where the format can say so
 -u        (with -z) give up the space
 -n        (with -z) accepted
 -c        write compressed clusters
 -f        done when it would survive a power cut
 -C        one line of figures, for machines
 -q        no figures
 -b        write the state of a virtual machine, which lies behind the disk's end (qcow2)
 -p        accepted
`,
  count: [2, ANY],
  needs: 'writable',
  waits: true,

  async run(session, args, name) {
    let [pattern, file]: [number?, string?] = [];
    const { given, operands } = optionsOf(write, name, getopt(args, letters('bcCfnpP:qs:uz')), {
      host: session.host,
      take(letter, value) {
        if (letter === 'P') pattern = parsePattern(value);
        if (letter === 's') file = value;
      },
    });
    if (operands.length !== 2) throw misuse(write);
    refuseCombinations(given);
    const guest = parseBytes(session, operands[0]!);
    const length = parseBytes(session, operands[1]!);
    if (length > REQUEST_BYTES_MAX && !given.has('n')) {
      const limit = `length cannot exceed ${REQUEST_BYTES_MAX} without -n`;
      throw new CommandFailure(`${limit}, given ${operands[1]}`);
    }
    if (given.has('b') || given.has('c')) needSectors(guest, length);
    const where = { guest, length };
    const source =
      file === undefined
        ? bytePattern(pattern ?? DEFAULT_PATTERN)
        : await filePattern(session.host, file, length);
    const kind = given.has('b') ? 'vm-state' : given.has('c') ? 'compressed' : 'bytes';
    const request: WriteRequest = given.has('z')
      ? { ...where, kind: 'zeros', unmap: given.has('u') }
      : { ...where, kind, source };
    await writeNow(session, 'write', callOf(request, given));
  },
};

function refuseCombinations(given: ReadonlySet<string>): void {
  const wrong = (message: string) => new CommandFailure(message);
  if (given.has('b') && given.has('z')) {
    throw wrong('-b and -z cannot be specified at the same time');
  }
  if (given.has('f') && (given.has('b') || given.has('c'))) {
    throw wrong('-f and -b or -c cannot be specified at the same time');
  }
  if (given.has('n') && !given.has('z')) throw wrong('-n requires -z to be specified');
  if (given.has('u') && !given.has('z')) throw wrong('-u requires -z to be specified');
  if (['z', 'P', 's'].filter((letter) => given.has(letter)).length > 1) {
    throw wrong('Only one of -z, -P, and -s can be specified at the same time');
  }
}

function callOf(request: WriteRequest, given: ReadonlySet<string>): WriteCall {
  return {
    request,
    sync: given.has('f'),
    quiet: given.has('q'),
    machine: given.has('C'),
  };
}

async function writeNow(session: Session, name: string, call: WriteCall): Promise<void> {
  session.host.out(await session.attempt(name, () => runWrite(session, call)));
}

/** `writev`. */
export const writev: IoCommand = {
  name: 'writev',
  synopsis: '[-Cfq] [-P pattern] off len [len..]',
  summary: 'writes a number of bytes at a specified offset',
  details: `
Writes buffers of the given lengths, one after the other. Options:
 -P BYTE   write BYTE
 -f        done when it would survive a power cut
 -C        one line of figures, for machines
 -q        no figures
`,
  count: [2, ANY],
  needs: 'writable',
  waits: true,

  async run(session, args, name) {
    let pattern = DEFAULT_PATTERN;
    const { given, operands } = optionsOf(writev, name, getopt(args, letters('CqfP:')), {
      host: session.host,
      take(letter, value) {
        if (letter === 'P') pattern = parsePattern(value);
      },
    });
    if (operands.length < 2) throw misuse(writev);
    const guest = parseBytes(session, operands[0]!);
    const length = parseLengths(session, operands.slice(1));
    const source = bytePattern(pattern);
    await writeNow(session, 'writev', callOf({ guest, length, kind: 'bytes', source }, given));
  },
};

/** The arguments of `aio_write`. */
export function parseAioWrite(
  session: Session,
  command: IoCommand,
  args: readonly string[],
  name: string,
): WriteCall {
  let pattern = DEFAULT_PATTERN;
  const { given, operands } = optionsOf(command, name, getopt(args, letters('CfiP:quz')), {
    host: session.host,
    take(letter, value) {
      if (letter === 'P') pattern = parsePattern(value);
    },
  });
  if (operands.length < 2) throw misuse(command);
  const zeros = given.has('z');
  if (zeros && operands.length !== 2) {
    throw new CommandFailure('-z supports only a single length parameter');
  }
  if (given.has('u') && !zeros) throw new CommandFailure('-u requires -z to be specified');
  const guest = parseBytes(session, operands[0]!);
  const length = zeros
    ? parseBytes(session, operands[1]!)
    : parseLengths(session, operands.slice(1));
  const request: WriteRequest = zeros
    ? { guest, length, kind: 'zeros', unmap: given.has('u') }
    : { guest, length, kind: 'bytes', source: bytePattern(pattern) };
  return callOf(request, given);
}
