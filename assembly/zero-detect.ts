// Which granules of a buffer hold anything but zeros? (Kernels.dataRanges)
//
// The scan looks at 64 bytes a step; a granule that has a non-zero byte usually shows it in the
// first step, so the cost is that of the zeros.

// @ts-ignore: decorator
@inline
function anySet(at: usize, bytes: usize): bool {
  const end = at + bytes;
  while (at + 64 <= end) {
    const a = v128.or(v128.load(at), v128.load(at, 16));
    const b = v128.or(v128.load(at, 32), v128.load(at, 48));
    if (v128.any_true(v128.or(a, b))) return true;
    at += 64;
  }
  while (at < end) {
    if (load<u8>(at)) return true;
    at++;
  }
  return false;
}

export function dataRanges(
  at: usize, bytes: u32, granule: u32, phase: u32, out: usize, outMax: u32,
): u32 {
  if (outMax == 0) return 0;
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
