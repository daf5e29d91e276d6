/** New qcow2 images: the same for any number of workers, and nothing whole where one fails. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error, Qcow2Error } from '../../src/base/errors.ts';
import { Conversion } from '../../src/convert/conversion.ts';
import { convert } from '../../src/convert/convert.ts';
import { ImageRunner } from '../../src/convert/image-runner.ts';
import type { JobWorker, StartWorkers } from '../../src/convert/pool.ts';
import { emptyTally, type ImageRunnerOptions, type Turn } from '../../src/convert/runner.ts';
import { isQcow2 } from '../../src/format/header.ts';
import type { Disk } from '../../src/image/disk.ts';
import { openDisk } from '../../src/image/open.ts';
import type { Qcow2CreateOptions } from '../../src/image/qcow2/create.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { wrapStorage } from '../image/slow-storage.ts';
import { assertSound } from '../image/sound.ts';
import { someBytes } from '../image/tiny-qcow2.ts';
import { type Random, rng, SEED, someOf } from '../random.ts';

const test = suite('convert to qcow2');

const SIZE = 5 * 2 ** 20 + 512;

/** Data, text and zeros, some of them long. */
function diskBytes(next: Random): Uint8Array {
  const bytes = someBytes(next, SIZE);
  for (let hole = 0; hole < 8; hole++) {
    const at = next.below(SIZE);
    bytes.fill(0, at, at + next.below(400_000));
  }
  return bytes;
}

const shared = (storage: Storage): Storage => ({
  ...wrapStorage(storage, {}),
  share: () => ({ kind: 'fd', fd: -1, name: storage.name }),
});

function rawDisk(bytes: Uint8Array): Promise<Disk> {
  return openDisk(shared(memoryStorage(bytes)), { format: 'raw' });
}

/** Workers in this thread that take random time. */
function fleet(next: Random, source: Storage, file: Storage): StartWorkers {
  // Numbers of their own: when they are drawn is up to the clock.
  const naps = rng(next.u32());
  return (setup, count) =>
    Array.from({ length: count }, (): JobWorker => {
      const options = setup.options as ImageRunnerOptions;
      const runner = new ImageRunner([source], { file, data: file }, options);
      const nap = () => new Promise((done) => setTimeout(done, naps.below(4)));
      return {
        isUp: true,
        get tally() {
          return runner.tally;
        },
        run: async (ops, turn) => {
          await nap();
          await runner.run(ops, async (units) => {
            await nap();
            const placement = await turn?.(units);
            await nap();
            return placement;
          });
        },
        copy: async (batch) => {
          await nap();
          await runner.copy(batch);
        },
        close: async () => {},
      };
    });
}

function randomCreate(next: Random): Omit<Qcow2CreateOptions, 'size'> {
  const extendedL2 = next.oneIn(4);
  return {
    clusterSize: 2 ** (extendedL2 ? 14 + next.below(3) : next.pick([9, 10, 12, 16, 21])),
    extendedL2,
    refcountBits: next.pick([1, 2, 16, 64]),
    compression: next.pick(['deflate', 'zstd'] as const),
  };
}

async function readAll(file: Uint8Array): Promise<Uint8Array> {
  const disk = await openDisk(memoryStorage(file), { format: 'qcow2' });
  const bytes = new Uint8Array(disk.size);
  await disk.read(0, bytes);
  await disk.close();
  return bytes;
}

function assertSame(found: Uint8Array, wanted: Uint8Array, about: string): void {
  const at = found.findIndex((byte, index) => byte !== wanted[index]);
  assert.is(at, -1, `${about}: byte ${at}`);
  assert.is(found.length, wanted.length, about);
}

test('the same image by 1, 2 and 5 workers, and by none', async () => {
  for (let round = 0; round < 6; round++) {
    const next = rng(SEED + round);
    const bytes = diskBytes(next);
    const create = randomCreate(next);
    const compress = next.oneIn(3) ? undefined : {};
    const about = `SEED=${SEED} round ${round} ${JSON.stringify(create)}`;
    let first: Uint8Array | undefined;
    for (const workers of [0, 1, 2, 5]) {
      const file = memoryStorage();
      const disk = await rawDisk(bytes);
      const startWorkers = fleet(next, memoryStorage(bytes), file);
      const target = { format: 'qcow2', file: shared(file), create, compress } as const;
      const result = await convert(disk, target, { workers, startWorkers });
      const image = file.snapshot();
      assert.is(result.diskBytes, SIZE);
      if (first) assertSame(image, first, `${about} ${workers} workers`);
      else {
        first = image;
        assertSound(image, about);
        assertSame(await readAll(image), bytes, about);
      }
    }
  }
});

test('a stream is a sound image of the length that was told', async () => {
  for (let round = 0; round < 6; round++) {
    const next = rng(SEED + round);
    const bytes = diskBytes(next);
    const create = randomCreate(next);
    const compress = next.oneIn(3) ? undefined : {};
    const about = `SEED=${SEED} round ${round} ${JSON.stringify(create)}`;
    const parts: Uint8Array[] = [];
    let length = 0;
    let told = -1;
    const stream = {
      write: (at: number, from: Uint8Array) => {
        assert.is(at, length, about);
        parts.push(from.slice());
        length += from.length;
      },
    };
    const onLength = (all: number) => {
      assert.is(length, 0);
      told = all;
    };
    await convert(await rawDisk(bytes), { format: 'qcow2', stream, create, compress, onLength });
    assert.is(length, told, about);
    const image = new Uint8Array(length);
    let at = 0;
    for (const part of parts) {
      image.set(part, at);
      at += part.length;
    }
    assertSound(image, about);
    assertSame(await readAll(image), bytes, about);
  }
});

/** An image whose compressed clusters lie in any order, some of them plain, some zeros. */
async function packedImage(next: Random, create: Omit<Qcow2CreateOptions, 'size'>) {
  const { clusterSize = 65_536 } = create;
  const bytes = diskBytes(next);
  const file = memoryStorage();
  const image = await Qcow2Image.create(file, { ...create, size: SIZE });
  const clusters = Array.from({ length: Math.ceil(SIZE / clusterSize) }, (_, index) => index);
  for (let from = 0; from < clusters.length; from += 16) {
    for (const cluster of someOf(clusters.slice(from, from + 16), 16, next)) {
      const at = cluster * clusterSize;
      const part = bytes.subarray(at, at + clusterSize);
      const lot = next.below(12);
      if (lot === 0) bytes.fill(0, at, at + part.length);
      else if (lot === 1) await image.write(at, part);
      else await image.writeCompressed(at, part);
    }
  }
  await image.close();
  // As large as it takes for workers to pay.
  const padded = new Uint8Array(2 ** 23);
  padded.set(file.snapshot());
  return { file: padded, bytes };
}

test('what is compressed is copied, to files and streams, whoever does it', async () => {
  for (let round = 0; round < 6; round++) {
    const next = rng(SEED + round);
    const clusterSize = 2 ** next.pick([9, 12, 16]);
    const create = { ...randomCreate(next), clusterSize, extendedL2: false };
    const about = `SEED=${SEED} round ${round} ${JSON.stringify(create)}`;
    const source = await packedImage(next, create);
    const images: Uint8Array[] = [];
    for (const workers of [0, 1, 3]) {
      for (const isStream of [false, true]) {
        const file = memoryStorage();
        let length = 0;
        const inLine = (at: number, from: Uint8Array) => {
          assert.is(at, length, about);
          length += from.length;
          file.write(at, from);
        };
        const disk = await openDisk(shared(memoryStorage(source.file)));
        const share = () => ({ kind: 'fd', fd: -1, name: 'stream' }) as const;
        const out = isStream ? { ...wrapStorage(file, {}), write: inLine } : file;
        const crew = fleet(next, memoryStorage(source.file), out);
        let started = 0;
        const startWorkers: StartWorkers = (setup, count) => {
          started = count;
          return crew(setup, count);
        };
        const how = { format: 'qcow2', create, compress: {} } as const;
        const result = await convert(
          disk,
          isStream ? { ...how, stream: { write: inLine, share } } : { ...how, file: shared(file) },
          { workers, startWorkers },
        );
        assert.is(started, workers, about);
        assert.ok(result.clusters.copied > 0, about);
        const image = file.snapshot();
        assert.ok(images[Number(isStream)] || images.push(image));
        assertSame(image, images[Number(isStream)]!, `${about} ${workers} workers`);
      }
    }
    for (const image of images) {
      assertSound(image, about);
      assertSame(await readAll(image), source.bytes, about);
    }
  }
});

test('a rate holds for what is copied, by what it is when it is read', async () => {
  const clusterSize = 65_536;
  const source = memoryStorage();
  const image = await Qcow2Image.create(source, { size: 80 * clusterSize });
  for (let cluster = 0; cluster < 80; cluster++) {
    await image.writeCompressed(cluster * clusterSize, new Uint8Array(clusterSize).fill(7));
  }
  await image.close();
  const disk = await openDisk(source);
  const started = Date.now();
  const target = { format: 'qcow2', file: memoryStorage(), create: {}, compress: {} } as const;
  const rate = 4 * 2 ** 20;
  const { clusters } = await convert(disk, target, { bytesPerSecond: rate });
  assert.is(clusters.copied, 80);
  // The last job's bytes are not waited for.
  assert.ok(Date.now() - started >= ((70 * clusterSize) / rate) * 1000);
});

test('an open image is filled, compressed or not', async () => {
  const next = rng();
  const bytes = diskBytes(next);
  for (const compress of [false, true]) {
    const file = memoryStorage();
    const image = await Qcow2Image.create(file, { size: SIZE, compression: 'zstd' });
    await convert(await rawDisk(bytes), image, { compress });
    await image.close();
    assertSound(file.snapshot(), `SEED=${SEED}`);
    assertSame(await readAll(file.snapshot()), bytes, `SEED=${SEED}`);
  }
});

test('whichever write fails, what is there is no image', async () => {
  const next = rng();
  const bytes = diskBytes(next);
  const create = { clusterSize: 65_536 };
  for (let failing = 0; ; failing++) {
    const file = memoryStorage();
    let writes = 0;
    const flaky: Storage = {
      ...wrapStorage(file, {}),
      write: (at, from) => {
        if (writes++ === failing) throw new Qcow2Error('NO_SPACE', 'no room', at);
        return file.write(at, from);
      },
    };
    const disk = await rawDisk(bytes);
    try {
      await convert(disk, { format: 'qcow2', file: flaky, create, compress: {} });
      assert.ok(failing > 5, 'some writes failed');
      return;
    } catch (cause) {
      assert.ok(isQcow2Error(cause, 'NO_SPACE'), String(cause));
    }
    const head = new Uint8Array(8);
    await file.read(0, head);
    assert.not(isQcow2(head), `write ${failing}`);
  }
});

test('a source that fails in the middle, and a person who stops', async () => {
  const next = rng();
  const bytes = diskBytes(next);
  const file = memoryStorage();
  const source = memoryStorage(bytes);
  const flaky: Storage = {
    ...wrapStorage(source, {}),
    read: (at, into) => {
      if (at + into.length > SIZE / 2) throw new Qcow2Error('IO', 'a bad sector', at);
      return source.read(at, into);
    },
  };
  const target = { format: 'qcow2', file, create: {}, compress: {} } as const;
  try {
    await convert(await openDisk(flaky, { format: 'raw' }), target);
    assert.unreachable('it fails');
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'IO'), String(cause));
  }
  const stop = new AbortController();
  const onProgress = (done: number) => {
    if (done > SIZE / 2) stop.abort();
  };
  try {
    await convert(await rawDisk(bytes), target, { onProgress, signal: stop.signal });
    assert.unreachable('it is stopped');
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'ABORTED'), String(cause));
  }
  const head = new Uint8Array(8);
  await file.read(0, head);
  assert.not(isQcow2(head));
  // What cannot be read becomes zeros, where that is wanted.
  const saved = memoryStorage();
  const disk = await openDisk(flaky, { format: 'raw' });
  await convert(disk, { format: 'qcow2', file: saved, create: {} }, { salvage: true });
  const found = await readAll(saved.snapshot());
  const whole = Math.floor(SIZE / 2 / 512) * 512;
  assertSame(found.subarray(0, whole), bytes.subarray(0, whole), 'what can be read');
  assert.ok(found.subarray(whole + 512).every((byte) => byte === 0));
});

test('a place that cannot be had ends the conversion, whoever asked for it', async () => {
  const ops = new Float64Array(8);
  let given = 0;
  const asks = async (turn?: Turn) => {
    // As a worker in a thread: why no answer comes, it is not told.
    await turn?.(new Float64Array(3)).catch(() => new Promise(() => {}));
  };
  const worker: JobWorker = {
    isUp: true,
    tally: emptyTally(),
    run: (_, turn) => asks(turn),
    copy: async () => {},
    close: async () => {},
  };
  const conversion = new Conversion({
    jobs: {
      next: async () => (given++ < 1 ? { ops, until: 1, span: 1 } : undefined),
      last: () => new Float64Array(0),
    },
    runner: { run: async () => {}, ready: async () => {}, tally: emptyTally() },
    order: {
      kind: 'placed',
      inLine: false,
      place: () => {
        throw new Qcow2Error('NO_SPACE', 'the format ends here');
      },
    },
    total: 1,
    startWorkers: async () => [worker],
  });
  try {
    await conversion.run();
    assert.unreachable('it fails');
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'NO_SPACE'), String(cause));
  }
});

/** Storage that has a twin which answers late, and how many of its calls are under way. */
function withTwin(storage: Storage, late: Random, twin: Partial<Storage> = {}) {
  const slow = wrapStorage(Object.assign(wrapStorage(storage, {}), twin), { late });
  let running = 0;
  const counted = async <T>(work: () => T | Promise<T>): Promise<T> => {
    running++;
    try {
      return await work();
    } finally {
      running--;
    }
  };
  const background: Storage = {
    ...slow,
    read: (at, into) => counted(() => slow.read(at, into)),
    write: (at, from) => counted(() => slow.write(at, from)),
  };
  return {
    storage: { ...shared(storage), background: () => background },
    get running() {
      return running;
    },
  };
}

test('lanes make the image that one thread makes', async () => {
  for (let round = 0; round < 6; round++) {
    const next = rng(SEED + round);
    const bytes = diskBytes(next);
    const create = randomCreate(next);
    const about = `SEED=${SEED} round ${round} ${JSON.stringify(create)}`;
    const images: Uint8Array[] = [];
    for (const workers of [0, 2]) {
      const file = memoryStorage();
      const source = withTwin(memoryStorage(bytes), next);
      const target = withTwin(file, next);
      const disk = await openDisk(source.storage, { format: 'raw' });
      await convert(
        disk,
        { format: 'qcow2', file: target.storage, create },
        {
          workers,
          startWorkers: () => {
            throw new Error('nothing is to be decoded');
          },
        },
      );
      images.push(file.snapshot());
    }
    assertSame(images[1]!, images[0]!, about);
    assertSame(await readAll(images[1]!), bytes, about);
  }
});

test('from the first stream on workers decode', async () => {
  const next = rng();
  const bytes = diskBytes(next);
  const source = memoryStorage();
  const image = await Qcow2Image.create(source, { size: 64 * 2 ** 20, compression: 'zstd' });
  await image.write(0, bytes);
  const [from, step] = [48 * 2 ** 20, 65_536];
  // One at least that is smaller as a stream, whatever the others are.
  await image.writeCompressed(from, new Uint8Array(step).fill(7));
  for (let at = step; at < 2 ** 20; at += step) {
    await image.writeCompressed(from + at, bytes.subarray(at, at + step));
  }
  await image.close();
  const images: Uint8Array[] = [];
  for (const workers of [0, 2]) {
    const file = memoryStorage();
    const from = withTwin(source, next);
    // As large as it takes for workers to pay.
    const storage = { ...from.storage, size: () => 2 ** 25 };
    const disk = await openDisk(storage, { format: 'qcow2' });
    let started = 0;
    const start = fleet(next, source, file);
    await convert(
      disk,
      { format: 'qcow2', file: withTwin(file, next).storage, create: {} },
      {
        workers,
        startWorkers: (setup, count) => {
          started += count;
          return start(setup, count);
        },
      },
    );
    assert.is(started, workers);
    images.push(file.snapshot());
  }
  assertSame(images[1]!, images[0]!, `SEED=${SEED}`);
  assertSame((await readAll(images[1]!)).subarray(0, SIZE), bytes, `SEED=${SEED}`);
});

test('whatever fails in lanes, nothing is under way when that is told', async () => {
  const next = rng();
  const bytes = diskBytes(next);
  for (const kind of ['read', 'write', 'signal'] as const) {
    for (let failing = 0; ; failing++) {
      const file = memoryStorage();
      const from = memoryStorage(bytes);
      let calls = 0;
      const fail = (at: number) => {
        if (calls++ === failing) throw new Qcow2Error('IO', 'a bad sector', at);
      };
      const source = withTwin(from, next, {
        read: (at, into) => {
          if (kind === 'read') fail(at);
          return from.read(at, into);
        },
      });
      const target = withTwin(file, next, {
        write: (at, bytes) => {
          if (kind === 'write') fail(at);
          file.write(at, bytes);
        },
      });
      const stop = new AbortController();
      const disk = await openDisk(source.storage, { format: 'raw' });
      try {
        await convert(
          disk,
          { format: 'qcow2', file: target.storage, create: { clusterSize: 4096 } },
          {
            workers: 1,
            signal: stop.signal,
            onProgress: () => {
              if (kind === 'signal' && calls++ === failing) stop.abort();
            },
          },
        );
        assert.ok(failing > 0, `${kind}: something failed`);
        break;
      } catch (cause) {
        assert.ok(isQcow2Error(cause, kind === 'signal' ? 'ABORTED' : 'IO'), String(cause));
      }
      assert.is(source.running + target.running, 0, `${kind} ${failing}`);
      const head = new Uint8Array(8);
      await file.read(0, head);
      assert.not(isQcow2(head), `${kind} ${failing}`);
    }
  }
});

test.run();
