/** Bytes that make a deflate encoder take each of its ways. */
import type { Random } from '../random.ts';

type Sample = (random: Random, length: number) => Uint8Array;

function noise(random: Random, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => random.below(256));
}

/** Copies of what came before, up to `reach` back, with literals between them. */
function copies(random: Random, length: number, reach: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; ) {
    for (let run = random.below(random.pick([3, 30])); run >= 0 && i < length; run--) {
      bytes[i++] = random.below(256);
    }
    const distance = 1 + random.below(Math.min(Math.max(i, 1), reach));
    const end = Math.min(length, i + 3 + random.below(random.pick([3, 20, 600])));
    for (; i < end; i++) bytes[i] = bytes[i - distance] ?? 0;
  }
  return bytes;
}

/** Kinds of bytes by name; each of any length. */
export const SAMPLES: Readonly<Record<string, Sample>> = {
  noise,
  zeros: (_, length) => new Uint8Array(length),
  'one byte': (random, length) => new Uint8Array(length).fill(random.below(256)),
  period: (random, length) => {
    const once = noise(random, 1 + random.below(random.pick([8, 300, 5000])));
    return Uint8Array.from({ length }, (_, i) => once[i % once.length]!);
  },
  words: (random, length) => {
    const list = Array.from({ length: random.pick([6, 60, 600]) }, () =>
      Array.from({ length: 1 + random.below(9) }, () => 97 + random.below(26)),
    );
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) {
      for (const c of random.pick(list)) bytes[i++] = c;
      bytes[i] = 32;
    }
    return bytes;
  },
  'few values': (random, length) => {
    const values = 1 + random.below(20);
    return Uint8Array.from({ length }, () => random.below(random.below(values) + 1));
  },
  records: (random, length) =>
    Uint8Array.from({ length }, (_, i) => {
      if (i % 16 < 4) return i >> ((i % 4) * 8);
      return i % 16 < 6 ? random.below(256) : 0;
    }),
  'copies from near': (random, length) => copies(random, length, 300),
  'copies from anywhere': (random, length) => copies(random, length, 32768),
  'copies from the edge of the window': (random, length) => {
    const bytes = noise(random, length);
    for (let i = 4200; i < length; i += 300) {
      const distance = 4096 - 4 + random.below(8);
      const end = Math.min(length, i + random.below(290));
      for (let k = i; k < end; k++) bytes[k] = bytes[k - distance]!;
    }
    return bytes;
  },
  // Each value half as often as the next: words longer than the format has them.
  lopsided: (random, length) =>
    Uint8Array.from({ length }, () => {
      let value = 0;
      while (value < 40 && random.oneIn(2)) value++;
      return (value * 89) & 0xff;
    }),
  // Other bytes every few KiB: blocks start there.
  patchwork: (random, length) => {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; ) {
      const take = Math.min(length - at, 1 + random.below(random.pick([3000, 30000])));
      bytes.set(random.pick(PIECES)(random, take), at);
      at += take;
    }
    return bytes;
  },
  // Long runs without a match, in which searching is given up, and matches behind them.
  'noise and copies': (random, length) => {
    const bytes = noise(random, length);
    for (let i = 3000; i < length; i += random.below(9000)) {
      const end = Math.min(length, i + random.below(2000));
      for (const distance = 1 + random.below(3000); i < end; i++) bytes[i] = bytes[i - distance]!;
    }
    return bytes;
  },
};

const PIECES = Object.entries(SAMPLES)
  .filter(([name]) => name !== 'patchwork')
  .map(([, make]) => make);

/** Bytes of a kind chosen at random. */
export function anySample(random: Random, length: number): Uint8Array {
  return random.pick(Object.values(SAMPLES))(random, length);
}
