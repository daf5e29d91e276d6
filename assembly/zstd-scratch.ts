// Where the zstd decoder keeps its tables inside SCRATCH, and what it answers when it gives up.
//
//   0x0000  8 KiB    HUFFMAN      u16 entries, 2^11 of them (2^12 for the rare 12-bit trees)
//   0x2000  4 KiB    LENGTHS      literal-length states, u64 each: see zstd-fse.ts
//   0x3000  4 KiB    MATCHES      match-length states
//   0x4000  2 KiB    OFFSETS      offset states
//   0x4800  512      WEIGHT_FSE   states that decode Huffman weights
//   0x4a00  512      COUNTS       i16 normalised counts of the table in the making
//   0x4c00  512      NEXT         u16 per symbol, while a table is spread
//   0x4e00  512      SPREAD       u8 symbol of each state, while a table is spread
//   0x5000  256      WEIGHTS      u8 Huffman weight of each symbol
//   0x5100  256      RANKED       u8 symbols in order of weight
//   0x5200  64       frame state: the words named below
//   0x8000  128 KiB  LITERALS     decoded literals of the block in hand, and slack
//
// What a frame carries from block to block lies here because a kernel has no globals.

import { SCRATCH } from './layout';

export const HUFFMAN: usize = SCRATCH;
export const LENGTHS: usize = SCRATCH + 0x2000;
export const MATCHES: usize = SCRATCH + 0x3000;
export const OFFSETS: usize = SCRATCH + 0x4000;
export const WEIGHT_FSE: usize = SCRATCH + 0x4800;
export const COUNTS: usize = SCRATCH + 0x4a00;
export const NEXT: usize = SCRATCH + 0x4c00;
export const SPREAD: usize = SCRATCH + 0x4e00;
export const WEIGHTS: usize = SCRATCH + 0x5000;
export const RANKED: usize = SCRATCH + 0x5100;
export const LITERALS: usize = SCRATCH + 0x8000;

/** The three repeated offsets, most recent first. */
export const REPEAT_0: usize = SCRATCH + 0x5200;
export const REPEAT_1: usize = SCRATCH + 0x5204;
export const REPEAT_2: usize = SCRATCH + 0x5208;
/** Bits that index the Huffman table; 0 while the frame has none. */
export const HUFFMAN_BITS: usize = SCRATCH + 0x520c;
/** 1 when the three sequence tables hold something that a block may ask to repeat. */
export const TABLES_KEPT: usize = SCRATCH + 0x5210;
/** log2 of the number of states of each sequence table. */
export const LENGTHS_LOG: usize = SCRATCH + 0x5214;
export const MATCHES_LOG: usize = SCRATCH + 0x5218;
export const OFFSETS_LOG: usize = SCRATCH + 0x521c;
/** Address and number of the block's literals. */
export const LITERALS_AT: usize = SCRATCH + 0x5220;
export const LITERALS_COUNT: usize = SCRATCH + 0x5224;
/** What readCounts found beside its result: log2 of the table size, number of symbols. */
export const COUNTS_LOG: usize = SCRATCH + 0x5228;
export const COUNTS_SYMBOLS: usize = SCRATCH + 0x522c;

// DecodeError of src/kernels/kernels.ts.
export const TRUNCATED: i32 = -1;
export const SHORT: i32 = -2;
export const INVALID: i32 = -3;
export const OVERLONG: i32 = -4;
export const CHECKSUM: i32 = -5;
export const UNSUPPORTED: i32 = -6;

/** No block regenerates more than this (RFC 8878, 3.1.1.2.4). */
export const BLOCK_BYTES_MAX: u32 = 0x20000;
