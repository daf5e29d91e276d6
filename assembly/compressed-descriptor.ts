// Where the stream of a compressed cluster lies. (Kernels.compressedDescriptors)
//
//   63        COPIED, without meaning here: readers ignore it
//   62        1
//   61 … x    number of 512-byte sectors that the stream touches, beyond the first
//   x-1 … 0   host byte offset, of any alignment                       x = 70 − clusterBits
//
// The stored length is an upper bound, from the offset to the end of the last sector: streams are
// packed without gaps, so what follows inside that sector belongs to the next cluster.
//
// Spec: "Compressed Clusters Descriptor". Offsets travel as f64, so those that a double cannot hold
// are refused, and with them those outside of the 2^56 bytes that other entries can reach.

import { MISUSE, isClusterBits, mapped } from './bounds';

// @ts-ignore: decorator
@inline export const COPIED: u64 = 1 << 63;
// @ts-ignore: decorator
@inline export const COMPRESSED: u64 = 1 << 62;
// @ts-ignore: decorator
@inline const SECTOR_MASK: u64 = 511;

// @ts-ignore: decorator
@inline
export function streamHost(entry: u64, clusterBits: u32): u64 {
  return entry & (((<u64>1) << (70 - clusterBits)) - 1);
}

/** Whether an offset is one that no reader may follow: above 2^56, or not exact as a double. */
// @ts-ignore: decorator
@inline
export function streamHostRefused(host: u64): bool {
  return host >> 53 != 0 && (host >> 56 != 0 || (host & SECTOR_MASK) != 0);
}

// @ts-ignore: decorator
@inline
export function streamBytes(entry: u64, host: u64, clusterBits: u32): u32 {
  const sectors = <u32>((entry & ~(COPIED | COMPRESSED)) >> (70 - clusterBits)) + 1;
  return (sectors << 9) - <u32>(host & SECTOR_MASK);
}

/** What the third field of an output record says. */
// @ts-ignore: decorator
@inline const VALID: u32 = 1;
// @ts-ignore: decorator
@inline const REFUSED: u32 = 2;

export function compressedDescriptors(
  table: usize, entries: u32, stride: u32, clusterBits: u32, out: usize,
): i32 {
  if (!isClusterBits(clusterBits) || (stride != 8 && stride != 16)) return MISUSE;
  if (!mapped(table, <u64>entries * stride) || !mapped(out, <u64>entries << 4)) return MISUSE;
  let found: i32 = 0;
  for (let i: u32 = 0; i < entries; i++) {
    const entry = bswap<u64>(load<u64>(table));
    let host: u64 = 0;
    let bytes: u32 = 0;
    let state: u32 = 0;
    if (entry & COMPRESSED) {
      host = streamHost(entry, clusterBits);
      if (streamHostRefused(host)) {
        host = 0;
        state = REFUSED;
      } else {
        bytes = streamBytes(entry, host, clusterBits);
        state = VALID;
        found++;
      }
    }
    store<f64>(out, <f64><i64>host);
    store<u32>(out, bytes, 8);
    store<u32>(out, state, 12);
    table += stride;
    out += 16;
  }
  return found;
}
