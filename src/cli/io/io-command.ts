/** What a command of `qcow2-io` is, and how one fails. */
import type { Session } from './session.ts';

/** A command that people type or pass with `-c`. */
export interface IoCommand {
  readonly name: string;
  /** A shorter name, as in QEMU's tool. */
  readonly alias?: string;
  /** Its arguments, as `help` shows them. */
  readonly synopsis?: string;
  readonly summary: string;
  /** More for `help NAME`. */
  readonly details?: string;
  /** How many arguments, options counted: [least, most]. Not counted where absent. */
  readonly count?: readonly [least: number, most: number];
  /** What has to be open before the arguments are looked at. */
  readonly needs: 'nothing' | 'disk' | 'writable';
  /** Waits for the disk, so that requests in the background report before it does. */
  readonly waits?: boolean;
  /** @param name what the command was called by */
  run(session: Session, args: readonly string[], name: string): Promise<void>;
}

/** Any number of arguments. */
export const ANY = Number.POSITIVE_INFINITY;

/** Where QEMU's tool prints a message: some go to standard output, and scripts look there. */
export type MessagePlace =
  /** Standard output. */
  | 'output'
  /** Standard error. */
  | 'error'
  /** Standard error, the program's name in front. */
  | 'program';

/** A command failed, and this is all that there is to say about it. */
export class CommandFailure extends Error {
  constructor(
    message: string,
    readonly place: MessagePlace = 'output',
    /** Further lines, which have no program's name in front. */
    readonly hint = '',
  ) {
    super(message);
  }
}

/** The line that says how a command is called, by the name that is given. */
export function usageLine({ synopsis, summary }: IoCommand, name: string): string {
  return `${name}${synopsis === undefined ? '' : ` ${synopsis}`} -- ${summary}`;
}

/** The command was called in a way that it does not know. */
export function misuse(command: IoCommand): CommandFailure {
  return new CommandFailure(usageLine(command, command.name));
}
