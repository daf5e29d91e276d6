/**
 * CTR: blocks are XORed with the encryption of a counter, which starts at the sector's vector and
 * goes up by one a block, big-endian. Both directions are the same.
 */
import { assert } from '../base/errors.ts';
import { type Batch, type CipherParts, SECTOR_BYTES } from './sector-batch.ts';

/** Encrypts or decrypts a batch in place. */
export function cryptCtr(parts: CipherParts, { at, sectors }: Batch): void {
  const { kernels, blocks, vectors, spare } = parts;
  const bytes = sectors * SECTOR_BYTES;
  const counters = spare.bytes;
  for (let sector = 0; sector < sectors; sector++) {
    const first = sector * SECTOR_BYTES;
    counters.set(vectors.bytes.subarray(sector * 16, sector * 16 + 16), first);
    for (let block = first + 16; block < first + SECTOR_BYTES; block += 16) {
      counters.copyWithin(block, block - 16, block);
      for (let place = block + 15; place >= block && ++counters[place]! === 256; place--);
    }
  }
  blocks.encrypt(spare.at, bytes);
  assert(kernels.xorBytes(at, spare.at, bytes) === 0, 'sectors outside of the memory');
}
