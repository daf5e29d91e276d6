/** What is said of a conversion that failed. Loaded where one has. */
import { isQcow2Error, Qcow2Error } from '../base/errors.ts';
import { isUnmapped } from '../convert/collect.ts';
import { unwrittenFrom } from '../convert/unwritten.ts';
import { isTold } from '../image/qcow2/corruption.ts';
import type { ConvertRequest } from './convert-request.ts';
import { isStream } from './convert-target.ts';
import { errnoOf } from './errno.ts';

/** A failure in the words of a person who waits for a copy. */
export function explainFailure(request: ConvertRequest, cause: unknown): unknown {
  if (!isQcow2Error(cause) || cause.code === 'ABORTED') return cause;
  const { code, guest, message } = cause;
  const unwritten = isStream(request) ? undefined : unwrittenFrom(cause);
  if (unwritten !== undefined) {
    const what = `error while writing at byte ${unwritten}: ${errnoOf(cause).text}`;
    return new Qcow2Error(code, what, undefined, cause);
  }
  const where = guest === undefined ? 'the source' : `at byte ${guest}`;
  const isNotSaid = isTold(cause) || (code === 'IO' && isUnmapped(cause));
  if (guest !== undefined && isNotSaid) {
    const what = `error while reading block status at offset ${guest}: ${errnoOf(cause).text}`;
    return new Qcow2Error(code, what);
  }
  if (code === 'CORRUPT') {
    const place = cause.at === undefined ? '' : ` (at offset 0x${cause.at.toString(16)})`;
    return new Qcow2Error(code, `error while reading ${where}: ${message}${place}`);
  }
  if (code === 'UNSUPPORTED' && guest !== undefined) {
    return new Qcow2Error(code, `error while writing ${where}: Operation not supported`);
  }
  if (guest !== undefined) return new Qcow2Error(code, `error while reading ${where}: ${message}`);
  return cause;
}
