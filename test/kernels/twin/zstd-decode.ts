/**
 * The twin of assembly/zstd-decode.ts: RFC 8878 read aloud, one small step at a time. Bit streams
 * are read bit field by bit field, tables are arrays of objects, copies go byte by byte.
 */
import { DecodeError, type Kernels } from '../../../src/kernels/kernels.ts';

/** Why a frame was refused: the code that the kernel returns, and the sentence behind it. */
export class ZstdRefusal extends Error {
  constructor(
    readonly code: number,
    message: string,
  ) {
    super(message);
  }
}

function refuse(code: keyof typeof DecodeError, message: string): never {
  throw new ZstdRefusal(DecodeError[code], message);
}

export const zstdDecode =
  (memory: WebAssembly.Memory): Kernels['zstdDecode'] =>
  (src, srcBytes, dst, dstBytes) => {
    try {
      decodeZstd(
        new Uint8Array(memory.buffer, src, srcBytes),
        new Uint8Array(memory.buffer, dst, dstBytes),
      );
      return dstBytes;
    } catch (err) {
      if (err instanceof ZstdRefusal) return err.code;
      throw err;
    }
  };

/** Fills `to` from the frames in `from`, or throws a `ZstdRefusal`. */
export function decodeZstd(from: Uint8Array, to: Uint8Array): void {
  let at = 0;
  let filled = 0;
  while (filled < to.length) {
    const left = from.length - at;
    if (left === 0) refuse('short', 'no more frames');
    if (left < 4) refuse('truncated', 'within a magic number');
    const magic = u32(from, at);
    if (magic >= 0x184d2a50 && magic <= 0x184d2a5f) {
      if (left < 8 || left - 8 < u32(from, at + 4)) refuse('truncated', 'within a skippable frame');
      at += 8 + u32(from, at + 4);
    } else if (magic === 0xfd2fb528) {
      const frame = new Frame(from, at + 4, to, filled);
      frame.decode();
      at = frame.at;
      filled = frame.filled;
    } else if (magic >= 0xfd2fb522 && magic <= 0xfd2fb527) {
      refuse('unsupported', 'a frame of a format before 0.8');
    } else {
      refuse('invalid', 'no magic number');
    }
  }
}

function u16(bytes: Uint8Array, at: number): number {
  return bytes[at]! + bytes[at + 1]! * 0x100;
}

function u32(bytes: Uint8Array, at: number): number {
  return u16(bytes, at) + u16(bytes, at + 2) * 0x10000;
}

function floorLog2(n: number): number {
  return 31 - Math.clz32(n);
}

/** A bit stream that is read from its last byte to its first. */
class BackwardBits {
  /** Bits not read yet. */
  left: number;

  constructor(private readonly bytes: Uint8Array) {
    const last = bytes[bytes.length - 1];
    if (!last) refuse('invalid', 'a bit stream without an end mark');
    this.left = (bytes.length - 1) * 8 + floorLog2(last);
  }

  /** The next `count` (0–31) bits. Those in front of the stream's start are zeros. */
  peek(count: number): number {
    let value = 0;
    for (let i = 1; i <= count; i++) {
      const bit = this.left - i;
      value = value * 2 + (bit < 0 ? 0 : (this.bytes[bit >> 3]! >> (bit & 7)) & 1);
    }
    return value;
  }

  read(count: number, where: string): number {
    const value = this.peek(count);
    this.left -= count;
    if (this.left < 0) refuse('invalid', `${where} runs out`);
    return value;
  }
}

// ---- entropy tables ----

interface State {
  readonly symbol: number;
  readonly bits: number;
  readonly base: number;
}

/** A finite-state entropy table: 2^log states. One symbol repeated is a table of one state. */
interface StateTable {
  readonly log: number;
  readonly states: readonly State[];
}

function spread(counts: readonly number[], log: number): StateTable {
  const size = 1 << log;
  const symbols = new Array<number>(size).fill(-1);
  let top = size;
  counts.forEach((count, symbol) => {
    if (count === -1) symbols[--top] = symbol;
  });
  let position = 0;
  counts.forEach((count, symbol) => {
    for (let i = 0; i < count; i++) {
      symbols[position] = symbol;
      do position = (position + (size >> 1) + (size >> 3) + 3) % size;
      while (position >= top);
    }
  });
  const seen = counts.map((count) => Math.abs(count));
  const states = symbols.map((symbol) => {
    const order = seen[symbol]!++;
    const bits = log - floorLog2(order);
    return { symbol, bits, base: (order << bits) - size };
  });
  return { log, states };
}

function oneState(symbol: number): StateTable {
  return { log: 0, states: [{ symbol, bits: 0, base: 0 }] };
}

/** Reads a table's description; gives the bytes of `from` that it takes, too. */
function readTable(from: Uint8Array, symbolMax: number, logMax: number): [StateTable, number] {
  let bit = 0;
  const read = (count: number): number => {
    let value = 0;
    for (let i = 0; i < count; i++, bit++) {
      if (bit >= from.length * 8) refuse('invalid', 'a table description runs out');
      value += ((from[bit >> 3]! >> (bit & 7)) & 1) << i;
    }
    return value;
  };
  const log = read(4) + 5;
  if (log > logMax) refuse('invalid', 'an accuracy above the limit');
  let left = 1 << log;
  const counts: number[] = [];
  while (left > 0) {
    if (counts.length > symbolMax) refuse('invalid', 'more symbols than there are');
    // left + 2 values in as few bits as will do: the low ones have a bit less than the others.
    const width = floorLog2(left + 1) + 1;
    const short = 2 ** width - (left + 2);
    let value = read(width - 1);
    if (value >= short) {
      value += read(1) << (width - 1);
      if (value >= 1 << (width - 1)) value -= short;
    }
    counts.push(value - 1);
    left -= Math.abs(value - 1);
    if (value !== 1) continue;
    for (let zeros = 3; zeros === 3; ) {
      zeros = read(2);
      for (let i = 0; i < zeros; i++) counts.push(0);
    }
  }
  return [spread(counts, log), Math.ceil(bit / 8)];
}

interface Code {
  readonly symbol: number;
  readonly length: number;
}

/** A Huffman tree as a table over `depth` bits. */
interface Tree {
  readonly depth: number;
  readonly codes: readonly Code[];
}

function treeOf(weights: readonly number[]): Tree {
  if (weights.some((weight) => weight > 12)) refuse('invalid', 'a Huffman weight above 12');
  const slots = (weight: number): number => (weight ? 2 ** (weight - 1) : 0);
  const total = weights.reduce((sum, weight) => sum + slots(weight), 0);
  if (total === 0) refuse('invalid', 'a Huffman tree without symbols');
  const depth = floorLog2(total) + 1;
  if (depth > 12) refuse('invalid', 'a Huffman tree of more than 12 levels');
  const last = Math.log2(2 ** depth - total);
  if (!Number.isInteger(last)) refuse('invalid', 'Huffman weights that do not add up');
  const all = [...weights, last + 1];
  const deepest = all.filter((weight) => weight === 1).length;
  if (deepest < 2 || deepest % 2 !== 0) refuse('invalid', 'a Huffman code without its sibling');
  const codes: Code[] = [];
  for (let weight = 1; weight <= depth; weight++) {
    all.forEach((w, symbol) => {
      if (w !== weight) return;
      for (let i = 0; i < slots(w); i++) codes.push({ symbol, length: depth + 1 - w });
    });
  }
  return { depth, codes };
}

/** Reads a tree's description; gives the bytes that it takes, too. */
function readTree(from: Uint8Array): [Tree, number] {
  const header = from[0];
  if (header === undefined) refuse('invalid', 'no tree description');
  const bytes = 1 + (header < 128 ? header : (header - 126) >> 1);
  if (bytes > from.length) refuse('invalid', 'a tree description runs out');
  if (header < 128) return [treeOf(codedWeights(from.subarray(1, bytes))), bytes];
  const weights = Array.from({ length: header - 127 }, (_, i) => {
    const pair = from[1 + (i >> 1)]!;
    return i % 2 === 0 ? pair >> 4 : pair & 15;
  });
  return [treeOf(weights), bytes];
}

function codedWeights(from: Uint8Array): number[] {
  const [table, bytes] = readTable(from, 255, 6);
  const stream = new BackwardBits(from.subarray(bytes));
  let now = table.states[stream.read(table.log, 'a stream of Huffman weights')]!;
  let other = table.states[stream.read(table.log, 'a stream of Huffman weights')]!;
  const weights: number[] = [];
  while (weights.length < 254) {
    weights.push(now.symbol);
    if (stream.left < now.bits) return [...weights, other.symbol];
    const next = table.states[now.base + stream.read(now.bits, '')]!;
    [now, other] = [other, next];
  }
  return refuse('invalid', 'too many Huffman weights');
}

function decodeSymbols(tree: Tree, from: Uint8Array, to: Uint8Array): void {
  const stream = new BackwardBits(from);
  for (let i = 0; i < to.length; i++) {
    const code = tree.codes[stream.peek(tree.depth)]!;
    stream.read(code.length, 'a stream of literals');
    to[i] = code.symbol;
  }
  if (stream.left > 0) refuse('invalid', 'a stream of literals has bits left');
}

// ---- sequences ----

interface Meaning {
  readonly base: number;
  readonly bits: number;
}

interface SequenceField {
  readonly codes: readonly Meaning[];
  readonly logMax: number;
  readonly predefined: StateTable;
}

function meanings(plain: number, first: number, bits: readonly number[]): Meaning[] {
  const codes = Array.from({ length: plain }, (_, i) => ({ base: first + i, bits: 0 }));
  let base = first + plain;
  for (const count of bits) {
    codes.push({ base, bits: count });
    base += 2 ** count;
  }
  return codes;
}

const field = (codes: Meaning[], logMax: number, log: number, counts: string): SequenceField => ({
  codes,
  logMax,
  predefined: spread(counts.split(' ').map(Number), log),
});

const LENGTHS = field(
  meanings(16, 0, [1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
  9,
  6,
  '4 3 2 2 2 2 2 2 2 2 2 2 2 1 1 1 2 2 2 2 2 2 2 2 2 3 2 1 1 1 1 1 -1 -1 -1 -1',
);
const MATCHES = field(
  meanings(32, 3, [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
  9,
  6,
  `1 4 3 2 2 2 2 2 2${' 1'.repeat(37)}${' -1'.repeat(7)}`,
);
const OFFSETS = field(
  Array.from({ length: 32 }, (_, i) => ({ base: 2 ** i, bits: i })),
  8,
  5,
  `1 1 1 1 1 1 2 2 2${' 1'.repeat(15)}${' -1'.repeat(5)}`,
);

// ---- frames ----

class Frame {
  private readonly start: number;
  private readonly checksum: boolean;
  private readonly content: number | undefined;
  private readonly window: number;
  private readonly blockMax: number;
  private repeats = [1, 4, 8];
  private tree: Tree | undefined;
  private tables: { lengths: StateTable; offsets: StateTable; matches: StateTable } | undefined;

  constructor(
    private readonly from: Uint8Array,
    public at: number,
    private readonly to: Uint8Array,
    public filled: number,
  ) {
    this.start = filled;
    const flags = this.take(1, 'within a frame header')[0]!;
    if (flags & 8) refuse('invalid', 'a reserved bit of the frame header is set');
    const single = (flags & 0x20) !== 0;
    const idBytes = [0, 1, 2, 4][flags & 3]!;
    const sizeBytes = [single ? 1 : 0, 2, 4, 8][flags >> 6]!;
    const fields = this.take((single ? 0 : 1) + idBytes + sizeBytes, 'within a frame header');
    const id = fields.subarray(single ? 0 : 1).subarray(0, idBytes);
    if (id.some((byte) => byte !== 0)) refuse('unsupported', 'a dictionary');
    const size = fields.subarray(fields.length - sizeBytes);
    let content = sizeBytes === 2 ? 256 : 0;
    size.forEach((byte, i) => {
      content += byte * 2 ** (8 * i);
    });
    this.content = sizeBytes > 0 ? content : undefined;
    this.checksum = (flags & 4) !== 0;
    const power = 2 ** (10 + (fields[0]! >> 3));
    this.window = single ? content : power + (power / 8) * (fields[0]! & 7);
    if (this.window > 2 ** 27) refuse('unsupported', 'a window above 128 MiB');
    if (content > to.length - filled) refuse('overlong', 'a frame larger than the place for it');
    this.blockMax = Math.min(this.window, 2 ** 17);
  }

  private take(count: number, where: string): Uint8Array {
    if (this.from.length - this.at < count) refuse('truncated', where);
    this.at += count;
    return this.from.subarray(this.at - count, this.at);
  }

  private get room(): number {
    return this.to.length - this.filled;
  }

  decode(): void {
    for (let last = false; !last; ) {
      const header = this.take(3, 'within a block header');
      const word = u16(header, 0) + header[2]! * 0x10000;
      last = (word & 1) !== 0;
      this.block((word >> 1) & 3, word >> 3);
    }
    const bytes = this.filled - this.start;
    if (this.content !== undefined && bytes !== this.content) {
      refuse('invalid', 'a frame that does not give what its header says');
    }
    if (!this.checksum) return;
    const stored = u32(this.take(4, 'within a checksum'), 0);
    const low = Number(xxh64(this.to.subarray(this.start, this.filled)) & 0xffffffffn);
    if (stored !== low) refuse('checksum', 'a checksum that does not match');
  }

  private block(kind: number, size: number): void {
    if (kind === 3) refuse('invalid', 'a block of the reserved kind');
    if (size > this.blockMax) refuse('invalid', 'a block above the limit');
    const stored = this.take(kind === 1 ? 1 : size, 'within a block');
    if (kind === 2) {
      this.compressedBlock(stored);
    } else {
      if (size > this.room) refuse('overlong', 'a block larger than the place for it');
      for (let i = 0; i < size; i++) this.to[this.filled++] = stored[kind === 1 ? 0 : i]!;
    }
  }

  private compressedBlock(block: Uint8Array): void {
    if (block.length < 2) refuse('invalid', 'a compressed block of less than 2 bytes');
    const end = this.filled + Math.min(this.blockMax, this.room);
    const [literals, bytes] = this.literals(block);
    this.sequences(block.subarray(bytes), literals, end);
  }

  /** The literals of a block, and the bytes of it that they take. */
  private literals(block: Uint8Array): [Uint8Array, number] {
    const kind = block[0]! & 3;
    const form = (block[0]! >> 2) & 3;
    const plain = kind < 2;
    const headerBytes = plain ? [1, 2, 1, 3][form]! : [3, 3, 4, 5][form]!;
    // A coded section has at least a header, a byte of stream, and an empty sequences section.
    if (block.length < (plain ? headerBytes : 5)) refuse('invalid', 'a literals header runs out');
    let header = 0;
    for (let i = headerBytes - 1; i >= 0; i--) header = header * 256 + block[i]!;
    const width = 2 ** [10, 10, 14, 18][form]!;
    const count = plain
      ? Math.floor(header / (form & 1 ? 16 : 8))
      : Math.floor(header / 16) % width;
    const stored = plain ? (kind === 0 ? count : 1) : Math.floor(header / 16 / width);
    const bytes = headerBytes + stored;
    if (bytes > block.length) refuse('invalid', 'a literals section runs out');
    if (count > this.blockMax) refuse('invalid', 'more literals than a block may have');
    if (count > this.room) refuse('overlong', 'more literals than there is place for');
    const section = block.subarray(headerBytes, bytes);
    if (kind === 0) return [section, bytes];
    const literals = new Uint8Array(count);
    if (kind === 1) literals.fill(section[0]!);
    else this.codedLiterals(section, literals, { treeless: kind === 3, streams: form ? 4 : 1 });
    return [literals, bytes];
  }

  private codedLiterals(
    section: Uint8Array,
    literals: Uint8Array,
    { treeless, streams }: { treeless: boolean; streams: number },
  ): void {
    let body = section;
    if (!treeless) {
      const [tree, bytes] = readTree(section);
      this.tree = tree;
      body = section.subarray(bytes);
    }
    if (!this.tree) refuse('invalid', 'literals by the last tree, but there is none');
    if (streams === 1) {
      decodeSymbols(this.tree, body, literals);
      return;
    }
    if (literals.length < 6) refuse('invalid', 'too few literals for four streams');
    if (body.length < 10) refuse('invalid', 'four streams in less than ten bytes');
    const share = Math.ceil(literals.length / 4);
    let at = 6;
    for (let i = 0; i < 4; i++) {
      const end = i < 3 ? at + u16(body, 2 * i) : body.length;
      if (end > body.length) refuse('invalid', 'a stream of literals is cut off');
      decodeSymbols(
        this.tree,
        body.subarray(at, end),
        literals.subarray(i * share, (i + 1) * share),
      );
      at = end;
    }
  }

  private sequences(section: Uint8Array, literals: Uint8Array, end: number): void {
    let at = 0;
    const byte = (): number => section[at++] ?? refuse('invalid', 'a sequences header runs out');
    let count = byte();
    if (count === 255) count = byte() + byte() * 256 + 0x7f00;
    else if (count >= 128) count = (count - 128) * 256 + byte();
    let used = 0;
    if (count === 0) {
      if (at < section.length) refuse('invalid', 'bytes after a section without sequences');
    } else {
      const modes = byte();
      if (modes & 3) refuse('invalid', 'reserved bits of the sequence modes are set');
      const table = (
        mode: number,
        { codes, logMax, predefined }: SequenceField,
        last?: StateTable,
      ) => {
        if (mode === 0) return predefined;
        if (mode === 3) return last ?? refuse('invalid', 'a table repeated, but there is none');
        if (mode === 1) {
          const code = byte();
          return code < codes.length ? oneState(code) : refuse('invalid', 'a code out of range');
        }
        const [read, bytes] = readTable(section.subarray(at), codes.length - 1, logMax);
        at += bytes;
        return read;
      };
      const lengths = table(modes >> 6, LENGTHS, this.tables?.lengths);
      const offsets = table((modes >> 4) & 3, OFFSETS, this.tables?.offsets);
      const matches = table((modes >> 2) & 3, MATCHES, this.tables?.matches);
      this.tables = { lengths, offsets, matches };
      used = this.matches(section.subarray(at), count, literals, end);
    }
    this.append(literals.subarray(used), end);
  }

  /** Carries out `count` sequences; gives the number of literals that they used. */
  private matches(stored: Uint8Array, count: number, literals: Uint8Array, end: number): number {
    const { lengths, offsets, matches } = this.tables!;
    const where = 'a stream of sequences';
    const stream = new BackwardBits(stored);
    let length = lengths.states[stream.read(lengths.log, where)]!;
    let offset = offsets.states[stream.read(offsets.log, where)]!;
    let match = matches.states[stream.read(matches.log, where)]!;
    let used = 0;
    for (let left = count; left > 0; left--) {
      const value = ({ codes }: SequenceField, { symbol }: State): number =>
        codes[symbol]!.base + stream.read(codes[symbol]!.bits, where);
      const offsetValue = value(OFFSETS, offset);
      const matchLength = value(MATCHES, match);
      const literalLength = value(LENGTHS, length);
      if (left > 1) {
        length = lengths.states[length.base + stream.read(length.bits, where)]!;
        match = matches.states[match.base + stream.read(match.bits, where)]!;
        offset = offsets.states[offset.base + stream.read(offset.bits, where)]!;
      }
      const distance = this.distance(offsetValue, literalLength);
      if (used + literalLength > literals.length) refuse('invalid', 'more literals than there are');
      const behind = this.filled - this.start + literalLength;
      if (distance === 0) refuse('invalid', 'an offset of zero');
      if (distance > behind) refuse('invalid', 'an offset beyond the start');
      if (distance > this.window) refuse('invalid', 'an offset beyond the window');
      if (this.filled + literalLength + matchLength > end) this.tooMuch(end);
      this.append(literals.subarray(used, used + literalLength), end);
      used += literalLength;
      for (let i = 0; i < matchLength; i++, this.filled++) {
        this.to[this.filled] = this.to[this.filled - distance]!;
      }
    }
    if (stream.left > 0) refuse('invalid', 'a stream of sequences has bits left');
    return used;
  }

  private distance(value: number, literalLength: number): number {
    const [a, b, c] = this.repeats as [number, number, number];
    if (value > 3) this.repeats = [value - 3, a, b];
    else {
      const which = literalLength > 0 ? value : value + 1;
      if (which === 2) this.repeats = [b, a, c];
      else if (which === 3) this.repeats = [c, a, b];
      else if (which === 4) this.repeats = [a - 1, a, b];
    }
    return this.repeats[0]!;
  }

  private append(bytes: Uint8Array, end: number): void {
    if (this.filled + bytes.length > end) this.tooMuch(end);
    this.to.set(bytes, this.filled);
    this.filled += bytes.length;
  }

  /** The block in hand wants more than `end`: the end of the output, or what a block may give. */
  private tooMuch(end: number): never {
    if (end < this.to.length) refuse('invalid', 'a block that gives more than one may');
    return refuse('overlong', 'a block that gives more than there is place for');
  }
}

// ---- checksum ----

const PRIMES = [
  0x9e3779b185ebca87n,
  0xc2b2ae3d27d4eb4fn,
  0x165667b19e3779f9n,
  0x85ebca77c2b2ae63n,
  0x27d4eb2f165667c5n,
] as readonly [bigint, bigint, bigint, bigint, bigint];

/** XXH64 with seed 0. */
export function xxh64(bytes: Uint8Array): bigint {
  const [p1, p2, p3, p4, p5] = PRIMES;
  const wrap = (n: bigint): bigint => BigInt.asUintN(64, n);
  const rotate = (n: bigint, by: bigint): bigint => wrap((n << by) | (n >> (64n - by)));
  const round = (lane: bigint, word: bigint): bigint =>
    wrap(rotate(wrap(lane + word * p2), 31n) * p1);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  let hash = p5;
  if (bytes.length >= 32) {
    const lanes = [wrap(p1 + p2), p2, 0n, wrap(-p1)];
    for (; bytes.length - at >= 32; at += 32) {
      for (let i = 0; i < 4; i++) lanes[i] = round(lanes[i]!, view.getBigUint64(at + 8 * i, true));
    }
    hash = wrap([1n, 7n, 12n, 18n].reduce((sum, by, i) => sum + rotate(lanes[i]!, by), 0n));
    for (const lane of lanes) hash = wrap((hash ^ round(0n, lane)) * p1 + p4);
  }
  hash = wrap(hash + BigInt(bytes.length));
  for (; bytes.length - at >= 8; at += 8) {
    hash = wrap(rotate(hash ^ round(0n, view.getBigUint64(at, true)), 27n) * p1 + p4);
  }
  if (bytes.length - at >= 4) {
    hash = wrap(rotate(hash ^ wrap(BigInt(view.getUint32(at, true)) * p1), 23n) * p2 + p3);
    at += 4;
  }
  for (; at < bytes.length; at++) {
    hash = wrap(rotate(hash ^ wrap(BigInt(bytes[at]!) * p5), 11n) * p1);
  }
  hash = wrap((hash ^ (hash >> 33n)) * p2);
  hash = wrap((hash ^ (hash >> 29n)) * p3);
  return hash ^ (hash >> 32n);
}
