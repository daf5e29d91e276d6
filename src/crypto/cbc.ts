/**
 * CBC: each block is XORed with the one before it, as encrypted, or with the sector's vector. What
 * is chained within a sector is not between sectors: one step encrypts one block of each.
 */
import { assert } from '../base/errors.ts';
import { type Batch, type CipherParts, SECTOR_BYTES } from './sector-batch.ts';

const BLOCK_WORDS = 4;
const SECTOR_WORDS = SECTOR_BYTES / 4;

/** Encrypts a batch in place. */
export function encryptCbc({ kernels, blocks, vectors }: CipherParts, batch: Batch): void {
  const { at, sectors } = batch;
  // The memory is little-endian and so is this view; bytes are only moved, never looked at.
  const words = wordsAt(kernels.memory, at, sectors * SECTOR_WORDS);
  const chain = wordsAt(kernels.memory, vectors.at, sectors * BLOCK_WORDS);
  for (let block = 0; block < SECTOR_WORDS; block += BLOCK_WORDS) {
    for (let from = block, to = 0; to < chain.length; from += SECTOR_WORDS, to += BLOCK_WORDS) {
      for (let i = 0; i < BLOCK_WORDS; i++) chain[to + i]! ^= words[from + i]!;
    }
    blocks.encrypt(vectors.at, sectors * 16);
    for (let to = block, from = 0; from < chain.length; to += SECTOR_WORDS, from += BLOCK_WORDS) {
      for (let i = 0; i < BLOCK_WORDS; i++) words[to + i] = chain[from + i]!;
    }
  }
}

/** Decrypts a batch in place. */
export function decryptCbc(parts: CipherParts, batch: Batch): void {
  const { kernels, blocks, spare } = parts;
  const { at, sectors } = batch;
  const bytes = sectors * SECTOR_BYTES;
  const memory = new Uint8Array(kernels.memory.buffer);
  // What each block is XORed with: the bytes shifted by a block, vectors where a sector starts.
  memory.copyWithin(spare.at + 16, at, at + bytes);
  putVectors(parts, sectors);
  blocks.decrypt(at, bytes);
  assert(kernels.xorBytes(at, spare.at, bytes) === 0, 'sectors outside of the memory');
}

function putVectors({ vectors, spare }: CipherParts, sectors: number): void {
  for (let sector = 0; sector < sectors; sector++) {
    const vector = vectors.bytes.subarray(sector * 16, sector * 16 + 16);
    spare.bytes.set(vector, sector * SECTOR_BYTES);
  }
}

/** Words of the kernels' memory; copied views where the address is not a word's. */
function wordsAt(memory: WebAssembly.Memory, at: number, count: number): Uint32Array {
  assert(at % 4 === 0, 'bytes that are encrypted start at a word');
  return new Uint32Array(memory.buffer, at, count);
}
