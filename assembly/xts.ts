// The XOR of XTS around its block cipher, in place (Kernels.xtsXor), and that of other modes
// (Kernels.xorBytes).
//
//   tweaks   16 bytes a sector: the encrypted sector number, the tweak of the sector's first block
//
// The tweak of each further block is the one before it times α in GF(2^128), little-endian: all
// bits move up by one, and what falls out comes back as x^7 + x^2 + x + 1. IEEE Std 1619, 5.2.

import { MISUSE, mapped } from './bounds';

// @ts-ignore: decorator
@inline const SECTOR: usize = 512;

// @ts-ignore: decorator
@inline
function timesAlpha(tweak: v128): v128 {
  // The top bit of the upper half to bit 0 times 0x87, that of the lower half to the upper one's 0.
  const tops = v128.shuffle<u32>(tweak, tweak, 3, 0, 1, 0);
  const carry = v128.and(v128.shr<i32>(tops, 31), i32x4(0x87, 0, 1, 0));
  return v128.xor(v128.shl<i64>(tweak, 1), carry);
}

export function xtsXor(at: usize, sectors: u32, tweaks: usize): i32 {
  if (!mapped(at, <u64>sectors << 9) || !mapped(tweaks, <u64>sectors << 4)) return MISUSE;
  // Each tweak waits for the one before it: two sectors side by side wait half as long.
  for (; sectors >= 2; sectors -= 2, at += SECTOR, tweaks += 32) {
    let first = v128.load(tweaks);
    let second = v128.load(tweaks + 16);
    const end = at + SECTOR;
    for (; at < end; at += 16) {
      v128.store(at, v128.xor(v128.load(at), first));
      v128.store(at + SECTOR, v128.xor(v128.load(at + SECTOR), second));
      first = timesAlpha(first);
      second = timesAlpha(second);
    }
  }
  if (sectors == 0) return 0;
  let tweak = v128.load(tweaks);
  const end = at + SECTOR;
  for (; at < end; at += 16) {
    v128.store(at, v128.xor(v128.load(at), tweak));
    tweak = timesAlpha(tweak);
  }
  return 0;
}

export function xorBytes(at: usize, from: usize, bytes: u32): i32 {
  if (!mapped(at, bytes) || !mapped(from, bytes)) return MISUSE;
  for (; bytes >= 16; bytes -= 16, at += 16, from += 16) {
    v128.store(at, v128.xor(v128.load(at), v128.load(from)));
  }
  for (; bytes != 0; bytes--, at++, from++) store<u8>(at, load<u8>(at) ^ load<u8>(from));
  return 0;
}
