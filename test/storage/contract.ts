/**
 * What every storage must keep, as suites that are functions of an implementation: one of reading,
 * one of writing. `read` is held to a plain array; a storage may answer at once or later.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { rng, SEED } from '../random.ts';

/** An implementation, as the suites need it. */
export interface StorageCase {
  /** Storage that holds the bytes, under the name. */
  make(bytes: Uint8Array, options: { name: string; writable: boolean }): Promise<Storage>;
  /** Closes what `make` made. */
  dispose(storage: Storage): Promise<void>;
}

/** Sizes around what implementations might cut at: sectors, pages, their windows and buffers. */
const SIZES = [0, 1, 511, 512, 513, 4095, 4097, 65_536, 262_143, 262_144, 262_145, 1_100_003];

const FILL = 0xa5;

/** Random bytes, in a buffer of their own. */
export function randomBytes(length: number, seed = SEED): Uint8Array {
  const next = rng(seed);
  return Uint8Array.from({ length }, () => next.below(256));
}

/** Empty where equal; a comparison of long arrays byte by byte would be slow to print. */
function unlike(actual: Uint8Array, expected: Uint8Array): string {
  if (actual.length !== expected.length) return `length ${actual.length}, not ${expected.length}`;
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  return at < 0 ? '' : `at ${at}: ${actual[at]}, not ${expected[at]}`;
}

/** What a read of `length` bytes must leave in a buffer that was full of `FILL`. */
function expectedRead(model: Uint8Array, at: number, length: number): Uint8Array {
  const expected = new Uint8Array(length).fill(FILL);
  expected.set(model.subarray(Math.min(at, model.length), at + length));
  return expected;
}

async function checkRead(storage: Storage, model: Uint8Array, at: number, length: number) {
  const into = new Uint8Array(length).fill(FILL);
  const got = await storage.read(at, into);
  const place = `read of ${length} at ${at} of ${model.length}, SEED=${SEED}`;
  assert.is(got, Math.max(0, Math.min(length, model.length - at)), place);
  assert.is(unlike(into, expectedRead(model, at, length)), '', place);
}

async function withStorage(
  { make, dispose }: StorageCase,
  bytes: Uint8Array,
  work: (storage: Storage) => Promise<void>,
  { name = 'a name', writable = false } = {},
): Promise<void> {
  const storage = await make(bytes, { name, writable });
  try {
    await work(storage);
  } finally {
    await dispose(storage);
  }
}

async function rejects(work: () => unknown, code: 'READ_ONLY' | 'IO'): Promise<void> {
  let thrown: unknown;
  try {
    await work();
  } catch (cause) {
    thrown = cause;
  }
  assert.ok(isQcow2Error(thrown, code), `${code}, not ${thrown}`);
}

/** The reading half of the contract. */
export function readingSuite(title: string, implementation: StorageCase): void {
  const test = suite(`storage reads: ${title}`);
  const use = (
    bytes: Uint8Array,
    work: (storage: Storage) => Promise<void>,
    options?: { name?: string; writable?: boolean },
  ) => withStorage(implementation, bytes, work, options);

  for (const size of SIZES) {
    test(`${size} bytes, read at, over and past the end`, () => {
      const model = randomBytes(size);
      return use(model, async (storage) => {
        assert.is(await storage.size(), size);
        const next = rng();
        for (const at of [0, 1, size >> 1, size - 1, size, size + 1, size + 5000, 2 ** 40]) {
          if (at < 0) continue;
          for (const length of [0, 1, 512, size - at, size - at + 1, size - at - 1, 3000]) {
            if (length >= 0) await checkRead(storage, model, at, length);
          }
        }
        for (let i = 0; i < 20; i++) {
          const at = next.below(size + 100);
          await checkRead(storage, model, at, next.below(Math.min(300_000, size + 100)));
        }
      });
    });
  }

  test('reads that run at once do not disturb each other', () => {
    const model = randomBytes(700_000);
    return use(model, async (storage) => {
      const next = rng();
      const reads = Array.from({ length: 40 }, () =>
        checkRead(storage, model, next.below(700_000), next.below(300_000)),
      );
      await Promise.all(reads);
    });
  });

  test('a read touches nothing beside its buffer', () => {
    const model = randomBytes(10_000);
    return use(model, async (storage) => {
      const whole = new Uint8Array(3000).fill(FILL);
      await storage.read(500, whole.subarray(1000, 2000));
      const expected = new Uint8Array(3000).fill(FILL);
      expected.set(model.subarray(500, 1500), 1000);
      assert.is(unlike(whole, expected), '');
    });
  });

  for (const size of [0, 1, 5000, 600_000]) {
    test(`a cursor over ${size} bytes, in pieces of any length`, () => {
      const model = randomBytes(size);
      return use(model, async (storage) => {
        const next = rng();
        const end = size + 100;
        for (const [from, to] of [
          [0, size],
          [0, end],
          [size >> 1, size],
          [1, size >> 1],
          [size, size],
          [size, end],
        ] as const) {
          if (to < from) continue;
          const cursor = storage.cursor(from, to);
          const expected = model.subarray(from, to);
          const parts: number[] = [];
          for (;;) {
            const into = new Uint8Array(1 + next.below(150_000)).fill(FILL);
            const got = await cursor.read(into);
            for (const byte of into.subarray(0, got)) parts.push(byte);
            if (got < into.length) {
              assert.is(
                unlike(into.subarray(got), new Uint8Array(into.length - got).fill(FILL)),
                '',
              );
              break;
            }
          }
          assert.is(unlike(Uint8Array.from(parts), expected), '', `[${from}, ${to}) SEED=${SEED}`);
          assert.is(await cursor.read(new Uint8Array(10)), 0, 'nothing comes after the end');
          await cursor.close();
        }
        await checkRead(storage, model, 0, size);
      });
    });
  }

  test('a cursor may be closed before its end, and leaves the storage open', () => {
    const model = randomBytes(400_000);
    return use(model, async (storage) => {
      const cursor = storage.cursor(10, 400_000);
      const into = new Uint8Array(1000);
      assert.is(await cursor.read(into), 1000);
      assert.is(unlike(into, model.subarray(10, 1010)), '');
      await cursor.close();
      await checkRead(storage, model, 300_000, 1000);
    });
  });

  test('two cursors and reads in between keep apart', () => {
    const model = randomBytes(200_000);
    return use(model, async (storage) => {
      const [a, b] = [storage.cursor(0, 100_000), storage.cursor(50_000, 200_000)];
      for (let at = 0; at < 100_000; at += 10_000) {
        const [x, y] = [new Uint8Array(10_000), new Uint8Array(10_000)];
        await Promise.all([a.read(x), b.read(y), checkRead(storage, model, at, 7)]);
        assert.is(unlike(x, model.subarray(at, at + 10_000)), '');
        assert.is(unlike(y, model.subarray(50_000 + at, 60_000 + at)), '');
      }
      await a.close();
      await b.close();
    });
  });

  test('has the name that it was given', () =>
    use(
      randomBytes(1),
      async (storage) => {
        assert.is(storage.name.split('/').at(-1), 'ein Name 图');
      },
      { name: 'ein Name 图' },
    ));

  test('read-only storage refuses every change', () => {
    const model = randomBytes(2000);
    return use(model, async (storage) => {
      assert.is(storage.writable, false);
      await rejects(() => storage.write(0, new Uint8Array(1)), 'READ_ONLY');
      await rejects(() => storage.zero(0, 1), 'READ_ONLY');
      await rejects(() => storage.truncate(0), 'READ_ONLY');
      await storage.flush();
      assert.is(await storage.size(), 2000);
      await checkRead(storage, model, 0, 2000);
    });
  });

  test.run();
}

/** The writing half: random changes against a plain array. */
export function writingSuite(title: string, implementation: StorageCase): void {
  const test = suite(`storage writes: ${title}`);
  const use = (bytes: Uint8Array, work: (storage: Storage) => Promise<void>) =>
    withStorage(implementation, bytes, work, { writable: true });

  test('is writable', () =>
    use(new Uint8Array(), async (storage) => {
      assert.is(storage.writable, true);
    }));

  for (const [from, at] of [
    [0, 0],
    [0, 100_000],
    [1000, 1000],
    [1000, 500],
    [1000, 5_000_000],
  ] as const) {
    test(`${from} bytes grow by a write at ${at}, zeros in between`, () => {
      const model = randomBytes(from);
      return use(model.slice(), async (storage) => {
        const data = randomBytes(3000, SEED + 1);
        await storage.write(at, data);
        const expected = new Uint8Array(Math.max(from, at + 3000));
        expected.set(model);
        expected.set(data, at);
        assert.is(await storage.size(), expected.length);
        await checkRead(storage, expected, 0, expected.length);
      });
    });
  }

  test('zeros grow it, and reach over its end', () => {
    const model = randomBytes(3_000_000);
    return use(model.slice(), async (storage) => {
      await storage.zero(1000, 2_500_000);
      model.fill(0, 1000, 2_501_000);
      await checkRead(storage, model, 0, model.length);
      await storage.zero(2_999_000, 5000);
      const longer = new Uint8Array(3_004_000);
      longer.set(model.subarray(0, 2_999_000));
      assert.is(await storage.size(), longer.length);
      await checkRead(storage, longer, 0, longer.length);
      await storage.zero(4_000_000, 10);
      assert.is(await storage.size(), 4_000_010);
    });
  });

  test('what was cut off reads as zeros when it grows again', () =>
    use(randomBytes(10_000), async (storage) => {
      await storage.truncate(100);
      assert.is(await storage.size(), 100);
      await storage.truncate(10_000);
      const expected = new Uint8Array(10_000);
      expected.set(randomBytes(10_000).subarray(0, 100));
      await checkRead(storage, expected, 0, 10_000);
      await storage.truncate(50);
      await storage.write(9000, Uint8Array.of(1));
      const again = new Uint8Array(9001);
      again.set(expected.subarray(0, 50));
      again[9000] = 1;
      await checkRead(storage, again, 0, 9001);
    }));

  test('empty writes and zeros of no length change nothing, past the end neither', () => {
    const model = randomBytes(100);
    return use(model.slice(), async (storage) => {
      for (const at of [10, 5000]) {
        await storage.write(at, new Uint8Array());
        await storage.zero(at, 0);
      }
      assert.is(await storage.size(), 100);
      await checkRead(storage, model, 0, 100);
    });
  });

  test('a write takes a copy: the caller may use the buffer again', () =>
    use(new Uint8Array(), async (storage) => {
      const buffer = new Uint8Array(1000).fill(7);
      await storage.write(0, buffer);
      buffer.fill(9);
      await checkRead(storage, new Uint8Array(1000).fill(7), 0, 1000);
    }));

  test('random changes agree with an array', () =>
    use(new Uint8Array(), async (storage) => {
      const next = rng();
      let model = new Uint8Array();
      const grow = (length: number) => {
        if (length <= model.length) return;
        const grown = new Uint8Array(length);
        grown.set(model);
        model = grown;
      };
      for (let step = 0; step < 200; step++) {
        const at = next.below(300_000);
        const length = next.below(next.pick([10, 5000, 100_000]));
        const kind = next.below(8);
        if (kind < 4) {
          const data = randomBytes(length, SEED + step);
          await storage.write(at, data);
          if (length > 0) grow(at + length);
          model.set(data, length > 0 ? at : 0);
        } else if (kind < 6) {
          await storage.zero(at, length);
          if (length > 0) grow(at + length);
          model.fill(0, at, at + length);
        } else if (kind === 6) {
          await storage.truncate(at);
          grow(at);
          model = model.slice(0, at);
        } else {
          await storage.flush();
        }
        assert.is(await storage.size(), model.length, `step ${step}, SEED=${SEED}`);
        await checkRead(storage, model, next.below(300_000), next.below(50_000));
      }
      await checkRead(storage, model, 0, model.length + 10);
    }));

  test.run();
}
