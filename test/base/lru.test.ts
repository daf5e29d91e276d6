/** The bounded map, against a list in order of use. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Lru } from '../../src/base/lru.ts';
import { rng, SEED } from '../random.ts';

const test = suite('lru');

test('random use agrees with a list', () => {
  const next = rng();
  for (const capacity of [1, 2, 5]) {
    const evicted: string[] = [];
    const lru = new Lru<number, number>(capacity, (key, value) => evicted.push(`${key}=${value}`));
    let model: [number, number][] = [];
    const expected: string[] = [];
    for (let step = 0; step < 2000; step++) {
      const key = next.below(8);
      const place = `step ${step}, SEED=${SEED}`;
      const found = model.find(([k]) => k === key);
      const kind = next.below(6);
      if (kind < 2) {
        assert.is(lru.get(key), found?.[1], place);
        if (found) model = [...model.filter((each) => each !== found), found];
      } else if (kind < 4) {
        lru.set(key, step);
        model = [...model.filter(([k]) => k !== key), [key, step]];
        if (model.length > capacity) {
          const [old, value] = model.shift()!;
          expected.push(`${old}=${value}`);
        }
      } else if (kind === 4) {
        assert.is(lru.has(key), found !== undefined, place);
        assert.is(lru.delete(key), found !== undefined, place);
        model = model.filter((each) => each !== found);
      } else {
        const kept = next.below(8);
        lru.evictOldest((k) => k === kept);
        const oldest = model.find(([k]) => k !== kept);
        if (oldest) expected.push(`${oldest[0]}=${oldest[1]}`);
        model = model.filter((each) => each !== oldest);
      }
      assert.is(lru.size, model.length, place);
      assert.equal(evicted, expected, place);
    }
  }
});

test('clear forgets all and tells nobody', () => {
  const evicted: number[] = [];
  const lru = new Lru<number, number>(2, (key) => evicted.push(key));
  lru.set(1, 1);
  lru.clear();
  lru.evictOldest();
  assert.is(lru.size, 0);
  assert.equal(evicted, []);
});

test.run();
