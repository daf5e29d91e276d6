/** Limits on requests, and storage that has them. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import {
  type DebugLimits,
  discardPieces,
  type Piece,
  transferPieces,
  zeroPieces,
} from '../../src/storage/debug-limits.ts';
import { DebugRules } from '../../src/storage/debug-rules.ts';
import { DebugStorage } from '../../src/storage/debug-storage.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { unlike } from '../image/disk-contract.ts';
import { type Random, rng, SEED } from '../random.ts';
import { readingSuite } from './contract.ts';

const NONE: DebugLimits = {
  align: 1,
  maxTransfer: 0,
  optWriteZero: 0,
  maxWriteZero: 0,
  optDiscard: 0,
  maxDiscard: 0,
};

/** Limits that go together, some of them. */
function randomLimits(next: Random): DebugLimits {
  const align = 2 ** next.below(13);
  const some = (unit: number) => (next.oneIn(2) ? 0 : unit * (1 + next.below(9)));
  const optWriteZero = some(align);
  const optDiscard = some(align);
  return {
    align,
    maxTransfer: some(align),
    optWriteZero,
    maxWriteZero: some(optWriteZero || align),
    optDiscard,
    maxDiscard: some(optDiscard || align),
  };
}

readingSuite('storage with limits', {
  make: async (bytes, options) =>
    new DebugStorage(memoryStorage(bytes, options), new DebugRules([], []), {
      limits: randomLimits(rng()),
    }),
  dispose: async (storage) => storage.close(),
});

const test = suite('limits on requests');

/** Pieces follow each other from one end of a request to the other. */
function checkWhole(pieces: readonly Piece[], { at, length }: Piece, place: string): void {
  let end = at;
  for (const piece of pieces) {
    assert.is(piece.at, end, place);
    assert.ok(piece.length > 0, place);
    end += piece.length;
  }
  assert.is(end, at + length, place);
}

test('pieces are a whole request, and within the limits', () => {
  const next = rng(SEED);
  for (let round = 0; round < 500; round++) {
    const limits = randomLimits(next);
    const { align, maxTransfer, optWriteZero, maxWriteZero, maxDiscard } = limits;
    const whole = { at: align * next.below(40), length: align * (1 + next.below(40)) };
    const place = `${JSON.stringify({ limits, whole })}, SEED=${SEED}`;
    const transfers = [...transferPieces(limits, whole)];
    checkWhole(transfers, whole, place);
    for (const { length } of transfers) assert.ok(length <= (maxTransfer || length), place);
    const zeros = [...zeroPieces(limits, whole)];
    checkWhole(zeros, whole, place);
    for (const { at, length, written } of zeros) {
      const unit = Math.max(align, optWriteZero);
      const max = written ? maxTransfer : maxWriteZero;
      assert.ok(length <= (max || length), place);
      assert.ok(written || (at % unit === 0 && length % unit === 0), place);
    }
    for (const { at, length } of discardPieces(limits, whole)) {
      assert.ok(at >= whole.at && at + length <= whole.at + whole.length, place);
      assert.ok(length <= (maxDiscard || length) && length % align === 0, place);
    }
  }
});

test('a discard that is not aligned loses its ends', () => {
  const pieces = (more: Partial<DebugLimits>, at: number, length: number) =>
    [...discardPieces({ ...NONE, ...more }, { at, length })].map((one) => [one.at, one.length]);
  assert.equal(pieces({ align: 512 }, 100, 2000), [[512, 1536]]);
  assert.equal(pieces({ align: 512 }, 100, 300), []);
  assert.equal(pieces({ align: 512, optDiscard: 4096 }, 512, 8192), [
    [512, 3584],
    [4096, 4096],
    [8192, 512],
  ]);
});

/** Storage that keeps every request within limits, or fails. */
function strict(inner: Storage, { align, maxTransfer }: DebugLimits): Storage {
  const check = (at: number, length: number, max: number) => {
    assert.is(at % align, 0);
    assert.is(length % align, 0);
    assert.ok(length <= (max || length));
  };
  return Object.assign(Object.create(inner) as Storage, {
    read(at: number, into: Uint8Array) {
      check(at, into.length, maxTransfer);
      return inner.read(at, into);
    },
    write(at: number, from: Uint8Array) {
      check(at, from.length, maxTransfer);
      return inner.write(at, from);
    },
  });
}

test('what is written is there, whatever the limits; what is around it stays', async () => {
  const next = rng(SEED);
  for (let round = 0; round < 30; round++) {
    const limits = randomLimits(next);
    const size = limits.align * (1 + next.below(30));
    const model = new Uint8Array(size);
    const inner = memoryStorage(new Uint8Array(size));
    const rules = new DebugRules([], []);
    const storage = new DebugStorage(strict(inner, limits), rules, { limits });
    const place = `${JSON.stringify(limits)}, size ${size}, SEED=${SEED}`;
    for (let step = 0; step < 20; step++) {
      // Two at a time: in one unit they wait for each other.
      const requests = [0, 1].map((part) => {
        const at = part * (size >> 1) + next.below(size >> 1 || 1);
        const end = part === 0 ? size >> 1 : size;
        const length = Math.max(0, Math.min(next.below(size), end - at));
        const byte = next.oneIn(3) ? 0 : 1 + next.below(255);
        if (length === 0) return undefined;
        model.fill(byte, at, at + length);
        return byte === 0
          ? storage.zero(at, length)
          : storage.write(at, new Uint8Array(length).fill(byte));
      });
      await Promise.all(requests);
      const bytes = new Uint8Array(size);
      await storage.read(0, bytes);
      assert.is(unlike(bytes, model), '', place);
    }
  }
});

test('a piece that fails ends its request; those before it are done', async () => {
  const inner = memoryStorage(new Uint8Array(8192));
  const requests = new Set(['write'] as const);
  const rule = { event: 'none', state: 0, errno: 5, once: false, at: 4096, requests } as const;
  const limits = { ...NONE, align: 512, maxTransfer: 1024 };
  const storage = new DebugStorage(inner, new DebugRules([rule], []), { limits });
  try {
    await storage.write(100, new Uint8Array(6000).fill(7));
    assert.unreachable();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'IO'));
  }
  const bytes = new Uint8Array(8192);
  inner.read(0, bytes);
  assert.equal([bytes[99], bytes[100], bytes[4095], bytes[4096]], [0, 7, 7, 0]);
});

test.run();
