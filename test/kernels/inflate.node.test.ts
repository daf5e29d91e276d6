// The oracle is zlib itself. Replay a failure with SEED=….
import * as zlib from 'node:zlib';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DecodeError } from '../../src/kernels/kernels.ts';
import { wasmKernels } from '../../src/kernels/wasm.ts';
import { rng, SEED } from '../random.ts';
import { Bench, malformedStreams, randomStream, sameBytes } from './inflate-streams.ts';

const replay = `SEED=${SEED}`;
const SLOW = Boolean(process.env.SLOW);
const bench = new Bench(1 << 20);
const { inflate } = wasmKernels(bench.memory);

/** What zlib says of a stream: its bytes, or which of our errors its own comes to. */
function ask(stream: Uint8Array): Uint8Array | number {
  try {
    return zlib.inflateRawSync(stream, { chunkSize: 65536, maxOutputLength: 1 << 20 });
  } catch (error) {
    const { code } = error as { code: string };
    if (code === 'Z_BUF_ERROR') return DecodeError.truncated;
    if (code === 'Z_DATA_ERROR') return DecodeError.invalid;
    throw error;
  }
}

/** Holds the kernel to zlib's verdict; returns it. */
function agree(stream: Uint8Array, message: string): number {
  const expected = ask(stream);
  const { result, plain } =
    typeof expected === 'number'
      ? bench.run(inflate, stream, 1 << 20)
      : bench.run(inflate, stream, expected.length);
  if (typeof expected === 'number') {
    assert.is(result, expected, message);
    return result;
  }
  assert.is(result, expected.length, message);
  sameBytes(plain, expected, message);
  const beyond = bench.run(inflate, stream, expected.length + 1).result;
  assert.is(beyond, DecodeError.short, `one byte more, ${message}`);
  return 0;
}

const test = suite('inflate against zlib');

test('agrees about what zlib deflates', () => {
  const random = rng();
  const { constants: z } = zlib;
  for (const strategy of [
    z.Z_DEFAULT_STRATEGY,
    z.Z_FILTERED,
    z.Z_HUFFMAN_ONLY,
    z.Z_RLE,
    z.Z_FIXED,
  ]) {
    for (let level = 0; level <= 9; level++) {
      const { plain } = randomStream(random, 30000);
      const windowBits = 9 + random.below(7);
      const options = { level, strategy, windowBits, memLevel: 1 + random.below(9) };
      const stream = zlib.deflateRawSync(plain, options);
      assert.is(agree(stream, `${JSON.stringify(options)}, ${replay}`), 0);
    }
  }
});

test('agrees about damaged streams', () => {
  const random = rng();
  const seen = new Set<number>();
  for (let i = 0; i < (SLOW ? 50000 : 3000); i++) {
    let { stream, plain } = randomStream(random, 700);
    if (random.oneIn(2)) stream = zlib.deflateRawSync(plain, { level: 1 + random.below(9) });
    const damaged = Uint8Array.from(stream).subarray(
      0,
      random.oneIn(3) ? random.below(stream.length + 1) : stream.length,
    );
    const near = random.oneIn(2) ? Math.min(damaged.length, 100) : damaged.length;
    for (let flips = near && random.below(3); flips > 0; flips--) {
      damaged[random.below(near)]! ^= 1 << random.below(8);
    }
    seen.add(agree(damaged, `stream ${i}, ${replay}`));
  }
  assert.is(seen.size, 3);
});

test('agrees about random headers', () => {
  const random = rng();
  for (let i = 0; i < (SLOW ? 100000 : 8000); i++) {
    // Long enough for zlib to find out that a code length code is empty: it reads on until then.
    const stream = Uint8Array.from({ length: 60 + random.below(150) }, () => random.below(256));
    stream[0] = (stream[0]! & ~7) | random.pick([3, 4, 5, 5]);
    agree(stream, `header ${i}, ${replay}`);
  }
});

for (const [what, stream] of Object.entries(malformedStreams())) {
  test(`zlib refuses ${what}`, () => assert.is(agree(stream, what), DecodeError.invalid));
}

test.run();
