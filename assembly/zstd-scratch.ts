// Where the zstd decoder keeps its tables inside SCRATCH, and what it answers when it gives up.
//
//   0x0000  4 KiB    SYMBOLS      symbol of each Huffman table slot, and slack: see zstd-huffman.ts
//   0x1100  4 KiB    CODE_BITS    its code's length, and slack
//   0x2200  1 KiB    WEIGHT_FSE   states that decode Huffman weights: see zstd-fse.ts
//   0x2600  512      COUNTS       i16 normalised counts of the table in the making
//   0x2800  512      NEXT         u16 per symbol, while a table is laid out
//   0x2a00  512      SPREAD       u8 symbol of each state, while a table is laid out
//   0x2c00  256      WEIGHTS      u8 Huffman weight of each symbol
//   0x2d00  256      RANKED       u8 symbols in order of weight
//   0x2e00  256      ZEROS        extra bits of the symbols that have none
//   0x2f00  256      what is known of the frame and the block in hand: the words named below
//   0x3000  4 KiB    MEANINGS     16 bytes per symbol, while a table is laid out
//   0x4000  8 KiB    LENGTHS      literal-length states
//   0x6000  8 KiB    MATCHES      match-length states
//   0x8000  4 KiB    OFFSETS      offset states
//   0x9000  4 KiB    SEQUENCES    decoded and not yet carried out: see zstd-sequence-batch.ts
//   0xa000  1 KiB    ROW          u8 symbols in a row, while a table is laid out, and slack
//   0xa400  512      LOW          those of the rare symbols at the table's end
//   0xb000  128 KiB  LITERALS     decoded literals of the block in hand, and slack
//
// What a frame carries from block to block lies here because a kernel has no globals.

import { SCRATCH } from './layout';

export const SYMBOLS: usize = SCRATCH;
export const CODE_BITS: usize = SCRATCH + 0x1100;
export const WEIGHT_FSE: usize = SCRATCH + 0x2200;
export const COUNTS: usize = SCRATCH + 0x2600;
export const NEXT: usize = SCRATCH + 0x2800;
export const SPREAD: usize = SCRATCH + 0x2a00;
export const WEIGHTS: usize = SCRATCH + 0x2c00;
export const RANKED: usize = SCRATCH + 0x2d00;
export const ZEROS: usize = SCRATCH + 0x2e00;
export const MEANINGS: usize = SCRATCH + 0x3000;
export const LENGTHS: usize = SCRATCH + 0x4000;
export const MATCHES: usize = SCRATCH + 0x6000;
export const OFFSETS: usize = SCRATCH + 0x8000;
export const SEQUENCES: usize = SCRATCH + 0x9000;
export const ROW: usize = SCRATCH + 0xa000;
export const LOW: usize = SCRATCH + 0xa400;
export const LITERALS: usize = SCRATCH + 0xb000;

/** Bits that index the Huffman table; 0 while the frame has none. */
export const HUFFMAN_BITS: usize = SCRATCH + 0x2f00;
/** 1 when the three sequence tables hold something that a block may ask to repeat. */
export const TABLES_KEPT: usize = SCRATCH + 0x2f04;
/** log2 of the number of states of each sequence table. */
export const LENGTHS_LOG: usize = SCRATCH + 0x2f14;
export const MATCHES_LOG: usize = SCRATCH + 0x2f18;
export const OFFSETS_LOG: usize = SCRATCH + 0x2f1c;
/** Where the literals that are still to come begin and end. */
export const LITERALS_AT: usize = SCRATCH + 0x2f20;
export const LITERALS_END: usize = SCRATCH + 0x2f24;
/** What readCounts found beside its result: log2 of the table size, number of symbols. */
export const COUNTS_LOG: usize = SCRATCH + 0x2f28;
export const COUNTS_SYMBOLS: usize = SCRATCH + 0x2f2c;
/** Between two batches of sequences: the states, the place in the stream and its last place. */
export const LENGTH_STATE: usize = SCRATCH + 0x2f30;
export const MATCH_STATE: usize = SCRATCH + 0x2f34;
export const OFFSET_STATE: usize = SCRATCH + 0x2f38;
export const PLACE: usize = SCRATCH + 0x2f40;
export const PLACE_MIN: usize = SCRATCH + 0x2f48;
/** The three repeated offsets, most recent first, and a word to spare. */
export const HISTORY: usize = SCRATCH + 0x2f50;
/** Where the next sequence writes. */
export const OUTPUT_AT: usize = SCRATCH + 0x2f60;

// DecodeError of src/kernels/kernels.ts.
export const TRUNCATED: i32 = -1;
export const SHORT: i32 = -2;
export const INVALID: i32 = -3;
export const OVERLONG: i32 = -4;
export const CHECKSUM: i32 = -5;
export const UNSUPPORTED: i32 = -6;

/** No block regenerates more than this (RFC 8878, 3.1.1.2.4). */
export const BLOCK_BYTES_MAX: u32 = 0x20000;
