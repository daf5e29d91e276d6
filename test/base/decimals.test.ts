/** Exact fractions of whole numbers are the oracle: a double is one, with a power of two below. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { formatFixed } from '../../src/base/decimals.ts';
import { rng, SEED } from '../random.ts';

const test = suite('decimals');

/** As `formatFixed`, of a number that is `numerator / 2 ** power`. */
function twin(numerator: bigint, power: bigint, digits: number): string {
  const below = 1n << power;
  const scaled = numerator * 10n ** BigInt(digits);
  const [whole, rest] = [scaled / below, (scaled % below) * 2n];
  const up = rest > below || (rest === below && whole % 2n === 1n);
  const text = (whole + (up ? 1n : 0n)).toString().padStart(digits + 1, '0');
  return `${text.slice(0, -digits)}.${text.slice(-digits)}`;
}

for (const [value, digits, text] of [
  [3.125, 2, '3.12'],
  [9.375, 2, '9.38'],
  [0.125, 2, '0.12'],
  [-0.125, 2, '-0.12'],
  [99.995, 2, '100.00'],
  [0.5, 1, '0.5'],
  [0.25, 1, '0.2'],
  [0.0625, 3, '0.062'],
] as const) {
  test(`${value} is ${text}`, () => assert.is(formatFixed(value, digits), text));
}

test('random fractions, many of them halfway', () => {
  const next = rng(SEED);
  for (let round = 0; round < 20_000; round++) {
    const digits = 1 + next.below(6);
    const power = next.oneIn(2) ? digits + 1 : next.below(20);
    const numerator = next.below(2 ** (1 + next.below(30)));
    const value = numerator / 2 ** power;
    const expected = twin(BigInt(numerator), BigInt(power), digits);
    assert.is(formatFixed(value, digits), expected, `SEED=${SEED} ${value} ${digits}`);
  }
});

test.run();
