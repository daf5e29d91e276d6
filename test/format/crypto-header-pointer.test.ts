import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  parseCryptoHeaderPointer,
  serializeCryptoHeaderPointer,
} from '../../src/format/crypto-header-pointer.ts';
import { rng, SEED } from '../random.ts';
import { put, refused } from './refused.ts';

const test = suite('encryption header pointer');

test('comes back as it was written', () => {
  const next = rng();
  for (let i = 0; i < 500; i++) {
    const pointer = { offset: next.below(2 ** 46) * 512, length: next.below(2 ** 24 + 1) };
    const data = serializeCryptoHeaderPointer(pointer);
    assert.equal(parseCryptoHeaderPointer(data, 0, 512), pointer, `SEED=${SEED}`);
  }
});

test('any other length is refused, at the extension', () => {
  for (const length of [0, 8, 15, 17, 24]) {
    const message = `CRYPTO header extension size ${length}, but expected size 16`;
    const data = new Uint8Array(length);
    refused(() => parseCryptoHeaderPointer(data, 120, 512), 'CORRUPT', 112, message);
  }
});

test('an offset inside a cluster is refused', () => {
  const data = serializeCryptoHeaderPointer({ offset: 512, length: 592 });
  const message = "Encryption header offset '512' is not a multiple of cluster size '65536'";
  refused(() => parseCryptoHeaderPointer(data, 120, 65536), 'CORRUPT', 120, message);
});

test('an offset that no number holds is refused', () => {
  const data = serializeCryptoHeaderPointer({ offset: 512, length: 592 });
  for (const value of [2n ** 53n + 1n, 2n ** 62n, 2n ** 64n - 1n]) {
    put(data, 0, 8, value);
    refused(() => parseCryptoHeaderPointer(data, 120, 512), 'CORRUPT', 120, /out of range$/);
  }
});

test('any length will do: nobody reads more than the LUKS header asks for', () => {
  const data = serializeCryptoHeaderPointer({ offset: 512, length: 592 });
  for (const length of [0n, 2n ** 24n + 1n, 2n ** 63n]) {
    put(data, 8, 8, length);
    const pointer = { offset: 512, length: Number(length) };
    assert.equal(parseCryptoHeaderPointer(data, 120, 512), pointer);
  }
});

test.run();
