/**
 * The C library's file calls that Node has not: locks that belong to an open file, holes,
 * preallocation, copies within the kernel. They are reached through koffi, an optional package
 * that is loaded when the first of them is needed, never before: loading costs some 2 ms.
 *
 * The constants and the layout of `struct flock` below are those of Linux on 64-bit little-endian
 * machines; where there is no koffi (`native-koffi.ts`) callers do without.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { endianness } from 'node:os';
import { getSystemErrorName } from 'node:util';
import { HIGH } from '../base/bits.ts';
import { type Koffi, loadKoffi } from './native-koffi.ts';

/** Constants of Linux's <fcntl.h> and <linux/falloc.h>. */
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const FALLOC_FL_ZERO_RANGE = 16;

/** Calls that threads of Node's pool are given at a time: koffi has room for 64. */
const LATER_MAX = 32;

/**
 * `struct flock`, 64 bits wide:
 *
 *   0 i16 type · 2 i16 whence (0: from the file's start) · 8 i64 start · 16 i64 length · 24 i32 pid
 */
const FLOCK_BYTES = 32;

/** An error as Node's own: `code` names what the C library said. */
export interface SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
}

/**
 * Calls of the C library. Offsets and lengths are bytes, exact up to 2^62 where they are multiples
 * of 512. What fails throws a `SystemError`.
 */
export interface Libc {
  /** The first byte at or after `at` that there is data for; undefined after the last one. */
  seekData(fd: number, at: number): number | undefined;
  /** The first byte at or after `at` in a hole; the file's end counts as one. */
  seekHole(fd: number, at: number): number;
  /** Gives a range back to the file system: it reads as zeros, the file's size stays. */
  punchHole(fd: number, at: number, length: number): void;
  /** Makes a range read as zeros and keeps room for it. */
  zeroRange(fd: number, at: number, length: number, options: { readonly keepSize: boolean }): void;
  /** Reserves room for a range, leaving what is in it as it is. */
  allocate(fd: number, at: number, length: number, options: { readonly keepSize: boolean }): void;
  /** Cuts a file off or lets it grow, beyond the 2^53 bytes that Node's own call is for, too. */
  truncate(fd: number, size: number): void;
  /** Copies within the kernel. @returns bytes copied: 0 where the source ends */
  copyRange(from: number, fromAt: number, to: number, toAt: number, length: number): number;
  /**
   * The same in a thread of Node's pool; calls go in order where that has one thread.
   * @returns bytes copied, which may be fewer; −1 where it failed: the call above says why
   */
  copyRangeLater(
    from: number,
    fromAt: number,
    to: number,
    toAt: number,
    length: number,
  ): Promise<number>;
  /** Locks one byte, shared with other readers of it; the lock goes with the open file. */
  lockByte(fd: number, at: number): void;
  unlockByte(fd: number, at: number): void;
  /** Whether a writer's lock on the byte would have to wait for another open file's. */
  isByteLocked(fd: number, at: number): boolean;
  /** Ends the process, and has nobody told. */
  exit(code: number): void;
}

let loaded: { readonly libc: Libc | undefined } | undefined;

/** The calls, or undefined where there are none. Loads what it takes the first time. */
export function libc(): Libc | undefined {
  loaded ??= { libc: load() };
  return loaded.libc;
}

function load(): Libc | undefined {
  const koffi = loadKoffi({ createRequire, existsSync, endianness });
  try {
    return koffi && bind(koffi);
  } catch {
    // A C library without one of the calls.
    return undefined;
  }
}

/** Whether the calls are here already and cost nothing more. */
export function isLibcLoaded(): boolean {
  return loaded?.libc !== undefined;
}

function bind(koffi: Koffi): Libc {
  const library = koffi.load(null);
  const lseek = library.func('int64_t lseek(int fd, int64_t at, int whence)');
  const fallocate = library.func('int fallocate(int fd, int mode, int64_t at, int64_t length)');
  const ftruncate = library.func('int ftruncate(int fd, int64_t size)');
  const fcntl = library.func('int fcntl(int fd, int command, void *lock)');
  const copy = library.func(
    'int64_t copy_file_range(int from, void *fromAt, int to, void *toAt, ' +
      'size_t length, unsigned int flags)',
  );
  // Two 64-bit offsets, by halves: copies come by the ten thousand.
  const places = new Uint32Array(4);
  const [copyFrom, copyTo] = [places.subarray(0, 2), places.subarray(2)];

  /** Calls for threads of the pool, oldest first, and how many these have in hand. */
  const later: (() => void)[] = [];
  let inHand = 0;
  const startLater = () => {
    for (; inHand < LATER_MAX && later.length > 0; inHand++) later.shift()?.();
  };

  /** Calls again what a signal interrupted; gives what is not −1. */
  const attempt = (syscall: string, call: () => number | bigint): number => {
    for (;;) {
      const result = Number(call());
      if (result !== -1) return result;
      const errno = koffi.errno();
      const code = getSystemErrorName(-errno);
      if (code !== 'EINTR') throw systemError(syscall, code, errno);
    }
  };
  const allocate = (fd: number, mode: number, at: number, length: number) => {
    attempt('fallocate', () => fallocate(fd, mode, at, length));
  };
  const lock = new DataView(new ArrayBuffer(FLOCK_BYTES));
  const lockBytes = new Uint8Array(lock.buffer);
  const withLock = (fd: number, command: number, type: number, at: number) => {
    lockBytes.fill(0);
    lock.setInt16(0, type, true);
    lock.setBigInt64(8, BigInt(at), true);
    lock.setBigInt64(16, 1n, true);
    attempt('fcntl', () => fcntl(fd, command, lockBytes));
  };

  return {
    seekData(fd, at) {
      try {
        return attempt('lseek', () => lseek(fd, at, SEEK_DATA));
      } catch (cause) {
        if ((cause as SystemError).code === 'ENXIO') return undefined;
        throw cause;
      }
    },
    seekHole: (fd, at) => attempt('lseek', () => lseek(fd, at, SEEK_HOLE)),
    punchHole: (fd, at, length) =>
      allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length),
    zeroRange: (fd, at, length, { keepSize }) =>
      allocate(fd, FALLOC_FL_ZERO_RANGE | (keepSize ? FALLOC_FL_KEEP_SIZE : 0), at, length),
    allocate: (fd, at, length, { keepSize }) =>
      allocate(fd, keepSize ? FALLOC_FL_KEEP_SIZE : 0, at, length),
    truncate(fd, size) {
      attempt('ftruncate', () => ftruncate(fd, BigInt(size)));
    },
    copyRange(from, fromAt, to, toAt, length) {
      return attempt('copy_file_range', () => {
        places[0] = fromAt % HIGH;
        places[1] = Math.floor(fromAt / HIGH);
        places[2] = toAt % HIGH;
        places[3] = Math.floor(toAt / HIGH);
        return copy(from, copyFrom, to, copyTo, length, 0);
      });
    },
    copyRangeLater(from, fromAt, to, toAt, length) {
      return new Promise((resolve) => {
        // Not on V8's heap, where what is small moves about.
        const at = new BigInt64Array(new ArrayBuffer(16));
        at[0] = BigInt(fromAt);
        at[1] = BigInt(toAt);
        const done = (cause: Error | null, bytes: number | bigint) => {
          inHand--;
          startLater();
          // Named here, they are kept until now.
          resolve(cause || at.length === 0 ? -1 : Number(bytes));
        };
        later.push(() => copy.async(from, at, to, at.subarray(1), length, 0, done));
        startLater();
      });
    },
    lockByte: (fd, at) => withLock(fd, F_OFD_SETLK, F_RDLCK, at),
    unlockByte: (fd, at) => withLock(fd, F_OFD_SETLK, F_UNLCK, at),
    isByteLocked(fd, at) {
      withLock(fd, F_OFD_GETLK, F_WRLCK, at);
      return lock.getInt16(0, true) !== F_UNLCK;
    },
    exit(code) {
      library.func('void _exit(int code)')(code);
    },
  };
}

function systemError(syscall: string, code: string, errno: number): SystemError {
  return Object.assign(new Error(`${code}: ${syscall}`), { code, errno: -errno, syscall });
}
