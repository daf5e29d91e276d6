/**
 * The three feature words of a version 3 header and what this library knows of them.
 *
 *   incompatible  72–79   a bit we do not know: refuse the image
 *   compatible    80–87   a bit we do not know: ignore it and keep it
 *   autoclear     88–95   a bit we do not know: clear it before the first write
 */
import type { U64 } from '../base/be.ts';
import { hasBit } from '../base/bits.ts';

/** Which word a bit belongs to; the numbers are those of the feature name table. */
export const FeatureType = { incompatible: 0, compatible: 1, autoclear: 2 } as const;
export type FeatureType = (typeof FeatureType)[keyof typeof FeatureType];

/** Bits of the incompatible word. */
export const Incompatible = {
  dirty: 0,
  corrupt: 1,
  dataFile: 2,
  compressionType: 3,
  extendedL2: 4,
} as const;

/** Bits of the compatible word. */
export const Compatible = { lazyRefcounts: 0 } as const;

/** Bits of the autoclear word. */
export const Autoclear = { bitmaps: 0, rawDataFile: 1 } as const;

const KNOWN_INCOMPATIBLE = 0b11111;

/** Tests bit `bit` (0–63) of a feature word. */
export function hasFeature(word: U64, bit: number): boolean {
  return bit < 32 ? hasBit(word.low, bit) : hasBit(word.high, bit - 32);
}

/** The incompatible bits that are set and not known here, ascending. */
export function unknownIncompatible(word: U64): number[] {
  const unknown: number[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if (hasFeature(word, bit) && (bit >= 32 || !hasBit(KNOWN_INCOMPATIBLE, bit))) unknown.push(bit);
  }
  return unknown;
}
