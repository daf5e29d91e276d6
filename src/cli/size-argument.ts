/** Sizes and offsets on the command line, with the messages of QEMU's tools. */
import { UsageError } from './command.ts';
import { scanSize } from './options.ts';

const INT64_MAX = 2n ** 63n - 1n;
const SAFE_END = 2n ** 53n;
const SECTOR = 512n;

/** What a size may be. */
interface SizeRange {
  readonly min?: bigint;
  readonly max?: bigint;
}

/**
 * @param what the name of it in messages
 * @param range the smallest and largest that will do
 * @returns above 2^53, where numbers have whole sectors only, the end of the sector
 * @throws UsageError for what is no size, or out of range
 */
export function sizeArgument(what: string, text: string, range: SizeRange = {}): number {
  const bytes = exactSize(what, text, range);
  return bytes < SAFE_END ? Number(bytes) : Number(((bytes + SECTOR - 1n) / SECTOR) * SECTOR);
}

/** The same to the byte, however large. @throws as `sizeArgument` */
export function exactSize(what: string, text: string, range: SizeRange = {}): bigint {
  const { min = 0n, max = INT64_MAX } = range;
  const bytes = scanSize(text);
  if (bytes === 'invalid') {
    throw notASize(what);
  }
  if (bytes === 'range' || bytes < min || bytes > max) {
    throw new UsageError(`Invalid ${what} specified. Must be between ${min} and ${max}.`);
  }
  return bytes;
}

/** What is told of a text that is no size. */
export function notASize(what: string): UsageError {
  const message = `Invalid ${what} specified. You may use k, M, G, T, P or E suffixes for`;
  const more = 'kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.';
  return new UsageError(message, false, 1, [more]);
}
