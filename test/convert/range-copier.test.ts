/** Ranges copied by a host that answers at once, later, in part, or not at all. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Qcow2Error } from '../../src/base/errors.ts';
import { type CopiedRange, type CopyTarget, RangeCopier } from '../../src/convert/range-copier.ts';
import { emptyTally } from '../../src/convert/runner.ts';
import { Workspace } from '../../src/kernels/arena.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { unlike } from '../image/disk-contract.ts';
import { someBytes } from '../image/tiny-qcow2.ts';
import { type Random, rng, SEED } from '../random.ts';

const test = suite('range copier');

/** How a host copies: all now, all later, a part later, nothing. */
type Way = 'now' | 'later' | 'part' | 'not';

/** A target whose host copies in ways that change, and how many copies are under way. */
class ShiftyTarget implements CopyTarget {
  underWay = 0;
  calls = 0;

  /** @param failsAt the call that fails, later */
  constructor(
    private readonly file: Storage,
    private readonly wayOf: () => Way,
    private readonly failsAt = Number.POSITIVE_INFINITY,
  ) {}

  write(at: number, from: Uint8Array) {
    return this.file.write(at, from);
  }

  copyFrom(source: Storage, from: number, at: number, length: number): number | Promise<number> {
    const way = this.wayOf();
    if (way === 'not') return 0;
    const bytes = way === 'part' ? Math.floor(length / 2) : length;
    if (way === 'now') return this.move(source, from, at, bytes);
    return this.moveLater(++this.calls, () => this.move(source, from, at, bytes));
  }

  private async moveLater(call: number, move: () => number): Promise<number> {
    this.underWay++;
    try {
      await new Promise((resolve) => setTimeout(resolve, 0));
      if (call === this.failsAt) throw new Qcow2Error('NO_SPACE', 'full');
      return move();
    } finally {
      this.underWay--;
    }
  }

  private move(source: Storage, from: number, at: number, length: number): number {
    const bytes = new Uint8Array(length);
    source.read(from, bytes);
    this.file.write(at, bytes);
    return length;
  }
}

/** Ranges of a source; in the target they lie behind each other, here and there apart. */
function randomRanges(next: Random, source: Uint8Array): CopiedRange[] {
  const ranges: CopiedRange[] = [];
  let host = 0;
  for (let count = 1 + next.below(30); count > 0; count--) {
    if (next.oneIn(2)) host += next.below(3000);
    const length = 1 + next.below(next.pick([10, 5000, 600_000]));
    const from = next.below(source.length - length);
    ranges.push({ source: 0, from, length, host, isData: next.oneIn(2) });
    host += length;
  }
  return ranges;
}

test('all bytes arrive, whoever copies them', async () => {
  for (let round = 0; round < 60; round++) {
    const next = rng(SEED + round);
    const bytes = someBytes(next, 700_000);
    const ranges = randomRanges(next, bytes);
    const end = ranges.reduce((most, { host, length }) => Math.max(most, host + length), 0);
    const expected = new Uint8Array(end);
    for (const { from, length, host } of ranges) {
      expected.set(bytes.subarray(from, from + length), host);
    }
    const ways = (['now', 'later', 'part', 'not'] as const).filter(() => next.oneIn(2));
    const file = memoryStorage(new Uint8Array(end));
    const target = new ShiftyTarget(file, () => (ways.length > 0 ? next.pick(ways) : 'later'));
    const copier = new RangeCopier(new Workspace(), [memoryStorage(bytes)], emptyTally());
    await copier.copy(ranges, target);
    const got = new Uint8Array(end);
    await file.read(0, got);
    assert.is(unlike(got, expected), '', `SEED=${SEED} round ${round}`);
  }
});

test('one that fails is told when none is under way', async () => {
  const bytes = new Uint8Array(1000).fill(1);
  const ranges = [0, 1, 2, 3, 4].map((index) => ({
    source: 0,
    from: index * 200,
    length: 200,
    host: index * 300,
    isData: true,
  }));
  for (let failsAt = 1; failsAt <= 5; failsAt++) {
    const target = new ShiftyTarget(memoryStorage(new Uint8Array(0)), () => 'later', failsAt);
    const copier = new RangeCopier(new Workspace(), [memoryStorage(bytes)], emptyTally());
    try {
      await copier.copy(ranges, target);
      assert.unreachable('a copy failed');
    } catch (cause) {
      assert.is((cause as Qcow2Error).code, 'NO_SPACE');
    }
    assert.is(target.underWay, 0);
    assert.is(target.calls, 5);
  }
});

test.run();
