/**
 * Command-line options as getopt_long reads them: short ones joined (`-pq`, `-Oraw`), long ones
 * with `=` or a value of their own, abbreviated where that is unambiguous, operands in between.
 *
 * Messages name the argument as it was typed, as QEMU's tools do: `--bogus=3`, and `-Uf` where the
 * value of `f` is missing.
 */
import { UsageError } from './command.ts';
import type { OptionGiven, OptionSpec, ParsedOptions } from './options.ts';

/** What is left of the command line, and where what comes out of it goes. */
interface Scan {
  readonly args: readonly string[];
  readonly specs: readonly OptionSpec[];
  next: number;
  /** True: all that there is behind the option does not count. */
  readonly onOption: (option: OptionGiven) => boolean;
  readonly operands: string[];
  /** The command's name. */
  readonly command: string;
}

/**
 * Splits a command line.
 * @throws UsageError for what the table does not have
 */
export function parseCommandLine(
  args: readonly string[],
  specs: readonly OptionSpec[],
): ParsedOptions {
  const options: OptionGiven[] = [];
  const operands = scan('', args, specs, (option) => {
    options.push(option);
    return false;
  });
  return { options, operands };
}

/**
 * Takes some options out of a command line, in the order they were given.
 * @param take says whether it takes the option, or that nothing behind it counts
 * @returns a command line of what is left
 * @throws UsageError for what the table does not have
 */
export function takeOptions(
  command: string,
  args: readonly string[],
  specs: readonly OptionSpec[],
  take: (option: OptionGiven) => 'taken' | 'left' | 'end',
): string[] {
  const options: string[] = [];
  const operands = scan(command, args, specs, (option) => {
    const decision = take(option);
    if (decision === 'left') {
      const { name, value } = option;
      const hasValue = specs.some((spec) => spec.name === name && spec.value);
      options.push(hasValue ? `--${name}=${value}` : `--${name}`);
    }
    return decision === 'end';
  });
  const looksLikeOption = operands.some((operand) => /^-./.test(operand));
  return [...options, ...(looksLikeOption ? ['--'] : []), ...operands];
}

/**
 * Takes the options that stand before the first operand.
 * @param take says whether nothing behind the option counts
 * @returns what is behind them
 * @throws UsageError for what the table does not have
 */
export function takeLeadingOptions(
  program: string,
  args: readonly string[],
  specs: readonly OptionSpec[],
  take: (option: OptionGiven) => boolean,
): string[] {
  return scan(program, args, specs, take, true);
}

/** @returns the operands */
function scan(
  command: string,
  args: readonly string[],
  specs: readonly OptionSpec[],
  onOption: Scan['onOption'],
  leading = false,
): string[] {
  const scan: Scan = { args, specs, next: 0, onOption, operands: [], command };
  let ended = false;
  while (!ended && scan.next < args.length) {
    const arg = args[scan.next++]!;
    if (leading && (arg === '-' || !arg.startsWith('-'))) {
      return args.slice(scan.next - 1);
    }
    if (arg === '--') {
      scan.operands.push(...args.slice(scan.next));
      break;
    }
    if (arg.startsWith('--')) ended = takeLong(scan, arg);
    else if (arg.startsWith('-') && arg !== '-') ended = takeShort(scan, arg);
    else scan.operands.push(arg);
  }
  return scan.operands;
}

function takeLong(scan: Scan, arg: string): boolean {
  const equals = arg.indexOf('=');
  const typed = equals < 0 ? arg.slice(2) : arg.slice(2, equals);
  const spec = findLong(scan.specs, typed);
  // A value for an option that takes none is refused in the same words.
  if (!spec || (equals >= 0 && !spec.value)) throw unrecognized(arg);
  const value = equals < 0 ? takeValue(scan, spec, arg) : arg.slice(equals + 1);
  return scan.onOption({ name: spec.name, value });
}

function findLong(specs: readonly OptionSpec[], typed: string): OptionSpec | undefined {
  const exact = specs.find(({ name }) => name === typed);
  if (exact) return exact;
  const matches = specs.filter(({ name, own }) => !own && name.startsWith(typed));
  return matches.length === 1 ? matches[0] : undefined;
}

function takeShort(scan: Scan, arg: string): boolean {
  for (let at = 1; at < arg.length; at++) {
    const spec = scan.specs.find(({ short }) => short === arg[at]);
    const rest = arg.slice(at + 1);
    if (!spec) throw unrecognized(rest === '' ? arg : argumentBefore(scan));
    if (spec.value) {
      const value = rest === '' ? takeValue(scan, spec, arg) : rest;
      return scan.onOption({ name: spec.name, value });
    }
    if (scan.onOption({ name: spec.name, value: '' })) return true;
  }
  return false;
}

/**
 * What getopt has moved before the argument that it is in the middle of: it is that one which
 * QEMU's tools name.
 */
function argumentBefore({ args, next, operands, command }: Scan): string {
  return operands.at(-1) ?? args[next - 2] ?? command;
}

function takeValue(scan: Scan, spec: OptionSpec, arg: string): string {
  if (!spec.value) return '';
  const value = scan.args[scan.next++];
  if (value === undefined) throw new UsageError(`missing argument for option '${arg}'`, true);
  return value;
}

function unrecognized(arg: string): UsageError {
  return new UsageError(`unrecognized option '${arg}'`, true);
}
