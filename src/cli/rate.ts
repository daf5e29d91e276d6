/** `-r`: how fast a command may go. */
import { UsageError } from './command.ts';
import { parseSize } from './options.ts';

/**
 * @returns bytes a second, at most
 * @throws UsageError for what is no size
 */
export function parseRate(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const bytes = parseSize(text);
  if (bytes === undefined) {
    throw new UsageError(
      'Invalid rate limit specified. You may use k, M, G, T, P or E suffixes for\n' +
        'kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.',
    );
  }
  return bytes;
}
