/**
 * Zstandard frames made by hand: every mode of the format, those that encoders rarely choose, and
 * those that are wrong. Nothing here checks what it is told to write.
 */
import type { Random } from '../random.ts';
import { xxh64 } from './twin/zstd-decode.ts';

/** Bytes of all parts in a row. */
export function join(...parts: readonly (Uint8Array | readonly number[])[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** `value` in `width` bytes, the lowest first. */
export function little(value: number, width: number): number[] {
  return Array.from({ length: width }, (_, i) => Math.floor(value / 2 ** (8 * i)) % 256);
}

/** A bit stream that a decoder reads from its end: fields are given in the order it reads them. */
class BackwardFields {
  private readonly fields: [value: number, bits: number][] = [];

  push(value: number, bits: number): void {
    this.fields.push([value, bits]);
  }

  bytes(): Uint8Array {
    const bits = new ForwardBits();
    for (const [value, count] of this.fields.reverse()) bits.push(value, count);
    bits.push(1, 1);
    return bits.bytes();
  }
}

class ForwardBits {
  private readonly bits: number[] = [];

  push(value: number, count: number): void {
    for (let i = 0; i < count; i++) this.bits.push(Math.floor(value / 2 ** i) % 2);
  }

  bytes(): Uint8Array {
    const out = new Uint8Array(Math.ceil(this.bits.length / 8));
    this.bits.forEach((bit, i) => {
      out[i >> 3]! |= bit << (i & 7);
    });
    return out;
  }
}

// ---- entropy tables ----

/** Normalised counts of a finite-state table: they add up to 2^log, a −1 counting as one. */
export interface Counts {
  readonly log: number;
  readonly counts: readonly number[];
}

interface State {
  readonly symbol: number;
  readonly bits: number;
  readonly base: number;
}

function statesOf({ log, counts }: Counts): State[] {
  const size = 2 ** log;
  const symbols: number[] = [];
  let top = size;
  counts.forEach((count, symbol) => {
    if (count < 0) symbols[--top] = symbol;
  });
  let at = 0;
  counts.forEach((count, symbol) => {
    for (let i = 0; i < count; i++) {
      symbols[at] = symbol;
      do at = (at + size / 2 + size / 8 + 3) & (size - 1);
      while (at >= top);
    }
  });
  const next = counts.map(Math.abs);
  return symbols.map((symbol) => {
    const order = next[symbol]!++;
    const bits = log - Math.floor(Math.log2(order));
    return { symbol, bits, base: order * 2 ** bits - size };
  });
}

/** The description of a table as it stands in a block. */
export function countsBytes({ log, counts }: Counts): Uint8Array {
  const bits = new ForwardBits();
  bits.push(log - 5, 4);
  let left = 2 ** log;
  for (let symbol = 0; left > 0 && symbol < counts.length; symbol++) {
    const value = counts[symbol]! + 1;
    const width = Math.floor(Math.log2(left + 1)) + 1;
    const short = 2 ** width - (left + 2);
    if (value < short) bits.push(value, width - 1);
    else bits.push(value < 2 ** (width - 1) ? value : value + short, width);
    left -= Math.abs(value - 1);
    if (value !== 1) continue;
    let zeros = 0;
    while (counts[symbol + 1] === 0) {
      zeros++;
      symbol++;
    }
    for (; zeros >= 3; zeros -= 3) bits.push(3, 2);
    bits.push(zeros, 2);
  }
  return bits.bytes();
}

/** Counts over all of `symbols` (at least one), at random. */
export function randomCounts(random: Random, symbols: readonly number[], logMax: number): Counts {
  const logMin = Math.max(5, Math.ceil(Math.log2(symbols.length)));
  const log = logMin + random.below(logMax - logMin + 1);
  const counts = new Array<number>(Math.max(...symbols) + 1).fill(0);
  for (const symbol of symbols) counts[symbol] = 1;
  let left = 2 ** log - symbols.length;
  while (left > 0) {
    const more = 1 + random.below(random.oneIn(3) ? left : Math.min(left, 8));
    counts[random.pick(symbols)]! += more;
    left -= more;
  }
  return { log, counts: counts.map((count) => (count === 1 && random.oneIn(2) ? -1 : count)) };
}

/** Which state comes before `next` (or comes last) and stands for `symbol`. */
function stateBefore(states: readonly State[], symbol: number, next: number | undefined): number {
  let best = -1;
  states.forEach((state, i) => {
    if (state.symbol !== symbol) return;
    const leads =
      next === undefined
        ? best < 0 || state.bits > states[best]!.bits
        : next >= state.base && next < state.base + 2 ** state.bits;
    if (leads) best = i;
  });
  return best;
}

// ---- literals ----

/** A Huffman tree by the weight of each symbol, the last (highest) one's with them. */
export type Weights = readonly number[];

/** A complete tree over `symbols` (at least two) with at most `depthMax` levels, at random. */
export function randomWeights(
  random: Random,
  symbols: readonly number[],
  depthMax: number,
): number[] {
  const leaves = [0];
  while (leaves.length < symbols.length) {
    const open = leaves.map((_, i) => i).filter((i) => leaves[i]! < depthMax);
    const split = random.pick(open);
    leaves[split]!++;
    leaves.push(leaves[split]!);
  }
  const depth = Math.max(...leaves);
  const weights = new Array<number>(Math.max(...symbols) + 1).fill(0);
  symbols.forEach((symbol, i) => {
    weights[symbol] = depth + 1 - leaves[i]!;
  });
  return weights;
}

/** The description of a tree: weights of 4 bits each, or under a finite-state table. */
export function treeBytes(weights: Weights, coded?: Counts): Uint8Array {
  const written = weights.slice(0, -1);
  if (!coded) {
    const pairs = Array.from(
      { length: Math.ceil(written.length / 2) },
      (_, i) => written[2 * i]! * 16 + (written[2 * i + 1] ?? 0),
    );
    return join([127 + written.length], pairs);
  }
  const states = statesOf(coded);
  // Two states take turns, so a symbol's next is the one after the next.
  const chosen: number[] = [];
  for (let i = written.length - 1; i >= 0; i--) {
    chosen[i] = stateBefore(states, written[i]!, chosen[i + 2]);
  }
  const stream = new BackwardFields();
  stream.push(chosen[0]!, coded.log);
  stream.push(chosen[1]!, coded.log);
  for (let i = 2; i < written.length; i++) {
    const { base, bits } = states[chosen[i - 2]!]!;
    stream.push(chosen[i]! - base, bits);
  }
  const body = join(countsBytes(coded), stream.bytes());
  return join([body.length], body);
}

/** One stream of symbols. */
export function huffmanStream(weights: Weights, symbols: Uint8Array): Uint8Array {
  const slots = weights.reduce((sum, weight) => sum + (weight ? 2 ** (weight - 1) : 0), 0);
  const depth = Math.log2(slots);
  const codes = new Map<number, [code: number, bits: number]>();
  let at = 0;
  for (let weight = 1; weight <= depth; weight++) {
    weights.forEach((w, symbol) => {
      if (w !== weight) return;
      codes.set(symbol, [at >> (weight - 1), depth + 1 - weight]);
      at += 2 ** (weight - 1);
    });
  }
  const stream = new BackwardFields();
  for (const symbol of symbols) stream.push(...codes.get(symbol)!);
  return stream.bytes();
}

/** A literals section: `kind` 0 raw, 1 one byte repeated; `form` is the header's, by default the
 * shortest that holds the size. */
export function plainLiterals(
  kind: 0 | 1,
  content: Uint8Array | readonly number[],
  count = content.length,
  form = count < 32 ? 0 : count < 4096 ? 1 : 3,
): Uint8Array {
  const word = kind + form * 4 + count * (form & 1 ? 16 : 8);
  return join(little(word, [1, 2, 1, 3][form]!), content);
}

/** A section of Huffman-coded literals. Without `tree` it is treeless: by the tree before it. */
export function codedLiterals(
  literals: Uint8Array,
  weights: Weights,
  options: { tree?: Uint8Array; form?: number; count?: number } = {},
): Uint8Array {
  const { tree, count = literals.length } = options;
  const form = options.form ?? (count < 6 ? 0 : count < 1000 ? 1 : count < 16000 ? 2 : 3);
  const share = Math.ceil(literals.length / 4);
  const streams =
    form === 0
      ? [huffmanStream(weights, literals)]
      : [0, 1, 2, 3].map((i) =>
          huffmanStream(weights, literals.subarray(i * share, (i + 1) * share)),
        );
  const sizes = form === 0 ? [] : streams.slice(0, 3).flatMap((part) => little(part.length, 2));
  const body = join(tree ?? [], sizes, ...streams);
  const width = [10, 10, 14, 18][form]!;
  const word = (tree ? 2 : 3) + form * 4 + count * 16 + body.length * 2 ** (4 + width);
  return join(little(word, [3, 3, 4, 5][form]!), body);
}

// ---- sequences ----

/** One sequence as it is stored: `offset` is the offset value, 1 – 3 for the repeated ones. */
export interface Sequence {
  readonly literals: number;
  readonly offset: number;
  readonly match: number;
}

export type Table =
  | { readonly mode: 'predefined' }
  | { readonly mode: 'one'; readonly code: number }
  | { readonly mode: 'described'; readonly counts: Counts }
  /** `last` is what the block before used; `undefined` writes the mode all the same. */
  | { readonly mode: 'repeat'; readonly last: Exclude<Table, { mode: 'repeat' }> | undefined };

export interface Tables {
  readonly lengths: Table;
  readonly offsets: Table;
  readonly matches: Table;
}

export const PREDEFINED: Tables = {
  lengths: { mode: 'predefined' },
  offsets: { mode: 'predefined' },
  matches: { mode: 'predefined' },
};

const ones = (count: number, value = 1): number[] => new Array<number>(count).fill(value);

const DEFAULTS = {
  lengths: {
    log: 6,
    counts: [4, 3, ...ones(11, 2), 1, 1, 1, ...ones(9, 2), 3, 2, ...ones(5), ...ones(4, -1)],
  },
  offsets: { log: 5, counts: [...ones(6), 2, 2, 2, ...ones(15), ...ones(5, -1)] },
  matches: { log: 6, counts: [1, 4, 3, ...ones(6, 2), ...ones(37), ...ones(7, -1)] },
} satisfies Record<string, Counts>;

/** Baselines of the codes that have extra bits. */
const LENGTH_BASES = [
  16, 18, 20, 22, 24, 28, 32, 40, 48, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768,
  65536,
];
const LENGTH_BITS = [1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const MATCH_BASES = [
  35, 37, 39, 41, 43, 47, 51, 59, 67, 83, 99, 131, 259, 515, 1027, 2051, 4099, 8195, 16387, 32771,
  65539,
];
const MATCH_BITS = [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

type Coded = readonly [code: number, extra: number, bits: number];

function codeIn(bases: readonly number[], bits: readonly number[], plain: number, value: number) {
  const i = bases.findLastIndex((base) => base <= value);
  return [plain + i, value - bases[i]!, bits[i]!] as const;
}

/** The code, extra bits and their number that stand for a value. */
export const codeOf = {
  lengths: (n: number): Coded => (n < 16 ? [n, 0, 0] : codeIn(LENGTH_BASES, LENGTH_BITS, 16, n)),
  matches: (n: number): Coded => (n < 35 ? [n - 3, 0, 0] : codeIn(MATCH_BASES, MATCH_BITS, 32, n)),
  offsets: (n: number): Coded => {
    const code = Math.floor(Math.log2(n));
    return [code, n - 2 ** code, code];
  },
};

type Field = keyof Tables;

function tableStates(field: Field, table: Table): { log: number; states: State[] } {
  const used = table.mode === 'repeat' ? (table.last ?? { mode: 'predefined' }) : table;
  if (used.mode === 'one') return { log: 0, states: [{ symbol: used.code, bits: 0, base: 0 }] };
  const counts = used.mode === 'described' ? used.counts : DEFAULTS[field];
  return { log: counts.log, states: statesOf(counts) };
}

function tableBytes(table: Table): Uint8Array {
  if (table.mode === 'one') return Uint8Array.of(table.code);
  return table.mode === 'described' ? countsBytes(table.counts) : new Uint8Array();
}

const MODES = { predefined: 0, one: 1, described: 2, repeat: 3 } as const;

/** The number of sequences; `long` forces one of the longer forms. */
export function sequenceCount(count: number, long?: 2 | 3): number[] {
  if (long === 3 || count >= 0x7f00) return [255, ...little(count - 0x7f00, 2)];
  if (long === 2 || count >= 128) return [128 + (count >> 8), count & 255];
  return [count];
}

/** A sequences section; an empty list is the section without tables. */
export function sequencesSection(
  sequences: readonly Sequence[],
  tables: Tables = PREDEFINED,
  { long, reserved = 0 }: { long?: 2 | 3; reserved?: number } = {},
): Uint8Array {
  if (sequences.length === 0) return Uint8Array.from(sequenceCount(0, long));
  const coded = sequences.map(({ literals, offset, match }) => ({
    lengths: codeOf.lengths(literals),
    offsets: codeOf.offsets(offset),
    matches: codeOf.matches(match),
  }));
  const fields = ['lengths', 'offsets', 'matches'] as const;
  const plan = (field: Field) => {
    const { log, states } = tableStates(field, tables[field]);
    const chosen: number[] = [];
    for (let i = coded.length - 1; i >= 0; i--) {
      chosen[i] = stateBefore(states, coded[i]![field][0], chosen[i + 1]);
      if (chosen[i]! < 0) throw new Error(`no state for code ${coded[i]![field][0]} of ${field}`);
    }
    return { log, states, chosen };
  };
  const plans = { lengths: plan('lengths'), offsets: plan('offsets'), matches: plan('matches') };
  const stream = new BackwardFields();
  for (const field of fields) stream.push(plans[field].chosen[0]!, plans[field].log);
  coded.forEach((sequence, i) => {
    for (const field of ['offsets', 'matches', 'lengths'] as const) {
      stream.push(sequence[field][1], sequence[field][2]);
    }
    if (i + 1 === coded.length) return;
    for (const field of ['lengths', 'matches', 'offsets'] as const) {
      const { states, chosen } = plans[field];
      const { base, bits } = states[chosen[i]!]!;
      stream.push(chosen[i + 1]! - base, bits);
    }
  });
  const modes =
    MODES[tables.lengths.mode] * 64 +
    MODES[tables.offsets.mode] * 16 +
    MODES[tables.matches.mode] * 4 +
    reserved;
  return join(
    sequenceCount(sequences.length, long),
    [modes],
    ...fields.map((field) => tableBytes(tables[field])),
    stream.bytes(),
  );
}

// ---- blocks and frames ----

/** A block but for the mark of the last one. */
export interface Block {
  readonly kind: 0 | 1 | 2 | 3;
  /** What the header says. */
  readonly size: number;
  readonly stored: Uint8Array;
}

export const rawBlock = (content: Uint8Array): Block => ({
  kind: 0,
  size: content.length,
  stored: content,
});

export const repeatBlock = (byte: number, size: number): Block => ({
  kind: 1,
  size,
  stored: Uint8Array.of(byte),
});

export function compressedBlock(literals: Uint8Array, sequences: Uint8Array): Block {
  const stored = join(literals, sequences);
  return { kind: 2, size: stored.length, stored };
}

export interface FrameHeader {
  /** Window descriptor; without it the frame is a single segment. */
  readonly window?: number;
  readonly content?: { readonly size: number; readonly width: 1 | 2 | 4 | 8 };
  readonly dictionary?: { readonly id: number; readonly width: 1 | 2 | 4 };
  /** What came out of the frame, for its checksum, or a wrong checksum. */
  readonly checksum?: Uint8Array | number;
  /** Bits 3 and 4 of the flags. */
  readonly flags?: number;
}

export function frame(header: FrameHeader, blocks: readonly Block[]): Uint8Array {
  const { window, content, dictionary, checksum } = header;
  const flags =
    (dictionary ? [0, 1, 2, 0, 3][dictionary.width]! : 0) +
    (checksum === undefined ? 0 : 4) +
    (header.flags ?? 0) +
    (window === undefined ? 0x20 : 0) +
    (content ? Math.log2(content.width) * 0x40 : 0);
  const sum = typeof checksum === 'object' ? Number(BigInt.asUintN(32, xxh64(checksum))) : checksum;
  return join(
    little(0xfd2fb528, 4),
    [flags],
    window === undefined ? [] : [window],
    dictionary ? little(dictionary.id, dictionary.width) : [],
    content ? little(content.width === 2 ? content.size - 256 : content.size, content.width) : [],
    ...blocks.map(({ kind, size, stored }, i) =>
      join(little((i + 1 === blocks.length ? 1 : 0) + kind * 2 + size * 8, 3), stored),
    ),
    sum === undefined ? [] : little(sum, 4),
  );
}

export function skippable(content: Uint8Array, kind = 0): Uint8Array {
  return join(little(0x184d2a50 + kind, 4), little(content.length, 4), content);
}

// ---- frames at random ----

/** A valid frame that mixes everything the format has, and what it decodes to. */
export function randomFrame(random: Random): { stored: Uint8Array; content: Uint8Array } {
  const content: number[] = [];
  const repeats: [number, number, number] = [1, 4, 8];
  let weights: Weights | undefined;
  let last: Record<Field, Exclude<Table, { mode: 'repeat' }>> | undefined;

  const literalsSection = (): [Uint8Array, number[]] => {
    const count = random.below(random.oneIn(4) ? 3000 : 60);
    const kind = random.below(4);
    if (kind === 0) {
      const bytes = Array.from({ length: count }, () => random.below(256));
      return [plainLiterals(0, bytes, count, random.oneIn(3) ? 3 : undefined), bytes];
    }
    if (kind === 1) {
      const byte = random.below(256);
      return [plainLiterals(1, [byte], count, random.oneIn(3) ? 3 : undefined), ones(count, byte)];
    }
    const before = weights;
    let tree: Uint8Array | undefined;
    if (kind === 2 || !weights) {
      const coded = random.oneIn(2);
      const symbols = distinct(random, 2 + random.below(coded ? 200 : 100), coded ? 256 : 128);
      weights = randomWeights(random, symbols, random.oneIn(8) ? 12 : 11);
      const used = distinctOf(weights.slice(0, -1));
      tree =
        coded && weights.length > 2 && used.length > 1
          ? treeBytes(weights, randomCounts(random, used, 6))
          : weights.length <= 129
            ? treeBytes(weights)
            : undefined;
      if (!tree || tree.length > 128) {
        weights = [1, 1];
        tree = treeBytes(weights);
      }
    }
    const known = weights;
    const alphabet = known.map((_, symbol) => symbol).filter((symbol) => known[symbol]! > 0);
    const bytes = Array.from({ length: count }, () => random.pick(alphabet));
    const form = count < 6 || (count < 1000 && random.oneIn(3)) ? 0 : undefined;
    const options = { ...(tree ? { tree } : {}), ...(form === 0 ? { form } : {}) };
    const section = codedLiterals(Uint8Array.from(bytes), known, options);
    // The tree may be too large for the sizes that the form has room for.
    if (section.length < 1000 || count >= 1000) return [section, bytes];
    weights = before;
    return literalsSection();
  };

  const block = (): Block => {
    const kind = random.below(5);
    if (kind === 0) {
      const bytes = Array.from({ length: random.below(100) }, () => random.below(256));
      content.push(...bytes);
      return rawBlock(Uint8Array.from(bytes));
    }
    if (kind === 1) {
      const count = random.below(300);
      const byte = random.below(256);
      for (let i = 0; i < count; i++) content.push(byte);
      return repeatBlock(byte, count);
    }
    const [section, literals] = literalsSection();
    const sequences: Sequence[] = [];
    const constant = random.oneIn(4); // all sequences alike, so that one code does for each
    const wanted = random.below(random.oneIn(5) ? 300 : 20);
    let used = 0;
    for (let i = 0; i < wanted; i++) {
      const left = literals.length - used;
      const take = constant ? 0 : Math.min(left, random.below(random.oneIn(6) ? 200 : 5));
      const match = constant ? 3 : 3 + random.below(random.oneIn(6) ? 400 : 20);
      const reach = content.length + take;
      const choices: [value: number, distance: number][] = [];
      [...repeats, repeats[0] - 1].forEach((distance, which) => {
        const value = take > 0 ? which + 1 : which;
        if (value >= 1 && value <= 3 && distance > 0 && distance <= reach) {
          choices.push([value, distance]);
        }
      });
      if (reach > 0 && !constant) {
        const near = 1 + random.below(Math.min(reach, random.oneIn(2) ? 20 : 1 << 30));
        choices.push([near + 3, near]);
      }
      if (choices.length === 0) break;
      const [value, distance] = constant ? choices[0]! : random.pick(choices);
      const which = value > 3 ? 3 : value - (take > 0 ? 1 : 0);
      if (which > 0) {
        repeats.splice(Math.min(which, 2), 1);
        repeats.unshift(distance);
      }
      for (let k = 0; k < take; k++) content.push(literals[used++]!);
      for (let k = 0; k < match; k++) content.push(content[content.length - distance]!);
      sequences.push({ literals: take, offset: value, match });
    }
    content.push(...literals.slice(used));
    if (sequences.length === 0) return compressedBlock(section, sequencesSection([]));
    const choose = (field: Field, of: (s: Sequence) => number, logMax: number): Table => {
      const codes = distinctOf(sequences.map((s) => codeOf[field](of(s))[0]));
      const before = last?.[field];
      if (before && random.oneIn(2)) {
        const { states } = tableStates(field, before);
        if (codes.every((code) => states.some(({ symbol }) => symbol === code))) {
          return { mode: 'repeat', last: before };
        }
      }
      if (codes.length === 1 && random.oneIn(2)) return { mode: 'one', code: codes[0]! };
      if (random.oneIn(3)) return { mode: 'predefined' };
      return { mode: 'described', counts: randomCounts(random, codes, logMax) };
    };
    const tables = {
      lengths: choose('lengths', (s) => s.literals, 9),
      offsets: choose('offsets', (s) => s.offset, 8),
      matches: choose('matches', (s) => s.match, 9),
    };
    const kept = (table: Table) => (table.mode === 'repeat' ? table.last! : table);
    last = {
      lengths: kept(tables.lengths),
      offsets: kept(tables.offsets),
      matches: kept(tables.matches),
    };
    return compressedBlock(section, sequencesSection(sequences, tables));
  };

  const blocks = Array.from({ length: 1 + random.below(6) }, block);
  const bytes = Uint8Array.from(content);
  // A window for all of it: matches reach as far as they like here.
  const window = Math.max(7, Math.ceil(Math.log2(Math.max(bytes.length, 1))) - 10) << 3;
  const width = bytes.length >= 256 && random.oneIn(2) ? 2 : random.oneIn(2) ? 4 : 8;
  const header: FrameHeader = {
    window: window + random.below(8),
    ...(random.oneIn(2) && (width > 2 || bytes.length < 65792)
      ? { content: { size: bytes.length, width } }
      : {}),
    ...(random.oneIn(2) ? { checksum: bytes } : {}),
  };
  return { stored: frame(header, blocks), content: bytes };
}

function distinctOf(values: readonly number[]): number[] {
  return [...new Set(values)];
}

function distinct(random: Random, count: number, end: number): number[] {
  const all = Array.from({ length: end }, (_, i) => i);
  for (let i = 0; i < count; i++) {
    const other = i + random.below(end - i);
    [all[i], all[other]] = [all[other]!, all[i]!];
  }
  return all.slice(0, count);
}
