/** Content that takes an encoder of zstd to the ends of what the format can say. */
import type { Random } from '../random.ts';
import { sample } from './zstd-agree.ts';

/** One kind of content: any length of it can be asked for. */
export type Content = (random: Random, length: number) => Uint8Array;

function noise(random: Random, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => random.u32());
}

/** Contents by what they try. */
export const contents: Readonly<Record<string, Content>> = {
  'like a disk': sample,
  noise,
  'one byte again and again': (random, length) => new Uint8Array(length).fill(random.u32()),
  'one byte but for a few': (random, length) => {
    const bytes = new Uint8Array(length).fill(random.u32());
    for (let left = random.below(4); left > 0; left--) {
      if (length > 0) bytes[random.below(length)] = random.u32();
    }
    return bytes;
  },
  'two bytes': (random, length) => {
    const rare = 2 + random.below(random.pick([2, 20, 2000]));
    return Uint8Array.from({ length }, () => (random.oneIn(rare) ? 255 : 3));
  },
  'a period': (random, length) => {
    const period = noise(random, 1 + random.below(random.pick([4, 40, 4000, 70_000])));
    return Uint8Array.from({ length }, (_, i) => period[i % period.length]!);
  },
  // Hardly any four of them come twice, and yet they are no noise.
  'literals without matches': (random, length) => {
    const values = random.pick([120, 150, 200, 250]);
    const steep = random.oneIn(2);
    return Uint8Array.from({ length }, () =>
      steep ? random.below(1 + random.below(values)) : random.below(values),
    );
  },
  'a long run of literals before a match': (random, length) => {
    const bytes = Uint8Array.from({ length }, () => random.below(100));
    bytes.copyWithin(Math.max(0, length - random.below(2000)), 0);
    return bytes;
  },
  'a copy from as far as can be': (random, length) => {
    const bytes = noise(random, length);
    const copied = Math.min(length >> 1, 4 + random.below(random.pick([12, 300, 100_000])));
    bytes.copyWithin(length - copied, 0, copied);
    return bytes;
  },
  'a match longer than a code can say': (random, length) => {
    const bytes = noise(random, length);
    const period = 1 + random.below(20);
    for (let i = period + random.below(30); i < length - random.below(40); i++) {
      bytes[i] = bytes[i - period]!;
    }
    return bytes;
  },
  // A sequence for every four bytes: more than two bytes can count.
  'sequences as many as can be': (random, length) => {
    const words = noise(random, 4 * (1 + random.below(3000)));
    const bytes = new Uint8Array(length);
    for (let i = 0; i + 4 <= length; i += 4) {
      const at = i < words.length ? i : random.below(words.length >> 2) << 2;
      bytes.set(words.subarray(at, at + 4), i);
    }
    return bytes;
  },
  'offsets that take turns': (random, length) => {
    const bytes = noise(random, length);
    const offsets = Array.from({ length: 3 }, () => 1 + random.below(Math.max(1, length >> 3)));
    let i = Math.min(length, Math.max(...offsets) + 8);
    while (i < length) {
      i += random.below(4);
      const offset = random.oneIn(20) ? 1 + random.below(i) : random.pick(offsets);
      const end = Math.min(length, i + 3 + random.below(12));
      for (; i < end; i++) bytes[i] = bytes[i - offset]!;
    }
    return bytes;
  },
  'parts of all kinds': (random, length) => {
    const bytes = new Uint8Array(length);
    const names = Object.keys(contents).filter((name) => name !== 'parts of all kinds');
    for (let at = 0; at < length; ) {
      const part = Math.min(length - at, 1 + random.below(random.pick([300, 9000, 140_000])));
      bytes.set(contents[random.pick(names)]!(random, part), at);
      at += part;
    }
    return bytes;
  },
};
