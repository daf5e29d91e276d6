/** What a request tells when it is done: how much, where, and how fast. */
import { formatFixed } from '../../base/decimals.ts';
import { formatBytes } from '../../base/sizes.ts';
import { formatAmount, formatSpan } from './amount.ts';

/** A request that went well. */
export interface Transfer {
  readonly verb: 'read' | 'wrote' | 'discard';
  readonly guest: number;
  readonly bytes: number;
  readonly seconds: number;
}

/** Two lines for people, or one of numbers with commas for machines. */
export function reportText(
  { verb, guest, bytes, seconds }: Transfer,
  options: { readonly machine: boolean },
): string {
  const span = formatSpan(seconds, options);
  const [rate, requests] = [bytes / seconds, 1 / seconds];
  if (options.machine) {
    return `${bytes},1,${span},${formatFixed(rate, 3)},${formatFixed(requests, 3)}\n`;
  }
  const rates = `${formatAmount(rate)}/sec and ${formatFixed(requests, 4)} ops/sec`;
  return `${verb} ${bytes}/${bytes} bytes at offset ${formatBytes(guest)}
${formatAmount(bytes)}, 1 ops; ${span} (${rates})
`;
}
