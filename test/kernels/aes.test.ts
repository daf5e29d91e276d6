/** AES by the vectors of its standards. The TypeScript twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { AES_SCHEDULE_BYTES, MISUSE } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { arm, bound, bytes, GUARD, IN, memory, OUT } from './guarded.ts';

const KEY = IN;
const SCHEDULE = IN + 64;

const hex = (text: string) => Uint8Array.from(text.match(/../g)!, (pair) => Number(`0x${pair}`));
const text = (part: Uint8Array) =>
  Array.from(part, (byte) => byte.toString(16).padStart(2, '0')).join('');

/** FIPS 197, appendix C; then NIST SP 800-38A, F.1: key, plain text, cipher text. */
const VECTORS: readonly (readonly [string, string, string])[] = [
  [
    '000102030405060708090a0b0c0d0e0f',
    '00112233445566778899aabbccddeeff',
    '69c4e0d86a7b0430d8cdb78070b4c55a',
  ],
  [
    '000102030405060708090a0b0c0d0e0f1011121314151617',
    '00112233445566778899aabbccddeeff',
    'dda97ca4864cdfe06eaf70a0ec0d7191',
  ],
  [
    '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f',
    '00112233445566778899aabbccddeeff',
    '8ea2b7ca516745bfeafc49904b496089',
  ],
  [
    '2b7e151628aed2a6abf7158809cf4f3c',
    '6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51',
    '3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf',
  ],
  [
    '8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b',
    '6bc1bee22e409f96e93d7e117393172a',
    'bd334f1d6e45f25ff712a214571fa5cc',
  ],
  [
    '603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4',
    '6bc1bee22e409f96e93d7e117393172a',
    'f3eed1bdb5d2a03c064b5a7e3db181f8',
  ],
];

for (const [build, kernels] of bound) {
  const test = suite(`AES, ${build}`);

  test('the vectors of the standards', () => {
    for (const [key, plain, cipher] of VECTORS) {
      bytes.set(hex(key), KEY);
      const rounds = kernels.aesExpandKey(KEY, key.length / 2, SCHEDULE);
      assert.is(rounds, key.length / 8 + 6);
      const length = plain.length / 2;
      bytes.set(hex(plain), OUT);
      assert.is(kernels.aesEncrypt(SCHEDULE, rounds, OUT, length / 16), 0);
      assert.is(text(bytes.subarray(OUT, OUT + length)), cipher);
      assert.is(kernels.aesDecrypt(SCHEDULE, rounds, OUT, length / 16), 0);
      assert.is(text(bytes.subarray(OUT, OUT + length)), plain);
    }
  });

  test('refuses wrong arguments, and touches nothing', () => {
    arm(64);
    const size = memory.buffer.byteLength;
    for (const length of [0, 8, 15, 17, 33, 64]) {
      assert.is(kernels.aesExpandKey(KEY, length, OUT), MISUSE);
    }
    assert.is(kernels.aesExpandKey(size - 16, 32, OUT), MISUSE);
    assert.is(kernels.aesExpandKey(KEY, 32, size - AES_SCHEDULE_BYTES + 1), MISUSE);
    for (const crypt of [kernels.aesEncrypt, kernels.aesDecrypt]) {
      for (const rounds of [0, 9, 11, 13, 15, 0x8000_000a]) {
        assert.is(crypt(SCHEDULE, rounds, OUT, 1), MISUSE);
      }
      assert.is(crypt(size - 100, 10, OUT, 1), MISUSE);
      assert.is(crypt(IN - 16, 10, OUT, 1), MISUSE);
      assert.is(crypt(SCHEDULE, 10, size - 16, 2), MISUSE);
      assert.is(crypt(SCHEDULE, 10, OUT, 0xffff_ffff), MISUSE);
      assert.is(crypt(SCHEDULE, 10, 0x10000, 1), MISUSE);
    }
    assert.ok(bytes.subarray(OUT, OUT + 64).every((byte) => byte === 0xa5));
  });

  test.run();
}

const test = suite('AES, twin and kernel agree');
const [wasm, twin] = bound.map(([, kernels]) => kernels) as [
  (typeof bound)[0][1],
  (typeof bound)[0][1],
];

test('on every key size and number of blocks, and at any address', () => {
  const random = rng();
  for (let round = 0; round < 150; round++) {
    const keyBytes = random.pick([16, 24, 32]);
    const blocks = random.below(30);
    const at = OUT + random.below(16);
    const key = Uint8Array.from({ length: keyBytes }, () => random.below(256));
    const plain = Uint8Array.from({ length: blocks * 16 }, () => random.below(256));
    const results = [wasm, twin].map((kernels) => {
      bytes.set(key, KEY);
      const rounds = kernels.aesExpandKey(KEY, keyBytes, SCHEDULE);
      return (['aesEncrypt', 'aesDecrypt'] as const).map((name) => {
        arm(1024);
        bytes.set(plain, at);
        assert.is(kernels[name](SCHEDULE, rounds, at, blocks), 0);
        return text(bytes.slice(OUT - GUARD, OUT + 1024 + GUARD));
      });
    });
    assert.equal(results[0], results[1], `SEED=${SEED} round ${round}`);
  }
});

test('each byte value goes through the S-box and back', () => {
  bytes.fill(0, KEY, KEY + 16);
  const plain = Uint8Array.from({ length: 4096 }, (_, i) => (i >> 4) ^ (i & 1 ? i : 0));
  const results = [wasm, twin].map((kernels) => {
    const rounds = kernels.aesExpandKey(KEY, 16, SCHEDULE);
    bytes.set(plain, OUT);
    kernels.aesEncrypt(SCHEDULE, rounds, OUT, 256);
    const cipher = text(bytes.slice(OUT, OUT + 4096));
    kernels.aesDecrypt(SCHEDULE, rounds, OUT, 256);
    assert.is(text(bytes.slice(OUT, OUT + 4096)), text(plain));
    return cipher;
  });
  assert.is(results[0], results[1]);
});

test.run();
