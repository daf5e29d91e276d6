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
import { bytesSwapped, doublesOf, wordAt } from './entry-word';

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

/** Both of `streamBytes` for two entries; only their lower halves count. */
// @ts-ignore: decorator
@inline
export function streamBytesPair(entries: v128, clusterBits: u32): v128 {
  const descriptors = v128.and(entries, v128.splat<u64>(~(COPIED | COMPRESSED)));
  const sectors = v128.shr<u64>(descriptors, 70 - clusterBits);
  const ends = v128.add<u64>(v128.shl<u64>(sectors, 9), v128.splat<u64>(512));
  return v128.sub<u64>(ends, v128.and(entries, v128.splat<u64>(SECTOR_MASK)));
}

/** What the third field of an output record says. */
// @ts-ignore: decorator
@inline const VALID: u32 = 1;
// @ts-ignore: decorator
@inline const REFUSED: u32 = 2;

/** Writes the record of one entry; @returns 1 if it is compressed and may be followed. */
function describe(entry: u64, clusterBits: u32, out: usize): i32 {
  const host = streamHost(entry, clusterBits);
  if ((entry & COMPRESSED) == 0 || streamHostRefused(host)) {
    store<u64>(out, 0);
    store<u64>(out, (entry & COMPRESSED) == 0 ? 0 : <u64>REFUSED << 32, 8);
    return 0;
  }
  store<f64>(out, <f64><i64>host);
  store<u64>(out, <u64>streamBytes(entry, host, clusterBits) | (<u64>VALID << 32), 8);
  return 1;
}

/** An even number of entries, two at a time; @returns −1 if any offset needs a second look. */
// @ts-ignore: decorator
@inline
function describePairs(
  table: usize, entries: u32, stride: usize, clusterBits: u32, out: usize,
): i32 {
  const flag = v128.splat<u64>(COMPRESSED);
  const hostMask = v128.splat<u64>(((<u64>1) << (70 - clusterBits)) - 1);
  const valid = v128.splat<u64>(<u64>VALID << 32);
  let all = v128.splat<u64>(0);
  let found = v128.splat<u64>(0);
  for (; entries != 0; entries -= 2) {
    const pair = bytesSwapped(
      stride == 8
        ? v128.load(table)
        : v128.load_lane<u64>(table + 16, v128.load_zero<u64>(table), 1),
    );
    const compressed = v128.eq<u64>(v128.and(pair, flag), flag);
    const hosts = v128.and(v128.and(pair, hostMask), compressed);
    const rest = v128.and(v128.or(streamBytesPair(pair, clusterBits), valid), compressed);
    const doubles = doublesOf(hosts);
    v128.store(out, v128.shuffle<u64>(doubles, rest, 0, 2));
    v128.store(out, v128.shuffle<u64>(doubles, rest, 1, 3), 16);
    all = v128.or(all, hosts);
    found = v128.sub<u64>(found, compressed);
    table += stride << 1;
    out += 32;
  }
  const either = v128.extract_lane<u64>(all, 0) | v128.extract_lane<u64>(all, 1);
  if (either >> 53 != 0) return -1;
  return <i32>(v128.extract_lane<u64>(found, 0) + v128.extract_lane<u64>(found, 1));
}

export function compressedDescriptors(
  table: usize, entries: u32, stride: u32, clusterBits: u32, out: usize,
): i32 {
  if (!isClusterBits(clusterBits) || (stride != 8 && stride != 16)) return MISUSE;
  if (!mapped(table, <u64>entries * stride) || !mapped(out, <u64>entries << 4)) return MISUSE;
  const pairs = entries & ~1;
  let done: u32 = pairs;
  let found = stride == 8
    ? describePairs(table, pairs, 8, clusterBits, out)
    : describePairs(table, pairs, 16, clusterBits, out);
  // Offsets above 2^53: an image that large does not exist, a hostile one does. All over, slowly.
  if (found < 0) {
    done = 0;
    found = 0;
  }
  for (; done < entries; done++) {
    const entry = wordAt(table + <usize>done * stride);
    found += describe(entry, clusterBits, out + (<usize>done << 4));
  }
  return found;
}
