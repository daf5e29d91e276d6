// The TypeScript twin is the oracle, pako the encoder. Replay a failure with SEED=….
import { deflateRaw } from 'pako';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DecodeError, type Kernels } from '../../src/kernels/kernels.ts';
import { wasmKernels } from '../../src/kernels/wasm.ts';
import { type Random, rng, SEED } from '../random.ts';
import {
  Bench,
  BitWriter,
  lengthsOf,
  malformedStreams,
  randomStream,
  sameBytes,
  writeDynamicHeader,
} from './inflate-streams.ts';
import { inflate as inflateTwin } from './twin/inflate.ts';

/** In pages, SLOW is a global. */
interface Host {
  SLOW?: string;
  process?: { env: { SLOW?: string } };
}
const host = globalThis as unknown as Host;
const SLOW = Boolean(host.SLOW ?? host.process?.env.SLOW);
const replay = `SEED=${SEED}`;

const bench = new Bench(2 << 20);
const wasm = wasmKernels(bench.memory).inflate;
const twin = inflateTwin(bench.memory);

/** Bytes of one of the kinds that disks hold: each makes encoders choose other codes. */
function sample(random: Random, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  switch (random.below(6)) {
    case 0: // noise
      for (let i = 0; i < length; i++) bytes[i] = random.below(256);
      break;
    case 1: // one byte, or a short period
      bytes.fill(random.below(256));
      if (random.oneIn(2)) {
        const period = 1 + random.below(40);
        for (let i = 0; i < length; i++) bytes[i] = (i % period) * 37;
      }
      break;
    case 2: {
      // text: words again and again
      const words = Array.from({ length: 60 }, () =>
        Array.from({ length: 1 + random.below(9) }, () => 97 + random.below(26)),
      );
      for (let i = 0; i < length; i++) {
        for (const c of random.pick(words)) bytes[i++] = c;
        bytes[i] = 32;
      }
      break;
    }
    case 3: // few values, unevenly
      for (let i = 0; i < length; i++) bytes[i] = random.below(random.below(16) + 1);
      break;
    case 4: // records: counters, pointers, zeros
      for (let i = 0; i < length; i++) {
        bytes[i] = i % 16 < 4 ? i >> ((i % 4) * 8) : i % 16 < 6 ? random.below(256) : 0;
      }
      break;
    default: // noise that comes back from afar
      for (let i = 0; i < length; i++) {
        if (random.oneIn(20) && i > 300) {
          const distance = 1 + random.below(Math.min(i, 32768));
          const end = Math.min(length, i + 3 + random.below(300));
          for (; i < end; i++) bytes[i] = bytes[i - distance]!;
        }
        bytes[i] = random.below(256);
      }
  }
  return bytes;
}

/** Deflates as the random source will have it. */
function deflate(random: Random, plain: Uint8Array): Uint8Array {
  return deflateRaw(plain, {
    level: random.below(10) as 0,
    strategy: random.below(5) as 0, // default, filtered, Huffman only, RLE, fixed
    windowBits: 9 + random.below(7),
    memLevel: 1 + random.below(9),
  });
}

/** Runs the kernel and the twin and holds the one to the other. */
function both(stream: Uint8Array, dstBytes: number, message: string, shift = 0): number {
  const expected = bench.run(twin, stream, dstBytes, { shift });
  const actual = bench.run(wasm, stream, dstBytes, { shift, slack: shift * 37 });
  assert.is(actual.result, expected.result, `result, ${message}`);
  sameBytes(actual.plain, expected.plain, message);
  return actual.result;
}

/** The kernel makes `plain` of `stream`, and says so. */
function decodes(
  inflate: Kernels['inflate'],
  stream: Uint8Array,
  plain: Uint8Array,
  message: string,
): void {
  const { result, plain: out } = bench.run(inflate, stream, plain.length, { slack: 0xff });
  assert.is(result, plain.length, `result, ${message}`);
  sameBytes(out, plain, message);
}

const test = suite('inflate');

test('decodes what an encoder makes at every level, strategy and window', () => {
  const random = rng();
  for (let level = 0; level <= 9; level++) {
    for (let strategy = 0; strategy <= 4; strategy++) {
      for (let windowBits = 9; windowBits <= 15; windowBits += SLOW ? 1 : 1 + random.below(5)) {
        const plain = sample(random, random.below(20000));
        const stream = deflateRaw(plain, {
          level: level as 0,
          strategy: strategy as 0,
          windowBits,
        });
        const what = `level ${level}, strategy ${strategy}, window ${windowBits}, ${replay}`;
        decodes(wasm, stream, plain, what);
        assert.is(bench.run(wasm, stream, plain.length + 1).result, DecodeError.short, what);
      }
    }
  }
});

test('decodes every size', () => {
  const random = rng();
  const sizes = Array.from({ length: SLOW ? 2000 : 60 }, () => random.below(70001));
  for (let size = 0; size <= 700; size += SLOW ? 1 : 1 + random.below(4)) sizes.push(size);
  for (const size of [...sizes, 32767, 32768, 32769, 65535, 65536, 65537, 70000]) {
    const plain = sample(random, size);
    decodes(wasm, deflate(random, plain), plain, `size ${size}, ${replay}`);
  }
});

test('decodes 2 MiB', () => {
  const random = rng();
  for (let i = 0; i < (SLOW ? 20 : 2); i++) {
    const plain = sample(random, 2 << 20);
    decodes(wasm, deflateRaw(plain, { level: 1 }), plain, replay);
  }
});

test('decodes random blocks with random codes', () => {
  const random = rng();
  for (let i = 0; i < (SLOW ? 5000 : 150); i++) {
    const { stream, plain } = randomStream(random, random.pick([20, 400, 3000, 40000]));
    decodes(wasm, stream, plain, `stream ${i}, ${replay}`);
    if (i % 4 === 0) decodes(twin, stream, plain, `twin, stream ${i}, ${replay}`);
  }
});

test('stops as soon as the output is full', () => {
  const random = rng();
  for (let i = 0; i < (SLOW ? 200 : 12); i++) {
    const { stream, plain } =
      i % 2 === 0
        ? randomStream(random, 600)
        : ((plain) => ({ plain, stream: deflate(random, plain) }))(sample(random, 600));
    for (let limit = 0; limit <= plain.length; limit++) {
      decodes(wasm, stream, plain.subarray(0, limit), `limit ${limit}, ${replay}`);
    }
  }
  for (let i = 0; i < 60; i++) {
    const plain = sample(random, 65536);
    const stream = deflate(random, plain);
    decodes(wasm, stream, plain.subarray(0, random.below(65536)), replay);
  }
});

test('reads the input and writes the output at every alignment', () => {
  const random = rng();
  for (let shift = 0; shift < 16; shift++) {
    const plain = sample(random, 3000 + random.below(9));
    const stream = deflate(random, plain);
    const { result, plain: out } = bench.run(wasm, stream, plain.length, { shift });
    assert.is(result, plain.length, replay);
    sameBytes(out, plain, `shift ${shift}, ${replay}`);
  }
});

test('says where a stream is cut', () => {
  const random = rng();
  for (let i = 0; i < (SLOW ? 100 : 16); i++) {
    const { stream, plain } =
      i % 2 === 0
        ? randomStream(random, 300 * (1 + (i % 3)))
        : ((plain) => ({ plain, stream: deflate(random, plain) }))(sample(random, 500));
    const step = stream.length > 1500 ? 1 + random.below(stream.length / 500) : 1;
    for (let length = 0; length <= stream.length; length += step) {
      const cut = stream.subarray(0, length);
      const message = `cut at ${length} of ${stream.length}, ${replay}`;
      const result = both(cut, plain.length + 1, message, length & 15);
      const isWhole = length === stream.length;
      assert.is(result, isWhole ? DecodeError.short : DecodeError.truncated, message);
      // Every byte that the cut stream has in full can be had.
      if (length % 8 === 0) both(cut, random.below(plain.length + 1), message);
    }
  }
});

test('agrees with the twin about damaged streams', () => {
  const random = rng();
  const seen = new Set<number>();
  for (let i = 0; i < (SLOW ? 100000 : 3000); i++) {
    const { stream, plain } =
      i % 3 === 0
        ? randomStream(random, 1000)
        : ((plain) => ({ plain, stream: deflate(random, plain) }))(
            sample(random, random.below(1500)),
          );
    const near = random.oneIn(2) ? Math.min(stream.length, 100) : stream.length;
    for (let flips = random.pick([1, 1, 2, 8]); flips > 0; flips--) {
      stream[random.below(near)]! ^= 1 << random.below(8);
    }
    const dstBytes = random.oneIn(2) ? plain.length : plain.length + random.below(2000);
    seen.add(Math.min(0, both(stream, dstBytes, `stream ${i}, ${replay}`, i & 15)));
  }
  assert.equal(
    [...seen].sort(),
    [DecodeError.truncated, DecodeError.short, DecodeError.invalid, 0].sort(),
  );
});

test('agrees with the twin about noise', () => {
  const random = rng();
  for (let i = 0; i < (SLOW ? 300000 : 8000); i++) {
    const stream = Uint8Array.from({ length: random.below(200) }, () => random.below(256));
    // Leave out most of what would be refused at once.
    if (stream.length > 2) {
      stream[0] = (stream[0]! & ~7) | random.pick([2, 3, 4, 5, 4, 5]);
      if (random.oneIn(2)) stream[0]! &= 0x7f;
    }
    both(stream, random.pick([1, 100, 5000]), `noise ${i}, ${replay}`, i & 15);
  }
});

test('what follows the input makes no difference', () => {
  const random = rng();
  for (let i = 0; i < 300; i++) {
    const { stream, plain } = randomStream(random, 500);
    const cut = stream.subarray(0, random.below(stream.length + 1));
    const results = [0, 0x55, 0xaa, 0xff].map(
      (slack) => bench.run(wasm, cut, plain.length + 9, { slack }).result,
    );
    assert.equal(new Set(results).size, 1, replay);
  }
});

for (const [what, stream] of Object.entries(malformedStreams())) {
  test(`refuses ${what}`, () => {
    assert.is(both(stream, 1000, what), DecodeError.invalid);
    // Long outputs take another way through the kernel than short ones.
    assert.is(bench.run(wasm, stream, 10).result, DecodeError.invalid);
    for (let length = 0; length < stream.length; length++) {
      both(stream.subarray(0, length), 1000, `${what}, cut at ${length}`);
    }
  });
}

test('accepts a distance code of one word, and none where no distance is used', () => {
  for (const dists of [[0], [1], [0, 0, 1]]) {
    const writer = new BitWriter();
    // Words: literal 65 '0', end of block '1'.
    writeDynamicHeader(writer, lengthsOf(257, { 65: 1, 256: 1 }), dists, { isLast: true });
    decodes(wasm, writer.bits(0b1000, 4).finish(), Uint8Array.of(65, 65, 65), `[${dists}]`);
  }
});

test('accepts an end-of-block code that is the only one', () => {
  const writer = new BitWriter();
  writeDynamicHeader(writer, lengthsOf(257, { 256: 1 }), [0], {});
  writer.bits(0, 1).bits(1, 3).align().bits(2, 16).bits(0xfffd, 16).bits(0x4241, 16);
  assert.is(both(writer.finish(), 2, 'stored after empty'), 2);
});

test('accepts the two ways to say length 258', () => {
  // A fixed block: byte 0, then symbol 284 with extra bits 31, at distance 1.
  const stream = new BitWriter()
    .bits(3, 3)
    .bits(0x0c, 8)
    .bits(0b00100011, 8)
    .bits(31, 5)
    .bits(0, 5);
  const { result, plain } = bench.run(wasm, stream.bits(0, 7).finish(), 259);
  assert.is(result, 259);
  assert.ok(plain.every((b) => b === 0));
});

test('reaches back 32 KiB and no byte further than the output', () => {
  const random = rng();
  for (const size of [32767, 32768]) {
    const writer = new BitWriter();
    const plain = Uint8Array.from({ length: size }, () => random.below(256));
    writer
      .bits(0, 3)
      .align()
      .bits(size, 16)
      .bits(~size & 0xffff, 16);
    for (const byte of plain) writer.bits(byte, 8);
    // Fixed: length 3 (word 0000001), distance symbol 29 (11101) with all extra bits set.
    writer.bits(3, 3).bits(0b1000000, 7).bits(0b10111, 5).bits(0x1fff, 13).bits(0, 7);
    const stream = writer.finish();
    for (const dstBytes of [size + 3, size + 3000]) {
      const result = bench.run(wasm, stream, dstBytes).result;
      const expected =
        size < 32768 ? DecodeError.invalid : dstBytes === size + 3 ? dstBytes : DecodeError.short;
      assert.is(result, expected);
    }
  }
});

test('nothing is wanted: nothing is read', () => {
  assert.is(bench.run(wasm, new Uint8Array(0), 0).result, 0);
  assert.is(bench.run(twin, new Uint8Array(0), 0).result, 0);
  assert.is(bench.run(wasm, Uint8Array.of(7), 0).result, 0);
});

test('empty input is truncated', () => {
  assert.is(both(new Uint8Array(0), 1, 'empty'), DecodeError.truncated);
});

test.run();
