/**
 * Sectors under each mode: by the vectors of IEEE Std 1619, and the two hosts' ciphers by each
 * other. What Node itself says is in sector-cipher.node.test.ts.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { SectorCipher } from '../../src/crypto/sector-cipher.ts';
import { Workspace } from '../../src/kernels/arena.ts';
import type { SectorKeys } from '../../src/storage/storage.ts';
import { rng, SEED } from '../random.ts';
import { hex, platforms, toHex, unequal } from './platforms.ts';

/** IEEE Std 1619-2007, annex B: vectors 4, 10, 11 and 12; sectors of counting bytes. */
const COUNTING = Uint8Array.from({ length: 512 }, (_, i) => i);
const KEY_128 = '2718281828459045235360287471352631415926535897932384626433832795';
const KEY_256 =
  '27182818284590452353602874713526624977572470936999595749669676273141592653589793' +
  '238462643383279502884197169399375105820974944592';
const IEEE_1619: readonly (readonly [string, number, string])[] = [
  [KEY_128, 0, '27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c'],
  [KEY_256, 0xff, '1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b'],
  [KEY_256, 0xffff, '77a31251618a15e6b92d1d66dffe7b50b50bad552305ba0217a610688eff7e11'],
  [KEY_256, 0xff_ffff, 'e387aaa58ba483afa7e8eb469778317ecf4cf573aa9d4eac23f2cdf914e4e200'],
];

const random = rng();
const bytesOf = (length: number) => Uint8Array.from({ length }, () => random.below(256));

/** Every mode with every size of key, and every generator of vectors. */
function allKeys(): SectorKeys[] {
  return [16, 24, 32].flatMap((size): SectorKeys[] => [
    { mode: 'xts', key: bytesOf(2 * size), vectorBits: 64 },
    { mode: 'xts', key: bytesOf(2 * size), vectorBits: 32, vectorKey: bytesOf(32) },
    { mode: 'cbc', key: bytesOf(size), vectorBits: 64 },
    { mode: 'cbc', key: bytesOf(size), vectorBits: 64, vectorKey: bytesOf(16) },
    { mode: 'ctr', key: bytesOf(size), vectorBits: 64 },
    { mode: 'ctr', key: bytesOf(size), vectorBits: 64, vectorKey: bytesOf(24) },
    { mode: 'ecb', key: bytesOf(size), vectorBits: 64 },
  ]);
}

const label = ({ mode, key, vectorBits, vectorKey }: SectorKeys) =>
  `${mode}, ${key.length} bytes, ${vectorKey ? 'essiv' : `plain${vectorBits}`}, SEED=${SEED}`;

for (const [host, platform] of platforms) {
  const test = suite(`sector cipher, ${host}`);

  test('the vectors of IEEE 1619', async () => {
    for (const [key, sector, start] of IEEE_1619) {
      const cipher = new SectorCipher({ mode: 'xts', key: hex(key), vectorBits: 64 }, { platform });
      const bytes = COUNTING.slice();
      cipher.encrypt(bytes, sector);
      assert.is(toHex(bytes).slice(0, start.length), start, `sector ${sector}`);
      await cipher.decrypt(bytes, sector);
      assert.is(unequal(bytes, COUNTING), '');
    }
  });

  test('what was encrypted is decrypted, in every mode and at any length', async () => {
    for (const keys of allKeys()) {
      const cipher = new SectorCipher(keys, { platform });
      for (const sectors of [0, 1, 3, 31, 32, 33, 512, 513]) {
        const plain = bytesOf(sectors * 512);
        const sector = random.below(2 ** 44);
        const bytes = plain.slice();
        cipher.encrypt(bytes, sector);
        if (sectors > 0) assert.ok(unequal(bytes, plain), label(keys));
        await cipher.decrypt(bytes, sector);
        assert.is(unequal(bytes, plain), '', `${label(keys)}: ${sectors} sectors at ${sector}`);
      }
    }
  });

  test('many at once do not disturb each other', async () => {
    const cipher = new SectorCipher(
      { mode: 'xts', key: bytesOf(64), vectorBits: 64 },
      { platform },
    );
    const parts = Array.from({ length: 6 }, (_, index) => bytesOf(512 * (60 + 300 * index)));
    const crypted = parts.map((part, index) => {
      const bytes = part.slice();
      cipher.encrypt(bytes, index * 1000);
      return bytes;
    });
    await Promise.all(crypted.map((bytes, index) => cipher.decrypt(bytes, index * 1000)));
    for (const [index, bytes] of crypted.entries()) {
      assert.is(unequal(bytes, parts[index]!), '', `part ${index}`);
    }
  });

  test('bytes in its own memory are worked on where they are', async () => {
    const workspace = new Workspace();
    const region = workspace.reserve(300 * 1024);
    const keys: SectorKeys = { mode: 'xts', key: bytesOf(32), vectorBits: 64 };
    const cipher = new SectorCipher(keys, { platform, workspace });
    const elsewhere = new SectorCipher(keys, { platform });
    const plain = bytesOf(region.length);
    const expected = plain.slice();
    elsewhere.encrypt(expected, 7);
    region.bytes.set(plain);
    cipher.encrypt(region.bytes, 7);
    assert.is(unequal(region.bytes, expected), '');
    await cipher.decrypt(region.bytes, 7);
    assert.is(unequal(region.bytes, plain), '');
  });

  test('sectors are encrypted by their numbers alone', () => {
    for (const keys of allKeys()) {
      const cipher = new SectorCipher(keys, { platform });
      const first = 2 ** 32 - 3;
      const whole = bytesOf(6 * 512);
      const single = whole.slice();
      cipher.encrypt(whole, first);
      for (let sector = 0; sector < 6; sector++) {
        cipher.encrypt(single.subarray(sector * 512, sector * 512 + 512), first + sector);
      }
      assert.is(unequal(whole, single), '', label(keys));
    }
  });

  test.run();
}

const test = suite('sector cipher, hosts agree');

test('on every mode', () => {
  for (const keys of allKeys()) {
    const plain = bytesOf(70 * 512);
    const sector = random.below(2 ** 40);
    const results = platforms.map(([, platform]) => {
      const bytes = plain.slice();
      new SectorCipher(keys, { platform }).encrypt(bytes, sector);
      return toHex(bytes);
    });
    assert.is(new Set(results).size, 1, label(keys));
  }
});

test.run();
