// Frames that the encoder makes, decoded by kernel and twin. Replay a failure with SEED=….
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ARENA_BASE, MISUSE } from '../../src/kernels/kernels.ts';
import { wasmKernels } from '../../src/kernels/wasm.ts';
import { rng, SEED } from '../random.ts';
import { sameBytes } from './zstd-agree.ts';
import { encode, frameOf, LEVELS } from './zstd-encode-agree.ts';
import { contents } from './zstd-encode-samples.ts';

const host = globalThis as {
  SLOW?: string;
  process?: { env: { SLOW?: string } };
};
const slow = (host.SLOW ?? host.process?.env.SLOW) ? 20 : 1;
const replay = `SEED=${SEED}`;

const test = suite('zstdEncode');
const random = rng();

for (const [name, content] of Object.entries(contents)) {
  test(name, () => {
    for (let i = 0; i < slow; i++) {
      for (const level of LEVELS) {
        const size = random.below(random.pick([20, 600, 5000, 65537, 65537]));
        const bytes = content(random, size);
        frameOf(bytes, level, random, `level ${level}, ${size} bytes, ${replay}`);
      }
    }
  });
}

test('several blocks', () => {
  const names = Object.keys(contents);
  for (let i = 0; i < 9 * slow; i++) {
    const level = LEVELS[i % LEVELS.length]!;
    const name = random.pick(names);
    const size = random.pick([0x20000, 0x20001, 0x40000, 0x20000 + random.below(0x40000)]);
    const what = `level ${level}, ${name}, ${size} bytes, ${replay}`;
    frameOf(contents[name]!(random, size), level, random, what);
  }
});

test('the largest cluster', () => {
  for (const level of slow > 1 ? LEVELS : [1, random.pick([2, 3, 4]), random.pick(LEVELS)]) {
    const bytes = contents['parts of all kinds']!(random, 0x200000);
    frameOf(bytes, level, random, `level ${level}, ${replay}`);
  }
});

test('every short length', () => {
  for (const level of LEVELS) {
    for (let size = 0; size < 70; size++) {
      const bytes = contents[random.oneIn(2) ? 'two bytes' : 'like a disk']!(random, size);
      frameOf(bytes, level, random, `level ${level}, ${size} bytes, ${replay}`);
    }
  }
});

test('takes no byte more than it is allowed', () => {
  for (let i = 0; i < 60 * slow; i++) {
    const name = random.pick(Object.keys(contents));
    const level = random.pick(LEVELS);
    const size = random.below(random.pick([300, 5000, 200_000]));
    const what = `${name}, level ${level}, ${size} bytes, ${replay}`;
    const bytes = contents[name]!(random, size);
    const frame = frameOf(bytes, level, random, what);
    const exact = encode(bytes, { level, dstMax: frame.length, noise: random.u32() });
    assert.is(exact.result, frame.length, what);
    sameBytes(exact.output, frame, `${what}: not the same again`);
    for (const dstMax of [frame.length - 1, random.below(frame.length)]) {
      assert.is(encode(bytes, { level, dstMax, noise: random.u32() }).result, 0, what);
    }
  }
});

test('noise is not worth it', () => {
  for (const level of LEVELS) {
    for (const size of [512, 4096, 65536, 0x40000]) {
      const bytes = contents.noise!(random, size);
      const { result } = encode(bytes, { level, dstMax: size - 1, noise: random.u32() });
      assert.is(result, 0, `level ${level}, ${size} bytes, ${replay}`);
    }
  }
});

test('levels beyond the ends count as the last ones', () => {
  const bytes = contents['parts of all kinds']!(random, 30_000);
  for (const [level, same] of [
    [0, 1],
    [-5, 1],
    [10, 9],
    [2 ** 31 - 1, 9],
  ] as const) {
    const job = { dstMax: 40_000, noise: 0 };
    const { result, output } = encode(bytes, { level, ...job });
    assert.is(result, encode(bytes, { level: same, ...job }).result, `level ${level}, ${replay}`);
    assert.ok(result > 0 && output.length > 0);
  }
});

test('refuses buffers outside of the arena, and more than 2 MiB', () => {
  const memory = new WebAssembly.Memory({ initial: ARENA_BASE / 65536 + 80 });
  const { zstdEncode } = wasmKernels(memory);
  const end = memory.buffer.byteLength;
  const [src, dst] = [ARENA_BASE, ARENA_BASE + 4096];
  assert.is(zstdEncode(src - 1, 10, dst, 100, 3), MISUSE);
  assert.is(zstdEncode(src, 10, src - 1, 100, 3), MISUSE);
  assert.is(zstdEncode(end - 9, 10, dst, 100, 3), MISUSE);
  assert.is(zstdEncode(src, 10, end - 99, 100, 3), MISUSE);
  assert.is(zstdEncode(src, 0xffffffff, dst, 100, 3), MISUSE);
  assert.is(zstdEncode(src, 0x200001, dst, 100, 3), MISUSE);
  assert.ok(zstdEncode(src, 0x200000, dst, 4096, 3) > 0);
});

test.run();
