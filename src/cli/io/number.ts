/** Numbers in the arguments of commands: sizes with a suffix, and bytes of a pattern. */
import { CommandFailure } from './io-command.ts';
import type { Session } from './session.ts';

/** The most bytes of one request: what QEMU's block layer takes. */
export const REQUEST_BYTES_MAX = 2147483136;

const SUFFIXES = 'bkmgtpe';
const HEXADECIMAL = /^\s*\+?(0x[0-9a-f]+)([kmgtp]?)$/i;
const DECIMAL = /^\s*\+?(\d+)(\.\d*)?([bkmgtpe]?)$/i;

/** @throws CommandFailure where the text is no size, or 2^63 and more */
export function parseBytes(session: Session, text: string): number {
  const bytes = scanHexadecimal(session, text) ?? scanDecimal(text);
  if (bytes === undefined) {
    const why = 'non-numeric argument, or extraneous/unrecognized suffix';
    throw new CommandFailure(`Parsing error: ${why} -- ${text}`);
  }
  if (bytes >= 2n ** 63n) throw new CommandFailure(`Parsing error: argument too large -- ${text}`);
  return Number(bytes);
}

function scanHexadecimal({ host }: Session, text: string): bigint | undefined {
  const match = HEXADECIMAL.exec(text);
  if (!match) return undefined;
  const [, digits, suffix] = match as unknown as [string, string, string];
  if (suffix !== '') {
    const what = 'Using a multiplier suffix on hex numbers is deprecated';
    host.error(`warning: ${what}: ${text}`);
  }
  return BigInt(digits) * factorOf(suffix);
}

function scanDecimal(text: string): bigint | undefined {
  const match = DECIMAL.exec(text);
  if (!match) return undefined;
  const [, digits, fraction = '.', suffix] = match as unknown as [string, string, string, string];
  const factor = factorOf(suffix);
  const rest = Number(`0${fraction}0`);
  // There is no half of a byte.
  if (rest !== 0 && factor === 1n) return undefined;
  return BigInt(digits) * factor + BigInt(Math.round(rest * Number(factor)));
}

function factorOf(suffix: string): bigint {
  return suffix === '' ? 1n : 1024n ** BigInt(SUFFIXES.indexOf(suffix.toLowerCase()));
}
