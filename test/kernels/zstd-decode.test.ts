// Frames made by hand, and the TypeScript twin as the oracle. Replay a failure with SEED=….
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DecodeError } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { xxh64 } from './twin/zstd-decode.ts';
import { agree, damaged, run, sameBytes } from './zstd-agree.ts';
import {
  type Block,
  codedLiterals,
  codeOf,
  compressedBlock,
  countsBytes,
  type FrameHeader,
  frame,
  huffmanStream,
  join,
  little,
  PREDEFINED,
  plainLiterals,
  randomCounts,
  randomFrame,
  rawBlock,
  repeatBlock,
  type Sequence,
  sequencesSection,
  skippable,
  type Tables,
  treeBytes,
} from './zstd-frames.ts';

const host = globalThis as {
  SLOW?: string;
  process?: { env: { SLOW?: string } };
};
const slow = (host.SLOW ?? host.process?.env.SLOW) ? 20 : 1;
const replay = `SEED=${SEED}`;

const text = (s: string): Uint8Array => Uint8Array.from(s, (c) => c.charCodeAt(0));
const HELLO = text('Hello, hello, hello!');
const NO_SEQUENCES = sequencesSection([]);
/** 1 MiB: descriptor of the window that most frames here have. */
const WINDOW = 10 << 3;

{
  const test = suite('zstdDecode, whole frames');
  const random = rng();

  const accepts = (stream: Uint8Array, content: Uint8Array, what: string): void => {
    const { content: got, reason } = agree(stream, content.length, random, what);
    if (!got) assert.unreachable(`${what}: ${reason}`);
    else sameBytes(got, content, what);
  };
  const refuses = (
    stream: Uint8Array,
    size: number,
    code: keyof typeof DecodeError,
    reason: string,
  ): void => {
    const outcome = agree(stream, size, random, reason);
    assert.is(outcome.reason, reason);
    assert.is(outcome.result, DecodeError[code], reason);
  };

  test('every frame at random decodes to what went in', () => {
    for (let i = 0; i < 600 * slow; i++) {
      const { stored, content } = randomFrame(random);
      accepts(stored, content, `frame ${i}, ${replay}`);
    }
  });

  test('several frames follow one another, skippable ones among them', () => {
    for (let i = 0; i < 60 * slow; i++) {
      const frames = Array.from({ length: 1 + random.below(4) }, () => randomFrame(random));
      const stored = frames.flatMap((one) => [
        ...(random.oneIn(2) ? [skippable(HELLO.subarray(random.below(20)), random.below(16))] : []),
        one.stored,
      ]);
      const content = join(...frames.map((one) => one.content));
      const padding = new Uint8Array(random.below(70)).fill(random.below(256));
      accepts(join(...stored, padding), content, `frames ${i}, ${replay}`);
    }
  });

  test('every truncation is refused as one', () => {
    for (let i = 0; i < 12 * slow; i++) {
      const { stored, content } = randomFrame(random);
      if (content.length === 0) continue;
      for (let length = 0; length < stored.length; length++) {
        const { result } = agree(
          stored.subarray(0, length),
          content.length,
          random,
          `frame ${i} cut to ${length}, ${replay}`,
        );
        assert.is(result, length === 0 ? DecodeError.short : DecodeError.truncated);
      }
    }
  });

  test('every other size of the output is refused', () => {
    for (let i = 0; i < 100 * slow; i++) {
      const { stored, content } = randomFrame(random);
      const what = `frame ${i}, ${replay}`;
      const more = agree(stored, content.length + 1 + random.below(200), random, what);
      assert.is(more.result, DecodeError.short, what);
      const less = random.below(content.length);
      // Nothing is asked of a frame whose output is full before it starts.
      const expected = less === 0 ? 0 : DecodeError.overlong;
      assert.is(agree(stored, less, random, what).result, expected, what);
    }
  });

  test('kernel and twin agree on damaged frames', () => {
    const seen = new Set<number>();
    for (let i = 0; i < 2500 * slow; i++) {
      const { stored, content } = randomFrame(random);
      const stream = damaged(stored, random);
      const { result } = agree(stream, content.length, random, `frame ${i}, ${replay}`);
      seen.add(Math.min(result, 0));
    }
    // Success and most of the six errors: the rarest of them is not in every run.
    assert.ok(seen.size >= 5, replay);
  });

  test('kernel and twin agree on every bit flip of small frames', () => {
    let frames = 0;
    while (frames < 3 * slow) {
      const { stored, content } = randomFrame(random);
      if (stored.length > 300 || content.length < 20) continue;
      frames++;
      for (let bit = 0; bit < stored.length * 8; bit++) {
        const stream = stored.slice();
        stream[bit >> 3]! ^= 1 << (bit & 7);
        agree(stream, content.length, random, `frame ${frames}, bit ${bit}, ${replay}`);
      }
    }
  });

  test('takes its input and output at any address', () => {
    const { stored, content } = randomFrame(rng(1));
    for (let noise = 0; noise < 256; noise++) {
      const { result, output } = run(stored, content.length, noise);
      assert.is(result, content.length);
      sameBytes(output, content, `noise ${noise}`);
    }
  });

  test('all widths of the content size', () => {
    const wide = new Uint8Array(300).fill(7);
    for (const window of [undefined, WINDOW]) {
      for (const width of [1, 2, 4, 8] as const) {
        if (window !== undefined && width === 1) continue; // none at all, here
        const plain = width === 2 ? wide : HELLO;
        const header: FrameHeader = {
          ...(window === undefined ? {} : { window }),
          content: { size: plain.length, width },
        };
        accepts(frame(header, [rawBlock(plain)]), plain, `width ${width}`);
      }
    }
    accepts(frame({ window: WINDOW }, [rawBlock(HELLO)]), HELLO, 'no content size');
  });

  test('a content size that the frame does not keep to', () => {
    const header = (size: number): FrameHeader => ({ content: { size, width: 1 } });
    const why = 'a frame that does not give what its header says';
    refuses(frame(header(21), [rawBlock(HELLO)]), 21, 'invalid', why);
    refuses(
      frame({ ...header(19), window: 0, content: { size: 19, width: 4 } }, [rawBlock(HELLO)]),
      20,
      'invalid',
      why,
    );
    refuses(
      frame(header(21), [rawBlock(HELLO)]),
      20,
      'overlong',
      'a frame larger than the place for it',
    );
    refuses(frame(header(19), [rawBlock(HELLO)]), 20, 'invalid', 'a block above the limit');
    const huge = frame({ window: 0, content: { size: 2 ** 63, width: 8 } }, [rawBlock(HELLO)]);
    refuses(huge, 20, 'overlong', 'a frame larger than the place for it');
  });

  test('dictionaries are refused but for number 0', () => {
    for (const width of [1, 2, 4] as const) {
      const made = (id: number) =>
        frame({ window: WINDOW, dictionary: { id, width } }, [rawBlock(HELLO)]);
      accepts(made(0), HELLO, `dictionary 0 in ${width} bytes`);
      refuses(made(1), 20, 'unsupported', 'a dictionary');
      refuses(made(2 ** (8 * width) - 1), 20, 'unsupported', 'a dictionary');
    }
  });

  test('reserved bits', () => {
    refuses(
      frame({ window: WINDOW, flags: 8 }, [rawBlock(HELLO)]),
      20,
      'invalid',
      'a reserved bit of the frame header is set',
    );
    accepts(frame({ window: WINDOW, flags: 16 }, [rawBlock(HELLO)]), HELLO, 'the unused bit');
    const reserved = { ...rawBlock(HELLO), kind: 3 } as Block;
    refuses(frame({ window: WINDOW }, [reserved]), 20, 'invalid', 'a block of the reserved kind');
    const modes = sequencesSection([{ literals: 1, offset: 4, match: 3 }], PREDEFINED, {
      reserved: 1,
    });
    refuses(
      frame({ window: WINDOW }, [compressedBlock(plainLiterals(0, [1]), modes)]),
      4,
      'invalid',
      'reserved bits of the sequence modes are set',
    );
  });

  test('windows up to 128 MiB', () => {
    for (let window = 0; window < 256; window++) {
      const stream = frame({ window }, [rawBlock(HELLO)]);
      if (window <= 17 << 3) accepts(stream, HELLO, `window ${window}`);
      else refuses(stream, 20, 'unsupported', 'a window above 128 MiB');
    }
  });

  test('magic numbers', () => {
    const good = frame({ window: WINDOW }, [rawBlock(HELLO)]);
    const made = (magic: number) => join(little(magic, 4), good.subarray(4));
    for (let magic = 0xfd2fb522; magic < 0xfd2fb528; magic++) {
      refuses(made(magic), 20, 'unsupported', 'a frame of a format before 0.8');
    }
    for (const magic of [0, 0xfd2fb521, 0xfd2fb529, 0x184d2a4f, 0x184d2a60, 0x28b52ffd]) {
      refuses(made(magic), 20, 'invalid', 'no magic number');
    }
    refuses(skippable(HELLO), 20, 'short', 'no more frames');
    refuses(skippable(HELLO).subarray(0, 27), 20, 'truncated', 'within a skippable frame');
    refuses(skippable(HELLO).subarray(0, 7), 20, 'truncated', 'within a skippable frame');
    const endless = join(little(0x184d2a50, 4), little(0xffffffff, 4), good);
    refuses(endless, 20, 'truncated', 'within a skippable frame');
  });

  test('checksums', () => {
    // The published value for no bytes at all, and one that `zstd --check` wrote.
    assert.is(xxh64(new Uint8Array()), 0xef46db3751d8e999n);
    for (let length = 0; length < 100; length++) {
      const plain = Uint8Array.from({ length }, () => random.u32());
      const good = frame({ window: WINDOW, checksum: plain }, [rawBlock(plain)]);
      accepts(good, plain, `${length} bytes`);
      if (length === 0) continue;
      const bad = frame({ window: WINDOW, checksum: 0x12345678 }, [rawBlock(plain)]);
      refuses(bad, length, 'checksum', 'a checksum that does not match');
      refuses(good.subarray(0, -1), length, 'truncated', 'within a checksum');
    }
  });

  test('empty blocks, before and after the output is full', () => {
    const none = new Uint8Array();
    const empty = [
      rawBlock(none),
      repeatBlock(1, 0),
      compressedBlock(plainLiterals(0, []), NO_SEQUENCES),
    ];
    for (const block of empty) {
      accepts(frame({ window: WINDOW }, [block, rawBlock(HELLO), block]), HELLO, 'empty blocks');
      refuses(
        frame({ window: WINDOW }, [rawBlock(HELLO), block]).subarray(0, -1),
        20,
        'truncated',
        block.stored.length ? 'within a block' : 'within a block header',
      );
    }
    refuses(
      frame({ window: WINDOW }, [rawBlock(HELLO), repeatBlock(0, 1)]),
      20,
      'overlong',
      'a block larger than the place for it',
    );
    refuses(
      frame({ window: WINDOW }, [{ kind: 2, size: 0, stored: none }]),
      20,
      'invalid',
      'a compressed block of less than 2 bytes',
    );
    refuses(
      frame({ window: WINDOW }, [{ kind: 2, size: 1, stored: text('0') }]),
      20,
      'invalid',
      'a compressed block of less than 2 bytes',
    );
  });

  test('blocks up to the limit, and no further', () => {
    const full = (window: number, size: number) =>
      frame({ window }, [repeatBlock(9, size), repeatBlock(8, 1)]);
    for (const [window, limit] of [
      [0, 1024],
      [1, 1152],
      [6 << 3, 65536],
      [7 << 3, 131072],
      [9 << 3, 131072],
    ] as const) {
      const content = new Uint8Array(limit + 1).fill(9);
      content[limit] = 8;
      accepts(full(window, limit), content, `window ${window}`);
      refuses(full(window, limit + 1), limit + 2, 'invalid', 'a block above the limit');
      const literals = compressedBlock(plainLiterals(1, [9], limit + 1), NO_SEQUENCES);
      refuses(
        frame({ window }, [literals]),
        limit + 1,
        'invalid',
        'more literals than a block may have',
      );
      const grown = (match: number) =>
        frame({ window }, [
          compressedBlock(
            plainLiterals(1, [9], 10),
            sequencesSection([{ literals: 5, offset: 4, match }], {
              ...PREDEFINED,
              matches: { mode: 'one', code: codeOf.matches(match)[0] },
            }),
          ),
        ]);
      accepts(grown(limit - 10), content.subarray(0, limit), `grown, window ${window}`);
      refuses(grown(limit - 9), limit + 1, 'invalid', 'a block that gives more than one may');
      refuses(
        grown(limit - 9),
        limit,
        'overlong',
        'a block that gives more than there is place for',
      );
    }
  });

  const inBlock = (literals: Uint8Array, sequences = NO_SEQUENCES): Uint8Array =>
    frame({ window: WINDOW }, [compressedBlock(literals, sequences)]);

  test('literals that run out, or are too many', () => {
    refuses(inBlock(plainLiterals(0, HELLO, 40)), 40, 'invalid', 'a literals section runs out');
    refuses(
      inBlock(plainLiterals(0, HELLO, 20, 3).subarray(0, 2), new Uint8Array()),
      20,
      'invalid',
      'a literals header runs out',
    );
    refuses(
      inBlock(plainLiterals(1, [], 20)).subarray(0),
      20,
      'invalid',
      'a sequences header runs out',
    );
    refuses(
      inBlock(plainLiterals(0, HELLO)),
      19,
      'overlong',
      'more literals than there is place for',
    );
    const greedy = sequencesSection([{ literals: 21, offset: 4, match: 3 }]);
    refuses(
      inBlock(plainLiterals(0, HELLO), greedy),
      40,
      'invalid',
      'more literals than there are',
    );
  });

  test('Huffman trees that do not hold', () => {
    const body = (tree: number[] | Uint8Array, stream = Uint8Array.of(1, 1, 1)) => {
      const content = join(tree, stream);
      return inBlock(join(little(2 + 5 * 16 + content.length * 2 ** 14, 3), content));
    };
    const direct = (...weights: number[]) => treeBytes([...weights, 0]);
    refuses(body([]), 5, 'invalid', 'a table description runs out');
    refuses(body(direct(0, 0)), 5, 'invalid', 'a Huffman tree without symbols');
    refuses(body(direct(13, 1)), 5, 'invalid', 'a Huffman weight above 12');
    refuses(body(direct(12, 12)), 5, 'invalid', 'a Huffman tree of more than 12 levels');
    refuses(body(direct(3, 1)), 5, 'invalid', 'Huffman weights that do not add up');
    refuses(body(direct(2, 2, 2)), 5, 'invalid', 'a Huffman code without its sibling');
    refuses(body([140], new Uint8Array(3)), 5, 'invalid', 'a tree description runs out');
    refuses(body([100]), 5, 'invalid', 'a tree description runs out');
    refuses(body([1, 2]), 5, 'invalid', 'an accuracy above the limit');
    refuses(body([1, 0]), 5, 'invalid', 'a table description runs out');
    refuses(body([0]), 5, 'invalid', 'a table description runs out');
  });

  test('trees of up to 12 levels, the last by the skin of its teeth', () => {
    for (let depth = 1; depth <= 13; depth++) {
      const weights = [1, ...Array.from({ length: depth }, (_, i) => i + 1)];
      const symbols = Uint8Array.from({ length: 500 }, () => random.below(weights.length));
      if (depth <= 12) {
        accepts(
          inBlock(codedLiterals(symbols, weights, { tree: treeBytes(weights) })),
          symbols,
          `depth ${depth}`,
        );
      }
    }
  });

  test('streams of literals that end too early or too late', () => {
    const weights = [1, 1, 2];
    const tree = treeBytes(weights);
    const symbols = Uint8Array.of(0, 1, 2, 2, 1);
    const section = codedLiterals(symbols, weights, { tree });
    accepts(inBlock(section), symbols, 'one stream');
    refuses(
      inBlock(codedLiterals(symbols, weights, { tree, count: 4 })),
      4,
      'invalid',
      'a stream of literals has bits left',
    );
    refuses(
      inBlock(codedLiterals(symbols, weights, { tree, count: 6 })),
      6,
      'invalid',
      'a stream of literals runs out',
    );
    const unmarked = section.slice();
    unmarked[unmarked.length - 1] = 0;
    refuses(inBlock(unmarked), 5, 'invalid', 'a bit stream without an end mark');
    accepts(
      inBlock(codedLiterals(symbols.subarray(5), weights, { tree, form: 0 })),
      new Uint8Array(),
      'no literals in one stream',
    );
  });

  test('four streams', () => {
    const weights = [1, 1, 2];
    const tree = treeBytes(weights);
    for (let count = 6; count < 60; count++) {
      const symbols = Uint8Array.from({ length: count }, () => random.below(3));
      for (const form of [1, 2, 3]) {
        const section = codedLiterals(symbols, weights, { tree, form });
        accepts(inBlock(section), symbols, `${count} literals in form ${form}`);
      }
    }
    const few = codedLiterals(Uint8Array.of(0, 1, 2, 0), weights, { tree, form: 1 });
    refuses(inBlock(few), 4, 'invalid', 'too few literals for four streams');
    const one = huffmanStream(weights, Uint8Array.of(1, 1));
    const sized = (a: number, b: number, c: number, ...streams: Uint8Array[]) => {
      const body = join(tree, little(a, 2), little(b, 2), little(c, 2), ...streams);
      return inBlock(join(little(2 + 4 + 8 * 16 + body.length * 2 ** 14, 3), body));
    };
    accepts(sized(1, 1, 1, one, one, one, one), new Uint8Array(8).fill(1), 'made by hand');
    refuses(sized(1, 1, 1, one, one, one), 8, 'invalid', 'four streams in less than ten bytes');
    refuses(sized(1, 1, 2, one, one, one, one), 8, 'invalid', 'a stream of literals has bits left');
    refuses(sized(1, 1, 3, one, one, one, one), 8, 'invalid', 'a stream of literals is cut off');
    refuses(sized(0, 1, 1, one, one, one, one), 8, 'invalid', 'a bit stream without an end mark');
    refuses(
      sized(1, 65535, 1, one, one, one, one),
      8,
      'invalid',
      'a stream of literals is cut off',
    );
  });

  test('treeless literals and repeated tables need something before them', () => {
    const weights = [1, 1, 2];
    const symbols = Uint8Array.of(0, 1, 2, 2, 1, 0, 1);
    const treed = compressedBlock(
      codedLiterals(symbols, weights, { tree: treeBytes(weights) }),
      NO_SEQUENCES,
    );
    const treeless = compressedBlock(codedLiterals(symbols, weights), NO_SEQUENCES);
    const lone = 'literals by the last tree, but there is none';
    accepts(frame({ window: 0 }, [treed, treeless]), join(symbols, symbols), 'treeless');
    refuses(frame({ window: 0 }, [treeless]), 7, 'invalid', lone);
    // What one frame has learnt is nothing to the next.
    refuses(
      join(frame({ window: 0 }, [treed]), frame({ window: 0 }, [treeless])),
      14,
      'invalid',
      lone,
    );

    const sequences: Sequence[] = [{ literals: 2, offset: 5, match: 9 }];
    const first = compressedBlock(plainLiterals(0, [1, 2, 3]), sequencesSection(sequences));
    const content = Uint8Array.of(1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 3);
    for (const field of ['lengths', 'offsets', 'matches'] as const) {
      const again = (known: boolean): Tables => ({
        ...PREDEFINED,
        [field]: { mode: 'repeat', last: known ? { mode: 'predefined' } : undefined },
      });
      const block = compressedBlock(
        plainLiterals(0, [1, 2, 3]),
        sequencesSection(sequences, again(true)),
      );
      accepts(frame({ window: 0 }, [first, block]), join(content, content), field);
      refuses(frame({ window: 0 }, [block]), 12, 'invalid', 'a table repeated, but there is none');
      const plain = compressedBlock(plainLiterals(0, [1, 2, 3]), NO_SEQUENCES);
      refuses(
        frame({ window: 0 }, [plain, block]),
        15,
        'invalid',
        'a table repeated, but there is none',
      );
      refuses(
        join(frame({ window: 0 }, [first]), frame({ window: 0 }, [block])),
        24,
        'invalid',
        'a table repeated, but there is none',
      );
    }
  });

  test('the number of sequences in all its forms', () => {
    const list = (count: number) =>
      Array.from({ length: count }, (): Sequence => ({ literals: 0, offset: 4, match: 3 }));
    const made = (count: number, long?: 2 | 3) =>
      frame({ window: 7 << 3 }, [
        compressedBlock(plainLiterals(0, []), sequencesSection(list(0))),
        rawBlock(Uint8Array.of(5)),
        compressedBlock(
          plainLiterals(0, []),
          sequencesSection(list(count), PREDEFINED, long ? { long } : {}),
        ),
      ]);
    for (const [count, long] of [
      [1, 2],
      [127, 2],
      [127],
      [128],
      [300],
      [0x7eff],
      [0x7f00],
      [0x7f01, 3],
      [0xa000],
    ] as const) {
      accepts(made(count, long), new Uint8Array(1 + 3 * count).fill(5), `${count} sequences`);
    }
    accepts(made(0, 2), Uint8Array.of(5), 'none in two bytes');
    refuses(
      inBlock(plainLiterals(0, HELLO), Uint8Array.of(0, 0)),
      20,
      'invalid',
      'bytes after a section without sequences',
    );
    for (const cut of [[200], [255], [255, 1], [3], []]) {
      refuses(
        inBlock(plainLiterals(0, HELLO), Uint8Array.from(cut)),
        20,
        'invalid',
        'a sequences header runs out',
      );
    }
  });

  test('offsets: zero, too far, beyond the window', () => {
    const one = (sequence: Sequence, window = WINDOW) =>
      frame({ window }, [
        repeatBlock(0, 1000),
        repeatBlock(0, 1000),
        compressedBlock(plainLiterals(0, [1, 2]), sequencesSection([sequence])),
      ]);
    const content = new Uint8Array(2007);
    content.set([1, 2], 2000);
    content[2006] = 2;
    content[2001] = 0;
    accepts(one({ literals: 1, offset: 2001 + 3, match: 5 }), content, 'from the very start');
    refuses(
      one({ literals: 1, offset: 2002 + 3, match: 5 }),
      2007,
      'invalid',
      'an offset beyond the start',
    );
    refuses(
      one({ literals: 1, offset: 2 ** 28, match: 5 }),
      2007,
      'invalid',
      'an offset beyond the start',
    );
    // Without literals the third of the repeated offsets is the first less one: here 1 − 1.
    refuses(one({ literals: 0, offset: 3, match: 5 }), 2007, 'invalid', 'an offset of zero');
    accepts(one({ literals: 1, offset: 1024 + 3, match: 5 }, 0), content, 'a whole window back');
    refuses(
      one({ literals: 1, offset: 1025 + 3, match: 5 }, 0),
      2007,
      'invalid',
      'an offset beyond the window',
    );
    // The frame before is out of reach.
    refuses(
      join(
        frame({ window: 0 }, [rawBlock(HELLO)]),
        inBlock(
          plainLiterals(0, [1, 2]),
          sequencesSection([{ literals: 2, offset: 3 + 3, match: 3 }]),
        ),
      ),
      25,
      'invalid',
      'an offset beyond the start',
    );
  });

  test('sequences of many bits', () => {
    for (let i = 0; i < 10 * slow; i++) {
      const content = [...new Uint8Array(300)].map(() => random.below(256));
      const blocks: Block[] = [rawBlock(Uint8Array.from(content))];
      for (let k = 0; k < 8; k++) {
        blocks.push(repeatBlock(k, 0x20000));
        for (let n = 0; n < 0x20000; n++) content.push(k);
      }
      const literals = Uint8Array.from({ length: 40000 }, () => random.below(256));
      const sequences: Sequence[] = [];
      let used = 0;
      for (let k = 0; k < 8; k++) {
        const take = random.below(random.pick([3, 20000 - used / 2]));
        const match = 3 + random.below(random.pick([30, 10000]));
        const distance = 1 + random.below(random.pick([9, content.length + take]));
        content.push(...literals.subarray(used, used + take));
        used += take;
        for (let n = 0; n < match; n++) content.push(content[content.length - distance]!);
        sequences.push({ literals: take, offset: distance + 3, match });
      }
      content.push(...literals.subarray(used));
      const described = (field: keyof Tables, of: (s: Sequence) => number, log: number) => {
        const codes = [...new Set(sequences.map((s) => codeOf[field](of(s))[0]))];
        return { mode: 'described', counts: randomCounts(random, codes, log) } as const;
      };
      const section = sequencesSection(sequences, {
        lengths: described('lengths', (s) => s.literals, 9),
        offsets: described('offsets', (s) => s.offset, 8),
        matches: described('matches', (s) => s.match, 9),
      });
      blocks.push(compressedBlock(plainLiterals(0, literals), section));
      const stored = frame({ window: 11 << 3 }, blocks);
      const what = `frame ${i}, ${replay}`;
      accepts(stored, Uint8Array.from(content), what);
      // Cut the stream of sequences from the front: it runs out within the longest of them.
      const bytes = section.length - random.below(30);
      const cut = join(section.subarray(0, bytes - 12), section.subarray(bytes));
      agree(
        frame({ window: 11 << 3 }, [
          ...blocks.slice(0, -1),
          compressedBlock(plainLiterals(0, literals), cut),
        ]),
        content.length,
        random,
        what,
      );
    }
  });

  test('codes up to the last', () => {
    const limits = [
      [0x40, 35],
      [0x10, 31],
      [0x04, 52],
    ] as const;
    for (const [mode, max] of limits) {
      for (let code = 0; code < 256; code++) {
        // A table of this one code; the stream is zeros, and states of zeros, for any of them.
        for (let bits = 10; bits < (code > max ? 11 : 60); bits++) {
          const zeros = join(new Uint8Array(bits >> 3), [1 << (bits & 7)]);
          const block = inBlock(plainLiterals(0, [1]), join([1, mode, code], zeros));
          const { reason } = agree(block, 4, random, `mode ${mode}, code ${code}, ${bits} bits`);
          if (code > max) assert.is(reason, 'a code out of range');
          else assert.is.not(reason, 'a code out of range');
        }
      }
    }
  });

  test('tables that do not hold', () => {
    const section = (...description: number[]) =>
      inBlock(plainLiterals(0, [1]), join([1, 0x80], description, [1, 1, 1]));
    const max = { lengths: 9, offsets: 8, matches: 9 };
    for (const [shift, [field, log]] of [...Object.entries(max).entries()]) {
      const modes = 2 << (6 - 2 * shift);
      const described = (...description: number[]) =>
        inBlock(plainLiterals(0, [1]), join([1, modes], description));
      refuses(described(log - 5 + 1), 1, 'invalid', 'an accuracy above the limit');
      refuses(described(log - 5), 1, 'invalid', 'a table description runs out');
      refuses(described(), 1, 'invalid', 'a table description runs out');
      assert.ok(field);
    }
    const many = countsBytes({ log: 6, counts: [...new Array<number>(40).fill(1), 24] });
    refuses(section(...many), 1, 'invalid', 'more symbols than there are');
    const zeros = countsBytes({ log: 5, counts: [1, ...new Array<number>(60).fill(0), 31] });
    refuses(section(...zeros), 1, 'invalid', 'more symbols than there are');
    const whole = countsBytes({ log: 5, counts: [32] });
    refuses(section(...whole).subarray(0, -3), 1, 'truncated', 'within a block');
  });

  test('streams of sequences that end too early or too late', () => {
    const stored = sequencesSection([{ literals: 1, offset: 4, match: 3 }]);
    const content = Uint8Array.of(7, 7, 7, 7);
    accepts(inBlock(plainLiterals(0, [7]), stored), content, 'as it should be');
    const longer = join(stored.subarray(0, 2), [0], stored.subarray(2));
    refuses(
      inBlock(plainLiterals(0, [7]), longer),
      4,
      'invalid',
      'a stream of sequences has bits left',
    );
    refuses(
      inBlock(plainLiterals(0, [7]), stored.subarray(0, -1)),
      4,
      'invalid',
      'a stream of sequences runs out',
    );
    const more = stored.slice();
    more[0] = 2;
    refuses(inBlock(plainLiterals(0, [7]), more), 7, 'invalid', 'a stream of sequences runs out');
    refuses(
      inBlock(plainLiterals(0, [7]), join(stored, [0])),
      4,
      'invalid',
      'a bit stream without an end mark',
    );
    refuses(
      inBlock(plainLiterals(0, [7]), stored.subarray(0, 2)),
      4,
      'invalid',
      'a bit stream without an end mark',
    );
  });

  test('no output asked for is no work', () => {
    accepts(new Uint8Array(), new Uint8Array(), 'nothing');
    accepts(text('anything at all'), new Uint8Array(), 'nothing');
  });

  test('noise is refused', () => {
    for (let i = 0; i < 2000 * slow; i++) {
      const noise = Uint8Array.from({ length: 6 + random.below(80) }, () => random.u32());
      const stored = join(little(0xfd2fb528, 4), noise);
      stored[4]! &= 0xe4; // no reserved bit, no dictionary
      if (random.oneIn(2)) stored[5]! &= 0x3f;
      agree(stored, 1 + random.below(300), random, `noise ${i}, ${replay}`);
    }
  });

  test('random insides of a compressed block get the same answer', () => {
    for (let i = 0; i < 4000 * slow; i++) {
      const section = Uint8Array.from({ length: 2 + random.below(60) }, () => random.u32());
      section[0] = random.oneIn(2) ? random.below(8) << 3 : section[0]! & 0x7f;
      const block: Block = { kind: 2, size: section.length, stored: section };
      agree(
        frame({ window: 0 }, [repeatBlock(1, 30), block]),
        30 + random.below(300),
        random,
        `block ${i}, ${replay}`,
      );
    }
  });

  test.run();
}
