/**
 * Raw deflate, bit by bit: the definition that the kernel is held to. RFC 1951; what it leaves
 * open about incomplete codes is decided as zlib does.
 */
import { DecodeError, type Kernels } from '../../../src/kernels/kernels.ts';

const PRECODE_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/** Thrown to end the decoding: with the output full, or with an error. */
class Stop {
  constructor(readonly result: number) {}
}

/** A canonical code: how many code words have each length, and the symbols in their order. */
interface Code {
  readonly counts: readonly number[];
  readonly symbols: readonly number[];
}

/**
 * Every bit string must start with a code word. zlib lets two codes be incomplete: one of a single
 * word of one bit, and, where nothing is decoded with it, one of no words at all.
 */
function makeCode(lengths: readonly number[], kind: 'precode' | 'litlen' | 'dist'): Code {
  const counts = new Array<number>(16).fill(0);
  for (const length of lengths) counts[length]!++;
  const used = lengths.length - counts[0]!;
  counts[0] = 0;
  let unused = 1;
  for (let length = 1; length <= 15; length++) {
    unused = unused * 2 - counts[length]!;
    if (unused < 0) throw new Stop(DecodeError.invalid);
  }
  const single = kind !== 'precode' && used === 1 && counts[1] === 1;
  const none = kind === 'dist' && used === 0;
  if (unused > 0 && !single && !none) throw new Stop(DecodeError.invalid);

  const symbols = lengths
    .map((length, symbol) => ({ length, symbol }))
    .filter(({ length }) => length > 0)
    .sort((a, b) => a.length - b.length || a.symbol - b.symbol)
    .map(({ symbol }) => symbol);
  return { counts, symbols };
}

const FIXED_LITLEN = makeCode(
  Array.from({ length: 288 }, (_, i) => (i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8)),
  'litlen',
);
const FIXED_DIST = makeCode(new Array<number>(32).fill(5), 'dist');

class Decoder {
  private bitAt = 0;
  private outAt = 0;

  constructor(
    private readonly input: Uint8Array,
    private readonly output: Uint8Array,
  ) {}

  /** All blocks. Ends by throwing `Stop` unless the stream ends first. */
  run(): void {
    let isLast = false;
    while (!isLast) {
      const header = this.bits(3);
      isLast = (header & 1) !== 0;
      switch (header >> 1) {
        case 0:
          this.storedBlock();
          break;
        case 1:
          this.codedBlock(FIXED_LITLEN, FIXED_DIST);
          break;
        case 2:
          this.dynamicBlock();
          break;
        default:
          throw new Stop(DecodeError.invalid);
      }
    }
  }

  private bit(): number {
    if (this.bitAt >= this.input.length * 8) throw new Stop(DecodeError.truncated);
    const bit = (this.input[this.bitAt >>> 3]! >>> (this.bitAt & 7)) & 1;
    this.bitAt++;
    return bit;
  }

  /** All of them, or `truncated`: no field is judged before its last bit is there. */
  private bits(count: number): number {
    let value = 0;
    for (let i = 0; i < count; i++) value |= this.bit() << i;
    return value;
  }

  private symbol({ counts, symbols }: Code): number {
    let code = 0; // the bits read
    let first = 0; // the first code word of this length
    let index = 0; // and where its symbol is
    let unused = 1; // bit strings of this length that start with no code word so far
    for (let length = 1; length <= 15; length++) {
      const count = counts[length]!;
      code |= this.bit();
      if (code - first < count) return symbols[index + code - first]!;
      index += count;
      first = (first + count) << 1;
      code <<= 1;
      unused = unused * 2 - count;
      // Words are left only if some are longer; a code with none waits for one bit all the same.
      if (index === symbols.length && unused > 0) break;
    }
    throw new Stop(DecodeError.invalid);
  }

  private put(byte: number): void {
    this.output[this.outAt++] = byte;
    if (this.outAt === this.output.length) throw new Stop(this.outAt);
  }

  private storedBlock(): void {
    this.bitAt = (this.bitAt + 7) & ~7;
    const length = this.bits(16);
    if ((this.bits(16) ^ 0xffff) !== length) throw new Stop(DecodeError.invalid);
    for (let i = 0; i < length; i++) this.put(this.bits(8));
  }

  private dynamicBlock(): void {
    const litlens = this.bits(5) + 257;
    const dists = this.bits(5) + 1;
    const precodes = this.bits(4) + 4;
    if (litlens > 286 || dists > 30) throw new Stop(DecodeError.invalid);
    const precodeLengths = new Array<number>(19).fill(0);
    for (let i = 0; i < precodes; i++) precodeLengths[PRECODE_ORDER[i]!] = this.bits(3);
    const precode = makeCode(precodeLengths, 'precode');

    const lengths: number[] = [];
    while (lengths.length < litlens + dists) {
      const symbol = this.symbol(precode);
      if (symbol < 16) {
        lengths.push(symbol);
        continue;
      }
      const repeat =
        symbol === 16 ? 3 + this.bits(2) : symbol === 17 ? 3 + this.bits(3) : 11 + this.bits(7);
      const value = symbol === 16 ? lengths.at(-1) : 0;
      if (value === undefined || lengths.length + repeat > litlens + dists) {
        throw new Stop(DecodeError.invalid);
      }
      for (let i = 0; i < repeat; i++) lengths.push(value);
    }
    if (lengths[256] === 0) throw new Stop(DecodeError.invalid);
    const litlen = makeCode(lengths.slice(0, litlens), 'litlen');
    this.codedBlock(litlen, makeCode(lengths.slice(litlens), 'dist'));
  }

  private codedBlock(litlen: Code, dist: Code): void {
    for (;;) {
      const symbol = this.symbol(litlen);
      if (symbol === 256) return;
      if (symbol < 256) {
        this.put(symbol);
        continue;
      }
      const length = this.length(symbol - 257);
      const distance = this.distance(this.symbol(dist));
      if (distance > this.outAt) throw new Stop(DecodeError.invalid);
      for (let i = 0; i < length; i++) this.put(this.output[this.outAt - distance]!);
    }
  }

  private length(i: number): number {
    if (i > 28) throw new Stop(DecodeError.invalid);
    if (i === 28) return 258;
    if (i < 8) return 3 + i;
    const extra = (i >> 2) - 1;
    return 3 + ((4 + (i & 3)) << extra) + this.bits(extra);
  }

  private distance(i: number): number {
    if (i > 29) throw new Stop(DecodeError.invalid);
    if (i < 4) return 1 + i;
    const extra = (i >> 1) - 1;
    return 1 + ((2 + (i & 1)) << extra) + this.bits(extra);
  }
}

/** Binds the twin to a memory. */
export function inflate(memory: WebAssembly.Memory): Kernels['inflate'] {
  return (src, srcBytes, dst, dstBytes) => {
    if (dstBytes === 0) return 0;
    const input = new Uint8Array(memory.buffer, src, srcBytes);
    const output = new Uint8Array(memory.buffer, dst, dstBytes);
    try {
      new Decoder(input, output).run();
      return DecodeError.short;
    } catch (stop) {
      if (stop instanceof Stop) return stop.result;
      throw stop;
    }
  };
}
