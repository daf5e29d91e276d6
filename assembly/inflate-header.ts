// The header of a dynamic block: code word lengths, themselves in a code. (RFC 1951, 3.2.7)

import { INVALID, READER, TRUNCATED, overrun } from './inflate-bits';
import {
  COUNTS, LENGTHS, SORTED, buildDist, buildLitlen, nextCode, sortSymbols,
} from './inflate-tables';
import { SCRATCH } from './layout';

// @ts-ignore: decorator
@inline const PRECODE: usize = SCRATCH + 0xbc40; // 128 of u8: symbol in 0–4, bits in 5–7

// Where the lengths of the code length code stand in a header.
const PRECODE_ORDER = memory.data<u8>([
  16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
]);

// The code of the code word lengths: at most 7 bits, and nothing but a complete code will do.
function buildPrecode(): bool {
  if (sortSymbols(LENGTHS, 19) != 0) return false;
  let i: u32 = load<u16>(COUNTS);
  let code: u32 = 0;
  for (let length: u32 = 1; length <= 7; length++) {
    const end = i + load<u16>(COUNTS + (<usize>length << 1));
    for (; i < end; i++) {
      const entry = load<u16>(SORTED + (<usize>i << 1)) | (length << 5);
      for (let slot = code; slot < 128; slot += 1 << length) store<u8>(PRECODE + slot, entry);
      code = nextCode(code, length);
    }
  }
  return true;
}

// Reads the header of a dynamic block (what follows its three bits) and builds its tables.
// Returns 0 or a DecodeError.
export function readDynamicHeader(srcEnd: usize): i32 {
  let bits = load<u64>(READER);
  let avail = load<u64>(READER, 8);
  let at: usize = load<u32>(READER, 16);

  const litlens = <u32>((bits >> 2) & 31) + 257;
  const dists = <u32>((bits >> 7) & 31) + 1;
  const precodes = <u32>((bits >> 12) & 15) + 4;
  bits >>= 14;
  avail -= 14;
  if (overrun(at, avail, srcEnd)) return TRUNCATED;
  if (litlens > 286 || dists > 30) return INVALID;

  memory.fill(LENGTHS, 0, 19);
  for (let i: u32 = 0; i < precodes; i++) {
    if ((avail & 63) < 5) {
      bits |= load<u64>(at) << avail;
      at += <usize>((~avail >> 3) & 7);
      avail |= 56;
    }
    store<u8>(LENGTHS + load<u8>(PRECODE_ORDER + i), <u8>((bits >> 2) & 7));
    bits >>= 3;
    avail -= 3;
  }
  if (overrun(at, avail, srcEnd)) return TRUNCATED;
  if (!buildPrecode()) return INVALID;

  const total = litlens + dists;
  let have: u32 = 0;
  while (have < total) {
    bits |= load<u64>(at) << avail;
    at += <usize>((~avail >> 3) & 7);
    avail |= 56;
    const entry: u32 = load<u8>(PRECODE + <usize>((bits >> 2) & 127));
    const symbol = entry & 31;
    const length: u64 = entry >> 5;
    bits >>= length;
    avail -= length;
    if (symbol < 16) {
      if (overrun(at, avail, srcEnd)) return TRUNCATED;
      store<u8>(LENGTHS + have++, symbol);
      continue;
    }
    let repeat: u32 = 0;
    let value: u8 = 0;
    if (symbol == 16) {
      repeat = 3 + <u32>((bits >> 2) & 3);
      bits >>= 2;
      avail -= 2;
      if (have) value = load<u8>(LENGTHS + have - 1);
    } else if (symbol == 17) {
      repeat = 3 + <u32>((bits >> 2) & 7);
      bits >>= 3;
      avail -= 3;
    } else {
      repeat = 11 + <u32>((bits >> 2) & 127);
      bits >>= 7;
      avail -= 7;
    }
    if (overrun(at, avail, srcEnd)) return TRUNCATED;
    if ((symbol == 16 && have == 0) || have + repeat > total) return INVALID;
    const end = have + repeat;
    for (; have < end; have += 16) v128.store(LENGTHS + have, i8x16.splat(value));
    have = end;
  }
  store<u64>(READER, bits);
  store<u64>(READER, avail, 8);
  store<u32>(READER, at, 16);
  if (load<u8>(LENGTHS + 256) == 0) return INVALID;
  return buildLitlen(litlens) && buildDist(LENGTHS + litlens, dists) ? 0 : INVALID;
}
