/**
 * Big-endian fields of untrusted bytes. Every reader checks its bounds: a field past the end is a
 * typed error with the file offset, never an exception of the engine.
 */

import { HIGH } from './bits.ts';
import { Qcow2Error } from './errors.ts';
import { decodeField } from './text.ts';

/** A u64 as two unsigned halves: for bit masks, and for values that no number holds exactly. */
export interface U64 {
  readonly high: number;
  readonly low: number;
}

/** True when a number holds the u64 exactly and the format lets it be an offset or a size. */
function isExact(high: number, low: number): boolean {
  return high < 0x20_0000 || (high < 0x4000_0000 && (low & 511) === 0);
}

/** Reads fields of `bytes`, whose first byte lies at `base` in the file (for error messages). */
export class BigEndianReader {
  private readonly view: DataView;

  constructor(
    private readonly bytes: Uint8Array,
    readonly base = 0,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get length(): number {
    return this.bytes.byteLength;
  }

  private need(at: number, length: number, what: string): void {
    if (at + length > this.bytes.byteLength) {
      throw new Qcow2Error('CORRUPT', `${what} is cut short`, this.base + at);
    }
  }

  u8(at: number, what: string): number {
    this.need(at, 1, what);
    return this.view.getUint8(at);
  }

  u16(at: number, what: string): number {
    this.need(at, 2, what);
    return this.view.getUint16(at);
  }

  u32(at: number, what: string): number {
    this.need(at, 4, what);
    return this.view.getUint32(at);
  }

  u64(at: number, what: string): U64 {
    this.need(at, 8, what);
    return { high: this.view.getUint32(at), low: this.view.getUint32(at + 4) };
  }

  /** An offset or size. Above 2^53 − 1 only multiples of 512 below 2^62 are exact: else CORRUPT. */
  number(at: number, what: string): number {
    const { high, low } = this.u64(at, what);
    if (!isExact(high, low)) {
      throw new Qcow2Error('CORRUPT', `${what} is out of range`, this.base + at);
    }
    return high * HIGH + low;
  }

  /** The same, but NaN for what is not exact: a value that nobody may come to need. */
  numberOrNaN(at: number, what: string): number {
    const { high, low } = this.u64(at, what);
    return isExact(high, low) ? high * HIGH + low : Number.NaN;
  }

  slice(at: number, length: number, what: string): Uint8Array {
    this.need(at, length, what);
    return this.bytes.subarray(at, at + length);
  }

  /** Text of a fixed-length field, up to the first NUL. */
  text(at: number, length: number, what: string): string {
    return decodeField(this.slice(at, length, what));
  }
}

/** Writes a u64 that a number holds. */
export function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / HIGH));
  view.setUint32(at + 4, value % HIGH);
}

/** A view of an array's bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
