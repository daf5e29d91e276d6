/** Whole conversions: what the target holds at every moment, and how they end. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type ErrorCode, isQcow2Error, Qcow2Error } from '../../src/base/errors.ts';
import type { ConvertOptions } from '../../src/convert/options.ts';
import type { JobWorker, StartWorkers } from '../../src/convert/pool.ts';
import { RawRunner } from '../../src/convert/raw-runner.ts';
import type { RawRunnerOptions } from '../../src/convert/runner.ts';
import { convertToRaw, convertToStream } from '../../src/convert/to-raw.ts';
import type { Disk } from '../../src/image/disk.ts';
import { openDisk } from '../../src/image/open.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { unlike } from '../image/disk-contract.ts';
import { wrapStorage } from '../image/slow-storage.ts';
import { randomTiny, someBytes } from '../image/tiny-qcow2.ts';
import { type Random, rng, SEED } from '../random.ts';

const test = suite('convert');

async function tinyDisk(next: Random, size: number, late?: Random) {
  const { file, model } = randomTiny(next, { version: 3, clusterBits: 12, size });
  const disk = await openDisk(wrapStorage(memoryStorage(file), { late }));
  return { disk, model };
}

function rawDisk(bytes: Uint8Array): Promise<Disk> {
  return openDisk(memoryStorage(bytes), { format: 'raw' });
}

/** A target that calls back after each change. */
function watched(
  target: Storage,
  after: (what: string, at: number, length: number) => void,
): Storage {
  return {
    ...wrapStorage(target, {}),
    write: (at, from) => {
      target.write(at, from);
      after('write', at, from.length);
    },
    zero: (at, length) => {
      target.zero(at, length);
      after('zero', at, length);
    },
    truncate: (size) => {
      target.truncate(size);
      after('truncate', size, 0);
    },
  };
}

async function fails(work: Promise<unknown>, code: ErrorCode): Promise<Qcow2Error> {
  try {
    await work;
  } catch (cause) {
    assert.ok(isQcow2Error(cause, code), `${code}, not ${cause}`);
    return cause;
  }
  throw new Error(`${code} was expected`);
}

const WAYS: Record<string, ConvertOptions> = {
  'with holes': {},
  'with holes from 512 bytes on': { sparseBytes: 512 },
  'with holes from 64 KiB on': { sparseBytes: 65_536 },
  'without holes': { sparseBytes: 0 },
  'into a target that holds something': { targetIsZero: false },
  'without holes into a target that holds something': { targetIsZero: false, sparseBytes: 0 },
};

for (const late of [false, true]) {
  for (const [title, options] of Object.entries(WAYS)) {
    test(`${title}, storage ${late ? 'late' : 'ready'}: all disks in turn`, async () => {
      const next = rng();
      for (let round = 0; round < 2; round++) {
        const wait = late ? next : undefined;
        const made = [];
        for (let i = next.below(3); i >= 0; i--) {
          made.push(await tinyDisk(next, 512 * next.below(1500), wait));
        }
        const size = made.reduce((sum, { model }) => sum + model.length, 0);
        const model = new Uint8Array(size);
        let at = 0;
        for (const each of made) {
          model.set(each.model, at);
          at += each.model.length;
        }
        const dirty = options.targetIsZero === false;
        // Shorter or longer than the disks.
        const before = new Uint8Array(dirty ? next.below(2 * size + 100) : 0).fill(0xee);
        const target = memoryStorage(before.slice());
        const disks = made.map(({ disk }) => disk);
        await convertToRaw(disks, wrapStorage(target, { late: wait }), options);
        const result = target.snapshot();
        assert.is(result.length, Math.max(size, before.length));
        assert.is(unlike(result.subarray(0, size), model), '', `SEED=${SEED}`);
        assert.ok(
          result.subarray(size).every((byte) => byte === 0xee),
          'what lies behind is kept',
        );
      }
    });
  }

  test(`a stream gets the same, front to back, storage ${late ? 'late' : 'ready'}`, async () => {
    const next = rng();
    const wait = late ? next : undefined;
    const { disk, model } = await tinyDisk(next, 2_000_384, wait);
    const out = new Uint8Array(model.length);
    let end = 0;
    const stream = {
      write: (at: number, from: Uint8Array) => {
        assert.is(at, end);
        out.set(from, at);
        end += from.length;
      },
      zero: (at: number, length: number) => {
        assert.is(at, end);
        end += length;
      },
    };
    await convertToStream([disk], stream);
    assert.is(end, model.length);
    assert.is(unlike(out, model), '', `SEED=${SEED}`);
  });
}

test('the target is shorter than the disk until all is written', async () => {
  const next = rng();
  for (const options of Object.values(WAYS)) {
    for (const end of ['data', 'zeros'] as const) {
      const bytes = someBytes(next, 3_000_320);
      // Some are all zeros.
      bytes.fill(1, 0, 4096);
      bytes.fill(end === 'data' ? 1 : 0, 2_500_000);
      const disk = await rawDisk(bytes);
      const target = memoryStorage();
      const sizes: number[] = [];
      await convertToRaw(
        [disk],
        watched(target, () => sizes.push(target.size() as number)),
        options,
      );
      assert.is(target.size(), disk.size);
      assert.ok(sizes.length > 1);
      for (const size of sizes.slice(0, -1)) assert.ok(size < disk.size);
    }
  }
});

test('holes of the source and zeros within data are not written', async () => {
  const bytes = new Uint8Array(2 ** 20);
  bytes.fill(1, 65_536, 2 * 65_536);
  const target = memoryStorage();
  let written = 0;
  await convertToRaw(
    [await rawDisk(bytes)],
    watched(target, (what, _at, length) => {
      assert.is.not(what, 'zero');
      written += length;
    }),
  );
  assert.is(written, 65_536);
  assert.is(unlike(target.snapshot(), bytes), '');
});

test('without holes every byte is written, also those of a hole', async () => {
  const next = rng();
  const { disk, model } = await tinyDisk(next, 1_000_448);
  const covered = new Uint8Array(model.length);
  const target = watched(memoryStorage(), (what, at, length) => {
    assert.is(what, 'write');
    covered.fill(1, at, at + length);
  });
  await convertToRaw([disk], target, { sparseBytes: 0 });
  assert.ok(covered.every((byte) => byte === 1));
});

test('an empty disk, and no disk, make an empty target', async () => {
  for (const disks of [[], [await rawDisk(new Uint8Array())]]) {
    const target = memoryStorage();
    const told: number[][] = [];
    await convertToRaw(disks, target, { onProgress: (...numbers) => told.push(numbers) });
    assert.is(target.size(), 0);
    assert.equal(told, [[0, 0, 0]]);
  }
});

test('progress rises to the whole', async () => {
  const next = rng();
  const bytes = someBytes(next, 40 * 2 ** 20);
  const told: number[] = [];
  const onProgress = (done: number, total: number) => {
    assert.is(total, bytes.length);
    told.push(done);
  };
  await convertToRaw([await rawDisk(bytes)], memoryStorage(), { onProgress });
  assert.ok(told.length > 3);
  for (let i = 1; i < told.length; i++) assert.ok(told[i]! >= told[i - 1]!);
  assert.is(told.at(-1), bytes.length);
});

test('a signal that was given before ends it before it writes', async () => {
  const target = watched(memoryStorage(), () => assert.unreachable('nothing is written'));
  const signal = AbortSignal.abort('enough');
  const disk = await rawDisk(new Uint8Array(2 ** 20).fill(1));
  const { cause } = await fails(convertToRaw([disk], target, { signal }), 'ABORTED');
  assert.is(cause, 'enough');
});

test('a signal in the middle leaves the target shorter than the disk', async () => {
  const disk = await rawDisk(new Uint8Array(64 * 2 ** 20).fill(1));
  const target = memoryStorage();
  const abort = new AbortController();
  const onProgress = (done: number) => {
    if (done > 0) abort.abort();
  };
  await fails(convertToRaw([disk], target, { signal: abort.signal, onProgress }), 'ABORTED');
  assert.ok((target.size() as number) > 0);
  assert.ok((target.size() as number) < disk.size);
});

test('a source that fails in the middle ends it with its own error', async () => {
  for (const late of [undefined, rng()]) {
    const bytes = new Uint8Array(20 * 2 ** 20).fill(1);
    const cause = new Qcow2Error('IO', 'it broke');
    const failing = { from: 10 * 2 ** 20, to: 11 * 2 ** 20, cause };
    const disk = await openDisk(wrapStorage(memoryStorage(bytes), { late, failing }), {
      format: 'raw',
    });
    const target = memoryStorage();
    assert.is(await fails(convertToRaw([disk], target), 'IO'), cause);
    assert.ok((target.size() as number) < disk.size);
  }
});

test('a target that is full ends it, at whichever call', async () => {
  const next = rng();
  const { disk } = await tinyDisk(next, 1_500_160);
  for (let last = 0; ; last++) {
    let calls = 0;
    const inner = memoryStorage();
    const full = watched(inner, () => {
      if (calls++ === last) throw new Qcow2Error('NO_SPACE', 'full');
    });
    const work = convertToRaw([disk], full);
    const failed = await work.then(
      () => false,
      (cause) => isQcow2Error(cause, 'NO_SPACE'),
    );
    if (!failed) {
      assert.is(calls, last, 'the last call that there is was reached');
      break;
    }
  }
});

// ---- workers ---------------------------------------------------------------------------------

interface Fleet {
  readonly start: StartWorkers;
  started: number;
  closed: number;
  jobs: number;
}

/** Workers in this thread that take random time, over the storages that the test has. */
function fleet(
  next: Random,
  sources: Storage[],
  target: () => Pick<Storage, 'write' | 'zero'>,
): Fleet {
  // Numbers of their own: when they are drawn is up to the clock.
  const naps = rng(next.u32());
  const made: Fleet = {
    started: 0,
    closed: 0,
    jobs: 0,
    start: (setup, count) => {
      made.started += count;
      return Array.from({ length: count }, (): JobWorker => {
        assert.is(setup.options.kind, 'raw');
        const options = setup.options as RawRunnerOptions;
        const runner = new RawRunner(sources, target(), options);
        let last: Promise<unknown> = Promise.resolve();
        return {
          get tally() {
            return runner.tally;
          },
          isUp: true,
          run: (ops, turn) => {
            made.jobs++;
            const job = last
              .then(() => new Promise((done) => setTimeout(done, naps.below(4))))
              .then(() => runner.run(ops, turn));
            last = job.catch(() => {});
            return job;
          },
          copy: async () => assert.unreachable('a raw target has no clusters'),
          close: async () => {
            made.closed++;
          },
        };
      });
    },
  };
  return made;
}

const shared = (storage: Storage): Storage => ({
  ...wrapStorage(storage, {}),
  share: () => ({ kind: 'fd', fd: -1, name: storage.name }),
});

let largeBytes: Uint8Array | undefined;

/** A disk that is worth workers; its bytes are made once. */
async function largeDisk(next: Random, failing?: { from: number; to: number; cause: unknown }) {
  largeBytes ??= someBytes(next, 30 * 2 ** 20);
  const bytes = largeBytes;
  const source = shared(wrapStorage(memoryStorage(bytes), failing ? { failing } : {}));
  return { bytes, source, disk: await openDisk(source, { format: 'raw' }) };
}

for (const workers of [1, 3]) {
  test(`${workers} workers beside this thread write the same`, async () => {
    const next = rng();
    const { bytes, source, disk } = await largeDisk(next);
    const target = memoryStorage();
    const crew = fleet(next, [source], () => target);
    const told: number[] = [];
    await convertToRaw([disk], shared(target), {
      workers,
      startWorkers: crew.start,
      onProgress: (done) => told.push(done),
    });
    assert.is(unlike(target.snapshot(), bytes), '', `SEED=${SEED}`);
    assert.ok(crew.jobs > 0);
    assert.is(crew.started, workers);
    assert.is(crew.closed, workers);
    for (let i = 1; i < told.length; i++) assert.ok(told[i]! >= told[i - 1]!);
    assert.is(told.at(-1), bytes.length);
  });

  test(`${workers} workers write a stream in the order of the disk`, async () => {
    const next = rng();
    const { bytes, source, disk } = await largeDisk(next);
    const out = new Uint8Array(bytes.length);
    let end = 0;
    const stream = {
      write: (at: number, from: Uint8Array) => {
        assert.is(at, end);
        out.set(from, at);
        end += from.length;
      },
      zero: (at: number, length: number) => {
        assert.is(at, end);
        end += length;
      },
      share: () => ({ kind: 'fd', fd: -1, name: 'stream' }) as const,
    };
    const crew = fleet(next, [source], () => stream);
    await convertToStream([disk], stream, { workers, startWorkers: crew.start });
    assert.is(end, bytes.length);
    assert.is(unlike(out, bytes), '', `SEED=${SEED}`);
    assert.ok(crew.jobs > 0);
  });

  for (const kind of ['file', 'stream'] as const) {
    test(`a failure anywhere ends ${workers} workers and a ${kind}`, async () => {
      const next = rng();
      for (let round = 0; round < 3; round++) {
        const from = next.below(29 * 2 ** 20);
        const cause = new Qcow2Error('IO', 'it broke');
        const { source, disk } = await largeDisk(next, { from, to: from + 1000, cause });
        const target = memoryStorage();
        const crew = fleet(next, [source], () => target);
        const options = { workers, startWorkers: crew.start };
        const work =
          kind === 'file'
            ? convertToRaw([disk], shared(target), options)
            : convertToStream([disk], shared(target), options);
        assert.is(await fails(work, 'IO'), cause, `SEED=${SEED}`);
        assert.is(crew.closed, workers);
        assert.ok((target.size() as number) < disk.size);
      }
    });
  }

  test(`a signal ends ${workers} workers`, async () => {
    const next = rng();
    const { source, disk } = await largeDisk(next);
    const target = memoryStorage();
    const crew = fleet(next, [source], () => target);
    const abort = new AbortController();
    const work = convertToRaw([disk], shared(target), {
      workers,
      startWorkers: crew.start,
      signal: abort.signal,
      onProgress: () => abort.abort(),
    });
    await fails(work, 'ABORTED');
    assert.is(crew.closed, workers);
  });
}

test('small disks, and storage that cannot be shared, start no workers', async () => {
  const next = rng();
  const { disk, source } = await largeDisk(next);
  const crew = fleet(next, [source], () => memoryStorage());
  const options = { workers: 2, startWorkers: crew.start };
  await convertToRaw([disk], memoryStorage(), options);
  await convertToRaw([await rawDisk(new Uint8Array(2 ** 25))], shared(memoryStorage()), options);
  const small = await openDisk(shared(memoryStorage(new Uint8Array(2 ** 20))), { format: 'raw' });
  await convertToRaw([small], shared(memoryStorage()), options);
  assert.is(crew.started, 0);
});

test.run();
