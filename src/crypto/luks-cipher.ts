/** The sector cipher that a LUKS header names. */
import { Qcow2Error } from '../base/errors.ts';
import { type LuksAlgorithms, luksAlgorithms } from '../format/luks-algorithms.ts';
import type { LuksHeader } from '../format/luks-header.ts';
import type { SectorKeys } from '../storage/storage.ts';
import { essivKey } from './iv-generator.ts';
import type { Platform } from './platform.ts';

/**
 * The algorithms of a header, where this library has them.
 * @throws Qcow2Error UNSUPPORTED, with the cipher's name
 */
export function supportedAlgorithms(
  header: Pick<LuksHeader, 'cipherName' | 'cipherMode' | 'hash' | 'keyBytes'>,
): LuksAlgorithms {
  const algorithms = luksAlgorithms(header);
  if (algorithms.cipher !== 'aes') {
    const name = `${algorithms.cipher}-${algorithms.keyBits}`;
    const message = `images encrypted with ${name} cannot be opened: only AES can`;
    throw new Qcow2Error('UNSUPPORTED', message);
  }
  return algorithms;
}

/** @param key the header's master key, or that of a slot: used as it is, and not copied */
export async function luksKeys(
  { mode, generator, generatorHash }: LuksAlgorithms,
  key: Uint8Array,
  platform: Platform,
): Promise<SectorKeys> {
  const vectorBits = generator === 'plain' ? 32 : 64;
  // No vectors in this mode, so no key for them either.
  if (generator !== 'essiv' || generatorHash === undefined || mode === 'ecb') {
    return { mode, key, vectorBits };
  }
  const vectorKey = await essivKey(platform, generatorHash, key);
  return { mode, key, vectorBits, vectorKey };
}
