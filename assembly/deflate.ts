// Raw deflate (RFC 1951) for clusters: distances that fit QEMU's window. (Kernels.deflate)
//
// The input is taken in chunks: each is parsed into segments of sequences (deflate-parse.ts),
// segments join to blocks (deflate-split.ts), and each block is written in the shortest of the
// three ways (deflate-block.ts).

import { mapped, MISUSE } from './bounds';
import { bucketBits, clearBuckets } from './deflate-buckets';
import { writeBlock } from './deflate-block';
import { clearMatches, hashBits } from './deflate-matches';
import { collectMatches, parseOptimal, refineBlock } from './deflate-optimal';
import { parseChunk } from './deflate-parse';
import { CHUNK } from './deflate-scratch';
import { BYTES, clearCounts, FROM, segment, SEQUENCES_FROM } from './deflate-segments';
import { blockAt, joinSegments } from './deflate-split';
import { clearTrees } from './deflate-tree';
import { finishStream, startStream } from './deflate-writer';

// How hard the levels try, four numbers each: candidates along a chain (0: those of a bucket), a
// length that is good enough, one at which no look is taken at the next position (0: never), and
// 0; or, for the cheapest way: candidates, 0, passes over a block, passes over a chunk before.
const LEVELS = memory.data<u16>([
  0, 0, 0, 0,
  0, 0, 4, 0,
  0, 0, 6, 0,
  0, 0, 8, 0,
  0, 0, 12, 0,
  0, 0, 258, 0,
  16, 30, 30, 0,
  50, 0, 1, 1,
  200, 0, 4, 2,
]);

// Behind an input, bytes that may be read.
// @ts-ignore: decorator
@inline const INPUT_SLACK: u32 = 64;

export function deflate(
  src: usize, srcBytes: u32, dst: usize, dstMax: u32, level: u32,
): i32 {
  if (!mapped(src, <u64>srcBytes + INPUT_SLACK) || !mapped(dst, dstMax)) return MISUSE;
  if (level - 1 >= 9 || srcBytes > 0x40000000) return MISUSE;
  const settings = LEVELS + (<usize>(level - 1) << 3);
  const depth: u32 = load<u16>(settings);
  const nice: u32 = load<u16>(settings, 2);
  const lazy: u32 = load<u16>(settings, 4);
  const passes: u32 = load<u16>(settings, 6);
  startStream(dst, dstMax);
  if (srcBytes == 0) {
    const record = segment(0);
    clearCounts(record);
    store<u64>(record, 0, FROM);
    store<u64>(record, 0, SEQUENCES_FROM);
    return writeBlock(record, src, true) ? finishStream() : 0;
  }
  const bits = depth == 0 ? bucketBits(srcBytes) : hashBits(srcBytes);
  if (passes > 0) clearTrees();
  else if (depth == 0) clearBuckets(bits);
  else clearMatches(bits);
  let pos: u32 = 0;
  while (pos < srcBytes) {
    const chunk = pos;
    let segments: u32 = 0;
    if (passes > 0) {
      const end = min(srcBytes, chunk + CHUNK);
      collectMatches(src, chunk, end, srcBytes, depth);
      segments = parseOptimal(src, chunk, end, passes);
    } else {
      segments = parseChunk(src, chunk, srcBytes, 3, depth, nice, lazy, 32 - bits);
    }
    const blocks = joinSegments(segments);
    for (let i: u32 = 0; i < blocks; i++) {
      const record = blockAt(i);
      pos = load<u32>(record, FROM) + load<u32>(record, BYTES);
      if (passes > 0) refineBlock(record, src, chunk, lazy);
      if (!writeBlock(record, src, pos == srcBytes)) return 0;
    }
  }
  return finishStream();
}
