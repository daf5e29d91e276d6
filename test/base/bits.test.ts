/** 32-bit masks and rounding, against BigInt. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { alignDown, alignUp, and32, divCeil, divFloor, hasBit } from '../../src/base/bits.ts';
import { rng, SEED } from '../random.ts';

const test = suite('bits');

test('and32 is unsigned', () => {
  assert.is(and32(0xffff_ffff, 0x8000_0001), 0x8000_0001);
  assert.is(and32(-1, -1), 0xffff_ffff);
});

test('hasBit looks at each of 32 bits', () => {
  for (let bit = 0; bit < 32; bit++) {
    assert.is(hasBit(2 ** bit, bit), true);
    assert.is(hasBit(0xffff_ffff - 2 ** bit, bit), false);
  }
});

test('divisions and alignments are exact up to 2^53', () => {
  const next = rng();
  for (let i = 0; i < 5000; i++) {
    const a = next.oneIn(3) ? Number.MAX_SAFE_INTEGER - next.below(1000) : next.below(2 ** 53);
    const b = 1 + next.below(next.pick([10, 2 ** 16, 2 ** 40]));
    const [bigA, bigB] = [BigInt(a), BigInt(b)];
    const place = `${a} and ${b}, SEED=${SEED}`;
    assert.is(divFloor(a, b), Number(bigA / bigB), place);
    assert.is(divCeil(a, b), Number((bigA + bigB - 1n) / bigB), place);
    assert.is(alignDown(a, b), Number((bigA / bigB) * bigB), place);
    const up = ((bigA + bigB - 1n) / bigB) * bigB;
    if (up <= BigInt(Number.MAX_SAFE_INTEGER)) assert.is(alignUp(a, b), Number(up), place);
  }
});

test.run();
