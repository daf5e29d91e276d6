/** How many iterations of PBKDF2 this machine does: what a new key slot is made as slow as. */
import type { HashName } from '../format/luks-algorithms.ts';
import { HASH_BYTES } from '../format/luks-algorithms.ts';
import type { Platform } from './platform.ts';

/** Milliseconds that a measurement takes at least; shorter ones say little. */
const MEASURE_MS = 40;
/** Iterations of the first try. */
const FIRST = 2048;
/** Iterations of one try at most: a bound, whatever the clock says. */
const MOST = 2 ** 26;

/**
 * Iterations a second of one derivation.
 * @param request.length bytes of the derived key: each piece of a hash's length costs as much again
 * @param request.budgetMs milliseconds that the result will be used for: little of them are spent
 */
export async function calibrate(
  platform: Platform,
  request: { readonly hash: HashName; readonly length: number; readonly budgetMs: number },
): Promise<number> {
  const { hash, length, budgetMs } = request;
  const passphrase = new Uint8Array(HASH_BYTES[hash]);
  const salt = new Uint8Array(32);
  const enough = Math.min(MEASURE_MS, Math.max(1, budgetMs / 4));
  for (let iterations = FIRST; ; iterations *= 2) {
    const start = performance.now();
    await platform.pbkdf2({ hash, passphrase, salt, iterations, length });
    const took = performance.now() - start;
    if (took >= enough || iterations >= MOST) return (iterations / took) * 1000;
  }
}
