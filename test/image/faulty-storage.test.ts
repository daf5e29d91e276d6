// Storage that fails as told, and answers late.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { rng, SEED } from '../random.ts';
import { CrashFiles } from './crash-storage.ts';
import { delayedFiles, FaultyFiles, limitedFiles } from './faulty-storage.ts';
import { MemoryFiles } from './paged-bytes.ts';

const FILE = 'a';
const replay = `SEED=${SEED}`;
const full = (byte: number, length = 512) => new Uint8Array(length).fill(byte);

const test = suite('faulty storage');

test('the call with the number fails, once', () => {
  const files = new FaultyFiles(MemoryFiles.empty(FILE));
  const file = files.open(FILE);
  files.arm({ kinds: ['write', 'flush'], index: 1, how: 'NO_SPACE' });
  file.write(0, full(1));
  file.read(0, full(0));
  assert.throws(
    () => file.flush(),
    (err: unknown) => isQcow2Error(err, 'NO_SPACE'),
  );
  file.flush();
  assert.is(files.failures, 1);
  assert.is(files.counts.flush, 2);
});

test('or from then on, until it is disarmed', () => {
  const files = new FaultyFiles(MemoryFiles.empty(FILE));
  const file = files.open(FILE);
  files.arm({ kinds: ['truncate'], index: 1, how: 'IO', forever: true });
  file.truncate(1);
  for (let i = 0; i < 3; i++) {
    assert.throws(
      () => file.truncate(2),
      (err: unknown) => isQcow2Error(err, 'IO'),
    );
  }
  files.arm();
  file.truncate(3);
  assert.is(file.size(), 3);
});

for (const [partial, left] of [
  ['none', '00'],
  ['half', '90'],
  ['all', '99'],
] as const) {
  test(`a write that fails may have been carried out: ${partial}`, () => {
    const memory = MemoryFiles.empty(FILE);
    memory.bytes(FILE).truncate(1024);
    const files = new FaultyFiles(memory);
    files.arm({ kinds: ['write'], index: 0, how: 'IO', partial });
    assert.throws(() => files.open(FILE).write(0, full(9, 1024)));
    const bytes = memory.bytes(FILE).toBytes();
    assert.is(`${bytes[0]}${bytes[1023]}`, left);
  });
}

test('a short read gives half', () => {
  const memory = MemoryFiles.empty(FILE);
  memory.bytes(FILE).write(0, full(1));
  const files = new FaultyFiles(memory);
  files.arm({ kinds: ['read'], index: 0, how: 'short' });
  assert.is(files.open(FILE).read(0, full(0)), 256);
});

test('a full storage takes what fits', () => {
  const file = limitedFiles(MemoryFiles.empty(FILE), 1024).open(FILE);
  file.write(512, full(1));
  for (const work of [
    () => file.write(513, full(1)),
    () => file.zero(1000, 25),
    () => file.truncate(1025),
  ]) {
    assert.throws(work, (err: unknown) => isQcow2Error(err, 'NO_SPACE'));
  }
  assert.is(file.size(), 1024);
});

test('late answers come in any order, and replay', async () => {
  const orders: string[] = [];
  for (let round = 0; round < 2; round++) {
    const file = delayedFiles(MemoryFiles.empty(FILE), rng(SEED)).open(FILE);
    const order: number[] = [];
    await Promise.all(
      Array.from({ length: 40 }, async (_, i) => {
        await file.write(i * 512, full(i));
        order.push(i);
      }),
    );
    assert.is.not(order.join(), [...order].sort((a, b) => a - b).join(), replay);
    orders.push(order.join());
  }
  assert.is(orders[0], orders[1], replay);
});

test('a flush does not cover a write that was in flight when it began', async () => {
  const next = rng();
  let lost = 0;
  for (let i = 0; i < 100; i++) {
    const files = CrashFiles.empty(FILE);
    const file = delayedFiles(files, next).open(FILE);
    await Promise.all([file.write(0, full(1)), file.flush()]);
    const states = [...files.states(next)];
    if (states.some(({ cut, files: found }) => cut === 2 && found.bytes(FILE).size === 0)) lost++;
  }
  assert.ok(lost > 10, replay);
});

test('an array that changes before the write is done may be written either way', async () => {
  const next = rng();
  const seen = new Set<number>();
  for (let i = 0; i < 100; i++) {
    const memory = MemoryFiles.empty(FILE);
    const file = delayedFiles(memory, next).open(FILE);
    const bytes = full(1);
    const done = file.write(0, bytes);
    bytes.fill(2);
    await done;
    seen.add(memory.bytes(FILE).toBytes()[0]!);
  }
  assert.equal([...seen].sort(), [1, 2], replay);
});

test('closing with calls in flight is found', async () => {
  const next = rng();
  let found = 0;
  for (let i = 0; i < 50; i++) {
    const file = delayedFiles(MemoryFiles.empty(FILE), next).open(FILE);
    const done = file.flush();
    try {
      await file.close();
    } catch {
      found++;
    }
    await Promise.resolve(done).catch(() => {});
  }
  assert.ok(found > 0, replay);
});

test.run();
