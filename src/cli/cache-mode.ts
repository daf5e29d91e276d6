/**
 * Ways to go through the host's cache, as QEMU names them. All go through it here; but where QEMU
 * could not go past it, neither can we.
 */
import { type Host, UsageError } from './command.ts';
import { type Settings, switchOf } from './settings.ts';

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

const PAST_CACHE: readonly (string | undefined)[] = ['none', 'off', 'directsync'];

/** The host as one that opens files in a cache mode. */
export function hostInMode(host: Host, mode: string | undefined): Host {
  if (!PAST_CACHE.includes(mode)) return host;
  const openFile: Host['openFile'] = (path, options) =>
    host.openFile(path, { ...options, direct: options?.direct ?? true });
  return Object.assign(Object.create(host), { openFile });
}

/** The host as one that opens the files of a node with these settings. */
export function hostWithSettings(host: Host, settings: Settings): Host {
  return hostInMode(host, switchOf(settings, 'cache.direct') ? 'none' : undefined);
}
