/** What command-line options are, and the values they take. The splitting is `getopt.ts`. */
import type { Host } from './command.ts';

/** One option: its long name and, where it has one, its letter. */
export interface OptionSpec {
  readonly name: string;
  readonly short?: string;
  readonly value: boolean;
  /** qemu-img has no such long name: it cannot be abbreviated, nor stands it in others' way. */
  readonly own?: true;
  /**
   * Looks at a value as soon as it is met, so that what is wrong with it is told before anything
   * that stands behind it, as in qemu-img.
   * @throws UsageError
   */
  readonly check?: (value: string, earlier: readonly OptionGiven[], host: Host) => void;
}

/** One option as it was given; its value is empty where it has none. */
export interface OptionGiven {
  readonly name: string;
  readonly value: string;
}

/** What was given, in the order it was given. */
export interface ParsedOptions {
  readonly options: readonly OptionGiven[];
  readonly operands: readonly string[];
}

/** True when the option was given at all. */
export function given({ options }: ParsedOptions, name: string): boolean {
  return options.some((option) => option.name === name);
}

/** The option's value; the last one counts where it was given several times. */
export function valueGiven({ options }: ParsedOptions, name: string): string | undefined {
  return options.findLast((option) => option.name === name)?.value;
}

/** All values of an option, in the order they were given. */
export function valuesGiven({ options }: ParsedOptions, name: string): string[] {
  return options.filter((option) => option.name === name).map(({ value }) => value);
}

const SUFFIXES = 'bkmgtpe';
const HEXADECIMAL = /^\s*\+?(0x[0-9a-f]+)$/i;
const DECIMAL = /^\s*\+?(\d+)(\.\d*)?([bkmgtpe]?)$/i;
const WORD = 2n ** 64n;

/**
 * A size as QEMU's tools read it, with all its digits: decimal or hexadecimal, a fraction with a
 * suffix, one of b k M G T P E.
 * @returns bytes below 2^64, `range` for more, `invalid` for what is no size
 */
export function scanSize(text: string): bigint | 'invalid' | 'range' {
  const hexadecimal = HEXADECIMAL.exec(text)?.[1];
  if (hexadecimal !== undefined) return inRange(BigInt(hexadecimal));
  const match = DECIMAL.exec(text);
  if (!match) return 'invalid';
  const [, digits, fraction = '.', suffix] = match as unknown as [string, string, string, string];
  const factor = suffix === '' ? 1n : 1024n ** BigInt(SUFFIXES.indexOf(suffix.toLowerCase()));
  const rest = Number(`0${fraction}0`);
  // There is no half of a byte.
  if (rest !== 0 && factor === 1n) return 'invalid';
  return inRange(BigInt(digits) * factor + BigInt(Math.trunc(rest * Number(factor))));
}

function inRange(bytes: bigint): bigint | 'range' {
  return bytes < WORD ? bytes : 'range';
}

/** A whole number as C reads it, octal with a leading 0: undefined where it is none. */
export function parseInteger(text: string): number | undefined {
  const match = /^\s*([+-]?)(?:(0x[0-9a-f]+)|0([0-7]*)|([1-9]\d*))$/i.exec(text);
  if (!match) return undefined;
  const [, sign, hexadecimal, octal, decimal] = match;
  const value = hexadecimal ?? (octal === undefined ? decimal : `0o0${octal}`);
  return sign === '-' ? -Number(value) : Number(value);
}
