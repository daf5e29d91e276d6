// Which granules of a buffer hold anything but zeros? (Kernels.dataRanges)
//
// The scan looks at 64 bytes a step; a granule that has a non-zero byte usually shows it in the
// first step, so the cost is that of the zeros.

import { MISUSE, mapped } from './bounds';

// @ts-ignore: decorator
@inline
function anySet(at: usize, bytes: u32): bool {
  while (bytes >= 64) {
    const a = v128.or(v128.load(at), v128.load(at, 16));
    const b = v128.or(v128.load(at, 32), v128.load(at, 48));
    if (v128.any_true(v128.or(a, b))) return true;
    at += 64;
    bytes -= 64;
  }
  while (bytes != 0) {
    if (load<u8>(at)) return true;
    at++;
    bytes--;
  }
  return false;
}

export function dataRanges(
  at: usize, bytes: u32, granule: u32, phase: u32, out: usize, outMax: u32,
): i32 {
  if (granule < 512 || (granule & (granule - 1)) != 0 || phase >= granule) return MISUSE;
  if (!mapped(at, bytes) || outMax == 0 || !mapped(out, <u64>outMax << 3)) return MISUSE;
  let pairs: u32 = 0;
  let open = false;
  let pos: u32 = 0;
  let step: u32 = granule - phase;
  while (pos < bytes) {
    const length = min(step, bytes - pos);
    if (anySet(at + pos, length)) {
      if (!open) {
        if (pairs == outMax) break;
        store<u32>(out + (<usize>pairs << 3), pos);
        open = true;
        pairs++;
      }
    } else if (open) {
      store<u32>(out + (<usize>(pairs - 1) << 3), pos, 4);
      open = false;
    }
    pos += length;
    step = granule;
  }
  // Out of room with data left, or data up to the end: the last pair covers the rest.
  if (open || pos < bytes) store<u32>(out + (<usize>(pairs - 1) << 3), bytes, 4);
  return pairs;
}
