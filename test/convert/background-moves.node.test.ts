/**
 * Bytes that only move: read in this thread and written later by another one. The target is the one
 * that is made without, and when a conversion has failed nobody writes to it any more.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error, Qcow2Error } from '../../src/base/errors.ts';
import { convertToQcow2 } from '../../src/convert/to-qcow2.ts';
import { convertToRaw } from '../../src/convert/to-raw.ts';
import type { Disk } from '../../src/image/disk.ts';
import { openDisk } from '../../src/image/open.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { openNodeFile } from '../../src/storage/node-file.ts';
import { standIn } from '../../src/storage/stand-in.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { someBytes } from '../image/tiny-qcow2.ts';
import { rng, SEED } from '../random.ts';

const test = suite('moves in the background');
const folder = mkdtempSync(join(tmpdir(), 'qcow2-test-'));
const poolSize = process.env.UV_THREADPOOL_SIZE;

test.after.each(() => {
  if (poolSize === undefined) delete process.env.UV_THREADPOOL_SIZE;
  else process.env.UV_THREADPOOL_SIZE = poolSize;
});
test.after(() => rmSync(folder, { recursive: true }));

const MIB = 2 ** 20;

/** A disk of data with zeros and holes in it, of a few sizes. */
function someDisk(): Uint8Array {
  const next = rng();
  const bytes = new Uint8Array(24 * MIB + 512 * next.below(300));
  for (let at = 0; at < bytes.length; ) {
    const length = Math.min(bytes.length - at, next.pick([4096, 65_536, MIB, 3 * MIB]));
    if (next.below(3) > 0) bytes.set(someBytes(next, length), at);
    at += length;
  }
  return bytes;
}

type Convert = (disk: Disk, file: Storage, workers: number) => Promise<unknown>;

const startWorkers = async () => [];
const targets: Record<string, Convert> = {
  raw: (disk, file, workers) => convertToRaw([disk], file, { workers, startWorkers }),
  'raw with room for all': (disk, file, workers) =>
    convertToRaw([disk], file, { workers, startWorkers, sparseBytes: 0 }),
  qcow2: (disk, file, workers) =>
    convertToQcow2([disk], { file, create: {} }, { workers, startWorkers }),
  'qcow2 with subclusters': (disk, file, workers) =>
    convertToQcow2([disk], { file, create: { extendedL2: true } }, { workers, startWorkers }),
};

for (const [name, convert] of Object.entries(targets)) {
  for (const size of [undefined, '1']) {
    test(`${name}, ${size ? 'one thread' : 'some threads'}: the same bytes`, async () => {
      const [source, target] = [join(folder, 'source'), join(folder, 'target')];
      const from = openNodeFile(source, { create: true });
      from.write(0, someDisk());
      const made: Buffer[] = [];
      for (const workers of [0, 2]) {
        if (size) process.env.UV_THREADPOOL_SIZE = size;
        const file = openNodeFile(target, { create: true });
        const disk = await openDisk(from, { format: 'raw' });
        await convert(disk, file, workers);
        file.close();
        made.push(readFileSync(target));
      }
      from.close();
      assert.is(Buffer.compare(made[0]!, made[1]!), 0, `SEED=${SEED}`);
    });
  }

  test(`${name}: a write that fails later is the last that anybody hears of`, async () => {
    const next = rng();
    const source = memoryStorage(someDisk());
    const later = standIn<Storage>(source, { background: () => source });
    for (let failing = 1; failing <= 6; failing++) {
      const file = memoryStorage(new Uint8Array(0));
      let count = 0;
      let underWay = 0;
      const slow = standIn<Storage>(file, {
        readsAtOnce: true,
        async write(at, bytes) {
          const fails = ++count === failing;
          underWay++;
          await new Promise((resolve) => setTimeout(resolve, next.below(4)));
          underWay--;
          if (fails) throw new Qcow2Error('NO_SPACE', 'full', at);
          file.write(at, bytes);
        },
      });
      const target = standIn<Storage>(file, { background: () => slow });
      const disk = await openDisk(later, { format: 'raw' });
      let failure: unknown;
      await convert(disk, target, 2).catch((cause) => {
        failure = cause;
      });
      assert.is(underWay, 0, 'a write goes on after the end');
      if (count >= failing) assert.ok(isQcow2Error(failure, 'NO_SPACE'), `${failing}: ${failure}`);
      else assert.is(failure, undefined);
      assert.ok(count > 1, 'nothing was written in the background');
    }
  });
}

test.run();
