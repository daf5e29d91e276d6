// A table of standard L2 entries as runs of guest clusters. (Kernels.l2Runs)
//
//   63        COPIED: the refcount is one. Says nothing about the bytes, so it never breaks a run
//   62        COMPRESSED: the rest is a descriptor, see compressed-descriptor.ts
//   61 … 56   reserved
//   55 … 9    host offset, a multiple of the cluster size; 0 is "none"
//    8 … 1    reserved
//    0        reads as zeros (version 3; reserved in version 2)
//
// Spec: "Standard Cluster Descriptor". Without COPIED an entry tells what the next must be to join
// it: the same where it has no place, else one cluster more. So vectors compare every entry with
// what the one before it asks for, 64 entries become a word that has a bit for each run that
// begins, and entries are taken apart only there: no branch hangs on a single entry. Two crowds
// have loops of their own: entries that all join, and entries of which no two do.
//
// The comparison is right for good entries. Bad ones (compressed or corrupt) never join; most
// tables have none, so 16 entries are asked for any before they are asked for each.

import { MISUSE, isClusterBits, mapped } from './bounds';
import {
  COMPRESSED, COPIED, streamBytes, streamBytesPair, streamHost, streamHostRefused,
} from './compressed-descriptor';
import { bytesSwapped, doublesOf, wordAt, wordPairAt } from './entry-word';
import { CORRUPT, COMPRESSED_RUN, DATA, RUN_BYTES, storeRun, storeUnitRuns } from './run-record';

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
function plainPair(at: usize): v128 {
  return v128.and(wordPairAt(at), v128.splat<u64>(~COPIED));
}

/** What the entry after `plain` must be to join it. */
// @ts-ignore: decorator
@inline
function nextOf(plain: u64, cluster: u64): u64 {
  return plain > READS_AS_ZEROS ? plain + cluster : plain;
}

// @ts-ignore: decorator
@inline
function nextPair(plain: v128, cluster: v128): v128 {
  const placed = v128.gt<i64>(plain, v128.splat<u64>(READS_AS_ZEROS));
  return v128.add<u64>(plain, v128.and(placed, cluster));
}

// @ts-ignore: decorator
@inline
function lowHalves(a: v128, b: v128): v128 {
  return v128.shuffle<u32>(a, b, 0, 2, 4, 6);
}

/** A bit for each of 16 lanes of 64 bits, all ones or 0: eight pairs in order. */
// @ts-ignore: decorator
@inline
function bits16(
  a: v128, b: v128, c: v128, d: v128, e: v128, f: v128, g: v128, h: v128,
): u32 {
  const ad = v128.narrow<i32>(lowHalves(a, b), lowHalves(c, d));
  const eh = v128.narrow<i32>(lowHalves(e, f), lowHalves(g, h));
  return v128.bitmask<i8>(v128.narrow<i16>(ad, eh));
}

// @ts-ignore: decorator
@inline
function joins(plain: v128, before: v128, here: v128): v128 {
  return v128.eq<u64>(plain, v128.shuffle<u64>(before, here, 1, 2));
}

/** Which of the 16 entries at `at` begin a run; `before` is what those before them ask for. */
// @ts-ignore: decorator
@inline
function begins16(at: usize, before: v128, cluster: v128): u32 {
  const a = plainPair(at);
  const b = plainPair(at + 16);
  const c = plainPair(at + 32);
  const d = plainPair(at + 48);
  const e = plainPair(at + 64);
  const f = plainPair(at + 80);
  const g = plainPair(at + 96);
  const h = plainPair(at + 112);
  const na = nextPair(a, cluster);
  const nb = nextPair(b, cluster);
  const nc = nextPair(c, cluster);
  const nd = nextPair(d, cluster);
  const ne = nextPair(e, cluster);
  const nf = nextPair(f, cluster);
  const ng = nextPair(g, cluster);
  const nh = nextPair(h, cluster);
  return 0xffff ^ bits16(
    joins(a, before, na), joins(b, na, nb), joins(c, nb, nc), joins(d, nc, nd),
    joins(e, nd, ne), joins(f, ne, nf), joins(g, nf, ng), joins(h, ng, nh),
  );
}

/** Whether any of the 16 entries at `at` has a bit of `bad` (in the table's byte order). */
// @ts-ignore: decorator
@inline
function anyBad16(at: usize, bad: v128): bool {
  const a = v128.or(v128.load(at), v128.load(at, 16));
  const b = v128.or(v128.load(at, 32), v128.load(at, 48));
  const c = v128.or(v128.load(at, 64), v128.load(at, 80));
  const d = v128.or(v128.load(at, 96), v128.load(at, 112));
  return v128.any_true(v128.and(v128.or(v128.or(a, b), v128.or(c, d)), bad));
}

// @ts-ignore: decorator
@inline
function isGood(at: usize, bad: v128): v128 {
  return v128.eq<u64>(v128.and(v128.load(at), bad), v128.splat<u64>(0));
}

/** Which of the 16 entries at `at` have a bit of `bad`. */
// @ts-ignore: decorator
@inline
function bad16(at: usize, bad: v128): u32 {
  return 0xffff ^ bits16(
    isGood(at, bad), isGood(at + 16, bad), isGood(at + 32, bad), isGood(at + 48, bad),
    isGood(at + 64, bad), isGood(at + 80, bad), isGood(at + 96, bad), isGood(at + 112, bad),
  );
}

/** How many of the `limit` entries at `at` are `want`, `want + step`, … but for COPIED. */
function progression(at: usize, limit: u32, want: u64, step: u64): u32 {
  let n: u32 = 0;
  const keep = v128.splat<u64>(~COPIED);
  const two = v128.splat<u64>(step << 1);
  const four = v128.splat<u64>(step << 2);
  const eight = v128.splat<u64>(step << 3);
  let a = v128.replace_lane<u64>(v128.splat<u64>(want), 1, want + step);
  for (; limit - n >= 8; n += 8) {
    const here = at + (<usize>n << 3);
    const b = v128.add<u64>(a, two);
    const ab = v128.or(v128.xor(wordPairAt(here), a), v128.xor(wordPairAt(here + 16), b));
    const c = v128.xor(wordPairAt(here + 32), v128.add<u64>(a, four));
    const d = v128.xor(wordPairAt(here + 48), v128.add<u64>(b, four));
    if (v128.any_true(v128.and(v128.or(ab, v128.or(c, d)), keep))) break;
    a = v128.add<u64>(a, eight);
  }
  return n;
}

/** Writes the run of `units` entries that begins with `plain`, which is good. */
// @ts-ignore: decorator
@inline
function storeGood(out: usize, plain: u64, units: u32): void {
  const kind = <u32>(plain != 0) * DATA - <u32>(plain & READS_AS_ZEROS);
  storeRun(out, kind, units, plain & ~(READS_AS_ZEROS | COPIED), 0);
}

// @ts-ignore: decorator
@inline
function isSoundStream(plain: u64, clusterBits: u32): bool {
  return (plain & COMPRESSED) != 0 && streamHost(plain, clusterBits) >> 53 == 0;
}

/** Writes the run of `units` entries that begins with `plain`: good, or one stream. No branch. */
// @ts-ignore: decorator
@inline
function storeSound(
  out: usize, plain: u64, units: u32, streamMask: u64, clusterBits: u32,
): void {
  const isStream = (plain & COMPRESSED) != 0;
  const good = <u32>(plain != 0) * DATA - <u32>(plain & READS_AS_ZEROS);
  const kind = select<u32>(COMPRESSED_RUN, good, isStream);
  const host = plain & select<u64>(streamMask, ~(READS_AS_ZEROS | COPIED), isStream);
  const bytes = select<u32>(streamBytes(plain, host, clusterBits), 0, isStream);
  storeRun(out, kind, units, host, bytes);
}

/** Writes the run of one entry that is compressed or corrupt. */
// @ts-ignore: decorator
@inline
function storeBad(out: usize, plain: u64, clusterBits: u32, dataFile: bool): void {
  const host = streamHost(plain, clusterBits);
  if ((plain & COMPRESSED) == 0 || dataFile || streamHostRefused(host)) {
    storeRun(out, CORRUPT, 1, 0, 0);
  } else {
    storeRun(out, COMPRESSED_RUN, 1, host, streamBytes(plain, host, clusterBits));
  }
}

/** Writes two entries, good and each a run of its own. */
// @ts-ignore: decorator
@inline
function storeGoodPair(out: usize, plain: v128): void {
  const one = v128.splat<u64>(READS_AS_ZEROS);
  const none = v128.eq<u64>(plain, v128.splat<u64>(0));
  const kind = v128.sub<u64>(v128.andnot(v128.splat<u64>(DATA), none), v128.and(plain, one));
  const hosts = doublesOf(v128.andnot(plain, one));
  storeUnitRuns(out, v128.or(kind, v128.splat<u64>((<u64>1) << 32)), hosts, v128.splat<u64>(0));
}

/** Writes two compressed entries whose offsets are exact. */
// @ts-ignore: decorator
@inline
function storeStreamPair(out: usize, plain: v128, mask: v128, clusterBits: u32): void {
  const kinds = v128.splat<u64>(((<u64>1) << 32) | COMPRESSED_RUN);
  storeUnitRuns(out, kinds, doublesOf(v128.and(plain, mask)), streamBytesPair(plain, clusterBits));
}

// @ts-ignore: decorator
@inline
function isStreamAt(at: usize): bool {
  return (load<u8>(at) & 0x40) != 0;
}

/**
 * Whether all of an even number of entries are compressed ones with offsets that need no second
 * look. `large` are the bits of an offset from 2^53 on.
 */
// @ts-ignore: decorator
@inline
function allStreams(at: usize, count: u32, compressed: v128, large: v128): bool {
  const end = at + (<usize>count << 3);
  let all = v128.splat<u64>(~(<u64>0));
  let any = v128.splat<u64>(0);
  for (; at < end; at += 16) {
    const pair = v128.load(at);
    all = v128.and(all, pair);
    any = v128.or(any, pair);
  }
  return (
    v128.all_true<u64>(v128.and(all, compressed)) && !v128.any_true(v128.and(any, large))
  );
}

/**
 * Writes the runs between the first and the last of `begins`, each good or one stream, so that the
 * one before entry `last` ends at `out`. Backwards, entry over entry: the first of a run stays, and
 * nothing branches. Writes into the places of the runs on either side too. `large` as above, and
 * `corrupt` are the bits that an entry with a place must not have.
 * @returns whether they were as said; if not, what is written says nothing
 */
// @ts-ignore: decorator
@inline
function storeSoundRuns(
  at: usize, begins: u64, last: u32, out: usize, streamMasks: v128, clusterBits: u32,
  large: v128, corrupt: v128,
): bool {
  const compressed = v128.splat<u64>(COMPRESSED);
  let odd = v128.splat<u64>(0);
  const placeMasks = v128.splat<u64>(~(READS_AS_ZEROS | COPIED));
  const ones = v128.splat<u64>(READS_AS_ZEROS);
  let end = last;
  let i = (last & ~1) + 2;
  const lowest = <u32>ctz<u64>(begins) & ~1;
  do {
    i -= 2;
    const plain = plainPair(at + (<usize>i << 3));
    const isStream = v128.eq<u64>(v128.and(plain, compressed), compressed);
    const none = v128.eq<u64>(plain, v128.splat<u64>(0));
    const good = v128.sub<u64>(v128.andnot(v128.splat<u64>(DATA), none), v128.and(plain, ones));
    const kinds = v128.bitselect(v128.splat<u64>(COMPRESSED_RUN), good, isStream);
    const hosts = doublesOf(v128.and(plain, v128.bitselect(streamMasks, placeMasks, isStream)));
    const bytes = v128.and(streamBytesPair(plain, clusterBits), isStream);
    odd = v128.or(odd, v128.and(plain, v128.bitselect(large, corrupt, isStream)));
    const pairBegins = begins >> i;

    store<u64>(out, v128.extract_lane<u64>(kinds, 1) | (<u64>(end - i - 1) << 32));
    v128.store_lane<u64>(out + 8, hosts, 1);
    v128.store_lane<u64>(out + 16, bytes, 1);
    const second = <u32>(pairBegins >> 1) & 1;
    end = select<u32>(i + 1, end, second != 0);
    out -= select<usize>(RUN_BYTES, 0, second != 0);

    store<u64>(out, v128.extract_lane<u64>(kinds, 0) | (<u64>(end - i) << 32));
    v128.store_lane<u64>(out + 8, hosts, 0);
    v128.store_lane<u64>(out + 16, bytes, 0);
    const isFirst = (<u32>pairBegins & 1) != 0;
    end = select<u32>(i, end, isFirst);
    out -= select<usize>(RUN_BYTES, 0, isFirst);
  } while (i != lowest);
  return !v128.any_true(odd);
}

/** A segment of a table, see `l2Runs`; @returns the number of runs. */
function runs(
  table: usize, entries: u32, clusterBits: u32, badBits: u64, dataFile: bool,
  out: usize, outMax: u32,
): u32 {
  const cluster = (<u64>1) << clusterBits;
  const clusters = v128.splat<u64>(cluster);
  const bad = bytesSwapped(v128.splat<u64>(badBits));
  const streamMask = ((<u64>1) << (70 - clusterBits)) - 1;
  const large = v128.splat<u64>(streamMask & ~(((<u64>1) << 53) - 1));
  const corrupt = v128.splat<u64>(badBits & ~COMPRESSED);
  const compressed = bytesSwapped(v128.splat<u64>(COMPRESSED));
  const streamMasks = v128.splat<u64>(streamMask);
  const outEnd = out + <usize>outMax * RUN_BYTES;
  // The run in hand: its first entry, and where that is. At first it is to be counted yet, unless
  // it is the odd one, whose place is 0.
  const entry = wordAt(table);
  const atZero = dataFile && entry == COPIED;
  let first = atZero ? entry : entry & ~COPIED;
  let start: u32 = 0;
  // What the entry in front asks for, in the upper lane.
  let before = v128.splat<u64>(cluster);
  let index = <u32>atZero;
  while (index < entries) {
    const at = table + (<usize>index << 3);
    const count = min<u32>(64, entries - index);
    const isCounted = index != 0;
    // Room for a crowd: all of these, and the run in hand.
    const needed = <usize>(count + <u32>isCounted) * RUN_BYTES;
    const isRoomy = (count & 1) == 0 && outEnd - out >= needed;
    // The last entry is asked first: few mixed words get any further.
    if ((first & COMPRESSED) != 0 && isRoomy && !dataFile) {
      const lastAt = at + (<usize>count << 3) - 8;
      if (isStreamAt(lastAt) && allStreams(at, count, compressed, bytesSwapped(large))) {
        if (isCounted) {
          storeBad(out, first, clusterBits, dataFile);
          out += RUN_BYTES;
        }
        const end = at + (<usize>count << 3);
        for (let pair = at, to = out; pair < end; pair += 16, to += 2 * RUN_BYTES) {
          storeStreamPair(to, wordPairAt(pair), streamMasks, clusterBits);
        }
        out += <usize>(count - 1) * RUN_BYTES;
        start = index + count - 1;
        first = wordAt(end - 8) & ~COPIED;
        before = nextPair(plainPair(end - 16), clusters);
        index += count;
        if (index == entries) return outMax - <u32>((outEnd - out) / RUN_BYTES) + 1;
        continue;
      }
    }
    let begins: u64 = 0;
    // The run in hand may be bad from the word before.
    let anyBad = (first & badBits) != 0;
    let i: u32 = 0;
    for (; count - i >= 16; i += 16) {
      const here = at + (<usize>i << 3);
      let group: u32 = 0;
      if (anyBad16(here, bad)) {
        group = bad16(here, bad);
        anyBad = true;
      }
      if (group != 0xffff) group |= begins16(here, before, clusters);
      before = nextPair(plainPair(here + 112), clusters);
      begins |= <u64>group << i;
    }
    if (i < count) {
      let next = v128.extract_lane<u64>(before, 1);
      do {
        const plain = wordAt(at + (<usize>i << 3)) & ~COPIED;
        const isBad = (plain & badBits) != 0;
        anyBad = anyBad || isBad;
        begins |= <u64>(plain != next || isBad) << i;
        next = nextOf(plain, cluster);
      } while (++i < count);
    }
    begins &= ~(<u64>!isCounted);
    if (begins == 0) {
      index += count;
      if (count < 64) break;
      // All 64 in one run: look for its end the faster way.
      const next = v128.extract_lane<u64>(before, 1);
      const step = next > READS_AS_ZEROS ? cluster : 0;
      // The entry after the highest offset would have a reserved bit set.
      const room = (HOST_END - (next & ~READS_AS_ZEROS)) >> clusterBits;
      const limit = entries - index;
      const more = progression(
        table + (<usize>index << 3), step != 0 && room < limit ? <u32>room : limit, next, step,
      );
      index += more;
      before = v128.splat<u64>(next + step * more);
      continue;
    }
    const found = <u32>popcnt<u64>(begins);
    if (found == count - <u32>!isCounted && isRoomy && !anyBad) {
      // No two entries join. All but the last are written in pairs: the run in hand has ended.
      if (isCounted) {
        storeGood(out, first, index - start);
        out += RUN_BYTES;
      }
      const end = at + (<usize>count << 3);
      for (let pair = at, to = out; pair < end; pair += 16, to += 2 * RUN_BYTES) {
        storeGoodPair(to, plainPair(pair));
      }
      out += <usize>(count - 1) * RUN_BYTES;
      start = index + count - 1;
      first = wordAt(end - 8) & ~COPIED;
      index += count;
      if (index == entries) return outMax - <u32>((outEnd - out) / RUN_BYTES) + 1;
      continue;
    }
    // A run is written when the next begins. Where most are short and some are bad, which ones is
    // anyone's guess: then without a branch, and the run in hand may be odd by itself.
    if (
      anyBad && found << 1 > count && isRoomy && !dataFile
      && ((first & badBits) == 0 || isSoundStream(first, clusterBits))
    ) {
      const last = 63 - <u32>clz<u64>(begins);
      const to = out + <usize>found * RUN_BYTES;
      if (storeSoundRuns(at, begins, last, to, streamMasks, clusterBits, large, corrupt)) {
        storeSound(out, first, index + <u32>ctz<u64>(begins) - start, streamMask, clusterBits);
        if (to == outEnd) return outMax;
        out = to;
        start = index + last;
        first = wordAt(at + (<usize>last << 3)) & ~COPIED;
        index += count;
        continue;
      }
    }
    if (!anyBad) {
      do {
        const end = index + <u32>ctz<u64>(begins);
        storeGood(out, first, end - start);
        out += RUN_BYTES;
        if (out == outEnd) return outMax;
        start = end;
        first = wordAt(table + (<usize>end << 3)) & ~COPIED;
        begins &= begins - 1;
      } while (begins != 0);
    } else {
      do {
        const end = index + <u32>ctz<u64>(begins);
        if (first & badBits) storeBad(out, first, clusterBits, dataFile);
        else storeGood(out, first, end - start);
        out += RUN_BYTES;
        if (out == outEnd) return outMax;
        start = end;
        first = wordAt(table + (<usize>end << 3)) & ~COPIED;
        begins &= begins - 1;
      } while (begins != 0);
    }
    index += count;
  }
  if (first & badBits) storeBad(out, first, clusterBits, dataFile);
  else storeGood(out, first, entries - start);
  return outMax - <u32>((outEnd - out) / RUN_BYTES) + 1;
}

/** How many of the `limit` entries at `at` there are before the first that is COPIED alone. */
function beforeZeroOffset(at: usize, limit: u32): u32 {
  const copied = bytesSwapped(v128.splat<u64>(COPIED));
  let n: u32 = 0;
  for (; limit - n >= 2; n += 2) {
    const found = v128.eq<u64>(v128.load(at + (<usize>n << 3)), copied);
    if (v128.any_true(found)) break;
  }
  while (n < limit && wordAt(at + (<usize>n << 3)) != COPIED) n++;
  return n;
}

export function l2Runs(
  table: usize, entries: u32, clusterBits: u32, flags: u32, out: usize, outMax: u32,
): i32 {
  if (!isClusterBits(clusterBits) || !mapped(table, <u64>entries << 3)) return MISUSE;
  if (!mapped(out, <u64>outMax * RUN_BYTES)) return MISUSE;
  const inCluster = (((<u64>1) << clusterBits) - 1) & ~READS_AS_ZEROS;
  const badBits = COMPRESSED | RESERVED | inCluster | <u64>(flags & VERSION2);
  const dataFile = (flags & DATA_FILE) != 0;
  let found: u32 = 0;
  while (entries != 0 && found < outMax) {
    // In a data file COPIED alone says "at offset 0", where 0 says "nowhere". A sound table has one
    // such entry at most, so it is no matter for the loops: it begins a segment of its own.
    const segment = dataFile ? 1 + beforeZeroOffset(table + 8, entries - 1) : entries;
    const to = out + <usize>found * RUN_BYTES;
    found += runs(table, segment, clusterBits, badBits, dataFile, to, outMax - found);
    table += <usize>segment << 3;
    entries -= segment;
  }
  return found;
}
