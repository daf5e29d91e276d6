/** Ways to go through the host's cache, as QEMU names them: all are accepted. */
import { UsageError } from './command.ts';

const MODES = ['none', 'off', 'directsync', 'writeback', 'unsafe', 'writethrough'];

/** True for a mode that QEMU knows. */
export function isCacheMode(mode: string): boolean {
  return MODES.includes(mode);
}

/** @throws UsageError for a mode that nobody knows */
export function checkCacheMode(mode: string | undefined, what: string): void {
  if (mode !== undefined && !isCacheMode(mode)) {
    throw new UsageError(`Invalid ${what} option: ${mode}`);
  }
}
