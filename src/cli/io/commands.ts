/** All commands, and how a line becomes one. */
import { aioFlush, aioRead, aioWrite } from './aio.ts';
import { alloc, map } from './allocation.ts';
import {
  abort,
  help,
  quit,
  removeBreak,
  resume,
  setBreak,
  sigraise,
  sleep,
  waitBreak,
} from './control.ts';
import { describe } from './describe.ts';
import { discard, flush } from './discard.ts';
import { CommandFailure, type IoCommand } from './io-command.ts';
import { close, open, reopen } from './open-close.ts';
import { read, readv } from './read.ts';
import type { Session } from './session.ts';
import { length, truncate } from './size.ts';
import { write, writev } from './write.ts';

/** In the order of their names. */
export const COMMANDS: readonly IoCommand[] = [
  abort,
  aioFlush,
  aioRead,
  aioWrite,
  alloc,
  setBreak,
  close,
  discard,
  flush,
  help,
  describe,
  length,
  map,
  open,
  quit,
  read,
  readv,
  removeBreak,
  reopen,
  resume,
  sigraise,
  sleep,
  truncate,
  waitBreak,
  write,
  writev,
];

/** A command by its name or its shorter one. */
export function findCommand(name: string): IoCommand | undefined {
  return COMMANDS.find((command) => command.name === name || command.alias === name);
}

/** Runs one line; what goes wrong is told, and marks the session as failed. */
export async function runLine(session: Session, line: string): Promise<void> {
  const [name, ...args] = line.split(' ').filter((word) => word !== '');
  if (name === undefined) return;
  try {
    await runCommand(session, name, args);
  } catch (cause) {
    if (!(cause instanceof CommandFailure)) throw cause;
    session.failed = true;
    const { host } = session;
    if (cause.place === 'program') {
      host.error(cause.message);
      if (cause.hint !== '') host.note(cause.hint);
    } else if (cause.place === 'error') host.note(`${cause.message}\n`);
    else host.out(`${cause.message}\n`);
  }
}

async function runCommand(session: Session, name: string, args: readonly string[]): Promise<void> {
  const command = findCommand(name);
  if (!command) throw new CommandFailure(`command "${name}" not found`, 'error');
  // Each of these says what is missing.
  if (command.needs !== 'nothing') session.current;
  refuseCount(command, name, args.length);
  if (command.needs === 'writable') session.writable;
  if (command.waits) await session.settleUnheld();
  await command.run(session, args, name);
}

function refuseCount({ count }: IoCommand, name: string, given: number): void {
  if (!count) return;
  const [least, most] = count;
  if (given >= least && given <= most) return;
  const expected =
    most === Number.POSITIVE_INFINITY
      ? `at least ${least}`
      : least === most
        ? `${least}`
        : `between ${least} and ${most}`;
  const message = `bad argument count ${given} to ${name}, expected ${expected} arguments`;
  throw new CommandFailure(message, 'error');
}
