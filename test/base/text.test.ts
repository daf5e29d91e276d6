/** Names as bytes and as text. The oracle for what is UTF-8 is the platform's own decoder. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  byteLength,
  decodeField,
  decodeText,
  encodeText,
  hasStrayBytes,
} from '../../src/base/text.ts';
import { type Random, rng, SEED } from '../random.ts';

const test = suite('text');

/** Pieces of names: characters, beginnings of some, and what never is any. */
const PIECES = [
  ...[[0x61], [0x2f], [0xc3, 0xa9], [0xe2, 0x82, 0xac], [0xf0, 0x9f, 0x98, 0x80]],
  ...[
    [0xef, 0xbb, 0xbf],
    [0xef, 0xbf, 0xbd],
    [0xef, 0xbf, 0xbe],
    [0xf4, 0x8f, 0xbf, 0xbf],
  ],
  ...[[0x80], [0xff], [0xc3], [0xe2, 0x82], [0xf0, 0x9f, 0x98], [0xc0, 0x80], [0xe0, 0x80, 0x80]],
  ...[
    [0xed, 0xa0, 0x80],
    [0xed, 0xb2, 0x80],
    [0xf4, 0x90, 0x80, 0x80],
    [0xf8, 0x88, 0x80, 0x80],
  ],
];

function randomName(next: Random): Uint8Array {
  const pieces = Array.from({ length: next.below(8) }, () =>
    next.oneIn(4) ? [next.below(256)] : next.pick(PIECES),
  );
  return Uint8Array.from(pieces.flat());
}

function strict(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

test('what is UTF-8 is that text, all else comes back as the bytes it was', () => {
  const next = rng();
  for (let round = 0; round < 20_000; round++) {
    const bytes = randomName(next);
    const about = `SEED=${SEED}, ${Array.from(bytes, (byte) => byte.toString(16)).join(' ')}`;
    const text = decodeText(bytes);
    const wanted = strict(bytes);
    if (wanted !== undefined) assert.is(text, wanted, about);
    assert.is(hasStrayBytes(text), wanted === undefined, about);
    assert.equal(Array.from(encodeText(text)), Array.from(bytes), about);
    assert.is(byteLength(text), bytes.length, about);
  }
});

test('a field ends at its first NUL', () => {
  assert.is(decodeField(Uint8Array.of(0x61, 0xff, 0, 0x62)), 'a\udcff');
  assert.is(decodeField(Uint8Array.of(0)), '');
});

test('surrogates that stand for no byte are not passed on', () => {
  assert.equal(Array.from(encodeText('\ud800')), [0xef, 0xbf, 0xbd]);
});

test.run();
