// Where the stream goes. Between two blocks up to seven bits wait for their byte to be full.
//
//   WRITER    u64  bits that wait
//          8  u32  how many
//         12  u32  address of their byte
//         16  u32  the output, from
//         20  u32  to

import { STAGE, WRITER } from './deflate-scratch';

/** Starts a stream at `dst`. */
export function startStream(dst: usize, dstMax: u32): void {
  store<u64>(WRITER, 0);
  store<u32>(WRITER, 0, 8);
  store<u32>(WRITER, <u32>dst, 12);
  store<u32>(WRITER, <u32>dst, 16);
  store<u32>(WRITER, <u32>dst + dstMax, 20);
}

/** Whether `bits` more go into the output. */
export function hasRoom(bits: u32): bool {
  return load<u32>(WRITER, 12) + ((load<u32>(WRITER, 8) + bits + 7) >> 3) <= load<u32>(WRITER, 20);
}

/** Bits until the next byte starts. */
// @ts-ignore: decorator
@inline
export function bitsToAlign(): u32 {
  return -load<u32>(WRITER, 8) & 7;
}

/**
 * Makes ready for a block of `bits`, which has room: whole words can be stored up to its end.
 * Where they can't be in the output, the block goes to the stage first.
 * @returns what `endBlock` wants to know
 */
export function beginBlock(bits: u32): u32 {
  const at = load<u32>(WRITER, 12);
  if (at + (bits >> 3) + 16 <= load<u32>(WRITER, 20)) return 0;
  store<u32>(WRITER, <u32>STAGE, 12);
  return at;
}

/** Brings a block from the stage into the output. */
export function endBlock(at: u32): void {
  if (at == 0) return;
  const bytes = load<u32>(WRITER, 12) - <u32>STAGE;
  memory.copy(at, STAGE, bytes);
  store<u32>(WRITER, at + bytes, 12);
}

/** Writes up to 32 bits inside a block. */
// @ts-ignore: decorator
@inline
export function putBits(value: u32, count: u32): void {
  const have = load<u32>(WRITER, 8);
  const bits = load<u64>(WRITER) | ((<u64>value) << have);
  const total = have + count;
  const at = load<u32>(WRITER, 12);
  store<u64>(at, bits);
  store<u32>(WRITER, at + (total >> 3), 12);
  store<u64>(WRITER, bits >> (total & ~7));
  store<u32>(WRITER, total & 7, 8);
}

/** Ends the stream; its last byte has room. Returns its length in bytes. */
export function finishStream(): u32 {
  let at = load<u32>(WRITER, 12);
  if (load<u32>(WRITER, 8) > 0) store<u8>(at++, load<u8>(WRITER));
  return at - load<u32>(WRITER, 16);
}
