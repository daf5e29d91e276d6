/**
 * Command-line options as getopt_long reads them: short ones joined (`-pq`, `-Oraw`), long ones
 * with `=` or a value of its own, abbreviated where that is unambiguous, operands in between.
 * The splitting is Node's; the table, the abbreviations and the messages are here.
 */
import { parseArgs } from 'node:util';
import { UsageError } from './command.ts';

/** One option: its long name and, where it has one, its letter. */
export interface OptionSpec {
  readonly name: string;
  readonly short?: string;
  readonly value: boolean;
}

/** What was given, in the order it was given. */
export interface ParsedOptions {
  readonly options: readonly { readonly name: string; readonly value: string }[];
  readonly operands: readonly string[];
}

/** Completes abbreviated long options; `--` ends the options. */
function completeNames(args: readonly string[], specs: readonly OptionSpec[]): string[] {
  const end = args.indexOf('--');
  return args.map((arg, index) => {
    if (!arg.startsWith('--') || arg === '--' || (end >= 0 && index > end)) return arg;
    const equals = arg.indexOf('=');
    const given = equals < 0 ? arg.slice(2) : arg.slice(2, equals);
    if (specs.some(({ name }) => name === given)) return arg;
    const matches = specs.filter(({ name }) => name.startsWith(given));
    if (matches.length !== 1) return arg;
    return `--${matches[0]?.name}${equals < 0 ? '' : arg.slice(equals)}`;
  });
}

/** @throws UsageError for what the table does not have */
export function parseOptions(args: readonly string[], specs: readonly OptionSpec[]): ParsedOptions {
  const { tokens } = parseArgs({
    args: completeNames(args, specs),
    strict: false,
    allowPositionals: true,
    tokens: true,
    options: Object.fromEntries(
      specs.map(({ name, short, value }) => [
        name,
        { type: value ? 'string' : 'boolean', ...(short ? { short } : {}) } as const,
      ]),
    ),
  });
  const options: { name: string; value: string }[] = [];
  const operands: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') operands.push(token.value);
    if (token.kind !== 'option') continue;
    const spec = specs.find(({ name }) => name === token.name);
    if (!spec) throw new UsageError(`unrecognized option '${token.rawName}'`, true);
    if (spec.value && token.value === undefined) {
      throw new UsageError(`missing argument for option '${token.rawName}'`, true);
    }
    options.push({ name: token.name, value: token.value ?? '' });
  }
  return { options, operands };
}

/** True when the option was given at all. */
export function given({ options }: ParsedOptions, name: string): boolean {
  return options.some((option) => option.name === name);
}

/** The option's value; the last one counts where it was given several times. */
export function valueOf({ options }: ParsedOptions, name: string): string | undefined {
  return options.findLast((option) => option.name === name)?.value;
}

/** Multipliers of size suffixes. */
const SUFFIXES = 'bkmgtpe';

/**
 * A size as QEMU's tools read it: decimal or hexadecimal digits, a fraction with a suffix, one of
 * b k M G T P E.
 * @returns bytes, or undefined where the text is no size, or none that fits
 */
export function parseSize(text: string): number | undefined {
  const match = /^(0x[0-9a-f]+|\d+(?:\.\d*)?|\.\d+)([bkmgtpe]?)$/i.exec(text.trim());
  if (!match) return undefined;
  const digits = match[1] as string;
  const suffix = (match[2] as string).toLowerCase();
  const factor = suffix === '' ? 1 : 1024 ** SUFFIXES.indexOf(suffix);
  if (digits.startsWith('0x') || digits.startsWith('0X')) {
    return suffix === '' ? checkedSize(BigInt(digits)) : undefined;
  }
  if (!digits.includes('.')) return checkedSize(BigInt(digits) * BigInt(factor));
  // A fraction of a byte makes no sense.
  if (factor === 1) return undefined;
  return checkedSize(BigInt(Math.round(Number(digits) * factor)));
}

function checkedSize(bytes: bigint): number | undefined {
  return bytes < 2n ** 63n ? Number(bytes) : undefined;
}
