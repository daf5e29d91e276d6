/**
 * XTS (IEEE Std 1619): each block is XORed with its tweak before and after it is encrypted. The
 * vectors are the tweaks of the sectors' first blocks; the kernel makes the others as it goes.
 */
import { assert } from '../base/errors.ts';
import { type Batch, type CipherParts, SECTOR_BYTES } from './sector-batch.ts';

/** XORs the sectors of a batch with their tweaks. */
export function applyTweaks({ kernels, vectors }: CipherParts, { at, sectors }: Batch): void {
  assert(kernels.xtsXor(at, sectors, vectors.at) === 0, 'sectors outside of the memory');
}

/** Encrypts a batch in place. */
export function encryptXts(parts: CipherParts, batch: Batch): void {
  applyTweaks(parts, batch);
  parts.blocks.encrypt(batch.at, batch.sectors * SECTOR_BYTES);
  applyTweaks(parts, batch);
}

/** Decrypts a batch in place. */
export function decryptXts(parts: CipherParts, batch: Batch): void {
  applyTweaks(parts, batch);
  parts.blocks.decrypt(batch.at, batch.sectors * SECTOR_BYTES);
  applyTweaks(parts, batch);
}
