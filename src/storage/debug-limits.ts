/**
 * Limits that a storage may have for its requests, as QEMU's blkdebug driver pretends to have them,
 * and how requests are cut to meet them. All numbers are bytes; 0 is no limit.
 */

/** What requests have to be like. */
export interface DebugLimits {
  /** Requests begin and end on multiples of it: a power of two. */
  readonly align: number;
  readonly maxTransfer: number;
  /** Zeros are made in ranges that begin and end on multiples of it; what is left is written. */
  readonly optWriteZero: number;
  readonly maxWriteZero: number;
  readonly optDiscard: number;
  readonly maxDiscard: number;
}

/** Zeros that are written come in pieces of at most so many bytes. */
const ZERO_WRITE_BYTES_MAX = 2 ** 24;

/** A piece of a request. */
export interface Piece {
  readonly at: number;
  readonly length: number;
}

/** Pieces of a read or write that is aligned. */
export function* transferPieces({ maxTransfer }: DebugLimits, whole: Piece): Generator<Piece> {
  const end = whole.at + whole.length;
  const step = maxTransfer || whole.length;
  for (let at = whole.at; at < end; at += step) {
    yield { at, length: Math.min(step, end - at) };
  }
}

/** Pieces of an aligned request for zeros, and whether they have to be written. */
export function* zeroPieces(
  { align, maxTransfer, optWriteZero, maxWriteZero }: DebugLimits,
  whole: Piece,
): Generator<Piece & { readonly written: boolean }> {
  const end = whole.at + whole.length;
  const unit = Math.max(align, optWriteZero);
  const writtenMax = Math.min(maxTransfer || Infinity, ZERO_WRITE_BYTES_MAX);
  for (let at = whole.at; at < end; ) {
    const rest = end - at;
    const head = at % unit;
    const tail = end % unit;
    let length = rest;
    if (head !== 0) length = Math.min(rest, writtenMax, unit - head);
    else if (tail !== 0 && rest > unit) length -= tail;
    length = Math.min(length, maxWriteZero || Infinity);
    const written = length < unit;
    if (written) length = Math.min(length, writtenMax);
    yield { at, length, written };
    at += length;
  }
}

/** Pieces of a discard; those of less than an aligned unit are passed over. */
export function* discardPieces(
  { align, optDiscard, maxDiscard }: DebugLimits,
  whole: Piece,
): Generator<Piece> {
  const end = whole.at + whole.length;
  const unit = Math.max(align, optDiscard);
  for (let at = whole.at; at < end; ) {
    const rest = end - at;
    const head = at % unit;
    const tail = end % unit;
    let length = rest;
    if (head !== 0) {
      length = Math.min(rest, unit - head);
      if (length % align !== 0) length %= align;
    } else if (tail !== 0 && rest > unit) length -= tail;
    else if (tail % align !== 0 && tail > align) length -= tail % align;
    length = Math.min(length, maxDiscard || Infinity);
    if (length >= align) yield { at, length };
    at += length;
  }
}
