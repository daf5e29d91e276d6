// Where the zstd encoder keeps its tables inside SCRATCH.
//
//   0x00000  2 KiB    CODE_WORDS  u64 per byte value: code words, see zstd-encode-huffman.ts
//   0x00800  4 KiB    HISTOGRAMS  four of u32 per byte value; their sum is in the first
//   0x01800  1 KiB    SORTED      u32 per byte value that occurs: count and value
//   0x01c00  1 KiB    SORTING     the same, half sorted
//   0x02000  2 KiB    PLACES      two lists of u32, while sorting
//   0x02800  1 KiB    TREE        u32 per node, while code lengths are found
//   0x02c00  512      LENGTHS     u8 per byte value: bits of its code word, 0 for none
//   0x02e00  512      KEPT        the same of the last tree that the frame has
//   0x03000  512      WEIGHTS     u8 per byte value; behind it the description made of them
//   0x03200  512      SPREAD      u8 symbol of each state, while a table is laid out
//   0x03400  256      NEXT        u16 per symbol, while a table is laid out
//   0x03500  256      what a frame carries from block to block: the words named below
//   0x03800  10 KiB   four fields of 2.5 KiB: see zstd-encode-fse.ts
//   0x006000 8 KiB    PRICES      what everything costs: see zstd-price.ts
//   0x010000 64 KiB   LITERALS    literals of the block in hand, and slack
//   0x030000 64 KiB   BLOCK       the block in the making, and slack
//   0x050000 171 KiB  SEQUENCES   u64 per sequence: see zstd-sequence-store.ts
//   0x080000 86 KiB   CODES       u32 per sequence: its three codes
//   0x100000 512 KiB  HEADS       where each hash was seen last: see zstd-match-fast.ts
//   0x180000 512 KiB  SHORT_HEADS the same of three bytes: see zstd-match-chain.ts
//   0x200000 2 MiB    PLAIN       what is encoded, with slack on both sides
//   0x410000 8 MiB    CHAIN       u32 per place: where its hash was seen before
//   0xc10000 1 MiB    NODES       32 bytes per place of a block: see zstd-parse-optimal.ts
//   0xd20000 130 KiB  COSTS       u32 per place of a block
//   0xe20000 130 KiB  FOUND       u32 per place of a block: where its matches begin
//   0xe70000 1.5 MiB  MATCHES     u64 per match: length, offset above
//
// What a frame carries from block to block lies here because a kernel has no globals.

import { SCRATCH } from './layout';

export const CODE_WORDS: usize = SCRATCH;
export const HISTOGRAMS: usize = SCRATCH + 0x800;
export const SORTED: usize = SCRATCH + 0x1800;
export const SORTING: usize = SCRATCH + 0x1c00;
export const PLACES: usize = SCRATCH + 0x2000;
export const TREE: usize = SCRATCH + 0x2800;
export const LENGTHS: usize = SCRATCH + 0x2c00;
export const KEPT: usize = SCRATCH + 0x2e00;
export const WEIGHTS: usize = SCRATCH + 0x3000;
export const DESCRIPTION: usize = SCRATCH + 0x3100;
export const SPREAD: usize = SCRATCH + 0x3200;
export const NEXT: usize = SCRATCH + 0x3400;
export const FIELD_BYTES: usize = 0xa00;
export const LENGTH_FIELD: usize = SCRATCH + 0x3800;
export const OFFSET_FIELD: usize = LENGTH_FIELD + FIELD_BYTES;
export const MATCH_FIELD: usize = OFFSET_FIELD + FIELD_BYTES;
export const WEIGHT_FIELD: usize = MATCH_FIELD + FIELD_BYTES;
export const LITERALS: usize = SCRATCH + 0x10000;
export const BLOCK: usize = SCRATCH + 0x30000;
export const SEQUENCES: usize = SCRATCH + 0x50000;
export const CODES: usize = SCRATCH + 0x80000;
export const HEADS: usize = SCRATCH + 0x100000;
export const SHORT_HEADS: usize = SCRATCH + 0x180000;
export const PLAIN: usize = SCRATCH + 0x200100;
export const CHAIN: usize = SCRATCH + 0x410000;
export const NODES: usize = SCRATCH + 0xc10000;
export const COSTS: usize = SCRATCH + 0xd20000;
export const FOUND: usize = SCRATCH + 0xe20000;
export const MATCHES: usize = SCRATCH + 0xe70000;
export const MATCHES_END: usize = SCRATCH + 0xfe8000;
export const PRICES: usize = SCRATCH + 0x6000;

/** The three repeated offsets, most recent first. */
export const REPEAT_0: usize = SCRATCH + 0x3500;
export const REPEAT_1: usize = SCRATCH + 0x3504;
export const REPEAT_2: usize = SCRATCH + 0x3508;
/** What a parse left: literals (bytes) and sequences. */
export const LITERAL_COUNT: usize = SCRATCH + 0x350c;
export const SEQUENCE_COUNT: usize = SCRATCH + 0x3510;
/** Longest code of the tree in LENGTHS and in KEPT; 0 while there is none. */
export const LENGTHS_MAX: usize = SCRATCH + 0x3514;
export const KEPT_MAX: usize = SCRATCH + 0x3518;
/** Bytes of DESCRIPTION. */
export const DESCRIPTION_BYTES: usize = SCRATCH + 0x351c;

/**
 * A block holds no more than this. The format allows twice as much, but the parts of a disk differ,
 * and tables made for each save more than they cost.
 */
export const BLOCK_BYTES_MAX: u32 = 0x10000;
