/** `-r`: how fast a command may go. */
import { sizeArgument } from './size-argument.ts';

/**
 * @returns bytes a second, at most
 * @throws UsageError for what is no size
 */
export function parseRate(text: string | undefined): number | undefined {
  return text === undefined ? undefined : sizeArgument('rate limit', text);
}
