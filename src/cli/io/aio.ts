/**
 * `aio_read`, `aio_write` and `aio_flush`: requests in the background. They count as successful
 * once they are under way; what becomes of them is told when a later command waits.
 */
import { errorText } from './errno.ts';
import { getopt, letters } from './getopt.ts';
import { ANY, type IoCommand } from './io-command.ts';
import { parseVectorRead, runRead } from './read.ts';
import { parseAioWrite, runWrite } from './write.ts';

/** Such a request goes nowhere, and nobody looks at the rest of its arguments. */
function isInvalid(args: readonly string[]): boolean {
  return getopt(args, letters('CfiP:quvz')).options.some(({ name }) => name === 'i');
}

/** A failed request's message, as a report. */
async function reported(what: string, request: Promise<string>): Promise<string> {
  try {
    return await request;
  } catch (cause) {
    return `${what} failed: ${errorText(cause)}\n`;
  }
}

/** `aio_read`. */
export const aioRead: IoCommand = {
  name: 'aio_read',
  synopsis: '[-Ciqv] [-P pattern] off len [len..]',
  summary: 'asynchronously reads a number of bytes',
  details: `
Starts to read a range of the disk; aio_flush waits for the end. Options:
 -C        one line of figures, for machines
 -q        no figures
 -v        show the bytes
 -P BYTE   the bytes have to be BYTE
 -i        pretend that the request is invalid
`,
  count: [2, ANY],
  needs: 'disk',

  async run(session, args, name) {
    if (isInvalid(args)) {
      session.host.out('injecting invalid read request\n');
      return;
    }
    const call = parseVectorRead(session, aioRead, args, name, 'i');
    session.startBackground(() =>
      reported(
        'readv',
        runRead(session, call).then(({ text }) => text.join('')),
      ),
    );
  },
};

/** `aio_write`. */
export const aioWrite: IoCommand = {
  name: 'aio_write',
  synopsis: '[-Cfiquz] [-P pattern] off len [len..]',
  summary: 'asynchronously writes a number of bytes',
  details: `
Starts to write a range of the disk; aio_flush waits for the end. Options:
 -P BYTE   write BYTE, not 0xcd
 -z        write zeros
 -u        (with -z) give up the space
 -f        done when it would survive a power cut
 -C        one line of figures, for machines
 -q        no figures
 -i        pretend that the request is invalid
`,
  count: [2, ANY],
  needs: 'writable',

  async run(session, args, name) {
    if (isInvalid(args)) {
      session.host.out('injecting invalid write request\n');
      return;
    }
    const call = parseAioWrite(session, aioWrite, args, name);
    session.startBackground(() => reported('aio_write', runWrite(session, call)));
  },
};

/** `aio_flush`. */
export const aioFlush: IoCommand = {
  name: 'aio_flush',
  summary: 'completes all outstanding aio requests',
  count: [0, 0],
  needs: 'disk',

  async run(session) {
    await session.settle();
  },
};
