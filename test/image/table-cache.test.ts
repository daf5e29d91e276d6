/** The cache of L2 slices: what it keeps, what it gives up, and who waits for whom. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { settled } from '../../src/base/awaitable.ts';
import { isQcow2Error, Qcow2Error } from '../../src/base/errors.ts';
import { TableCache } from '../../src/image/qcow2/table-cache.ts';
import { Workspace } from '../../src/kernels/arena.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { rng } from '../random.ts';
import { wrapStorage } from './slow-storage.ts';

const SLICE = 512;

/** Storage of slices that are filled with their own number. */
function numbered(slices: number, length = slices * SLICE): Storage {
  const bytes = new Uint8Array(slices * SLICE).map((_, i) => 1 + Math.floor(i / SLICE));
  return memoryStorage(bytes.slice(0, length));
}

function makeCache(storage: Storage, capacity: number) {
  const workspace = new Workspace();
  const region = workspace.reserve(capacity * SLICE);
  const cache = new TableCache(storage, region, SLICE);
  const byteAt = (address: number) => region.bytes[address - region.at];
  return { cache, byteAt };
}

/** As the mapping does it: looks, loads, looks again. */
async function find(under: ReturnType<typeof makeCache>, slice: number, table = 0) {
  for (;;) {
    const address = under.cache.peek(slice * SLICE);
    if (address !== undefined) return under.byteAt(address);
    const loaded = under.cache.load(slice * SLICE, table);
    if (!settled(loaded)) await loaded;
  }
}

const test = suite('table cache');

test('answers at once where storage does', () => {
  const { cache, byteAt } = makeCache(numbered(4), 2);
  assert.is(cache.peek(SLICE), undefined);
  assert.ok(settled(cache.load(SLICE, 0)));
  assert.is(byteAt(cache.peek(SLICE)!), 2);
});

test('keeps what was used last', () => {
  const { cache } = makeCache(numbered(4), 2);
  cache.load(0, 0);
  cache.load(SLICE, 0);
  cache.peek(0);
  cache.load(2 * SLICE, 0);
  assert.is.not(cache.peek(0), undefined);
  assert.is(cache.peek(SLICE), undefined);
  assert.is.not(cache.peek(2 * SLICE), undefined);
});

test('reads a slice once for all who ask while it is on its way', async () => {
  let reads = 0;
  const inner = numbered(4);
  const storage = {
    ...wrapStorage(inner, {}),
    read: async (at: number, into: Uint8Array) => {
      reads++;
      await undefined;
      return inner.read(at, into);
    },
  };
  const under = makeCache(storage, 2);
  const found = await Promise.all([find(under, 1), find(under, 1), find(under, 1)]);
  assert.equal(found, [2, 2, 2]);
  assert.is(reads, 1);
});

for (const capacity of [1, 2, 3, 7]) {
  test(`a crowd of readers gets through ${capacity} slices`, async () => {
    const next = rng();
    const under = makeCache(wrapStorage(numbered(20), { late: next }), capacity);
    const wanted = Array.from({ length: 150 }, () => next.below(20));
    const found = await Promise.all(wanted.map((slice) => find(under, slice)));
    assert.equal(
      found,
      wanted.map((slice) => slice + 1),
    );
  });

  test(`readers of slices past the end of a file get through ${capacity} slices`, async () => {
    for (const late of [undefined, rng()]) {
      const under = makeCache(wrapStorage(numbered(20, 700), { late }), capacity);
      for (let round = 0; round < 4; round++) {
        const wanted = [1, 2, 3, 4, 5, 2, 3, 4, 5];
        const found = await Promise.all(wanted.map((slice) => find(under, slice)));
        assert.equal(found, [2, 0, 0, 0, 0, 0, 0, 0, 0]);
      }
    }
  });

  test(`failing reads give their slot back, ${capacity} slices`, async () => {
    for (const late of [undefined, rng()]) {
      const cause = new Qcow2Error('IO', 'it broke');
      const failing = { from: 5 * SLICE, to: 10 * SLICE, cause };
      const under = makeCache(wrapStorage(numbered(20), { late, failing }), capacity);
      for (let round = 0; round < 3; round++) {
        const wanted = Array.from({ length: 20 }, (_, slice) => slice);
        const found = await Promise.allSettled(wanted.map((slice) => find(under, slice)));
        for (const [slice, result] of found.entries()) {
          const broken = slice >= 5 && slice < 10;
          assert.is(result.status, broken ? 'rejected' : 'fulfilled', `slice ${slice}`);
          if (result.status === 'rejected') assert.is(result.reason, cause);
          else assert.is(result.value, slice + 1);
        }
      }
    }
  });
}

test('a slice that is cut short reads as zeros from there', async () => {
  const under = makeCache(numbered(2, 700), 1);
  await under.cache.load(SLICE, 0);
  const address = under.cache.peek(SLICE)!;
  assert.is(under.byteAt(address + 187), 2);
  assert.is(under.byteAt(address + 188), 0);
});

test('a table that starts past the end of the file is corrupt', async () => {
  for (const late of [undefined, rng()]) {
    const under = makeCache(wrapStorage(numbered(2), { late }), 1);
    for (let round = 0; round < 3; round++) {
      try {
        await find(under, 5, 5 * SLICE);
        assert.unreachable();
      } catch (cause) {
        assert.ok(isQcow2Error(cause, 'CORRUPT'), String(cause));
        assert.is(cause.at, 5 * SLICE);
      }
    }
    assert.is(await find(under, 1), 2);
  }
});

test('clear forgets all', () => {
  const { cache } = makeCache(numbered(4), 2);
  cache.load(0, 0);
  cache.clear();
  assert.is(cache.peek(0), undefined);
  cache.load(0, 0);
  cache.load(SLICE, 0);
  assert.is.not(cache.peek(0), undefined);
  assert.is.not(cache.peek(SLICE), undefined);
});

test.run();
