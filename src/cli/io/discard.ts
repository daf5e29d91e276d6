/** `discard` and `flush`. */
import { errorText } from './errno.ts';
import { getopt, letters } from './getopt.ts';
import { ANY, CommandFailure, type IoCommand, misuse } from './io-command.ts';
import { parseBytes, REQUEST_BYTES_MAX } from './number.ts';
import { reportText } from './report.ts';
import { optionsOf, stopwatch } from './request.ts';
import { needInside } from './transfer.ts';

/** `discard`. */
export const discard: IoCommand = {
  name: 'discard',
  alias: 'd',
  synopsis: '[-Cq] off len',
  summary: 'discards a number of bytes at a specified offset',
  details: `
Says that a range of the disk is not needed. Options:
 -C        one line of figures, for machines
 -q        no figures
`,
  count: [2, ANY],
  needs: 'writable',
  waits: true,

  async run(session, args, name) {
    const found = getopt(args, letters('Cq'));
    const { given, operands } = optionsOf(discard, name, found, { host: session.host });
    if (operands.length !== 2) throw misuse(discard);
    const guest = parseBytes(session, operands[0]!);
    const bytes = parseBytes(session, operands[1]!);
    if (bytes > REQUEST_BYTES_MAX) {
      const limit = `length cannot exceed ${REQUEST_BYTES_MAX}`;
      throw new CommandFailure(`${limit}, given ${operands[1]}`);
    }
    const elapsed = stopwatch();
    const { writable, current } = session;
    await session.attempt('discard', async () => {
      needInside(writable.size, guest, bytes);
      if (current.flags.discard) await writable.discard(guest, bytes);
    });
    if (given.has('q')) return;
    const transfer = { verb: 'discard', guest, bytes, seconds: elapsed() } as const;
    session.host.out(reportText(transfer, { machine: given.has('C') }));
  },
};

/** `flush`. */
export const flush: IoCommand = {
  name: 'flush',
  alias: 'f',
  summary: 'flush all in-core file state to disk',
  count: [0, 0],
  needs: 'disk',
  waits: true,

  async run(session) {
    const { writable, flags } = session.current;
    if (flags.cache === 'unsafe' || !writable) return;
    // As in QEMU, the exit code alone tells that it failed.
    await writable.flush().catch((cause) => {
      errorText(cause);
      session.failed = true;
    });
  },
};
