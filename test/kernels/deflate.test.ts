// The oracles are pako, held to a window of 4096 bytes, and our own decoder, whose oracles are
// zlib and a twin. Replay a failure with SEED=….
import * as pako from 'pako';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ARENA_BASE, INPUT_SLACK, MISUSE } from '../../src/kernels/kernels.ts';
import { wasmKernels } from '../../src/kernels/wasm.ts';
import { type Random, rng, SEED } from '../random.ts';
import { anySample, SAMPLES } from './deflate-samples.ts';
import { Bench, sameBytes } from './inflate-streams.ts';

/** In pages, SLOW is a global. */
interface Host {
  SLOW?: string;
  process?: { env: { SLOW?: string } };
}
const host = globalThis as unknown as Host;
const SLOW = Boolean(host.SLOW ?? host.process?.env.SLOW);
const replay = `SEED=${SEED}`;

const MIB = 1 << 20;
const LEVELS = [1, 2, 3, 4, 5, 6, 7, 8, 9];
const bench = new Bench(2 * MIB + 1000);
const kernels = wasmKernels(bench.memory);

interface Settings {
  readonly level: number;
  readonly dstMax?: number;
  readonly shift?: number;
  readonly slack?: number;
}

/** Room for any stream. */
function roomFor(plain: Uint8Array): number {
  return plain.length + 5 * Math.ceil(plain.length / 32768) + 10;
}

function deflate(plain: Uint8Array, settings: Settings): { result: number; stream: Uint8Array } {
  const { level, dstMax = roomFor(plain), ...places } = settings;
  const encode = (src: number, srcBytes: number, dst: number, max: number) =>
    kernels.deflate(src, srcBytes, dst, max, level);
  const { result, plain: stream } = bench.run(encode, plain, dstMax, places);
  return { result, stream };
}

/** Inflates with no more memory of the output than the window. */
function strictInflate(stream: Uint8Array): Uint8Array {
  return pako.inflateRaw(stream, { windowBits: 12, chunkSize: 256 });
}

/** Deflates, and both decoders get back what went in. @returns the stream */
function proven(plain: Uint8Array, settings: Settings, what: string): Uint8Array {
  const message = `${what}, ${plain.length} bytes, level ${settings.level}, ${replay}`;
  const { result, stream } = deflate(plain, settings);
  assert.ok(result > 0, `result ${result}, ${message}`);
  const own = bench.run(kernels.inflate, stream, plain.length);
  assert.is(own.result, plain.length, `our decoder, ${message}`);
  sameBytes(own.plain, plain, `our decoder, ${message}`);
  sameBytes(strictInflate(stream), plain, `pako, ${message}`);
  return stream;
}

const test = suite('deflate');

for (const [name, make] of Object.entries(SAMPLES)) {
  test(`of ${name} comes back`, () => {
    const random = rng();
    for (const level of LEVELS) {
      for (const size of [random.below(300), random.below(5000), random.below(70001)]) {
        proven(make(random, size), { level }, name);
      }
    }
  });
}

test('of every size comes back', () => {
  const random = rng();
  const sizes = Array.from({ length: SLOW ? 3000 : 20 }, () => random.below(70001));
  for (let size = 0; size <= 600; size += SLOW ? 1 : 1 + random.below(8)) sizes.push(size);
  for (const edge of [2048, 3072, 4096, 65536]) sizes.push(edge - 1, edge, edge + 1);
  for (const size of sizes) proven(anySample(random, size), { level: random.pick(LEVELS) }, 'size');
});

test('of every cluster size comes back', () => {
  const random = rng();
  for (let bits = 9; bits <= 21; bits++) {
    const level = bits > 18 && !SLOW ? random.pick([1, 3, 6, 7]) : random.pick(LEVELS);
    const plain = SAMPLES.patchwork!(random, 1 << bits);
    const { stream } = deflate(plain, { level });
    const { result, plain: back } = bench.run(kernels.inflate, stream, plain.length);
    assert.is(result, plain.length, `2^${bits}, ${replay}`);
    sameBytes(back, plain, `2^${bits}, ${replay}`);
    sameBytes(strictInflate(stream), plain, `2^${bits}, ${replay}`);
  }
});

test('of every period comes back, and is small where the window holds it', () => {
  const random = rng();
  const once = Uint8Array.from({ length: 5000 }, () => random.below(256));
  for (let period = 1; period <= 5000; period += SLOW ? 1 : 1 + random.below(period / 2 + 1)) {
    const plain = Uint8Array.from({ length: 12000 }, (_, i) => once[i % period]!);
    const stream = proven(plain, { level: random.pick(LEVELS) }, `period ${period}`);
    if (period < 4096) assert.ok(stream.length < period + 600, `period ${period}, ${replay}`);
    else assert.ok(stream.length > 11000, `period ${period}, ${replay}`);
  }
});

test('of matches about as long as they may be comes back', () => {
  const random = rng();
  for (const base of [0, 258, 516, 774]) {
    for (let length = base + (base === 0 ? 1 : -4); length <= base + 6; length++) {
      const head = Uint8Array.from({ length: 400 }, () => random.below(256));
      const plain = new Uint8Array(400 + length + 2);
      plain.set(head);
      for (let i = 0; i < length; i++) plain[400 + i] = plain[i + (base === 0 ? 17 : 399)]!;
      plain.fill(0x55, 400 + length);
      for (const level of [1, 4, 6, 9]) proven(plain, { level }, `match of ${length}`);
      // A run of one byte, by itself.
      const run = new Uint8Array(length).fill(7);
      for (const level of [1, 4, 6, 9]) proven(run, { level }, `run of ${length}`);
    }
  }
});

test('of words as long as a code can have them comes back', () => {
  // Frequencies as in Fibonacci's numbers make the deepest tree; no two neighbours come twice.
  const random = rng();
  for (let symbols = 2; symbols <= 24; symbols += SLOW ? 1 : 3) {
    const bag: number[] = [];
    for (let symbol = 0, a = 1, b = 1; symbol < symbols; symbol++, [a, b] = [b, a + b]) {
      for (let i = 0; i < a && bag.length < 60000; i++) bag.push(symbol);
    }
    for (let i = bag.length - 1; i > 0; i--) {
      const j = random.below(i + 1);
      [bag[i], bag[j]] = [bag[j]!, bag[i]!];
    }
    for (const level of LEVELS) proven(Uint8Array.from(bag), { level }, `${symbols} symbols`);
  }
});

test('fills the output to its last byte, and gives up where that is one too few', () => {
  const random = rng();
  for (let i = 0; i < (SLOW ? 600 : 60); i++) {
    const plain = anySample(random, random.below(random.pick([100, 3000, 20000])));
    const level = random.pick(LEVELS);
    const { result, stream } = deflate(plain, { level });
    const exact = deflate(plain, { level, dstMax: result });
    assert.is(exact.result, result, replay);
    sameBytes(exact.stream, stream, replay);
    assert.is(deflate(plain, { level, dstMax: result - 1 }).result, 0, replay);
    assert.is(deflate(plain, { level, dstMax: random.below(result) }).result, 0, replay);
  }
  assert.is(deflate(new Uint8Array(9), { level: 6, dstMax: 0 }).result, 0);
});

test('bytes that nothing shrinks are no longer than stored ones', () => {
  const random = rng();
  for (const size of [1, 100, 512, 4096, 65535, 65536, 70000, 2 * MIB]) {
    const plain = SAMPLES.noise!(random, size);
    for (const level of SLOW || size < MIB ? LEVELS : [1, 6]) {
      const { stream } = deflate(plain, { level });
      assert.ok(stream.length <= size + 5 * Math.ceil(size / 32768), `${size}, ${replay}`);
      sameBytes(strictInflate(stream), plain, replay);
      assert.is(deflate(plain, { level, dstMax: size - 1 }).result, 0, replay);
    }
  }
});

test('the stream follows from the bytes and the level alone', () => {
  const random = rng();
  for (let i = 0; i < (SLOW ? 300 : 30); i++) {
    const plain = anySample(random, random.below(random.pick([1000, 70000])));
    const level = random.pick(LEVELS);
    const { stream } = deflate(plain, { level });
    // What other calls leave in the tables, where the bytes lie, and what follows them.
    deflate(anySample(random, 70000), { level: random.pick(LEVELS) });
    new Uint8Array(bench.memory.buffer, 0x10000, ARENA_BASE - 0x10000).fill(random.below(256));
    const again = deflate(plain, { level, shift: random.below(16), slack: random.below(256) });
    sameBytes(again.stream, stream, `level ${level}, ${replay}`);
  }
});

/** Bytes of all streams at a level. */
function total(plains: readonly Uint8Array[], level: number): number {
  return plains.reduce((sum, plain) => sum + deflate(plain, { level }).result, 0);
}

/** Pieces that have something to find, as disks hold it. */
function findable(random: Random): Uint8Array[] {
  const kinds = ['words', 'records', 'few values', 'copies from near', 'patchwork'];
  return kinds.map((kind) => SAMPLES[kind]!(random, 65536));
}

test('higher levels find more', () => {
  const plains = findable(rng());
  const sizes = [1, 6, 7, 9].map((level) => total(plains, level));
  for (let i = 1; i < sizes.length; i++) {
    // What is best for the match at hand need not be best for all of them.
    assert.ok(sizes[i]! <= sizes[i - 1]! * 1.005, `${sizes.join(' ')}, ${replay}`);
  }
});

test("level 6 is no larger than zlib's at QEMU's settings", () => {
  const plains = findable(rng());
  const theirs = plains.reduce((sum, plain) => {
    return sum + pako.deflateRaw(plain, { level: 6, windowBits: 12, memLevel: 9 }).length;
  }, 0);
  assert.ok(total(plains, 6) <= theirs, `${total(plains, 6)}, ${theirs}, ${replay}`);
});

test('the strict decoder refuses what a window of 4096 bytes does not hold', () => {
  const random = rng();
  const once = SAMPLES.noise!(random, 4200);
  const plain = Uint8Array.from({ length: 12000 }, (_, i) => once[i % once.length]!);
  const stream = pako.deflateRaw(plain, { windowBits: 15 });
  assert.ok(stream.length < 6000);
  assert.throws(() => strictInflate(stream));
});

test('misuse is told', () => {
  const { buffer } = bench.memory;
  const end = buffer.byteLength;
  const at = ARENA_BASE;
  assert.is(kernels.deflate(at - 1, 100, at + 4096, 100, 6), MISUSE);
  assert.is(kernels.deflate(at, 100, at - 1, 100, 6), MISUSE);
  assert.is(kernels.deflate(end - INPUT_SLACK - 99, 100, at, 100, 6), MISUSE);
  assert.is(kernels.deflate(at, 100, end - 99, 100, 6), MISUSE);
  assert.is(kernels.deflate(at, 0xffff_ffff, at, 100, 6), MISUSE);
  assert.is(kernels.deflate(at, 100, at, 0xffff_ffff, 6), MISUSE);
  for (const level of [0, 10, -1, 1000]) {
    assert.is(kernels.deflate(at, 100, at + 4096, 100, level), MISUSE);
  }
});

test.run();
