import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { FeatureType } from '../../src/format/feature-bits.ts';
import {
  featureName,
  parseFeatureNameTable,
  serializeFeatureNameTable,
} from '../../src/format/feature-name-table.ts';
import { rng, SEED } from '../random.ts';

const test = suite('feature name table');

test('comes back as it was written', () => {
  const next = rng();
  for (let i = 0; i < 200; i++) {
    const names = Array.from({ length: next.below(20) }, () => ({
      type: next.below(256),
      bit: next.below(256),
      name: 'lazy refcounts and much more than that, äöü!!!'.slice(0, next.below(43)),
    }));
    assert.equal(parseFeatureNameTable(serializeFeatureNameTable(names)), names, `SEED=${SEED}`);
  }
});

test('a name of all 46 bytes has no NUL, a longer one is cut', () => {
  for (const length of [46, 47, 100]) {
    const data = serializeFeatureNameTable([{ type: 0, bit: 1, name: 'x'.repeat(length) }]);
    assert.is(data.length, 48);
    assert.is(parseFeatureNameTable(data)[0]?.name, 'x'.repeat(46));
  }
});

test('an entry that is cut short at the end has the name that is there', () => {
  const one = { type: 0, bit: 1, name: 'one' };
  const two = { type: 1, bit: 2, name: 'another' };
  const data = serializeFeatureNameTable([one, two]);
  assert.equal(parseFeatureNameTable(data.subarray(0, 48 + 5)), [one, { ...two, name: 'ano' }]);
  assert.equal(parseFeatureNameTable(data.subarray(0, 48 + 2)), [one]);
  assert.equal(parseFeatureNameTable(data.subarray(0, 48 + 1)), [one]);
  assert.equal(parseFeatureNameTable(data.subarray(0, 4)), [{ ...one, name: 'on' }]);
});

test('bytes that are not UTF-8 stay what they are', () => {
  const data = serializeFeatureNameTable([{ type: 0, bit: 1, name: 'abc' }]);
  data[3] = 0xff;
  const names = parseFeatureNameTable(data);
  assert.is(names[0]?.name, 'a\udcffc');
  assert.equal(serializeFeatureNameTable(names), data);
});

test('a name is found by its type and bit', () => {
  const names = [
    { type: 1, bit: 3, name: 'compatible' },
    { type: 0, bit: 3, name: 'incompatible' },
  ];
  assert.is(featureName(names, FeatureType.incompatible, 3), 'incompatible');
  assert.is(featureName(names, FeatureType.compatible, 3), 'compatible');
  assert.is(featureName(names, FeatureType.autoclear, 3), undefined);
});

test.run();
