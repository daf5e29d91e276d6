/** OpenSSL's functions, called where the bytes are: `node:crypto` is the oracle. */
import { createCipheriv } from 'node:crypto';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { opensslAes } from '../../src/crypto/openssl-aes.ts';
import { hostPlatform } from '../../src/crypto/platform.ts';
import { Workspace } from '../../src/kernels/arena.ts';
import { AES_SCHEDULE_BYTES } from '../../src/kernels/kernels.ts';
import { nativeSuite } from '../native-layer.ts';
import { rng, SEED } from '../random.ts';
import { unequal } from './platforms.ts';

const random = rng();
const bytesOf = (length: number) => Uint8Array.from({ length }, () => random.below(256));

function byNode(key: Uint8Array, bytes: Uint8Array): Uint8Array {
  const cipher = createCipheriv(`aes-${key.length * 8}-ecb`, key, null).setAutoPadding(false);
  return cipher.update(bytes);
}

const native = nativeSuite('AES in place');

native('says what Node says, with keys of each size, in any memory', () => {
  const make = opensslAes();
  assert.ok(make, 'koffi is there, so this should be');
  const memory = new WebAssembly.Memory({ initial: 4 });
  for (const size of [16, 24, 32]) {
    const key = bytesOf(size);
    const [there, back] = [make(key, 'encrypt'), make(key, 'decrypt')];
    for (const blocks of [0, 1, 7, 8, 9, 1000]) {
      const plain = bytesOf(blocks * 16);
      const places = [new Uint8Array(memory.buffer, 16 + random.below(99), plain.length)];
      for (const bytes of [...places, plain.slice()]) {
        bytes.set(plain);
        there.update(bytes);
        assert.is(unequal(bytes, byNode(key, plain)), '', `SEED=${SEED}: ${size}, ${blocks}`);
        back.update(bytes);
        assert.is(unequal(bytes, plain), '', `SEED=${SEED}: ${size}, ${blocks}`);
      }
    }
    there.free();
    there.free();
    assert.throws(() => there.update(new Uint8Array(16)));
    assert.throws(() => back.update(new Uint8Array(15)));
    back.free();
  }
});

native.run();

const test = suite('AES of the platform');

test('is the same from the first byte to the last, however it is done', () => {
  const workspace = new Workspace();
  const schedule = workspace.reserve(AES_SCHEDULE_BYTES);
  const room = workspace.reserve(2 ** 20);
  const key = bytesOf(32);
  const aes = hostPlatform().aes(key, schedule);
  const plain = bytesOf(2 ** 20);
  const wanted = byNode(key, plain);
  for (let round = 0; round < 4; round++) {
    room.bytes.set(plain);
    aes.encrypt(room.at, room.length);
    assert.is(unequal(room.bytes, wanted), '', `SEED=${SEED}: round ${round}`);
    aes.decrypt(room.at, room.length);
    assert.is(unequal(room.bytes, plain), '', `SEED=${SEED}: round ${round}`);
  }
  aes.wipe();
});

test.run();
