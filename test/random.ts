/**
 * Random numbers that a failure can be replayed with: run again with the SEED that it printed.
 * Runs in Node and in browsers (there: set `globalThis.SEED` before the tests load).
 */

interface Host {
  readonly SEED?: number | string;
  readonly process?: { readonly env: Record<string, string | undefined> };
}

const host = globalThis as Host;

/** The seed of this run. Put it into the message of every assertion that depends on it. */
export const SEED = Number(
  host.SEED ?? host.process?.env.SEED ?? Math.floor(Math.random() * 2 ** 31),
);

/** A source of random numbers: all of them follow from the seed. */
export interface Random {
  /** A whole number from 0 to `end` − 1; `end` up to 2^53. */
  below(end: number): number;
  /** True once in `n` times. */
  oneIn(n: number): boolean;
  /** An unsigned 32-bit number. */
  u32(): number;
  /** One of the items. */
  pick<T>(items: readonly T[]): T;
}

/** The mulberry32 generator: small, and even enough for test data. */
export function rng(seed: number = SEED): Random {
  let state = seed | 0;
  const u32 = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x ^= x + Math.imul(x ^ (x >>> 7), 61 | x);
    return (x ^ (x >>> 14)) >>> 0;
  };
  const below = (end: number): number =>
    end <= 2 ** 32
      ? Math.floor((u32() / 2 ** 32) * end)
      : Math.floor(((u32() * 2 ** 21 + (u32() >>> 11)) / 2 ** 53) * end);
  return {
    u32,
    below,
    oneIn: (n) => below(n) === 0,
    pick: (items) => items[below(items.length)]!,
  };
}

/** Some of a list, other ones with each seed; the whole list where `SLOW` is set. */
export function someOf<T>(list: readonly T[], count: number, random: Random = rng()): T[] {
  const left = [...list];
  if (host.process?.env.SLOW) return left;
  const taken: T[] = [];
  while (taken.length < count && left.length > 0) {
    taken.push(...left.splice(random.below(left.length), 1));
  }
  return taken;
}
