/**
 * Raw deflate streams for the tests of `inflate`: a bit writer, streams that no encoder would
 * write but the format allows, headers that it forbids, and a bench to run a decoder on.
 */
import * as assert from 'uvu/assert';
import { ARENA_BASE, INPUT_SLACK, type Kernels } from '../../src/kernels/kernels.ts';
import type { Random } from '../random.ts';

/** Writes bits, the lowest first; code words as `makeWords` has them: first bit lowest. */
export class BitWriter {
  private readonly bytes: number[] = [];
  private bitCount = 0;

  bits(value: number, count: number): this {
    for (let i = 0; i < count; i++) {
      if ((this.bitCount & 7) === 0) this.bytes.push(0);
      this.bytes[this.bytes.length - 1]! |= ((value >>> i) & 1) << (this.bitCount++ & 7);
    }
    return this;
  }

  align(): this {
    this.bitCount = (this.bitCount + 7) & ~7;
    return this;
  }

  finish(): Uint8Array {
    return Uint8Array.from(this.bytes);
  }
}

/** The canonical code words of the given lengths. */
export function makeWords(lengths: readonly number[]): number[] {
  const words = new Array<number>(lengths.length).fill(0);
  let next = 0;
  for (let length = 1; length <= 15; length++) {
    next <<= 1;
    lengths.forEach((l, symbol) => {
      if (l !== length) return;
      for (let i = 0, word = next; i < length; i++, word >>= 1) {
        words[symbol] = (words[symbol]! << 1) | (word & 1);
      }
      next++;
    });
  }
  return words;
}

/** The lengths of a complete code of `count` words of at most `max` bits, in random shape. */
function randomLengths(random: Random, count: number, max: number): number[] {
  const lengths = [0];
  const deep = random.oneIn(2);
  while (lengths.length < count) {
    const fresh = lengths.length - 1;
    let i = deep && random.below(3) > 0 ? fresh : random.below(lengths.length);
    while (lengths[i]! >= max) i = (i + 1) % lengths.length;
    lengths[i]!++;
    lengths.push(lengths[i]!);
  }
  return lengths;
}

/** Hands random lengths out to the symbols that are to have a code word. */
function lengthsFor(random: Random, symbols: readonly number[], size: number): number[] {
  const result = new Array<number>(size).fill(0);
  const words = symbols.length === 1 ? [1] : randomLengths(random, symbols.length, 15);
  symbols.forEach((symbol, i) => {
    result[symbol] = words[i]!;
  });
  return result;
}

const PRECODE_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/** A code for all nineteen: thirteen words of four bits, six of five. */
const PRECODE = Array.from({ length: 19 }, (_, i) => (i < 13 ? 4 : 5));

/** Writes the header of a dynamic block, using the repeat symbols where `random` likes. */
export function writeDynamicHeader(
  writer: BitWriter,
  litlens: readonly number[],
  dists: readonly number[],
  { isLast, random, precode = PRECODE }: HeaderOptions,
): void {
  writer.bits(isLast ? 1 : 0, 1).bits(2, 2);
  writer
    .bits(litlens.length - 257, 5)
    .bits(dists.length - 1, 5)
    .bits(15, 4);
  for (const symbol of PRECODE_ORDER) writer.bits(precode[symbol]!, 3);
  const words = makeWords(precode);
  const put = (symbol: number) => writer.bits(words[symbol]!, precode[symbol]!);
  const lengths = [...litlens, ...dists];
  for (let i = 0; i < lengths.length; ) {
    let run = 1;
    while (lengths[i + run] === lengths[i]) run++;
    if (lengths[i] === 0 && run >= 3 && random?.oneIn(4) === false) {
      run = Math.min(run, 138);
      if (run < 11) put(17).bits(run - 3, 3);
      else put(18).bits(run - 11, 7);
    } else if (i > 0 && lengths[i] === lengths[i - 1] && run >= 3 && random?.oneIn(4) === false) {
      run = Math.min(run, 6);
      put(16).bits(run - 3, 2);
    } else {
      run = 1;
      put(lengths[i]!);
    }
    i += run;
  }
}

interface HeaderOptions {
  readonly isLast?: boolean;
  readonly random?: Random;
  readonly precode?: readonly number[];
}

/** The base and the extra bits of a length symbol less 257, or of a distance symbol. */
export const LENGTHS = Array.from({ length: 29 }, (_, i) => {
  const extra = i < 8 || i === 28 ? 0 : (i >> 2) - 1;
  return { base: i === 28 ? 258 : i < 8 ? 3 + i : 3 + ((4 + (i & 3)) << extra), extra };
});
export const DISTANCES = Array.from({ length: 30 }, (_, i) => {
  const extra = i < 4 ? 0 : (i >> 1) - 1;
  return { base: i < 4 ? 1 + i : 1 + ((2 + (i & 1)) << extra), extra };
});

/** A stream of random blocks with random codes, and what it stands for. */
export function randomStream(
  random: Random,
  plainMax: number,
): { stream: Uint8Array; plain: Uint8Array } {
  const writer = new BitWriter();
  const plain: number[] = [];
  for (let isLast = false; !isLast; ) {
    isLast = plain.length >= plainMax || random.oneIn(6);
    const kind = random.below(8);
    const room = Math.max(0, plainMax - plain.length);
    if (kind === 0) storedBlock(writer, plain, random, isLast);
    else codedBlock(writer, plain, random, { isLast, isFixed: kind <= 2, room });
  }
  return { stream: writer.finish(), plain: Uint8Array.from(plain) };
}

function storedBlock(writer: BitWriter, plain: number[], random: Random, isLast: boolean): void {
  const length = random.pick([0, 1, 15, 16, 17, 300, 2000]);
  writer
    .bits(isLast ? 1 : 0, 3)
    .align()
    .bits(length, 16)
    .bits(~length & 0xffff, 16);
  for (let i = 0; i < length; i++) {
    const byte = random.below(256);
    plain.push(byte);
    writer.bits(byte, 8);
  }
}

function codedBlock(
  writer: BitWriter,
  plain: number[],
  random: Random,
  { isLast, isFixed, room }: { isLast: boolean; isFixed: boolean; room: number },
): void {
  let litlens: number[] = Array.from({ length: 288 }, (_, i) =>
    i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8,
  );
  let dists = new Array<number>(30).fill(5);
  if (isFixed) {
    writer.bits(isLast ? 1 : 0, 1).bits(1, 2);
  } else {
    const literalsOneIn = random.pick([1, 2, 30]);
    const symbols = Array.from({ length: 286 }, (_, i) => i).filter(
      (i) => i === 256 || random.oneIn(literalsOneIn),
    );
    litlens = lengthsFor(random, symbols, 1 + Math.max(...symbols));
    const distsOneIn = random.pick([1, 2, 12, 1000]);
    const distSymbols = Array.from({ length: 30 }, (_, i) => i).filter(() =>
      random.oneIn(distsOneIn),
    );
    dists =
      distSymbols.length === 0
        ? [0]
        : lengthsFor(random, distSymbols, 1 + Math.max(...distSymbols));
    writeDynamicHeader(writer, litlens, dists, { isLast, random });
  }
  const litlenWords = makeWords(litlens);
  // The fixed code has words for two symbols that do not exist; their places must be counted.
  const distWords = makeWords(isFixed ? new Array<number>(32).fill(5) : dists);
  const usable = litlens.flatMap((l, i) => (l > 0 && i < 286 ? [i] : []));
  const usableDists = dists.flatMap((l, i) => (l > 0 ? [i] : []));
  // Some blocks favour the short words, as real ones do, and some the long ones.
  const byLength = [...usable].sort((a, b) => litlens[a]! - litlens[b]!);
  if (random.oneIn(3)) byLength.reverse();
  const skewed = random.oneIn(2);
  const end = plain.length + random.below(room + 1);
  for (let turns = 0; plain.length < end && turns < 5000; turns++) {
    const symbol =
      skewed && !random.oneIn(8)
        ? byLength[random.below(1 + (byLength.length >> 3))]!
        : random.pick(usable);
    if (symbol === 256) continue;
    if (symbol < 256) {
      writer.bits(litlenWords[symbol]!, litlens[symbol]!);
      plain.push(symbol);
      continue;
    }
    const reachable = usableDists.filter((i) => DISTANCES[i]!.base <= plain.length);
    if (reachable.length === 0) continue;
    const { base, extra } = LENGTHS[symbol - 257]!;
    const more = random.below(1 << extra);
    writer.bits(litlenWords[symbol]!, litlens[symbol]!).bits(more, extra);
    const far = random.pick(reachable);
    const dist = DISTANCES[far]!;
    const distMore = random.below(Math.min(1 << dist.extra, plain.length - dist.base + 1));
    writer.bits(distWords[far]!, dists[far]!).bits(distMore, dist.extra);
    const distance = dist.base + distMore;
    for (let i = 0; i < base + more; i++) plain.push(plain[plain.length - distance]!);
  }
  writer.bits(litlenWords[256]!, litlens[256]!);
}

/** Lengths with code words for the given symbols: `size` of them, all else 0. */
export function lengthsOf(size: number, words: Readonly<Record<number, number>>): number[] {
  return Array.from({ length: size }, (_, i) => words[i] ?? 0);
}

/** Streams with something wrong in a header or a code, each with what is wrong. */
export function malformedStreams(): Record<string, Uint8Array> {
  const dynamic = (litlens: number[], dists: number[], options: HeaderOptions = {}, rest = 0) => {
    const writer = new BitWriter();
    writeDynamicHeader(writer, litlens, dists, { isLast: true, ...options });
    return writer.bits(rest, 16).bits(0, 32).bits(0, 32).finish();
  };
  const header = (litlens: number, dists: number) =>
    new BitWriter()
      .bits(5, 3)
      .bits(litlens - 257, 5)
      .bits(dists - 1, 5);
  // Words: 18 '0', 16 '10', 1 '11'; what the code needs for the streams below.
  const small = (lengths: (put: (symbol: 1 | 16 | 18, more?: number) => void) => void) => {
    const writer = header(257, 1).bits(14, 4);
    for (const symbol of PRECODE_ORDER.slice(0, 18)) {
      writer.bits(symbol === 18 ? 1 : symbol === 16 || symbol === 1 ? 2 : 0, 3);
    }
    lengths((symbol, more = 0) => {
      if (symbol === 18) writer.bits(0, 1).bits(more - 11, 7);
      else if (symbol === 16) writer.bits(3, 2).bits(more - 3, 2);
      else writer.bits(1, 2);
    });
    return writer.bits(0, 32).bits(0, 32).finish();
  };
  const precodeOf = (words: Readonly<Record<number, number>>) => {
    const writer = header(257, 1).bits(15, 4);
    for (const symbol of PRECODE_ORDER) writer.bits(words[symbol] ?? 0, 3);
    // zlib gives up on an empty code only once all 258 lengths were read, one bit each.
    for (let i = 0; i < 12; i++) writer.bits(0, 32);
    return writer.finish();
  };
  const stored = (length: number, check: number) =>
    new BitWriter().bits(1, 3).align().bits(length, 16).bits(check, 16).bits(0, 32).finish();
  const fixed = () => new BitWriter().bits(3, 3);
  const word = (value: number, count: number) => {
    let reversed = 0;
    for (let i = 0; i < count; i++) reversed |= ((value >> i) & 1) << (count - 1 - i);
    return reversed;
  };
  return {
    'block type 3': new BitWriter().bits(7, 3).bits(0, 32).finish(),
    'block type 3 after a good block': fixed()
      .bits(0, 7)
      .bits(7, 3)
      .bits(0, 32)
      .finish()
      .map((b, i) => (i === 0 ? b & ~1 : b)),
    'LEN without its complement': stored(4, 4),
    'one bit wrong in NLEN': stored(4, (~4 & 0xffff) ^ 0x100),
    '287 literal/length codes': header(287, 1).bits(0, 32).bits(0, 32).finish(),
    '288 literal/length codes': header(288, 1).bits(0, 32).bits(0, 32).finish(),
    '31 distance codes': header(257, 31).bits(0, 32).bits(0, 32).finish(),
    '32 distance codes': header(257, 32).bits(0, 32).bits(0, 32).finish(),
    'no code length code': precodeOf({}),
    'code length code of one word': precodeOf({ 0: 1 }),
    'incomplete code length code': precodeOf({ 0: 2, 1: 2, 18: 2 }),
    'over-subscribed code length code': precodeOf({ 0: 1, 1: 1, 18: 1 }),
    'repeat with nothing before it': small((put) => put(16, 3)),
    'repeat past the last length': small((put) => {
      put(18, 138);
      put(18, 118);
      put(1);
      put(16, 3);
    }),
    'zeros past the last length': small((put) => {
      put(18, 138);
      put(18, 138);
    }),
    'no end-of-block code': dynamic(lengthsOf(257, { 0: 1, 1: 1 }), [1, 1]),
    'incomplete literal/length code': dynamic(lengthsOf(257, { 0: 2, 1: 2, 256: 2 }), [1, 1]),
    'one literal/length code of two bits': dynamic(lengthsOf(257, { 256: 2 }), [1, 1]),
    'over-subscribed literal/length code': dynamic(lengthsOf(257, { 0: 1, 1: 1, 256: 1 }), [1, 1]),
    'literal/length code over-subscribed at 15 bits': dynamic(
      lengthsOf(257, {
        0: 1,
        1: 2,
        2: 3,
        3: 4,
        4: 5,
        5: 6,
        6: 7,
        7: 8,
        8: 9,
        9: 10,
        10: 11,
        11: 12,
        12: 13,
        13: 14,
        14: 15,
        15: 15,
        256: 15,
      }),
      [1, 1],
    ),
    'incomplete distance code': dynamic(lengthsOf(257, { 0: 1, 256: 1 }), [2, 2, 2]),
    'one distance code of two bits': dynamic(lengthsOf(257, { 0: 1, 256: 1 }), [2]),
    'over-subscribed distance code': dynamic(lengthsOf(257, { 0: 1, 256: 1 }), [1, 1, 1]),
    'the unused half of a one-word literal/length code': dynamic(
      lengthsOf(257, { 256: 1 }),
      [0],
      {},
      1,
    ),
    // Words: end '0', literal 0 '10', length 3 '11'. A literal and a length, lowest bit first.
    'a distance without distance codes': dynamic(
      lengthsOf(258, { 0: 2, 256: 1, 257: 2 }),
      [0],
      {},
      0b01101,
    ),
    'the unused half of a one-word distance code': dynamic(
      lengthsOf(258, { 0: 2, 256: 1, 257: 2 }),
      [1],
      {},
      0b11101,
    ),
    'distance 1 at the start': fixed().bits(word(1, 7), 7).bits(0, 5).bits(0, 32).finish(),
    'distance 2 after one byte': fixed()
      .bits(word(0x30, 8), 8)
      .bits(word(1, 7), 7)
      .bits(word(1, 5), 5)
      .bits(0, 32)
      .finish(),
    'length symbol 286': fixed().bits(word(0x30, 8), 8).bits(word(0xc6, 8), 8).bits(0, 32).finish(),
    'length symbol 287': fixed().bits(word(0x30, 8), 8).bits(word(0xc7, 8), 8).bits(0, 32).finish(),
    'distance symbol 30': fixed()
      .bits(word(0x30, 8), 8)
      .bits(word(1, 7), 7)
      .bits(word(30, 5), 5)
      .bits(0, 32)
      .finish(),
    'distance symbol 31': fixed()
      .bits(word(0x30, 8), 8)
      .bits(word(1, 7), 7)
      .bits(word(31, 5), 5)
      .bits(0, 32)
      .finish(),
  };
}

const GUARD = 256;
const GUARD_BYTE = 0xa5;

/**
 * Runs a decoder with nothing but `INPUT_SLACK` between its input and the end of the memory, and
 * guards around its output.
 */
export class Bench {
  readonly memory: WebAssembly.Memory;
  private readonly bytes: Uint8Array;

  constructor(bytesMax: number) {
    const bytes = ARENA_BASE + 2 * bytesMax + 4 * GUARD + INPUT_SLACK + 4096;
    const pages = Math.ceil(bytes / 65536);
    this.memory = new WebAssembly.Memory({ initial: pages });
    this.bytes = new Uint8Array(this.memory.buffer);
  }

  /**
   * @param shift moves the input and the output up to 15 bytes off their usual places
   * @param slack fills what lies behind the input, and must make no difference
   */
  run(
    inflate: Kernels['inflate'],
    stream: Uint8Array,
    dstBytes: number,
    { shift = 0, slack = 0 }: { shift?: number; slack?: number } = {},
  ): { result: number; plain: Uint8Array } {
    const { bytes } = this;
    const src = bytes.length - INPUT_SLACK - shift - stream.length;
    bytes.fill(slack, src + stream.length);
    bytes.set(stream, src);
    const dst = ARENA_BASE + GUARD + shift;
    bytes.fill(GUARD_BYTE, dst - GUARD, dst);
    bytes.fill(GUARD_BYTE, dst + dstBytes, dst + dstBytes + GUARD);
    const result = inflate(src, stream.length, dst, dstBytes);
    for (let i = 0; i < GUARD; i++) {
      if (bytes[dst - 1 - i] !== GUARD_BYTE) assert.unreachable('wrote before the output');
      if (bytes[dst + dstBytes + i] !== GUARD_BYTE) assert.unreachable('wrote behind the output');
    }
    return { result, plain: bytes.slice(dst, dst + Math.max(0, result)) };
  }
}

/** `assert.equal` for bytes: says where they differ, not all of what they are. */
export function sameBytes(actual: Uint8Array, expected: Uint8Array, message: string): void {
  assert.is(actual.length, expected.length, `length, ${message}`);
  for (let i = 0; i < actual.length; i++) {
    if (actual[i] !== expected[i]) assert.unreachable(`byte ${i} differs, ${message}`);
  }
}
