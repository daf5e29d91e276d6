/** Requests of a bench: how many are in flight, where they go, and when flushes come. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { type BenchOptions, benchDisk } from '../../src/convert/bench.ts';
import type { WritableDisk } from '../../src/image/disk.ts';

const test = suite('bench');
const SIZE = 10_000;

/** A disk that answers after a while, and counts. */
class CountingDisk {
  readonly size = SIZE;
  readonly starts: number[] = [];
  /** What was in flight when each request came, and when each flush did. */
  readonly depths: number[] = [];
  readonly flushes: { readonly sent: number; readonly inFlight: number }[] = [];
  private inFlight = 0;
  failAt = -1;

  async read(at: number): Promise<void> {
    this.starts.push(at);
    this.depths.push(++this.inFlight);
    const mayFail = this.starts.length === this.failAt;
    await new Promise((resolve) => setTimeout(resolve, this.starts.length % 3));
    this.inFlight--;
    if (mayFail) throw new Error('as told');
  }
  write(at: number): Promise<void> {
    return this.read(at);
  }
  async flush(): Promise<void> {
    this.flushes.push({ sent: this.starts.length, inFlight: this.inFlight });
  }
  get left(): number {
    return this.inFlight;
  }
}

async function run(options: Partial<BenchOptions>, disk = new CountingDisk()) {
  const given = { requests: 20, depth: 4, bytes: 100, ...options };
  await benchDisk(disk as unknown as WritableDisk, given);
  return disk;
}

test('so many are in flight, and never more', async () => {
  for (const depth of [1, 2, 7, 64]) {
    const disk = await run({ depth });
    assert.is(Math.max(...disk.depths), Math.min(depth, 20));
    assert.is(disk.starts.length, 20);
    assert.is(disk.left, 0);
  }
});

test('each starts a step further, and the disk goes round', async () => {
  const { starts } = await run({ offset: 50, step: 3_000 });
  assert.equal(starts.slice(0, 5), [50, 3_050, 6_050, 9_050, 2_050]);
});

test('flushes come when nothing is in flight, or when they are due', async () => {
  const drained = await run({ pattern: 1, flushEvery: 5 });
  assert.equal(
    drained.flushes,
    [5, 10, 15, 20].map((sent) => ({ sent, inFlight: 0 })),
  );
  const { flushes } = await run({ pattern: 1, flushEvery: 5, drain: false });
  assert.ok(flushes.some(({ inFlight }) => inFlight > 0));
});

test('a request past the end, or one that fails, ends the run', async () => {
  const disk = new CountingDisk();
  disk.failAt = 3;
  await run({}, disk).then(
    () => assert.unreachable(),
    (cause) => assert.is(cause.message, 'as told'),
  );
  assert.is(disk.left, 0);
  assert.ok(disk.starts.length < 20);
  await run({ offset: SIZE - 50 }).then(
    () => assert.unreachable(),
    (cause) => {
      assert.ok(isQcow2Error(cause, 'OUT_OF_RANGE'));
    },
  );
});

test('a signal ends it', async () => {
  const signal = AbortSignal.abort();
  await run({ signal }).then(
    () => assert.unreachable(),
    (cause) => {
      assert.ok(isQcow2Error(cause, 'ABORTED'));
    },
  );
});

test.run();
