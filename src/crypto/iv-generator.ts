/**
 * Initialisation vectors of sectors: the number, little-endian, in 32 bits (`plain`) or 64
 * (`plain64`, and `essiv` before it is encrypted), zeros behind it.
 */
import { HIGH } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import { HASH_BYTES, type HashName } from '../format/luks-algorithms.ts';
import type { Platform } from './platform.ts';

/** Fills 16 bytes for each sector from `sector` on. */
export function fillVectors(into: Uint8Array, sector: number, bits: 32 | 64): void {
  const view = new DataView(into.buffer, into.byteOffset, into.length);
  into.fill(0);
  for (let at = 0; at < into.length; at += 16, sector++) {
    view.setUint32(at, sector, true);
    if (bits === 64 && sector >= HIGH) view.setUint32(at + 4, sector / HIGH, true);
  }
}

/**
 * The key of ESSIV: the hash of the data's key, as long as the hash makes it.
 * @throws Qcow2Error UNSUPPORTED where that is no length of an AES key
 */
export async function essivKey(
  platform: Platform,
  hash: HashName,
  key: Uint8Array,
): Promise<Uint8Array> {
  const length = HASH_BYTES[hash];
  if (![16, 24, 32].includes(length)) {
    const message = `No AES cipher with key size ${length} available`;
    throw new Qcow2Error('UNSUPPORTED', message);
  }
  return platform.hash(hash, key);
}
