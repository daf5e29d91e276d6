/** Fields of untrusted bytes: values, bounds, and the numbers that are not exact. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { BigEndianReader, putU64 } from '../../src/base/be.ts';
import { isQcow2Error } from '../../src/base/errors.ts';
import { rng, SEED } from '../random.ts';

const test = suite('big-endian fields');

function corruptAt(work: () => unknown, at: number): void {
  try {
    work();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'CORRUPT'), String(cause));
    assert.is(cause.at, at);
    return;
  }
  assert.unreachable('CORRUPT was expected');
}

test('reads what stands there, from the middle of a buffer', () => {
  const buffer = Uint8Array.from([9, 9, 0x80, 1, 2, 3, 4, 5, 6, 0xff, 9]);
  const reader = new BigEndianReader(buffer.subarray(2, 10), 0x1000);
  assert.is(reader.u8(0, 'x'), 0x80);
  assert.is(reader.u16(0, 'x'), 0x8001);
  assert.is(reader.u32(0, 'x'), 0x8001_0203);
  assert.equal(reader.u64(0, 'x'), { high: 0x8001_0203, low: 0x0405_06ff });
});

test('a field past the end is CORRUPT at its place in the file', () => {
  const reader = new BigEndianReader(new Uint8Array(10), 0x1000);
  corruptAt(() => reader.u8(10, 'x'), 0x100a);
  corruptAt(() => reader.u16(9, 'x'), 0x1009);
  corruptAt(() => reader.u32(7, 'x'), 0x1007);
  corruptAt(() => reader.u64(3, 'x'), 0x1003);
  corruptAt(() => reader.number(3, 'x'), 0x1003);
  corruptAt(() => reader.slice(5, 6, 'x'), 0x1005);
  corruptAt(() => reader.text(5, 6, 'x'), 0x1005);
});

test('numbers are exact or refused', () => {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  const reader = new BigEndianReader(bytes);
  for (const value of [0n, 1n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 512n, 2n ** 62n - 512n]) {
    view.setBigUint64(0, value);
    assert.is(BigInt(reader.number(0, 'x')), value);
  }
  for (const value of [2n ** 53n + 1n, 2n ** 62n, 2n ** 62n + 512n, 2n ** 64n - 1n]) {
    view.setBigUint64(0, value);
    corruptAt(() => reader.number(0, 'x'), 0);
  }
});

test('what was put is read', () => {
  const next = rng();
  const bytes = new Uint8Array(8);
  for (let i = 0; i < 1000; i++) {
    const value = next.below(2 ** 53);
    putU64(new DataView(bytes.buffer), 0, value);
    assert.is(new BigEndianReader(bytes).number(0, 'x'), value, `SEED=${SEED}`);
  }
});

test('text ends at a NUL, and what is no UTF-8 stays what it is', () => {
  const bytes = Uint8Array.from([0xc3, 0xbc, 0x61, 0, 0x62, 0xff]);
  const reader = new BigEndianReader(bytes);
  assert.is(reader.text(0, 6, 'x'), 'üa');
  assert.is(reader.text(4, 2, 'x'), 'b\udcff');
  assert.is(reader.text(3, 1, 'x'), '');
});

test.run();
