/** The number and words of the C library for a failure, where QEMU's tools print them. */
import { type ErrorCode, isQcow2Error } from '../base/errors.ts';

/** An errno as Linux has it. */
export interface Errno {
  readonly number: number;
  readonly text: string;
}

const ERRNOS: Readonly<Record<string, Errno>> = {
  EPERM: { number: 1, text: 'Operation not permitted' },
  ENOENT: { number: 2, text: 'No such file or directory' },
  EIO: { number: 5, text: 'Input/output error' },
  EAGAIN: { number: 11, text: 'Resource temporarily unavailable' },
  EACCES: { number: 13, text: 'Permission denied' },
  EINVAL: { number: 22, text: 'Invalid argument' },
  EFBIG: { number: 27, text: 'File too large' },
  ENOSPC: { number: 28, text: 'No space left on device' },
  EROFS: { number: 30, text: 'Read-only file system' },
  ENOTSUP: { number: 95, text: 'Operation not supported' },
  ENOMEDIUM: { number: 123, text: 'No medium found' },
  EDQUOT: { number: 122, text: 'Disk quota exceeded' },
  ECANCELED: { number: 125, text: 'Operation canceled' },
};

/** What QEMU's block layer would give back where this library has a code. */
const CODES: Record<ErrorCode, string> = {
  NOT_QCOW2: 'EINVAL',
  CORRUPT: 'EIO',
  UNSUPPORTED: 'ENOTSUP',
  OUT_OF_RANGE: 'EINVAL',
  REFUSED: 'EPERM',
  READ_ONLY: 'EPERM',
  BUSY: 'EAGAIN',
  NO_SPACE: 'ENOSPC',
  WRONG_KEY: 'EPERM',
  ABORTED: 'ECANCELED',
  IO: 'EIO',
};

/** @param cause an error of this library; what the host said counts first */
export function errnoOf(cause: unknown): Errno {
  if (!isQcow2Error(cause)) throw cause;
  const { code } = (cause.cause ?? {}) as { code?: unknown };
  const own = typeof code === 'string' ? ERRNOS[code] : undefined;
  return own ?? (ERRNOS[CODES[cause.code]] as Errno);
}
