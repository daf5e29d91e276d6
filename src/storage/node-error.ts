/** Errors of Node's file calls, in the words of the C library. */
import { Qcow2Error } from '../base/errors.ts';

/** Text of the errors that people meet, as the C library says it. */
const ERRNO_TEXT: Record<string, string> = {
  ENOENT: 'No such file or directory',
  EACCES: 'Permission denied',
  EPERM: 'Operation not permitted',
  EISDIR: 'Is a directory',
  ENOTDIR: 'Not a directory',
  ELOOP: 'Too many levels of symbolic links',
  ENAMETOOLONG: 'File name too long',
  EROFS: 'Read-only file system',
  ENOSPC: 'No space left on device',
  EDQUOT: 'Disk quota exceeded',
  EFBIG: 'File too large',
  EIO: 'Input/output error',
  EINVAL: 'Invalid argument',
  EMFILE: 'Too many open files',
  ENFILE: 'Too many open files in system',
  ENOMEDIUM: 'No medium found',
  ENODEV: 'No such device',
  ENXIO: 'No such device or address',
  ETXTBSY: 'Text file busy',
  EBUSY: 'Device or resource busy',
  EPIPE: 'Broken pipe',
  ESPIPE: 'Illegal seek',
};

/** What the C library's strerror says of a Node error; its own message where that is not known. */
export function errnoText(cause: unknown): string {
  const code = (cause as { code?: unknown } | null)?.code;
  if (typeof code === 'string' && code in ERRNO_TEXT) return ERRNO_TEXT[code] as string;
  return cause instanceof Error ? cause.message : String(cause);
}

/** A Node error as the library's, with the C library's text. */
export function ioError(cause: unknown, what: string, at?: number): Qcow2Error {
  const code = (cause as { code?: unknown } | null)?.code;
  const full = code === 'ENOSPC' || code === 'EDQUOT';
  return new Qcow2Error(full ? 'NO_SPACE' : 'IO', `${what}: ${errnoText(cause)}`, at, cause);
}

/** What the C library would say of bytes that Node's calls cannot reach. */
export function beyondNode(syscall: string): Error {
  return Object.assign(new Error(`EFBIG: ${syscall}`), { code: 'EFBIG', errno: -27, syscall });
}

/** Node takes an offset of 2^53 or more for none at all, and writes where the last write ended. */
export function needReachable(syscall: string, end: number): void {
  if (end > Number.MAX_SAFE_INTEGER) throw beyondNode(syscall);
}
