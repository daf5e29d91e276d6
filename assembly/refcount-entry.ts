// One entry of a refcount block, of 1 << order bits.
//
//   order 0, 1, 2   8, 4, 2 entries a byte, the first in its least significant bits
//   order 3         a byte
//   order 4, 5, 6   big-endian u16, u32, u64
//
// Spec: "Refcount Block". The functions are instantiated once per order: their callers pass it as a
// constant, and what does not belong to that order falls away.

import { mapped } from './bounds';

// @ts-ignore: decorator
@inline export const ORDER_MAX: u32 = 6;

/** Whether the block holds entries `first` … `first + count - 1`, numbered in 32 bits. */
// @ts-ignore: decorator
@inline
export function entriesMapped(block: usize, first: u32, count: u32, order: u32): bool {
  const end = <u64>first + count;
  return end >> 32 == 0 && mapped(block, ((end << order) + 7) >> 3);
}

/** Where the byte lies that holds entry `index`, or the first byte of it. */
// @ts-ignore: decorator
@inline
export function byteOf(block: usize, index: u32, order: u32): usize {
  return order < 3 ? block + (index >> (3 - order)) : block + (<usize>index << (order - 3));
}

/** The place of entry `index` inside of its byte. */
// @ts-ignore: decorator
@inline
export function shiftOf(index: u32, order: u32): u32 {
  return (index & ((1 << (3 - order)) - 1)) << order;
}

// @ts-ignore: decorator
@inline
export function entryGet(block: usize, index: u32, order: u32): u64 {
  const at = byteOf(block, index, order);
  if (order < 3) return (<u64>load<u8>(at) >> shiftOf(index, order)) & ((1 << (1 << order)) - 1);
  if (order == 3) return load<u8>(at);
  if (order == 4) return bswap<u16>(load<u16>(at));
  if (order == 5) return bswap<u32>(load<u32>(at));
  return bswap<u64>(load<u64>(at));
}

/** Writes an entry; the value fits. */
// @ts-ignore: decorator
@inline
export function entrySet(block: usize, index: u32, order: u32, value: u64): void {
  const at = byteOf(block, index, order);
  if (order < 3) {
    const shift = shiftOf(index, order);
    const mask: u32 = ((1 << (1 << order)) - 1) << shift;
    store<u8>(at, (<u32>load<u8>(at) & ~mask) | (<u32>value << shift));
  } else if (order == 3) store<u8>(at, <u8>value);
  else if (order == 4) store<u16>(at, bswap<u16>(<u16>value));
  else if (order == 5) store<u32>(at, bswap<u32>(<u32>value));
  else store<u64>(at, bswap<u64>(value));
}

/** Doubles the room of each entry: of 8 bytes with entries of `2 * bits` make 16 of `bits`. */
// @ts-ignore: decorator
@inline
function spread(packed: v128, bits: i32): v128 {
  const mask = v128.splat<u8>(<u8>(((<i32>1) << bits) - 1));
  const low = v128.and(packed, mask);
  const high = v128.and(v128.shr<u16>(packed, bits), mask);
  return v128.shuffle<u8>(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

/** Sixteen entries of at most 8 bits, one a byte; the first starts a byte at `at`. */
// @ts-ignore: decorator
@inline
export function bytesOf16(at: usize, order: u32): v128 {
  if (order == 3) return v128.load(at);
  if (order == 2) return spread(v128.load_zero<u64>(at), 4);
  if (order == 1) return spread(spread(v128.load_zero<u32>(at), 4), 2);
  const bits = v128.replace_lane<u16>(v128.splat<u64>(0), 0, load<u16>(at));
  return spread(spread(spread(bits, 4), 2), 1);
}

/** The inverse of `spread`: 16 bytes with values of `bits` to 8 bytes, twice over. */
// @ts-ignore: decorator
@inline
function squeeze(bytes: v128, bits: i32): v128 {
  const mask = v128.splat<u16>(<u16>(((<i32>1) << (bits << 1)) - 1));
  const pairs = v128.and(v128.or(bytes, v128.shr<u16>(bytes, 8 - bits)), mask);
  return v128.narrow<u16>(pairs, pairs);
}

/** Stores sixteen entries of at most 8 bits from a vector with one in each byte. */
// @ts-ignore: decorator
@inline
export function storeBytes16(at: usize, order: u32, bytes: v128): void {
  if (order == 3) v128.store(at, bytes);
  else if (order == 2) v128.store_lane<u64>(at, squeeze(bytes, 4), 0);
  else if (order == 1) v128.store_lane<u32>(at, squeeze(squeeze(bytes, 2), 4), 0);
  else v128.store_lane<u16>(at, squeeze(squeeze(squeeze(bytes, 1), 2), 4), 0);
}

/** Which of the sixteen entries from `at` are 0: a bit each, the first the lowest. */
// @ts-ignore: decorator
@inline
export function free16(at: usize, order: u32): u32 {
  const none = v128.splat<u64>(0);
  if (order == 0) return ~(<u32>load<u16>(at)) & 0xffff;
  if (order <= 3) return v128.bitmask<u8>(v128.eq<u8>(bytesOf16(at, order), none));
  if (order == 4) {
    const a = v128.eq<u16>(v128.load(at), none);
    const b = v128.eq<u16>(v128.load(at, 16), none);
    return v128.bitmask<u8>(v128.narrow<i16>(a, b));
  }
  if (order == 5) return v128.bitmask<u8>(v128.narrow<i16>(free8(at, 5), free8(at + 32, 5)));
  return v128.bitmask<u8>(v128.narrow<i16>(free8(at, 6), free8(at + 64, 6)));
}

// @ts-ignore: decorator
@inline
function free8(at: usize, order: u32): v128 {
  if (order == 5) return v128.narrow<i32>(free4(at, 5), free4(at + 16, 5));
  return v128.narrow<i32>(free4(at, 6), free4(at + 32, 6));
}

// @ts-ignore: decorator
@inline
function free4(at: usize, order: u32): v128 {
  const none = v128.splat<u64>(0);
  if (order == 5) return v128.eq<u32>(v128.load(at), none);
  const a = v128.eq<u64>(v128.load(at), none);
  const b = v128.eq<u64>(v128.load(at, 16), none);
  return v128.shuffle<u32>(a, b, 0, 2, 4, 6);
}
