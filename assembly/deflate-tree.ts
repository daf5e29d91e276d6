// Finds all matches worth knowing: at a position, for each length the nearest.
//
// Positions with the same hash of four bytes form a binary tree, sorted by what stands there, the
// latest at the root. On the way from the root to the place of a new position lie its longest
// matches, and on that way the tree is taken apart into the two below it. A position has its place
// for as long as the window is. Inside of trees its low 16 bits tell it; a root has all, because a
// wrong one would tie two trees together. Three bytes alone have one position, the latest.
//
// The order of a tree says how many bytes two positions share at least. They are compared from the
// first one all the same: it costs nothing, because eight bytes are compared at once, and no flaw
// of a tree can make a match of what is none.

import { DIST_MAX, matchLength } from './deflate-matches';
import { NEAR3, ROOTS, TREE } from './deflate-scratch';
import { distSymbol } from './deflate-symbols';

// @ts-ignore: decorator
@inline const HASH_BITS: u32 = 13;
// @ts-ignore: decorator
@inline const NEAR_BITS: u32 = 12;
// @ts-ignore: decorator
@inline const FACTOR4: u32 = 0x9e3779b1;
// @ts-ignore: decorator
@inline const FACTOR3: u32 = 0x1e35a7bd;
// At most so many matches of a position are kept: a longer one takes the place of the last.
// @ts-ignore: decorator
@inline const KEPT_MAX: usize = 16;

/** Makes the tables empty. */
export function clearTrees(): void {
  memory.fill(ROOTS, 0x80, 4 << HASH_BITS);
  memory.fill(NEAR3, 0x80, 2 << NEAR_BITS);
}

// @ts-ignore: decorator
@inline
function entryOf(length: u32, distance: u32): u32 {
  return (length << 20) | (distSymbol(distance) << 12) | distance;
}

// Where the two trees below a position stand: u16 what sorts before it, u16 what sorts behind.
// @ts-ignore: decorator
@inline
function below(pos: u32): usize {
  return TREE + <usize>((pos & 4095) << 2);
}

// Stands for no tree: as long as the position that says so is in the window, this one is ahead.
// @ts-ignore: decorator
@inline
function nobody(pos: u32): u16 {
  return <u16>(pos + 4096);
}

// What another position has below it, for a position that takes its place and will stay longer.
// @ts-ignore: decorator
@inline
function inherited(other: u32, pos: u32, reach: u32): u16 {
  return ((pos - other) & 0xffff) - 1 < reach ? <u16>other : nobody(pos);
}

/**
 * Makes a position known, and finds its matches, ever longer ones.
 * @param depth how far down the tree, at most
 * @param limit bytes that are left, 258 at most and 4 at least
 * @param to where they go: u32 each, length << 20 | distance's symbol << 12 | distance
 * @returns the address behind them
 */
export function findAll(src: usize, pos: u32, depth: u32, limit: u32, to: usize): usize {
  const at = src + pos;
  const word = load<u32>(at);
  const root = ROOTS + <usize>(((word * FACTOR4) >> (32 - HASH_BITS)) << 2);
  const near = NEAR3 + <usize>((((word << 8) * FACTOR3) >> (32 - NEAR_BITS)) << 1);
  const reach = min(pos, DIST_MAX);
  const full = to + KEPT_MAX * 4;
  let best: u32 = 3;
  let distance = (pos - load<u16>(near)) & 0xffff;
  store<u16>(near, <u16>pos);
  if (distance - 1 < reach && (load<u32>(at - distance) ^ word) << 8 == 0) {
    store<u32>(to, entryOf(3, distance));
    to += 4;
  }
  distance = pos - load<u32>(root);
  store<u32>(root, pos);
  // The ends of the two trees that are made: what is found next of them goes there.
  let before = below(pos);
  let behind = below(pos) + 2;
  while (true) {
    if (distance - 1 >= reach || depth-- == 0) {
      store<u16>(before, nobody(pos));
      store<u16>(behind, nobody(pos));
      return to;
    }
    const from = at - distance;
    const trees = below(pos - distance);
    const length = matchLength(at, from, 0, limit);
    if (length > best) {
      best = length;
      if (to == full) to -= 4;
      store<u32>(to, entryOf(length, distance));
      to += 4;
    }
    if (length == limit) {
      // The same, as far as one looks: the new one takes its place.
      store<u16>(before, inherited(load<u16>(trees), pos, reach));
      store<u16>(behind, inherited(load<u16>(trees, 2), pos, reach));
      return to;
    }
    if (load<u8>(from + length) < load<u8>(at + length)) {
      store<u16>(before, <u16>(pos - distance));
      before = trees + 2;
      distance = (pos - load<u16>(before)) & 0xffff;
    } else {
      store<u16>(behind, <u16>(pos - distance));
      behind = trees;
      distance = (pos - load<u16>(behind)) & 0xffff;
    }
  }
}
