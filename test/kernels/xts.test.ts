/** Sectors XORed with their tweaks. The TypeScript twin is the oracle. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MISUSE } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { agree, arm, bound, bytes, IN, memory, OUT } from './guarded.ts';

for (const [build, kernels] of bound) {
  const test = suite(`xtsXor, ${build}`);

  test('each block of a sector has the tweak before it, times α', () => {
    arm(512);
    bytes.fill(0, OUT, OUT + 512);
    bytes.fill(0, IN, IN + 16);
    bytes[IN + 15] = 0x80;
    assert.is(kernels.xtsXor(OUT, 1, IN), 0);
    assert.equal([...bytes.subarray(OUT, OUT + 16)], [...bytes.subarray(IN, IN + 16)]);
    assert.equal([...bytes.subarray(OUT + 16, OUT + 32)], [0x87, ...Array(15).fill(0)]);
    assert.equal([...bytes.subarray(OUT + 32, OUT + 48)], [0x0e, 1, ...Array(14).fill(0)]);
  });

  test('refuses what lies outside of the memory, and touches nothing', () => {
    arm(512);
    const size = memory.buffer.byteLength;
    assert.is(kernels.xtsXor(size - 511, 1, IN), MISUSE);
    assert.is(kernels.xtsXor(OUT, 1, size - 15), MISUSE);
    assert.is(kernels.xtsXor(OUT, 0xffff_ffff, IN), MISUSE);
    assert.is(kernels.xtsXor(0x10000, 1, IN), MISUSE);
    assert.is(kernels.xtsXor(OUT, 0, IN), 0);
    assert.ok(bytes.subarray(OUT, OUT + 512).every((byte) => byte === 0xa5));
  });

  test.run();
}

const test = suite('xtsXor, twin and kernel agree');

test('on random tweaks', () => {
  const random = rng();
  for (let round = 0; round < 60; round++) {
    const sectors = random.below(6);
    const from = IN + random.below(16);
    for (let i = 0; i < sectors * 16; i++) bytes[from + i] = random.below(256);
    agree(`SEED=${SEED} round ${round}`, sectors * 512, (k, out) => k.xtsXor(out, sectors, from));
  }
});

test('xorBytes, on random bytes', () => {
  const random = rng();
  for (let round = 0; round < 100; round++) {
    const length = random.below(100);
    const from = IN + random.below(16);
    for (let i = 0; i < length; i++) bytes[from + i] = random.below(256);
    agree(`SEED=${SEED} round ${round}`, length, (k, out) => k.xorBytes(out, from, length));
  }
  const size = memory.buffer.byteLength;
  for (const [, kernels] of bound) {
    assert.is(kernels.xorBytes(size - 15, IN, 16), MISUSE);
    assert.is(kernels.xorBytes(OUT, size - 15, 16), MISUSE);
    assert.is(kernels.xorBytes(OUT, 0x10000, 1), MISUSE);
    assert.is(kernels.xorBytes(OUT, IN, 0xffff_ffff), MISUSE);
  }
});

test.run();
