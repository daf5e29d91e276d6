// A table of standard L2 entries as runs of guest clusters. (Kernels.l2Runs)
//
//   63        COPIED: the refcount is one. Says nothing about the bytes, so it never breaks a run
//   62        COMPRESSED: the rest is a descriptor, see compressed-descriptor.ts
//   61 … 56   reserved
//   55 … 9    host offset, a multiple of the cluster size; 0 is "none"
//    8 … 1    reserved
//    0        reads as zeros (version 3; reserved in version 2)
//
// Spec: "Standard Cluster Descriptor". Without COPIED, the entries of a run form an arithmetic
// progression (step 0 or the cluster size), so a run is found by comparing with what should come
// next, four entries at a time, and an entry is taken apart only where a run begins.

import { MISUSE, isClusterBits, mapped } from './bounds';
import { COMPRESSED, COPIED, streamBytes, streamHost, streamHostRefused } from './compressed-descriptor';
import { CORRUPT, COMPRESSED_RUN, DATA, UNALLOCATED, ZERO, RUN_BYTES, storeRun } from './run-record';

// @ts-ignore: decorator
@inline const RESERVED: u64 = 0x3f00_0000_0000_01fe;
// @ts-ignore: decorator
@inline const READS_AS_ZEROS: u64 = 1;
/** First byte offset that a standard entry cannot express. */
// @ts-ignore: decorator
@inline const HOST_END: u64 = (<u64>1) << 56;

// @ts-ignore: decorator
@inline const VERSION2: u32 = 1;
// @ts-ignore: decorator
@inline const DATA_FILE: u32 = 2;

// @ts-ignore: decorator
@inline
function pairAt(at: usize): v128 {
  const raw = v128.load(at);
  return v128.shuffle<u8>(raw, raw, 7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8);
}

/**
 * How many of the `limit` entries at `at` are `want`, `want + step`, `want + 2 * step`, … once the
 * bits outside of `keep` are dropped.
 */
// @ts-ignore: decorator
@inline
function progression(at: usize, limit: u32, want: u64, step: u64, keep: u64): u32 {
  let n: u32 = 0;
  // Most runs that end at once do so here, before the vectors are set up.
  if (limit == 0 || (bswap<u64>(load<u64>(at)) & keep) != want) return 0;
  if (limit >= 4) {
    const mask = v128.splat<u64>(keep);
    const stride = v128.splat<u64>(step << 2);
    let a = v128.replace_lane<u64>(v128.splat<u64>(want), 1, want + step);
    let b = v128.add<u64>(a, v128.splat<u64>(step << 1));
    do {
      const here = at + (<usize>n << 3);
      const da = v128.xor(v128.and(pairAt(here), mask), a);
      const db = v128.xor(v128.and(pairAt(here + 16), mask), b);
      if (v128.any_true(v128.or(da, db))) break;
      a = v128.add<u64>(a, stride);
      b = v128.add<u64>(b, stride);
      n += 4;
    } while (limit - n >= 4);
  }
  while (n < limit && (bswap<u64>(load<u64>(at + (<usize>n << 3))) & keep) == want + step * n) n++;
  return n;
}

export function l2Runs(
  table: usize, entries: u32, clusterBits: u32, flags: u32, out: usize, outMax: u32,
): i32 {
  if (!isClusterBits(clusterBits) || !mapped(table, <u64>entries << 3)) return MISUSE;
  if (!mapped(out, <u64>outMax * RUN_BYTES)) return MISUSE;
  const cluster = (<u64>1) << clusterBits;
  const forbidden = RESERVED | ((cluster - 1) & ~READS_AS_ZEROS) | <u64>(flags & VERSION2);
  const dataFile = (flags & DATA_FILE) != 0;
  let runs: u32 = 0;
  while (entries != 0 && runs < outMax) {
    const entry = bswap<u64>(load<u64>(table));
    const plain = entry & ~COPIED;
    let kind = DATA;
    let host: u64 = 0;
    let bytes: u32 = 0;
    let units: u32 = 1;
    if (plain & COMPRESSED) {
      host = streamHost(plain, clusterBits);
      if (dataFile || streamHostRefused(host)) {
        kind = CORRUPT;
        host = 0;
      } else {
        kind = COMPRESSED_RUN;
        bytes = streamBytes(plain, host, clusterBits);
      }
    } else if (plain & forbidden) {
      kind = CORRUPT;
    } else {
      host = plain & ~READS_AS_ZEROS;
      let step: u64 = cluster;
      let limit = entries - 1;
      // A data file uses COPIED to tell "at offset 0" from "nowhere": there it does break a run.
      let keep = ~COPIED;
      if (plain == 0 && !(dataFile && entry != 0)) {
        kind = UNALLOCATED;
        step = 0;
        if (dataFile) keep = ~<u64>0;
      } else {
        if (plain & READS_AS_ZEROS) {
          kind = ZERO;
          if (host == 0) step = 0;
        }
        // The entry after the highest offset would have a reserved bit set.
        const room = (HOST_END - host) >> clusterBits;
        if (step != 0 && room <= limit) limit = <u32>room - 1;
      }
      units += progression(table + 8, limit, plain + step, step, keep);
    }
    storeRun(out, kind, units, host, bytes);
    out += RUN_BYTES;
    runs++;
    entries -= units;
    table += <usize>units << 3;
  }
  return runs;
}
