/** What the arguments of reading and writing commands have in common. */
import { formatBytes } from '../../base/sizes.ts';
import type { Host } from '../command.ts';
import type { FoundOptions } from './getopt.ts';
import { CommandFailure, type IoCommand, misuse } from './io-command.ts';
import { parseBytes, REQUEST_BYTES_MAX } from './number.ts';
import type { Session } from './session.ts';

/**
 * Goes through a command's options in the order they were given: whatever is wrong first is told.
 * @throws CommandFailure where an option is wrong
 */
export function optionsOf(
  command: IoCommand,
  name: string,
  { options, operands, problem }: FoundOptions,
  { host, take }: { host: Host; take?: (letter: string, value: string) => void },
): { given: ReadonlySet<string>; operands: readonly string[] } {
  for (const option of options) take?.(option.name, option.value);
  if (problem !== undefined) {
    host.note(`${name}: ${problem}\n`);
    throw misuse(command);
  }
  return { given: new Set(options.map((option) => option.name)), operands };
}

/** The lengths of a vectored request's buffers, added up. */
export function parseLengths(session: Session, texts: readonly string[]): number {
  let sum = 0;
  for (const text of texts) {
    const length = parseBytes(session, text);
    if (length > REQUEST_BYTES_MAX) {
      throw new CommandFailure(`Argument '${text}' exceeds maximum size ${REQUEST_BYTES_MAX}`);
    }
    if (sum > REQUEST_BYTES_MAX - length) {
      const what = 'The total number of bytes exceed the maximum size';
      throw new CommandFailure(`${what} ${REQUEST_BYTES_MAX}`);
    }
    sum += length;
  }
  return sum;
}

/** @throws CommandFailure where a range does not consist of sectors */
export function needSectors(guest: number, count: number): void {
  for (const [value, what] of [
    [guest, 'offset'],
    [count, 'count'],
  ] as const) {
    if (value % 512 === 0) continue;
    throw new CommandFailure(`${formatBytes(value)} is not a sector-aligned value for '${what}'`);
  }
}

/** Starts a watch: it gives the seconds since then. */
export function stopwatch(): () => number {
  const start = performance.now();
  // A rate needs a time: none is so short that the clock does not see it, or so it is told.
  return () => Math.max(performance.now() - start, 0.001) / 1000;
}
