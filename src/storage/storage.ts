/**
 * The contract of storage: a place that bytes live, the one thing an image needs from its host.
 * Knows nothing of disks.
 *
 * Every call may answer at once or with a promise, because hosts do: a file in Node and an OPFS
 * handle answer at once, a Blob and an HTTP range do not. A caller on a hot path looks before it
 * awaits (`settled`), so that memory and files cost no promise.
 */
import type { Awaitable } from '../base/awaitable.ts';
import type { DebugEvent } from './debug-events.ts';

/** A range of storage read front to back: what a Blob or an HTTP body is fast at. */
export interface StorageCursor {
  /** Fills `into` with what comes next; fewer bytes than asked for only at the range's end. */
  read(into: Uint8Array): Awaitable<number>;
  /** Ends the read-ahead. The storage stays open. */
  close(): Awaitable<void>;
}

/** AES over sectors of 512 bytes, with the keys: what a worker needs to do the same. */
export interface SectorKeys {
  readonly mode: 'xts' | 'cbc' | 'ctr' | 'ecb';
  /** 16, 24 or 32 bytes; XTS has two of them, the second for the tweaks. */
  readonly key: Uint8Array;
  /** Bits of a sector's number that its initialisation vector has. */
  readonly vectorBits: 32 | 64;
  /** The key that vectors are encrypted with (ESSIV). */
  readonly vectorKey?: Uint8Array;
}

/** A file that a server has, as it was when it was first asked for. */
export interface HttpResource {
  readonly url: string;
  readonly size: number;
  /** What tells this version from the next, where the server says: a strong ETag or a date. */
  readonly version: string | undefined;
  /** Headers of each request. */
  readonly headers: Readonly<Record<string, string>>;
  readonly credentials: RequestCredentials;
}

/** What a worker needs to open the same storage: survives `postMessage`. */
export type StorageHandle =
  | { readonly kind: 'fd'; readonly fd: number; readonly name: string }
  | { readonly kind: 'blob'; readonly blob: Blob; readonly name: string }
  | { readonly kind: 'opfs'; readonly file: FileSystemFileHandle; readonly name: string }
  | { readonly kind: 'http'; readonly resource: HttpResource; readonly name: string }
  | {
      /** Encrypted sectors in another storage, from byte `start` of it on. */
      readonly kind: 'cipher';
      readonly inner: StorageHandle;
      readonly keys: SectorKeys;
      readonly start: number;
      readonly name: string;
    }
  | {
      /** Sectors in another storage that are encrypted by where they are in the guest. */
      readonly kind: 'guest-cipher';
      readonly inner: StorageHandle;
      readonly keys: SectorKeys;
      readonly name: string;
    };

/** A place that bytes live. Offsets and lengths are bytes; failures are Qcow2Error with code IO,
 * NO_SPACE or READ_ONLY. */
export interface Storage {
  /** For messages, and for resolving a relative backing file: a path, a URL or a label. */
  readonly name: string;
  readonly writable: boolean;
  /** What tells it from the file of that name, of which it is a part or a view. */
  readonly label?: string | undefined;
  /** Where in the file of that name it begins. Default 0. */
  readonly placedAt?: number;
  /** Bytes of the clusters that all of it lies in, where it is an image's disk. */
  readonly clusterBytes?: number | undefined;
  /** There are no bytes: what is read of it is of no use to anybody. */
  readonly holdsNothing?: boolean;
  /** Requests that overlap wait for each other, where they are not answered at once. */
  readonly keepsOrder?: boolean;
  /** A device, whose size is not ours to change: `truncate` only sees to it that there is room. */
  readonly isFixed?: boolean;
  /** Each read costs about a millisecond before its first byte: few and long ones are wanted. */
  readonly slowStart?: boolean;
  size(): Awaitable<number>;
  /**
   * Reads `into.length` bytes at `at`.
   * @returns how many there were: fewer than asked for only where the storage ends. What lies
   * past the end is left as it was in `into`.
   */
  read(at: number, into: Uint8Array): Awaitable<number>;
  /** Reads [from, to) front to back. */
  cursor(from: number, to: number): StorageCursor;
  /** Writes all of `from`, growing the storage when it must; nothing, where that is empty. */
  write(at: number, from: Uint8Array): Awaitable<void>;
  /** Makes the range read as zeros, as cheaply as this storage can, growing it when it must. */
  zero(at: number, length: number): Awaitable<void>;
  /**
   * Makes a range read as zeros without writing them, with room for it, growing the storage when it
   * must.
   * @returns false where the host cannot: what the range reads as is not known then
   */
  zeroUnwritten?(at: number, length: number): Awaitable<boolean>;
  /** Says that a range is not needed: its room may go. It reads as before or as zeros then. */
  discard?(at: number, length: number): Awaitable<void>;
  /** Makes sure that there is room for a range, growing the storage; what is there stays. */
  allocate?(at: number, length: number): Awaitable<void>;
  /**
   * The ranges within [from, to) that may hold something else than zeros, as [start, end), in
   * order; undefined where that is not known, or asking costs more than reading.
   * @param exact asks whatever it costs: what the host calls a hole is wanted, not speed
   */
  dataRanges?(
    from: number,
    to: number,
    exact?: boolean,
  ): Iterable<readonly [number, number]> | undefined;
  /** Cuts or grows the storage; what is new reads as zeros. */
  truncate(size: number): Awaitable<void>;
  /** Resolves when everything written before it would survive a power cut. */
  flush(): Awaitable<void>;
  close(): Awaitable<void>;
  /**
   * Has the host copy a range of other storage to `at`, without its bytes passing through here; it
   * may share them, where the file system can.
   * @returns how many bytes were copied: fewer than asked for where the host cannot
   */
  copyFrom?(source: Storage, from: number, at: number, length: number): Awaitable<number>;
  /** Bytes that the host has given the storage, where it knows: less than its size, with holes. */
  allocatedBytes?(): number;
  /**
   * Hears what a disk is about to do with it, so that tests can have that fail: `DebugStorage`.
   * Whoever gets a promise is to wait for it.
   */
  announce?(event: DebugEvent): Awaitable<void>;
  /**
   * The same bytes, large pieces of them by calls that the host's own threads carry out: they
   * answer with promises, and this storage is to stay open until all of them have. Undefined where
   * that is slower than threads that have calls of their own.
   */
  background?(): Storage | undefined;
  /** Whether those calls copy ranges, too (`copyFrom`), as far as is known. */
  readonly copiesInBackground?: boolean;
  /** Of such storage: it is only writes that answer later. Reads are done at once. */
  readonly readsAtOnce?: boolean;
  /** How a worker may open the same bytes; absent where only this thread can. */
  share?(): StorageHandle;
}

/** A cursor for storage that has no faster way than reading range by range. */
export function rangeCursor(storage: Storage, from: number, to: number): StorageCursor {
  let at = from;
  return {
    read(into) {
      const wanted = into.subarray(0, Math.min(into.length, to - at));
      const start = at;
      const advance = (got: number) => {
        at = start + got;
        return got;
      };
      const got = storage.read(at, wanted);
      return typeof got === 'number' ? advance(got) : got.then(advance);
    },
    close() {},
  };
}
