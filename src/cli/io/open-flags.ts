/** Options that say how a disk is opened: the tool's own, and those of `open`. */
import type { Settings } from '../settings.ts';
import { CommandFailure } from './io-command.ts';

/** Cache modes by the names that people give them. */
export const CACHE_MODES = ['none', 'off', 'directsync', 'writeback', 'unsafe', 'writethrough'];
/** Names of what becomes of discards. */
export const DISCARD_MODES = ['ignore', 'off', 'unmap', 'on'];
/** Ways to do input and output. All are the same here. */
export const AIO_MODES = ['threads', 'native', 'io_uring'];

/** How a disk is opened. */
export interface OpenFlags {
  readonly format: string | undefined;
  readonly readOnly: boolean;
  /** Changes go to memory, and are gone with it. */
  readonly snapshot: boolean;
  /** One of `CACHE_MODES`: by `writethrough` and `directsync` each write is on stable storage. */
  readonly cache: string;
  /** False: discards do nothing. */
  readonly discard: boolean;
  readonly copyOnRead: boolean;
  /** Writes are compressed, in whole clusters. */
  readonly compress: boolean;
  readonly forceShare: boolean;
  readonly nativeAio: boolean;
  /** Writes of zeros alone become requests to zero; `unmap`: which may give up the space. */
  readonly detectZeroes: 'off' | 'on' | 'unmap';
  /** What else was said of the disk: see `DiskPlace`. */
  readonly settings?: Settings | undefined;
}

/** What is assumed where the command line says nothing. */
export const DEFAULT_FLAGS: OpenFlags = {
  format: undefined,
  readOnly: false,
  snapshot: false,
  cache: 'writethrough',
  discard: true,
  copyOnRead: false,
  compress: false,
  forceShare: false,
  nativeAio: false,
  detectZeroes: 'off',
};

/** Those of their letters that the tool and `open` have in common. */
export const FLAG_LETTERS = 'rsCnkUt:d:i:';

/**
 * Flags with one option applied; letters that are no flag change nothing.
 * @throws CommandFailure where the option's value is not one of those that there are
 */
export function withFlag(flags: OpenFlags, letter: string, value: string): OpenFlags {
  switch (letter) {
    case 'r':
      return { ...flags, readOnly: true };
    case 's':
      return { ...flags, snapshot: true };
    case 'C':
      return { ...flags, copyOnRead: true };
    case 'U':
      return { ...flags, forceShare: true };
    case 'n':
      return { ...flags, cache: 'none' };
    case 'k':
      return { ...flags, nativeAio: true };
    case 't':
      return { ...flags, cache: oneOf(CACHE_MODES, value, 'cache') };
    case 'd':
      return { ...flags, discard: /^(unmap|on)$/.test(oneOf(DISCARD_MODES, value, 'discard')) };
    case 'i':
      return { ...flags, nativeAio: oneOf(AIO_MODES, value, 'aio') === 'native' };
    default:
      return flags;
  }
}

/** Whether a write is done only when it would survive a power cut. */
export function writesThrough(cache: string): boolean {
  return cache === 'writethrough' || cache === 'directsync';
}

/** The mode that keeps what `cache` says of writes, with the host's cache in the way or not. */
export function withDirect(cache: string, direct: boolean): string {
  if (writesThrough(cache)) return direct ? 'directsync' : 'writethrough';
  return direct ? 'none' : 'writeback';
}

/** A cache mode by its name, for `reopen`, too. */
export function oneOf(names: readonly string[], value: string, what: string): string {
  if (names.includes(value)) return value;
  throw new CommandFailure(`Invalid ${what} option: ${value}`, 'program');
}
