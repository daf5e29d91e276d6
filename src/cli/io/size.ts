/** `length` and `truncate`: the disk's size. */
import { isQcow2Error } from '../../base/errors.ts';
import type { Preallocation, WritableDisk } from '../../image/disk.ts';
import { errnoText } from '../../storage/node-error.ts';
import { formatAmount } from './amount.ts';
import { getopt, letters } from './getopt.ts';
import { CommandFailure, type IoCommand, misuse } from './io-command.ts';
import { parseBytes } from './number.ts';
import { optionsOf } from './request.ts';

/** `length`. */
export const length: IoCommand = {
  name: 'length',
  alias: 'l',
  summary: 'gets the length of the current file',
  count: [0, 0],
  needs: 'disk',

  async run(session) {
    session.host.out(`${formatAmount(session.current.disk.size)}\n`);
  },
};

const MODES = ['off', 'metadata', 'falloc', 'full'] as const;

/** `truncate`. */
export const truncate: IoCommand = {
  name: 'truncate',
  alias: 't',
  synopsis: '[-m prealloc_mode] off',
  summary: 'truncates the current file at the given offset',
  count: [1, 3],
  needs: 'writable',
  waits: true,

  async run(session, args, name) {
    let mode: Preallocation = 'off';
    const { operands } = optionsOf(truncate, name, getopt(args, letters('m:')), {
      host: session.host,
      take(_, value) {
        const found = MODES.find((one) => one === value);
        if (!found) throw new CommandFailure(`Invalid preallocation mode '${value}'`, 'program');
        mode = found;
      },
    });
    // More than one counts as the first alone, as in QEMU's tool.
    if (operands.length === 0) throw misuse(truncate);
    const size = parseBytes(session, operands[0]!);
    await resize(session.writable, size, mode);
  },
};

async function resize(
  disk: WritableDisk,
  size: number,
  preallocation: Preallocation,
): Promise<void> {
  const { format, size: before } = disk;
  const refuse = (message: string) => new CommandFailure(message, 'program');
  if (format === 'qcow2' && size % 512 !== 0) {
    throw refuse('The new size must be a multiple of 512');
  }
  if (preallocation !== 'off' && size < before) {
    throw refuse(
      format === 'qcow2'
        ? "Preallocation can't be used for shrinking an image"
        : 'Cannot use preallocation for shrinking files',
    );
  }
  if (format === 'raw' && !Number.isSafeInteger(size)) {
    throw refuse('Could not resize file: File too large');
  }
  try {
    await disk.resize(size, { preallocation });
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    const why = cause.cause === undefined ? undefined : errnoText(cause.cause);
    throw refuse(why === undefined ? cause.message : `Could not resize file: ${why}`);
  }
}
