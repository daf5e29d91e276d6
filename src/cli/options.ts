/** What command-line options are, and the values they take. The splitting is `getopt.ts`. */
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

/** True when the option was given at all. */
export function given({ options }: ParsedOptions, name: string): boolean {
  return options.some((option) => option.name === name);
}

/** The option's value; the last one counts where it was given several times. */
export function valueGiven({ options }: ParsedOptions, name: string): string | undefined {
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
