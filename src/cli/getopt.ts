/**
 * Command-line options as getopt_long reads them: short ones joined (`-pq`, `-Oraw`), long ones
 * with `=` or a value of their own, abbreviated where that is unambiguous, operands in between.
 *
 * Messages name the argument as it was typed, as QEMU's tools do: `--bogus=3`, and `-Uf` where the
 * value of `f` is missing.
 */
import { UsageError } from './command.ts';
import type { OptionSpec, ParsedOptions } from './options.ts';

/** What is left of the command line, and what came out of it so far. */
interface Scan {
  readonly args: readonly string[];
  readonly specs: readonly OptionSpec[];
  next: number;
  readonly options: { name: string; value: string }[];
  readonly operands: string[];
}

/**
 * Splits a command line.
 * @throws UsageError for what the table does not have
 */
export function parseCommandLine(
  args: readonly string[],
  specs: readonly OptionSpec[],
): ParsedOptions {
  const scan: Scan = { args, specs, next: 0, options: [], operands: [] };
  while (scan.next < args.length) {
    const arg = args[scan.next++]!;
    if (arg === '--') {
      scan.operands.push(...args.slice(scan.next));
      break;
    }
    if (arg.startsWith('--')) takeLong(scan, arg);
    else if (arg.startsWith('-') && arg !== '-') takeShort(scan, arg);
    else scan.operands.push(arg);
  }
  return scan;
}

function takeLong(scan: Scan, arg: string): void {
  const equals = arg.indexOf('=');
  const typed = equals < 0 ? arg.slice(2) : arg.slice(2, equals);
  const spec = findLong(scan.specs, typed);
  // A value for an option that takes none is refused in the same words.
  if (!spec || (equals >= 0 && !spec.value)) throw unrecognized(arg);
  const value = equals < 0 ? takeValue(scan, spec, arg) : arg.slice(equals + 1);
  scan.options.push({ name: spec.name, value });
}

function findLong(specs: readonly OptionSpec[], typed: string): OptionSpec | undefined {
  const exact = specs.find(({ name }) => name === typed);
  if (exact) return exact;
  const matches = specs.filter(({ name }) => name.startsWith(typed));
  return matches.length === 1 ? matches[0] : undefined;
}

function takeShort(scan: Scan, arg: string): void {
  for (let at = 1; at < arg.length; at++) {
    const spec = scan.specs.find(({ short }) => short === arg[at]);
    if (!spec) throw unrecognized(arg);
    const rest = arg.slice(at + 1);
    if (spec.value) {
      const value = rest === '' ? takeValue(scan, spec, arg) : rest;
      scan.options.push({ name: spec.name, value });
      return;
    }
    scan.options.push({ name: spec.name, value: '' });
  }
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
