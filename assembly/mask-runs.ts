// Runs of set bits in a stream of 64-bit words, as pairs of u32: first bit, length.
//
// A run is two edges, where the bits turn from 0 to 1 and back: `word ^ (word << 1 | bit before)`
// has one bit per edge. So a word costs one loop over its edges, and a word without any, inside of
// a long run or between two, next to nothing. Edges alternate: even ones open a run and store its
// first bit, odd ones close it and store the length. The number of edges so far is all the state
// there is: when it is odd, a run is open.

/** Stores the runs of one word whose bit 0 is bit `base`; @returns the new number of edges. */
// @ts-ignore: decorator
@inline
export function scanWord(word: u64, base: u32, out: usize, edges: u32, edgeMax: u32): u32 {
  const found = word ^ ((word << 1) | <u64>(edges & 1));
  return found == 0 ? edges : storeEdges(found, base, out, edges, edgeMax);
}

function storeEdges(found: u64, base: u32, out: usize, edges: u32, edgeMax: u32): u32 {
  let at = out + (<usize>edges << 2);
  const total = min(edges + <u32>popcnt<u64>(found), edgeMax);
  const end = out + (<usize>total << 2);
  let closing: u32 = 0 - (edges & 1);
  let last: u32 = closing ? load<u32>(at - 4) : 0;
  while (at != end) {
    const bit = base + <u32>ctz<u64>(found);
    store<u32>(at, bit - (last & closing));
    found &= found - 1;
    last = bit;
    closing = ~closing;
    at += 4;
  }
  return total;
}

/** Closes a run that is open at bit `end`; @returns the number of runs. */
// @ts-ignore: decorator
@inline
export function closeRun(end: u32, out: usize, edges: u32): u32 {
  if (edges & 1) {
    const at = out + (<usize>edges << 2);
    store<u32>(at, end - load<u32>(at - 4));
  }
  return (edges + 1) >> 1;
}
