/**
 * What help texts, completion of shells and the manual page say of the commands: one description
 * for all three. A test holds it beside the options that commands take.
 */
import { COMMANDS_DESCRIBED } from './commands-described.ts';

/** An option, and what it does. */
export interface OptionHelp {
  readonly name: string;
  readonly short: string | undefined;
  /** What stands for its value; undefined: it has none. */
  readonly value: string | undefined;
  readonly text: string;
}

/** A command, and its options. */
export interface CommandHelp {
  readonly name: string;
  readonly summary: string;
  /** What stands behind the options, one for each way to call it. */
  readonly operands: readonly string[];
  readonly options: readonly OptionHelp[];
  /** What there is to say beyond that. */
  readonly notes: string;
}

/** `-f --format=FMT`, and what it does. */
export type OptionLine = readonly [spec: string, text: string];

/** A command as it is written down. */
export interface CommandLines {
  readonly summary: string;
  readonly operands: readonly string[];
  readonly options: readonly OptionLine[];
  readonly notes?: string;
}

/** Options of all commands. */
export const GLOBAL_OPTIONS: readonly OptionHelp[] = (
  [
    ['-h --help', 'print what the command is for, and its options'],
    ['--object=OBJECT', 'define a secret: secret,id=ID,data=TEXT or secret,id=ID,file=PATH'],
    ['--image-opts', 'image names are lists of options: driver=qcow2,file.filename=PATH,…'],
  ] as const
).map(parseLine);

/** Descriptions of commands, in the order of their names. */
export function describeCommands(names: readonly string[]): CommandHelp[] {
  return names.toSorted().map(describeCommand);
}

const UNDESCRIBED: CommandLines = { summary: 'not described yet', operands: [''], options: [] };

/** The description of one. */
export function describeCommand(name: string): CommandHelp {
  const lines = Object.hasOwn(COMMANDS_DESCRIBED, name) ? COMMANDS_DESCRIBED[name] : undefined;
  const { summary, operands, options, notes = '' } = lines ?? UNDESCRIBED;
  return { name, summary, operands, options: options.map(parseLine), notes };
}

function parseLine([spec, text]: OptionLine): OptionHelp {
  const [, short, name = '', value] = /^(?:-(.) )?--([^=]+)(?:=(.+))?$/.exec(spec) ?? [];
  return { name, short, value, text };
}

/** The words that a value may be, where it is one of a few. */
export function choicesOf({ value }: OptionHelp): readonly string[] {
  if (value === 'FMT') return ['raw', 'qcow2', 'luks'];
  if (value === 'CACHE') {
    return ['none', 'writeback', 'writethrough', 'directsync', 'unsafe'];
  }
  return value?.includes('|') ? value.split('|') : [];
}

/** An option as it is typed: `-f, --format=FMT`. */
export function optionTerm({ short, name, value }: OptionHelp): string {
  const long = `--${name}${value === undefined ? '' : `=${value}`}`;
  return short === undefined ? `    ${long}` : `-${short}, ${long}`;
}
