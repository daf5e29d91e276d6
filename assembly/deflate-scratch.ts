// Where the deflate encoder keeps its tables: see layout.ts about the scratch area.

import { SCRATCH } from './layout';

/** The encoder parses and writes this much of the input at a time, and a match more. */
// @ts-ignore: decorator
@inline export const CHUNK: u32 = 65536;

// Of the match finder.
// @ts-ignore: decorator
@inline export const HEADS4: usize = SCRATCH; // u16: last position of a hash of four bytes
// @ts-ignore: decorator
@inline export const HEADS3: usize = SCRATCH + 0x8000; // u16: the same of three bytes
// @ts-ignore: decorator
@inline export const CHAIN: usize = SCRATCH + 0xc000; // u16: the position before in a chain

// The same for fast levels, where the slow ones keep their matches.
// @ts-ignore: decorator
@inline export const BUCKETS: usize = SCRATCH + 0x400000; // u64: the last four positions of a hash
// @ts-ignore: decorator
@inline export const NEAR: usize = SCRATCH + 0x420000; // u16: last position of three bytes

// The same for slow levels.
// @ts-ignore: decorator
@inline export const ROOTS: usize = SCRATCH; // u32: the tree of a hash
// @ts-ignore: decorator
@inline export const NEAR3: usize = SCRATCH + 0x8000; // u16: last position of three bytes
// @ts-ignore: decorator
@inline export const TREE: usize = SCRATCH + 0xa000; // two u16 for each position of a window

// u16 per match length, 16 for longer ones: distances below this are worth it.
// @ts-ignore: decorator
@inline export const REACHES: usize = SCRATCH + 0xff00;

// Of the split into blocks: see deflate-split.ts.
// @ts-ignore: decorator
@inline export const SEGMENTS: usize = SCRATCH + 0x10000;

// Of the code of a block.
// @ts-ignore: decorator
@inline export const LENGTHS: usize = SCRATCH + 0x1c000; // u8: 288 and 32 code word lengths
// @ts-ignore: decorator
@inline export const WORDS: usize = SCRATCH + 0x1c200; // u32: 288 and 32 code words
// @ts-ignore: decorator
@inline export const MATCH_WORDS: usize = SCRATCH + 0x1c800; // u32: one for each match length
// @ts-ignore: decorator
@inline export const DIST_WORDS: usize = SCRATCH + 0x1d000; // u64: one for each distance symbol
// @ts-ignore: decorator
@inline export const SORTED: usize = SCRATCH + 0x1d200; // u32: frequency << 9 | symbol, ascending
// @ts-ignore: decorator
@inline export const SORTING: usize = SCRATCH + 0x1d800; // u32: the same on its way
// @ts-ignore: decorator
@inline export const NODES: usize = SCRATCH + 0x1de00; // u32: inner nodes of the tree
// @ts-ignore: decorator
@inline export const DIGITS: usize = SCRATCH + 0x1e400; // u32: 256 counters of a sort
// @ts-ignore: decorator
@inline export const LENGTH_COUNTS: usize = SCRATCH + 0x1e800; // u32: code words of each length
// @ts-ignore: decorator
@inline export const NEXT_WORDS: usize = SCRATCH + 0x1e880; // u32: next code word of each length

// Of a dynamic block's header.
// @ts-ignore: decorator
@inline export const HEADER: usize = SCRATCH + 0x1ea00; // u16: symbol, extra bits << 8
// @ts-ignore: decorator
@inline export const PRECODE_COUNTS: usize = SCRATCH + 0x1ed00; // u32: 19 frequencies
// @ts-ignore: decorator
@inline export const PRECODE_LENGTHS: usize = SCRATCH + 0x1ed80; // u8
// @ts-ignore: decorator
@inline export const PRECODE_WORDS: usize = SCRATCH + 0x1ee00; // u32

// The bit writer between two blocks: u64 bits, u32 count (below 8), u32 at, u32 dst, u32 end.
// @ts-ignore: decorator
@inline export const WRITER: usize = SCRATCH + 0x1ef00;

// What the parser found: u32 literals | match length << 20, u32 distance | its symbol << 16.
// @ts-ignore: decorator
@inline export const SEQUENCES: usize = SCRATCH + 0x20000;

// A block whose last bytes have no room for whole words behind the output.
// @ts-ignore: decorator
@inline export const STAGE: usize = SCRATCH + 0x4c000;

// Of the parser that looks for the cheapest way; all by position in the chunk.
// @ts-ignore: decorator
@inline export const COSTS: usize = SCRATCH + 0xf0000; // u32: bits * 256 from there to the end
// @ts-ignore: decorator
@inline export const CHOICES: usize = SCRATCH + 0x132000; // u32: length << 20 | distance, or 0
// @ts-ignore: decorator
@inline export const MATCH_STARTS: usize = SCRATCH + 0x174000; // u32: where its matches begin
// @ts-ignore: decorator
@inline export const LITERAL_COSTS: usize = SCRATCH + 0x1b6000; // u32 per byte
// @ts-ignore: decorator
@inline export const LENGTH_COSTS: usize = SCRATCH + 0x1b6400; // u32 per length
// @ts-ignore: decorator
@inline export const DIST_COSTS: usize = SCRATCH + 0x1b6900; // u32 per symbol
// u32: length << 20 | symbol << 12 | distance, sixteen for a position at most
// @ts-ignore: decorator
@inline export const MATCHES: usize = SCRATCH + 0x1b7000;
