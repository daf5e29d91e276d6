// Extended L2 entries as runs of guest subclusters. (Kernels.l2ExtendedRuns)
//
//   word 0    63 COPIED · 62 COMPRESSED · 61–56 reserved · 55–9 host offset · 8–0 reserved
//   word 1    63 … 32   subcluster 31 … 0 reads as zeros
//             31 …  0   subcluster 31 … 0 is allocated: its bytes lie in the host cluster
//
// Spec: "Extended L2 Entries". Neither bit: unallocated. Both bits: corrupt, and so is an allocated
// subcluster of a cluster that has no place. A compressed cluster is all or nothing: word 1 is 0.
//
// Whole clusters that go on as the last one ended, the usual case by far, and crowds of compressed
// ones have loops of their own. The others are cut where their subclusters change.

import { MISUSE, isClusterBits, mapped } from './bounds';
import {
  COMPRESSED, COPIED, streamBytes, streamHost, streamHostRefused,
} from './compressed-descriptor';
import { wordPairAt } from './entry-word';
import {
  COMPRESSED_RUN, CORRUPT, DATA, RUN_BYTES, UNALLOCATED, ZERO, storeRun,
} from './run-record';

// @ts-ignore: decorator
@inline const RESERVED: u64 = 0x3f00_0000_0000_01ff;
// @ts-ignore: decorator
@inline const HOST_END: u64 = (<u64>1) << 56;
/** Larger than any host offset: nothing follows, so the run stands alone. */
// @ts-ignore: decorator
@inline const NOTHING: u64 = ~(<u64>0);
// @ts-ignore: decorator
@inline const ALL_ALLOCATED: u64 = 0xffff_ffff;

// @ts-ignore: decorator
@inline const DATA_FILE: u32 = 2;

// The kind of subcluster `s`, by its two bits.
// @ts-ignore: decorator
@inline
function kindAt(allocated: u32, zero: u32, s: u32): u32 {
  return (((allocated >> s) & 1) << 1) | ((zero >> s) & 1);
}

/** How many of the `limit` entries at `at` are wholly allocated, from host offset `want` on. */
function fullClusters(at: usize, limit: u32, want: u64, cluster: u64): u32 {
  let n: u32 = 0;
  const mask = v128.replace_lane<u64>(v128.splat<u64>(~(<u64>0)), 0, ~COPIED);
  const stride = v128.replace_lane<u64>(v128.splat<u64>(0), 0, cluster);
  let a = v128.replace_lane<u64>(v128.splat<u64>(ALL_ALLOCATED), 0, want);
  while (n < limit) {
    const d = v128.xor(v128.and(wordPairAt(at + (<usize>n << 4)), mask), a);
    if (v128.any_true(d)) break;
    a = v128.add<u64>(a, stride);
    n++;
  }
  return n;
}

/** How many of the `limit` entries at `at` are all zero bits: unallocated. */
function emptyClusters(at: usize, limit: u32): u32 {
  let n: u32 = 0;
  while (limit - n >= 4) {
    const here = at + (<usize>n << 4);
    const a = v128.or(v128.load(here), v128.load(here, 16));
    const b = v128.or(v128.load(here, 32), v128.load(here, 48));
    if (v128.any_true(v128.or(a, b))) break;
    n += 4;
  }
  while (n < limit && !v128.any_true(v128.load(at + (<usize>n << 4)))) n++;
  return n;
}

/**
 * Writes the runs of the compressed clusters that the `limit` entries at `at` begin with, each of
 * 32 subclusters; @returns how many. Stops at whatever needs a second look.
 */
function streamClusters(at: usize, limit: u32, clusterBits: u32, out: usize): u32 {
  let n: u32 = 0;
  for (; n < limit; n++) {
    const words = wordPairAt(at + (<usize>n << 4));
    const plain = v128.extract_lane<u64>(words, 0) & ~COPIED;
    const host = streamHost(plain, clusterBits);
    const isStream = (plain & COMPRESSED) != 0 && v128.extract_lane<u64>(words, 1) == 0;
    if (!isStream || streamHostRefused(host)) break;
    storeRun(out, COMPRESSED_RUN, 32, host, streamBytes(plain, host, clusterBits));
    out += RUN_BYTES;
  }
  return n;
}

export function l2ExtendedRuns(
  table: usize, first: u32, subclusters: u32, clusterBits: u32, flags: u32,
  out: usize, outMax: u32,
): i32 {
  if (!isClusterBits(clusterBits) || first > 31) return MISUSE;
  if (!mapped(table, ((<u64>first + subclusters + 31) >> 5) << 4)) return MISUSE;
  if (!mapped(out, <u64>outMax * RUN_BYTES)) return MISUSE;
  const cluster = (<u64>1) << clusterBits;
  const step = cluster >> 5;
  const forbidden = RESERVED | (cluster - 1);
  const dataFile = (flags & DATA_FILE) != 0;

  let runs: u32 = 0;
  // The run that is still growing, and the host offset that would make it grow.
  let openKind: u32 = CORRUPT;
  let openUnits: u32 = 0;
  let openHost: u64 = 0;
  let openNext: u64 = NOTHING;
  let openBytes: u32 = 0;

  // Whether the last entry was one with the run before it: the next ones may be as well.
  let grew = false;
  while (subclusters != 0) {
    if (grew && subclusters >= 32) {
      grew = false;
      let whole: u32 = 0;
      // A whole cluster joined, so the run ends where a cluster ends, on the host too.
      const limit = subclusters >> 5;
      if (openKind == UNALLOCATED) {
        whole = emptyClusters(table, limit);
      } else if (openKind == DATA) {
        // The entry after the highest offset would have a reserved bit set.
        const room = (HOST_END - openNext) >> clusterBits;
        whole = fullClusters(table, room < limit ? <u32>room : limit, openNext, cluster);
        openNext += cluster * whole;
      }
      if (whole != 0) {
        openUnits += whole << 5;
        subclusters -= whole << 5;
        table += <usize>whole << 4;
        continue;
      }
    }
    if (openKind == COMPRESSED_RUN && subclusters >= 32 && !dataFile) {
      // Where one cluster is compressed, the next ones are. The run in hand goes in front of them.
      const room = min(outMax - runs - 1, subclusters >> 5);
      const streams = streamClusters(table, room, clusterBits, out + RUN_BYTES);
      if (streams != 0) {
        storeRun(out, openKind, openUnits, openHost, openBytes);
        out += <usize>(streams + 1) * RUN_BYTES;
        runs += streams + 1;
        openKind = CORRUPT;
        openUnits = 0;
        openNext = NOTHING;
        subclusters -= streams << 5;
        table += <usize>streams << 4;
        continue;
      }
    }
    const words = wordPairAt(table);
    const entry = v128.extract_lane<u64>(words, 0);
    const bitmap = v128.extract_lane<u64>(words, 1);
    const plain = entry & ~COPIED;
    const allocated = <u32>bitmap;
    const zero = <u32>(bitmap >> 32);
    const end = subclusters < 32 - first ? first + subclusters : 32;

    let alone: u32 = 0;
    let host = plain;
    let bytes: u32 = 0;
    if (plain & COMPRESSED) {
      alone = COMPRESSED_RUN;
      host = streamHost(plain, clusterBits);
      if (dataFile || bitmap != 0 || streamHostRefused(host)) alone = CORRUPT;
      else bytes = streamBytes(plain, host, clusterBits);
    } else if ((plain & forbidden) != 0 || (allocated & zero) != 0) {
      alone = CORRUPT;
    } else if (plain == 0 && allocated != 0 && !(dataFile && entry != 0)) {
      alone = CORRUPT;
    }
    if (alone == CORRUPT) host = 0;

    // A bit where the kind is not that of the subcluster before, and one at the end.
    let edges = <u64>1 << end;
    if (alone == 0) {
      const changes = (allocated ^ (allocated << 1)) | (zero ^ (zero << 1));
      edges |= <u64>(changes & (~1 << first)) & (edges - 1);
    }
    let s = first;
    let until = <u32>ctz<u64>(edges);
    let kind = alone;
    let units = until - s;
    let unitHost = host;
    // Data has a place, zeros where the cluster has one. A branch would be mispredicted.
    let placed: u64 = 0;
    const zeroPlaced = <u32>(host != 0);
    if (alone == 0) {
      kind = kindAt(allocated, zero, s);
      placed = <u64>0 - <u64>((kind >> 1) | (kind & zeroPlaced));
      unitHost = (host + step * s) & placed;
    }
    if (openUnits != 0 && kind == openKind && unitHost == openNext) {
      openUnits += units;
      grew = units == 32;
    } else {
      if (openUnits != 0) {
        storeRun(out, openKind, openUnits, openHost, openBytes);
        out += RUN_BYTES;
        runs++;
      }
      if (runs == outMax) return runs;
      openKind = kind;
      openUnits = units;
      openHost = unitHost;
      openBytes = bytes;
    }
    // The others are of another kind each than the one before: nothing joins.
    while ((edges &= edges - 1) != 0) {
      storeRun(out, openKind, openUnits, openHost, 0);
      out += RUN_BYTES;
      runs++;
      if (runs == outMax) return runs;
      s = until;
      until = <u32>ctz<u64>(edges);
      units = until - s;
      openUnits = units;
      openKind = kindAt(allocated, zero, s);
      placed = <u64>0 - <u64>((openKind >> 1) | (openKind & zeroPlaced));
      openHost = (host + step * s) & placed;
      unitHost = openHost;
    }
    openNext = alone == 0 ? (unitHost + step * units) & placed : NOTHING;
    subclusters -= end - first;
    first = 0;
    table += 16;
  }
  if (openUnits != 0) {
    storeRun(out, openKind, openUnits, openHost, openBytes);
    runs++;
  }
  return runs;
}
