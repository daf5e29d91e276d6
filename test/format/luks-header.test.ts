import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { ErrorCode } from '../../src/base/errors.ts';
import { LUKS_HEADER_BYTES, parseLuksHeader } from '../../src/format/luks-header.ts';
import { put, refused } from './refused.ts';

const test = suite('LUKS header');
const AT = 0x40000;
const MATERIAL_SECTORS = 504;

/** What QEMU writes by default: AES-256 in XTS mode, one key slot in use. */
function goodHeader(): Uint8Array {
  const bytes = new Uint8Array(LUKS_HEADER_BYTES);
  const text = (at: number, value: string) => bytes.set(new TextEncoder().encode(value), at);
  put(bytes, 0, 6, 0x4c554b53babe);
  put(bytes, 6, 2, 1);
  text(8, 'aes');
  text(40, 'xts-plain64');
  text(72, 'sha256');
  put(bytes, 104, 4, 8 + 8 * MATERIAL_SECTORS);
  put(bytes, 108, 4, 64);
  bytes.fill(1, 112, 132);
  bytes.fill(2, 132, 164);
  put(bytes, 164, 4, 1000);
  text(168, '63844544-969d-42ac-85b7-ba8265ae83cc');
  for (let slot = 0; slot < 8; slot++) {
    const at = 208 + slot * 48;
    put(bytes, at, 4, slot === 0 ? 0x00ac71f3 : 0xdead);
    put(bytes, at + 4, 4, slot === 0 ? 2000 : 0);
    bytes.fill(3 + slot, at + 8, at + 40);
    put(bytes, at + 40, 4, 8 + slot * MATERIAL_SECTORS);
    put(bytes, at + 44, 4, 4000);
  }
  return bytes;
}

test('every field is read', () => {
  const { slots, digest, digestSalt, ...rest } = parseLuksHeader(goodHeader(), AT);
  assert.equal(rest, {
    cipherName: 'aes',
    cipherMode: 'xts-plain64',
    hash: 'sha256',
    payloadOffset: (8 + 8 * MATERIAL_SECTORS) * 512,
    keyBytes: 64,
    digestIterations: 1000,
    uuid: '63844544-969d-42ac-85b7-ba8265ae83cc',
  });
  assert.equal([...digest], new Array(20).fill(1));
  assert.equal([...digestSalt], new Array(32).fill(2));
  assert.is(slots.length, 8);
  assert.equal(
    { ...slots[0], salt: [...slots[0]!.salt] },
    { active: true, iterations: 2000, salt: new Array(32).fill(3), keyOffset: 4096, stripes: 4000 },
  );
  assert.is(slots[7]?.active, false);
  assert.is(slots[7]?.keyOffset, (8 + 7 * MATERIAL_SECTORS) * 512);
});

test('each field that is wrong is refused where it is', () => {
  const wrong: [at: number, bytes: number, value: number, ErrorCode, field: number, string][] = [
    [0, 1, 0, 'CORRUPT', 0, 'Volume is not in LUKS format'],
    [5, 1, 0, 'CORRUPT', 0, 'Volume is not in LUKS format'],
    [6, 2, 2, 'UNSUPPORTED', 6, 'LUKS version 2 is not supported'],
    [104, 4, 7, 'CORRUPT', 104, 'LUKS payload is overlapping with the header'],
    [104, 4, 8, 'CORRUPT', 248, 'Keyslot 0 is overlapping with the encrypted payload'],
    [108, 4, 2 ** 32 - 1, 'CORRUPT', 248, 'Keyslot 0 is overlapping with the encrypted payload'],
    [164, 4, 0, 'CORRUPT', 164, 'LUKS key iteration count is zero'],
    [208, 4, 1, 'CORRUPT', 208, 'Keyslot 0 state (active/disable) is corrupted'],
    [212, 4, 0, 'CORRUPT', 212, 'Keyslot 0 iteration count is zero'],
    [248, 4, 7, 'CORRUPT', 248, 'Keyslot 0 is overlapping with the LUKS header'],
    [248, 4, 9, 'CORRUPT', 248, 'Keyslots 0 and 1 are overlapping in the header'],
    [252, 4, 3999, 'CORRUPT', 252, 'Keyslot 0 is corrupted (stripes 3999 != 4000)'],
    [252, 4, 0, 'CORRUPT', 252, 'Keyslot 0 is corrupted (stripes 0 != 4000)'],
    [588, 4, 2 ** 32 - 1, 'CORRUPT', 588, 'Keyslot 7 is corrupted (stripes 4294967295 != 4000)'],
  ];
  for (const [at, bytes, value, code, field, message] of wrong) {
    const header = goodHeader();
    put(header, at, bytes, value);
    refused(() => parseLuksHeader(header, AT), code, AT + field, message);
  }
});

test('a text without its NUL is refused', () => {
  for (const [at, what] of [
    [8, 'cipher name'],
    [40, 'cipher mode'],
    [72, 'hash spec'],
  ] as const) {
    const header = goodHeader().fill(65, at, at + 32);
    const message = `LUKS header ${what} is not NUL terminated`;
    refused(() => parseLuksHeader(header, AT), 'CORRUPT', AT + at, message);
  }
});

test('one that is cut short is refused', () => {
  for (let length = 0; length < LUKS_HEADER_BYTES; length += 7) {
    const part = goodHeader().subarray(0, length);
    assert.throws(() => parseLuksHeader(part, AT), /^LUKS header is cut short$/);
  }
});

test.run();
