/** What the C library's strerror would say of a failure: the words that scripts look for. */
import { type ErrorCode, isQcow2Error } from '../../base/errors.ts';
import { errnoText } from '../../storage/node-error.ts';

/** What QEMU's block layer gives back where this library has a code. */
const TEXTS: Record<ErrorCode, string> = {
  NOT_QCOW2: 'Invalid argument',
  CORRUPT: 'Input/output error',
  UNSUPPORTED: 'Operation not supported',
  OUT_OF_RANGE: 'Input/output error',
  REFUSED: 'Operation not permitted',
  READ_ONLY: 'Operation not permitted',
  BUSY: 'Resource temporarily unavailable',
  NO_SPACE: 'No space left on device',
  WRONG_KEY: 'Operation not permitted',
  ABORTED: 'Operation canceled',
  IO: 'Input/output error',
};

/** A request whose failure has an errno of its own. */
export class Refusal extends Error {}

/** @throws whatever is neither the library's error nor a refusal */
export function errorText(cause: unknown): string {
  if (cause instanceof Refusal) return cause.message;
  if (!isQcow2Error(cause)) throw cause;
  const failed = cause.cause as { code?: unknown } | undefined;
  return typeof failed?.code === 'string' && !isQcow2Error(failed)
    ? errnoText(failed)
    : TEXTS[cause.code];
}
