/**
 * The kernels by meaning: what each computes over linear memory, whatever it is written in.
 *
 * `wasm.ts` gives the AssemblyScript build; the tests hold a plain TypeScript twin of every
 * function to the same contract. All are pure: pointers and 32-bit numbers in, one 32-bit number
 * out. Pointers are byte addresses in `memory` at or above `ARENA_BASE`. No input may make one
 * trap, loop for ever, or write outside the output that it was given: whatever is wrong with the
 * bytes comes back as a negative number (or, in L2 tables, as a corrupt run). All counts and
 * lengths are unsigned; reserved bytes of records are written as 0.
 */

/** First byte of linear memory that callers own; what lies below belongs to the kernels. */
export const ARENA_BASE = 0x1000000;

/**
 * Bytes past the end of an input that a codec may read (never write): callers keep this much of
 * the memory mapped behind every input of a codec. What the bytes hold makes no difference.
 */
export const INPUT_SLACK = 64;

/**
 * What encoders and the metadata kernels return, having touched nothing, for arguments that no
 * correct caller passes: a buffer outside of the arena or the memory, a cluster size outside 9–21,
 * a refcount order above 6, a level that there is not. It is the caller's bug, never a fact about
 * the image.
 */
export const MISUSE = -0x8000_0000;

/** One run record of `l2Runs` and `l2ExtendedRuns`: 24 bytes, 8-aligned. */
export const RUN_BYTES = 24;
//   byte 0   u32   kind, see RunKind
//        4   u32   units: clusters (l2Runs) or subclusters (l2ExtendedRuns) in the run, >= 1
//        8   f64   host byte offset of the run's first unit (0 where it has none)
//       16   u32   stored bytes, upper bound (compressed runs; else 0)
//       20   u32   reserved, 0

/** What the guest bytes of a run are. */
export const RunKind = {
  /** Nothing here: the backing file's bytes show through, or zeros. host = 0, even for a hole
   * among the subclusters of an allocated cluster. */
  unallocated: 0,
  /** Reads as zeros. `host` is the kept cluster's offset, 0 where none is kept. */
  zero: 1,
  /** Plain bytes at `host`. */
  data: 2,
  /** One compressed cluster: `units` covers exactly that cluster; `host` is the byte offset of its
   * stream, `stored bytes` the upper bound of its length. */
  compressed: 3,
  /** An entry that the format forbids: reserved bits, an offset that is not cluster aligned, a
   * subcluster that is both allocated and zero, or allocated without a place, a zero flag in
   * version 2; a compressed one with subcluster bits, in an image with a data file, or with an
   * offset of 2^56 or more or that a double does not hold. Always one cluster; host = 0. */
  corrupt: 4,
} as const;
export type RunKind = (typeof RunKind)[keyof typeof RunKind];

/** Facts about the image that change what an L2 entry means. OR them together. */
export const L2Flags = {
  /** Version 2: bit 0 of a standard entry is reserved, not "reads as zeros". */
  version2: 1,
  /** Clusters live in an external data file: a COPIED entry with offset 0 is allocated at 0. */
  dataFile: 2,
} as const;

/** Why a decoder gave up. Any negative result is one of these. */
export const DecodeError = {
  /** The input ended before the output was full. */
  truncated: -1,
  /** The stream ended, properly, before the output was full. */
  short: -2,
  /** A code, length, distance, table or header that the format forbids. */
  invalid: -3,
  /** The stream holds more than the output can take (zstd: a frame that goes on past it). */
  overlong: -4,
  /** The frame's checksum does not match its content. */
  checksum: -5,
  /** A feature that a reader may refuse: a dictionary, a window above the limit. */
  unsupported: -6,
} as const;

/** Bytes of the round keys of one AES key, as `aesExpandKey` leaves them. */
export const AES_SCHEDULE_BYTES = 3840;

/** What `l2References` works on and adds up: 64 bytes, u32 little-endian but for `next`. */
export const Tally = {
  bytes: 64,
  clusterBits: 0,
  /** `L2Flags.dataFile`, or 0. */
  flags: 4,
  /** Clusters that the file has (at most 2^31): entries that reach beyond are not counted. */
  limit: 8,
  /** Address of the counts, cluster `first` before all. */
  counts: 12,
  first: 16,
  /** How many counts there are. Clusters outside of them are looked at, and not counted. */
  length: 20,
  /** What no count may exceed, below 2^32 − 1 (and 2^16 with counts of two bytes). */
  most: 24,
  /** Bytes of a count, 2 or 4. */
  width: 28,
  /** How often each reference counts, 1 … `most`. */
  times: 32,
  /** In and out: clusters that have a place, those of them that do not follow the one before (all
   * compressed ones), and those that are compressed. */
  allocated: 36,
  fragmented: 40,
  compressed: 44,
  /** In and out, u64: the host offset that would go on from the last plain cluster; 0: none. */
  next: 48,
  /**
   * Address of two bitmaps, or 0: a bit for each count, set where a plain cluster was met with
   * COPIED, and, `length / 8 + 4` bytes (rounded down) behind them, one set where it was without.
   */
  seen: 56,
} as const;

/** All kernels, bound to one memory. */
export interface Kernels {
  readonly memory: WebAssembly.Memory;

  /**
   * Inflates one raw deflate stream (RFC 1951) until exactly `dstBytes` came out; what follows in
   * the input is ignored. Distances may reach back to the start of the output.
   * @returns `dstBytes`, or a negative `DecodeError`
   */
  inflate(src: number, srcBytes: number, dst: number, dstBytes: number): number;

  /**
   * Decodes zstd frames (RFC 8878), skippable ones among them, until exactly `dstBytes` came out
   * and the frame in hand is complete; what follows in the input is ignored. Checksums are
   * verified. No dictionaries.
   * @returns `dstBytes`, or a negative `DecodeError`
   */
  zstdDecode(src: number, srcBytes: number, dst: number, dstBytes: number): number;

  /**
   * Encodes bytes as one zstd frame (RFC 8878) that states its content's size, has no checksum and
   * needs no window beyond the content: what QEMU writes.
   * @param srcBytes at most 2 MiB
   * @param level 1 (fastest) to 9 (smallest); what lies beyond counts as the next of them
   * @returns the frame's bytes, 0 where it would be longer than `dstMax`, or MISUSE
   */
  zstdEncode(src: number, srcBytes: number, dst: number, dstMax: number, level: number): number;

  /**
   * Deflates bytes to one raw stream (RFC 1951). Distances are below 4096, which is as far as
   * QEMU's reader looks back. The same bytes at the same level give the same stream, always.
   * The input needs `INPUT_SLACK` behind it.
   * @param level 1 (fastest) to 9 (smallest)
   * @returns bytes of the stream, or 0 where they would be more than `dstMax`
   */
  deflate(src: number, srcBytes: number, dst: number, dstMax: number, level: number): number;

  /**
   * Finds the parts of a buffer that are not zero. The buffer is cut into granules of `granule`
   * bytes (a power of two, >= 512), the first of which is short by `phase` bytes (`phase` = how
   * far into a granule the buffer starts) and the last of which may be cut short. Adjacent
   * non-zero granules make one range.
   * @param out pairs of u32: start, end (bytes from `at`, half-open), ascending; room for one at
   * least
   * @returns the number of pairs. When it equals `outMax`, the last pair reaches to the end of
   * the buffer unless the true ranges fitted: never is a non-zero byte outside every pair.
   */
  dataRanges(
    at: number,
    bytes: number,
    granule: number,
    phase: number,
    out: number,
    outMax: number,
  ): number;

  /**
   * Compares two buffers of `bytes` bytes.
   * @returns how many bytes from the first on are the same: `bytes` where all are
   */
  firstDifference(a: number, b: number, bytes: number): number;

  /**
   * Turns `entries` big-endian standard L2 entries at `table` into run records. Neighbouring
   * entries of one kind join: unallocated and zero-without-offset by kind alone, data and
   * zero-with-offset where the host offsets follow each other. COPIED never breaks a run.
   * Compressed and corrupt entries stand alone.
   * @returns the number of records (at most `outMax`; their units add up to the entries used)
   */
  l2Runs(
    table: number,
    entries: number,
    clusterBits: number,
    flags: number,
    out: number,
    outMax: number,
  ): number;

  /**
   * The same for 16-byte extended entries, in subclusters (cluster size / 32): reads `subclusters`
   * of them starting with subcluster `first` (0–31) of the entry at `table`. Runs join across
   * entries. A compressed or corrupt run covers what of its cluster lies in the range. Zero
   * subclusters of a cluster at offset 0 (`dataFile`) count as having no place.
   */
  l2ExtendedRuns(
    table: number,
    first: number,
    subclusters: number,
    clusterBits: number,
    flags: number,
    out: number,
    outMax: number,
  ): number;

  /**
   * Parses the compressed-cluster descriptors of `entries` big-endian L2 words (`stride` bytes
   * apart: 8, or 16 for extended entries).
   * @param out per entry 16 bytes: f64 host byte offset, u32 stored bytes (upper bound), u32 1;
   * all zero if the entry is not compressed; 0, 0, 2 if it is but with an offset that no reader
   * may follow (see `RunKind.corrupt`)
   * @returns how many of the entries are compressed, refused ones not counted
   */
  compressedDescriptors(
    table: number,
    entries: number,
    stride: number,
    clusterBits: number,
    out: number,
  ): number;

  /**
   * Reads refcounts `first` … `first + count - 1` of a refcount block.
   * @param order log2 of the width in bits, 0–6
   * @param out u64 little-endian each
   * @returns `count`
   */
  refcountGet(block: number, first: number, count: number, order: number, out: number): number;

  /**
   * Writes refcounts. Nothing is written when a value does not fit the width.
   * @param values u64 little-endian each
   * @returns `count`, or −1 − i where value i is the first that does not fit
   */
  refcountSet(block: number, first: number, count: number, order: number, values: number): number;

  /**
   * Adds `delta` (1 or −1) to refcounts `first` … `first + count - 1` of a block: to all or none.
   * A count of 0 is that of a cluster which nothing refers to, and never changes here.
   * @returns `count`, or −1 − i where entry i is 0, or would leave its width
   */
  refcountAdd(block: number, first: number, count: number, order: number, delta: 1 | -1): number;

  /**
   * Sets the COPIED flag of each of `count` L2 entries (`stride` bytes apart: 8, or 16 for extended
   * ones) where its refcount is exactly 1, and clears it elsewhere. The entries' clusters follow
   * each other: refcounts `first` … `first + count - 1` of one block are theirs.
   * @returns how many entries were changed by that
   */
  l2CopiedFlags(
    table: number,
    count: number,
    stride: number,
    block: number,
    first: number,
    order: number,
  ): number;

  /**
   * Lists the free runs (refcount 0) among entries `first` … `first + count - 1` of a block.
   * @param out pairs of u32: first index, length
   * @returns the number of pairs, at most `outMax` (scanning stops there; the last run is whole)
   */
  refcountFreeRuns(
    block: number,
    first: number,
    count: number,
    order: number,
    out: number,
    outMax: number,
  ): number;

  /**
   * Adds what the entries of an L2 table refer to, to counts in memory: each plain cluster's, kept
   * ones of zero clusters among them, and those of all clusters that a compressed stream may touch.
   * With a data file plain clusters are only tallied.
   * @param stride bytes of an entry: 8, or 16 for extended ones
   * @param tally see `Tally`
   * @returns the index of the first entry that there is something to say about, of which nothing is
   * counted: reserved bits, an offset that is not cluster aligned, what lies beyond the limit or
   * has no room in its count, a subcluster that is both data and zero, or data without a place, a
   * compressed one with COPIED, with subcluster bits or with a data file; or `entries`
   */
  l2References(table: number, entries: number, stride: number, tally: number): number;

  /**
   * Finds an L2 entry whose COPIED flag does not say whether its cluster's refcount is 1. With a
   * data file the flag must always be there. Compressed entries have none.
   * @param flags `L2Flags.dataFile`; 4: clusters behind the bitmap have another refcount than 1,
   * else nothing is said of them
   * @param ones a bit for each of the clusters `first` … `first + length - 1`, set where the
   * refcount is 1; two bytes behind it are mapped
   * @returns the entry's index, or `entries`
   */
  l2CopiedMismatch(
    table: number,
    entries: number,
    stride: number,
    clusterBits: number,
    flags: number,
    ones: number,
    first: number,
    length: number,
  ): number;

  /**
   * Compares refcounts `first` … `first + count - 1` of a block with counts in memory.
   * @param counts little-endian, `width` bytes each (2 or 4), the one of entry `first` before all
   * @returns how many are alike before the first that is not, at most `count`
   */
  refcountCompare(
    block: number,
    first: number,
    count: number,
    order: number,
    counts: number,
    width: number,
  ): number;

  /**
   * Tells which of a block's first `count` refcounts (a multiple of 16) are 1.
   * @param out a bit each, the first in the lowest bit of byte 0
   * @returns `count`
   */
  refcountOnes(block: number, count: number, order: number, out: number): number;

  /**
   * Maps guest byte ranges to bitmap bits: a bit covers `1 << granularityBits` guest bytes.
   * @param ranges pairs of f64: guest start, length (bytes)
   * Exact as long as a range's end is: multiples of 512 to 2^62, others to 2^53.
   * @param out pairs of f64: first bit, number of bits that the range touches (0 for an empty one);
   * may be `ranges` itself
   * @returns `count`
   */
  bitmapBits(ranges: number, count: number, granularityBits: number, out: number): number;

  /**
   * ORs bits `srcFirst` … `srcFirst + srcBits - 1` of a bitmap into another, from bit `dstFirst`.
   * @param shift log2 of how much more a target bit stands for than a source bit, −22–22: source
   * bit i sets target bit i >> shift, or all those from i << −shift to before (i + 1) << −shift
   * @returns 1 where any source bit is set, else 0
   */
  bitmapMerge(
    dst: number,
    dstFirst: number,
    src: number,
    srcFirst: number,
    srcBits: number,
    shift: number,
  ): number;

  /**
   * Lists the runs of set bits in bits `first` … `first + bits - 1` of a bitmap (bit 0 is the
   * lowest of byte 0).
   * @param out pairs of u32: first bit (counted as `first` is), length in bits
   * @returns the number of pairs, at most `outMax` (scanning stops there; the last run is whole)
   */
  bitmapRuns(bitmap: number, first: number, bits: number, out: number, outMax: number): number;

  /**
   * Prepares an AES key of 16, 24 or 32 bytes. What the schedule holds is between the kernels.
   * @param schedule `AES_SCHEDULE_BYTES` of room
   * @returns the number of rounds: 10, 12 or 14
   */
  aesExpandKey(key: number, keyBytes: number, schedule: number): number;

  /**
   * Encrypts blocks of 16 bytes in place, each by itself, in time that depends on their number
   * alone.
   * @returns 0
   */
  aesEncrypt(schedule: number, rounds: number, at: number, blocks: number): number;

  /** The opposite of `aesEncrypt`. */
  aesDecrypt(schedule: number, rounds: number, at: number, blocks: number): number;

  /**
   * XORs sectors of 512 bytes with their XTS tweaks, in place.
   * @param tweaks 16 bytes a sector: the tweak of its first block
   * @returns 0
   */
  xtsXor(at: number, sectors: number, tweaks: number): number;

  /**
   * XORs the bytes at `from` into those at `at`; the two do not overlap.
   * @returns 0
   */
  xorBytes(at: number, from: number, bytes: number): number;
}
