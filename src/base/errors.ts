/**
 * The one error class of the library. Whatever else is thrown is our bug.
 */

/** Why an operation failed. Each code is one decision for the caller; messages are for people. */
export type ErrorCode =
  /** The bytes are not a qcow2 image at all. */
  | 'NOT_QCOW2'
  /** The image breaks the format: damaged, hostile, or cut short. */
  | 'CORRUPT'
  /** The format allows it, this reader does not know it: a feature bit, a version, encryption. */
  | 'UNSUPPORTED'
  /** A request that reaches past the end of what there is, or an option outside its limits. */
  | 'OUT_OF_RANGE'
  /** A name found inside an image that the caller's gate does not open. */
  | 'REFUSED'
  | 'READ_ONLY'
  | 'BUSY'
  | 'NO_SPACE'
  | 'WRONG_KEY'
  /** The caller's signal ended the operation. */
  | 'ABORTED'
  /** The host failed: a read, write or open that the operating system refused. `cause` has it. */
  | 'IO';

const BRAND = Symbol.for('qcow2.error');

/** An error of this library: a code to act on, a message to read, the file offset where known. */
export class Qcow2Error extends Error {
  override readonly name = 'Qcow2Error';
  readonly [BRAND] = true;

  /**
   * @param at byte offset in the image file, where one is known
   * @param guest offset of the disk, where a conversion failed to read it
   */
  constructor(
    readonly code: ErrorCode,
    message: string,
    readonly at?: number,
    cause?: unknown,
    readonly guest?: number,
  ) {
    super(message, cause === undefined ? undefined : { cause });
  }
}

/** Works across two loaded copies of the library, where `instanceof` does not. */
export function isQcow2Error(err: unknown, ...codes: ErrorCode[]): err is Qcow2Error {
  if (typeof err !== 'object' || err === null || !(BRAND in err)) return false;
  return codes.length === 0 || codes.includes((err as Qcow2Error).code);
}

/** Notes in a failure which part of the disk was being read, where that is not known yet. */
export function atGuest(cause: unknown, guest: number): unknown {
  if (isQcow2Error(cause)) (cause as { guest?: number | undefined }).guest ??= guest;
  return cause;
}

/** Our own mistakes, not the input's. Stays on in release. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`internal error: ${message}`);
}
