import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { hasFeature, Incompatible, unknownIncompatible } from '../../src/format/feature-bits.ts';

const test = suite('feature bits');

test('each of the 64 bits is told from the others', () => {
  for (let bit = 0; bit < 64; bit++) {
    const word = bit < 32 ? { high: 0, low: 2 ** bit } : { high: 2 ** (bit - 32), low: 0 };
    for (let other = 0; other < 64; other++) assert.is(hasFeature(word, other), other === bit);
  }
});

test('what is known is not listed as unknown', () => {
  const known = Object.values(Incompatible);
  const low = known.reduce<number>((word, bit) => word + 2 ** bit, 0);
  assert.equal(unknownIncompatible({ high: 0, low }), []);
  const all = unknownIncompatible({ high: 2 ** 32 - 1, low: 2 ** 32 - 1 });
  assert.equal(
    all,
    Array.from({ length: 64 }, (_, bit) => bit).filter((bit) => !known.some((k) => k === bit)),
  );
});

test.run();
