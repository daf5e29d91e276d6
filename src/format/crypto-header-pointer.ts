/**
 * Full disk encryption header pointer (header extension 0x0537be77): where the LUKS header lies.
 *
 *   0 offset u64, cluster aligned · 8 length u64, bytes
 */
import { BigEndianReader, putU64 } from '../base/be.ts';
import { HIGH } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';

/** A range of the image file that holds a LUKS header and its key slots. */
export interface CryptoHeaderPointer {
  readonly offset: number;
  readonly length: number;
}

/** @param at file offset of the extension's data */
export function parseCryptoHeaderPointer(
  data: Uint8Array,
  at: number,
  clusterSize: number,
): CryptoHeaderPointer {
  if (data.length !== 16) {
    const message = `CRYPTO header extension size ${data.length}, but expected size 16`;
    throw new Qcow2Error('CORRUPT', message, at - 8);
  }
  const reader = new BigEndianReader(data, at);
  const offset = reader.number(0, 'Encryption header offset');
  const { high, low } = reader.u64(8, 'Encryption header');
  // Not exact above 2^53, which no file has.
  const length = high * HIGH + low;
  if (offset % clusterSize !== 0) {
    const message =
      `Encryption header offset '${offset}' is not a multiple of ` +
      `cluster size '${clusterSize}'`;
    throw new Qcow2Error('CORRUPT', message, at);
  }
  return { offset, length };
}

/** The opposite of `parseCryptoHeaderPointer`. */
export function serializeCryptoHeaderPointer(pointer: CryptoHeaderPointer): Uint8Array {
  const data = new Uint8Array(16);
  const view = new DataView(data.buffer);
  putU64(view, 0, pointer.offset);
  putU64(view, 8, pointer.length);
  return data;
}
