/**
 * The anti-forensic splitter of LUKS: a key is spread over thousands of stripes, all of which are
 * needed to get it back, so that losing a few bytes of the disk loses the key.
 *
 *   d[0] = 0;   d[i] = diffuse(d[i − 1] ⊕ stripe[i]);   key = d[n − 1] ⊕ stripe[n]
 *
 * `diffuse` hashes the bytes piece by piece, each piece behind its number. Specification: LUKS
 * On-Disk Format 1.2.3, 2.4.
 */
import { settled } from '../base/awaitable.ts';
import { HASH_BYTES, type HashName } from '../format/luks-algorithms.ts';
import { type Platform, randomBytes } from './platform.ts';

/** How a key is split. */
export interface SplitShape {
  readonly platform: Platform;
  readonly hash: HashName;
  readonly stripes: number;
}

/** Splits a key: `stripes` times as many bytes. */
export async function afSplit(key: Uint8Array, shape: SplitShape): Promise<Uint8Array> {
  const { stripes } = shape;
  const { length } = key;
  const material = randomBytes(length * stripes);
  const last = (stripes - 1) * length;
  const sum = await mergeStripes(material.subarray(0, last), length, shape);
  for (let i = 0; i < length; i++) material[last + i] = sum[i]! ^ key[i]!;
  sum.fill(0);
  return material;
}

/** The key that was split into `material`. */
export async function afMerge(
  material: Uint8Array,
  length: number,
  shape: SplitShape,
): Promise<Uint8Array> {
  const last = (shape.stripes - 1) * length;
  const key = await mergeStripes(material.subarray(0, last), length, shape);
  for (let i = 0; i < length; i++) key[i]! ^= material[last + i]!;
  return key;
}

/** All stripes but the last. */
async function mergeStripes(
  material: Uint8Array,
  length: number,
  { platform, hash }: SplitShape,
): Promise<Uint8Array> {
  const sum = new Uint8Array(length);
  const piece = HASH_BYTES[hash];
  for (let stripe = 0; stripe < material.length; stripe += length) {
    for (let i = 0; i < length; i++) sum[i]! ^= material[stripe + i]!;
    for (let at = 0; at < length; at += piece) {
      const part = sum.subarray(at, at + piece);
      const numbered = new Uint8Array(4 + part.length);
      new DataView(numbered.buffer).setUint32(0, at / piece);
      numbered.set(part, 4);
      const hashed = platform.hash(hash, numbered);
      part.set((settled(hashed) ? hashed : await hashed).subarray(0, part.length));
    }
  }
  return sum;
}
