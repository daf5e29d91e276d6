/** The data plane: every kind of operation, in any order of streams, against a plain array. */
import { deflateRaw } from 'pako';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error, Qcow2Error } from '../../src/base/errors.ts';
import { OP_STRIDE, OpKind } from '../../src/convert/job.ts';
import { RawRunner } from '../../src/convert/raw-runner.ts';
import type { RawRunnerOptions } from '../../src/convert/runner.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { unlike } from '../image/disk-contract.ts';
import { wrapStorage } from '../image/slow-storage.ts';
import { someBytes } from '../image/tiny-qcow2.ts';
import { type Random, rng, SEED } from '../random.ts';

const test = suite('job runner');

const DENSE: RawRunnerOptions = {
  kind: 'raw',
  clusterSizeMax: 65_536,
  granule: 512,
  holeBytes: 0,
  allocate: false,
};

interface Stream {
  readonly at: number;
  readonly stored: number;
  readonly plain: Uint8Array;
}

/** Plain bytes and packed streams, the upper bounds of which reach into each other. */
function makeSource(next: Random) {
  const bytes = someBytes(next, 700_000);
  const streams: Stream[] = [];
  let at = 300_000;
  while (at < 650_000) {
    const plain = someBytes(next, next.pick([512, 4096, 65_536]));
    const stream = deflateRaw(plain, { windowBits: 12, memLevel: 9 });
    if (at + stream.length > bytes.length) break;
    bytes.set(stream, at);
    const end = Math.ceil((at + stream.length) / 512) * 512;
    streams.push({ at, stored: end - at, plain });
    at += stream.length + next.pick([0, 0, 0, 5, 700, 90_000]);
  }
  return { bytes, streams };
}

interface Job {
  readonly ops: Float64Array;
  /** The target when all is done. */
  apply(model: Uint8Array): void;
}

const TARGET = 3_000_000;

function randomJob(next: Random, sources: readonly ReturnType<typeof makeSource>[]): Job {
  const ops: number[][] = [];
  const edits: ((model: Uint8Array) => void)[] = [];
  let target = next.below(5000);
  while (target < TARGET - 800_000 && ops.length < 60) {
    if (next.oneIn(5)) target += next.pick([1, 512, 4096, 100_000]);
    const index = next.below(sources.length);
    const source = sources[index]!;
    const at = target;
    const kind = next.below(4);
    let length: number;
    if (kind === 0) {
      length = 1 + next.below(next.pick([600, 70_000, 700_000]));
      // Also past the end of the source, which reads as zeros.
      const host = next.below(source.bytes.length);
      ops.push([OpKind.copy, index, host, 0, at, length, 0, 0]);
      edits.push((model) => {
        model.fill(0, at, at + length);
        model.set(source.bytes.subarray(host, host + length), at);
      });
    } else if (kind === 1) {
      length = 1 + next.below(next.pick([600, 65_536, 300_000]));
      ops.push([OpKind.zero, 0, 0, 0, at, length, 0, 0]);
      edits.push((model) => model.fill(0, at, at + length));
    } else {
      const { at: host, stored, plain } = next.pick(source.streams);
      const whole = next.oneIn(2);
      const skip = whole ? 0 : next.below(plain.length);
      length = whole ? plain.length : 1 + next.below(plain.length - skip);
      ops.push([OpKind.deflate, index, host, stored, at, length, skip, plain.length]);
      edits.push((model) => model.set(plain.subarray(skip, skip + length), at));
    }
    target += length;
  }
  return {
    ops: Float64Array.from(ops.flat()),
    apply: (model) => {
      for (const edit of edits) edit(model);
    },
  };
}

for (const late of [false, true]) {
  for (const sparse of [false, true]) {
    for (const allocate of [false, true]) {
      if (sparse && allocate) continue;
      const title = `${late ? 'late' : 'ready'} storage, ${sparse ? 'holes' : 'no holes'}`;
      test(`random jobs agree with an array: ${title}, allocate ${allocate}`, async () => {
        const next = rng();
        for (let round = 0; round < 3; round++) {
          const made = [makeSource(next), makeSource(next)];
          const wait = late ? next : undefined;
          const storages = made.map(({ bytes }) =>
            wrapStorage(memoryStorage(bytes), { late: wait }),
          );
          const initial = new Uint8Array(TARGET).fill(sparse ? 0 : 0xee);
          const target = memoryStorage(initial.slice());
          const holeBytes = sparse ? next.pick([512, 4096, 65_536]) : 0;
          const granule = holeBytes % 4096 === 0 ? 4096 : 512;
          const options = {
            kind: 'raw',
            clusterSizeMax: 65_536,
            granule,
            holeBytes,
            allocate,
          } as const;
          const runner = new RawRunner(storages, wrapStorage(target, { late: wait }), options);
          const model = initial.slice();
          for (let count = 0; count < 3; count++) {
            const job = randomJob(next, made);
            if (sparse) {
              // Holes are left as they are: only a target of zeros gets the right ones.
              target.zero(0, TARGET);
              model.fill(0);
            }
            await runner.run(job.ops);
            job.apply(model);
            assert.is(unlike(target.snapshot(), model), '', `${title} SEED=${SEED}`);
          }
        }
      });
    }
  }
}

/** A target whose writes are done when the test says so. */
function slowTarget(bytes: number) {
  const storage = memoryStorage(new Uint8Array(bytes));
  const waiting: ((cause?: unknown) => void)[] = [];
  return {
    storage,
    waiting,
    write: (at: number, from: Uint8Array) =>
      new Promise<void>((resolve, reject) => {
        waiting.push((cause) => {
          if (cause !== undefined) return reject(cause);
          storage.write(at, from);
          resolve();
        });
      }),
    zero: (at: number, length: number) => storage.zero(at, length),
  };
}

/** Lets everything happen that waits for nothing. */
const settle = () => new Promise((resolve) => setTimeout(resolve, 1));

test('while windows are being written the next ones are filled, of later jobs too', async () => {
  const next = rng();
  const bytes = someBytes(next, 8 * 2 ** 20);
  const target = slowTarget(bytes.length);
  const runner = new RawRunner([memoryStorage(bytes)], target, { ...DENSE, ahead: true });
  let done = 0;
  const half = bytes.length / 2;
  const jobs = [0, half].map((at) => runner.run(copyOp(at, at, half)).then(() => done++));
  await settle();
  const ahead = target.waiting.length;
  assert.ok(ahead > 1 && ahead * 512 * 1024 < half, `${ahead} windows`);
  assert.is(done, 0);
  // In any order; at most so many are under way at a time.
  while (done < 2) {
    assert.ok(target.waiting.length <= ahead, 'windows are used again too early');
    const [finish] = target.waiting.splice(next.below(target.waiting.length), 1);
    finish?.();
    await settle();
  }
  await Promise.all(jobs);
  assert.is(unlike(target.storage.snapshot(), bytes), '', `SEED=${SEED}`);
});

test('a write that fails later fails its job, when none of the job is under way', async () => {
  const bytes = someBytes(rng(), 2 ** 20);
  const target = slowTarget(2 * bytes.length);
  const runner = new RawRunner([memoryStorage(bytes)], target, { ...DENSE, ahead: true });
  let failure: unknown;
  const failed = runner.run(copyOp(0, 0, bytes.length)).catch((cause) => {
    failure = cause;
  });
  const good = runner.run(copyOp(0, bytes.length, bytes.length));
  await settle();
  assert.is(target.waiting.length, 4);
  target.waiting[0]?.(new Qcow2Error('IO', 'broken'));
  await settle();
  assert.is(failure, undefined);
  target.waiting[1]?.();
  await failed;
  assert.ok(isQcow2Error(failure, 'IO'));
  target.waiting[2]?.();
  target.waiting[3]?.();
  await good;
  assert.is(unlike(target.storage.snapshot().subarray(bytes.length), bytes), '');
});

test('a target that is not written ahead has one window under way', async () => {
  const bytes = someBytes(rng(), 2 ** 20);
  const target = slowTarget(bytes.length);
  const runner = new RawRunner([memoryStorage(bytes)], target, DENSE);
  const job = runner.run(copyOp(0, 0, bytes.length));
  for (let window = 0; window < 2; window++) {
    await settle();
    assert.is(target.waiting.length, window + 1);
    target.waiting[window]?.();
  }
  await job;
  assert.is(unlike(target.storage.snapshot(), bytes), '');
});

/** A target that remembers what was written where. */
function recorder() {
  const calls: string[] = [];
  return {
    calls,
    write: (at: number, from: Uint8Array) => void calls.push(`write ${at} ${from.length}`),
    zero: (at: number, length: number) => void calls.push(`zero ${at} ${length}`),
  };
}

function op(...numbers: number[]): Float64Array {
  return Float64Array.from({ length: OP_STRIDE }, (_, i) => numbers[i] ?? 0);
}

const copyOp = (host: number, target: number, length: number) =>
  op(OpKind.copy, 0, host, 0, target, length);

/** 4 KiB of data, 64 KiB of zeros, 4 KiB of data. */
const GAPPED = new Uint8Array(72 * 1024).fill(1);
GAPPED.fill(0, 4096, 68 * 1024);

for (const [holeBytes, calls] of [
  [0, ['write 0 73728']],
  [4096, ['write 0 4096', 'write 69632 4096']],
  [65_536, ['write 0 4096', 'write 69632 4096']],
  [69_632, ['write 0 73728']],
] as const) {
  test(`64 KiB of zeros within data, holes from ${holeBytes} bytes on`, async () => {
    const target = recorder();
    const options = { ...DENSE, granule: 4096, holeBytes };
    const runner = new RawRunner([memoryStorage(GAPPED)], target, options);
    await runner.run(copyOp(0, 0, GAPPED.length));
    assert.equal(target.calls, calls);
  });
}

test('holes lie on granules of the target, wherever the data starts', async () => {
  const target = recorder();
  const runner = new RawRunner([memoryStorage(GAPPED)], target, {
    ...DENSE,
    granule: 4096,
    holeBytes: 4096,
  });
  await runner.run(copyOp(0, 1000, GAPPED.length));
  assert.equal(target.calls, ['write 1000 7192', 'write 69632 5096']);
});

test('operations that follow each other are one write; a gap makes two', async () => {
  const target = recorder();
  const runner = new RawRunner([memoryStorage(new Uint8Array(9000).fill(1))], target, DENSE);
  const ops = [...copyOp(5000, 100, 50), ...copyOp(0, 150, 70), ...copyOp(0, 221, 10)];
  await runner.run(Float64Array.from(ops));
  assert.equal(target.calls, ['write 100 120', 'write 221 10']);
});

test('many zeros are one call, and written like data where room is to be made', async () => {
  for (const allocate of [false, true]) {
    const target = recorder();
    const runner = new RawRunner([], target, { ...DENSE, allocate });
    await runner.run(op(OpKind.zero, 0, 0, 0, 512, 2 ** 20));
    const half = 2 ** 19;
    const written = [`write 512 ${half}`, `write ${512 + half} ${half}`];
    assert.equal(target.calls, allocate ? written : [`zero 512 ${2 ** 20}`]);
  }
});

test('a job waits for its turn once, before it writes or ends', async () => {
  for (const ops of [
    copyOp(0, 0, GAPPED.length),
    op(OpKind.zero, 0, 0, 0, 0, 2 ** 20),
    new Float64Array(),
    Float64Array.from([...copyOp(0, 0, 10), ...copyOp(0, 50, 10), ...copyOp(0, 100, 10)]),
  ]) {
    const target = recorder();
    const runner = new RawRunner([memoryStorage(GAPPED)], target, DENSE);
    let go = () => {};
    let asked = 0;
    const job = runner.run(ops, () => {
      asked++;
      return new Promise<undefined>((resolve) => {
        go = () => resolve(undefined);
      });
    });
    await new Promise((done) => setTimeout(done, 5));
    assert.is(asked, 1);
    assert.equal(target.calls, []);
    go();
    await job;
    assert.is(asked, 1);
    assert.is(target.calls.length > 0, ops.length > 0);
  }
});

test('a runner goes on after a job that failed', async () => {
  const source = memoryStorage(new Uint8Array(3000).fill(0xff));
  const target = memoryStorage();
  const runner = new RawRunner([source], target, DENSE);
  try {
    await runner.run(
      Float64Array.from([...copyOp(0, 0, 10), ...op(OpKind.deflate, 0, 0, 512, 10, 4096, 0, 4096)]),
    );
    assert.unreachable();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'CORRUPT'), String(cause));
    assert.is(cause.at, 0);
  }
  await runner.run(copyOp(0, 100, 10));
  assert.equal(target.snapshot().subarray(100), new Uint8Array(10).fill(0xff));
});

test('failures of storage come out as they are', async () => {
  const cause = new Qcow2Error('IO', 'it broke');
  for (const late of [undefined, rng()]) {
    const failing = { from: 100, to: 200, cause };
    const source = wrapStorage(memoryStorage(new Uint8Array(5000)), { late, failing });
    const runner = new RawRunner([source], memoryStorage(), DENSE);
    for (const ops of [copyOp(0, 0, 150), op(OpKind.deflate, 0, 90, 512, 0, 512, 0, 512)]) {
      try {
        await runner.run(ops);
        assert.unreachable();
      } catch (thrown) {
        assert.is(thrown, cause);
      }
    }
  }
});

test('a stream longer than any cluster can have is refused', async () => {
  const runner = new RawRunner([memoryStorage(new Uint8Array(2 ** 22))], recorder(), DENSE);
  try {
    await runner.run(op(OpKind.deflate, 0, 0, 2 ** 21, 0, 65_536, 0, 65_536));
    assert.unreachable();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'CORRUPT'), String(cause));
  }
});

test.run();
