/** What the modes of a sector cipher work on, and with. */
import type { Region } from '../kernels/arena.ts';
import type { Kernels } from '../kernels/kernels.ts';
import type { BlockCipher } from './platform.ts';

/** Bytes of a sector. */
export const SECTOR_BYTES = 512;

/** What the modes work with: ciphers, and room in the kernels' memory. */
export interface CipherParts {
  readonly kernels: Kernels;
  readonly blocks: BlockCipher;
  /** 16 bytes a sector: initialisation vectors, or tweaks. */
  readonly vectors: Region;
  /** As large as a batch and a block. */
  readonly spare: Region;
}

/** Sectors in the kernels' memory, whose vectors are made. */
export interface Batch {
  readonly at: number;
  readonly sectors: number;
}
