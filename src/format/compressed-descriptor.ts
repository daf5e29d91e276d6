/**
 * Descriptor of a compressed cluster: bits 61–0 of its L2 entry.
 *
 *   bits 0 … x−1   host byte offset, any alignment           x = 62 − (clusterBits − 8)
 *   bits x … 61    512-byte sectors that the data touches beyond the first
 *
 * The stored length is an upper bound: data ends when one cluster came out, and what follows may
 * be another cluster's.
 */
import { HIGH } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';

/** Where a compressed cluster's stream lies; `length` is the most that it can take, in bytes. */
export interface CompressedDescriptor {
  readonly host: number;
  readonly length: number;
}

/**
 * Parses the descriptor of an L2 word.
 * @param at file offset of the entry, for the error
 * @throws Qcow2Error CORRUPT where the offset is above what the format allows (2^56 − 1) or what
 * a number holds exactly
 */
export function parseCompressedDescriptor(
  high: number,
  low: number,
  clusterBits: number,
  at?: number,
): CompressedDescriptor {
  // x lies in 49 … 61, so the boundary is always in the high word.
  const split = 30 - (clusterBits - 8);
  const sectors = (high & 0x3fff_ffff) >>> split;
  const hostHigh = high & ((1 << split) - 1);
  const exact = hostHigh < 0x20_0000 || (low & 511) === 0;
  if (hostHigh > 0x00ff_ffff || !exact) {
    throw new Qcow2Error('CORRUPT', 'compressed cluster offset is out of range', at);
  }
  const host = hostHigh * HIGH + (low >>> 0);
  return { host, length: (sectors + 1) * 512 - (host % 512) };
}

/** The high and low word of a compressed L2 entry; `length` is the stream's own length. */
export function serializeCompressedDescriptor(
  { host, length }: CompressedDescriptor,
  clusterBits: number,
): { high: number; low: number } {
  const view = new DataView(new ArrayBuffer(8));
  putCompressedDescriptor(view, 0, host, length, clusterBits);
  return { high: view.getUint32(0), low: view.getUint32(4) };
}

/** Writes the compressed L2 entry of a stream at byte `at` of a table, without an object for it. */
export function putCompressedDescriptor(
  view: DataView,
  at: number,
  host: number,
  length: number,
  clusterBits: number,
): void {
  const inSector = host % 512;
  const sectors = (inSector + length - 1) >>> 9;
  const low = host % HIGH;
  const split = 30 - (clusterBits - 8);
  // Bits of the high word: no sum of them goes beyond it.
  view.setUint32(at, 0x4000_0000 | (sectors << split) | ((host - low) / HIGH));
  view.setUint32(at + 4, low);
}
