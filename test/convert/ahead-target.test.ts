// Writes that go on while the next begin: the disk, and its file, are those that the same writes
// make one by one, however long each takes. Replay a failure with SEED=….
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Qcow2Error } from '../../src/base/errors.ts';
import { tick } from '../../src/base/tick.ts';
import { AheadTarget } from '../../src/convert/ahead-target.ts';
import type { WritableDisk } from '../../src/image/disk.ts';
import { RawImage } from '../../src/image/raw/raw-image.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { standIn } from '../../src/storage/stand-in.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { answeringLater } from '../image/later-storage.ts';
import { type FileOpener, MemoryFiles } from '../image/paged-bytes.ts';
import { qcow2Engine } from '../image/qcow2-engine.ts';
import { randomWorkload, send } from '../image/workload.ts';
import {
  describeSetting,
  firstDifference,
  firstFiles,
  randomBytes,
  randomWriteSetting,
  readWhole,
  SMALL,
} from '../image/write-engine.ts';
import { type Random, rng, SEED } from '../random.ts';

const test = suite('AheadTarget');

/** A request of a disk that is gone through front to back. */
interface Piece {
  readonly guest: number;
  /** Bytes, or how many zeros. */
  readonly what: Uint8Array | number;
}

function pieces(next: Random, size: number, unit: number): Piece[] {
  const list: Piece[] = [];
  for (let guest = unit * next.below(3); guest < size; guest += unit * next.below(3)) {
    const length = Math.min(size - guest, unit * (1 + next.below(9)));
    list.push({ guest, what: next.below(5) === 0 ? length : randomBytes(next, length) });
    guest += length;
  }
  return list;
}

async function writeOneByOne(disk: WritableDisk, list: readonly Piece[]): Promise<void> {
  for (const { guest, what } of list) {
    if (typeof what === 'number') await disk.zero(guest, what, { unmap: true });
    else await disk.write(guest, what);
  }
}

async function writeAhead(disk: WritableDisk, list: readonly Piece[]): Promise<void> {
  const target = new AheadTarget(disk);
  await Promise.all(
    list.map(({ guest, what }) =>
      typeof what === 'number' ? target.zero(guest, what) : target.write(guest, what),
    ),
  );
}

for (let round = 0; round < 60; round++) {
  test(`an image, round ${round}`, async () => {
    const next = rng(SEED + round);
    const setting = randomWriteSetting(next);
    const about = `${describeSetting(setting)}, SEED=${SEED}`;
    const files = new MemoryFiles(firstFiles(next, setting));
    const fresh = await qcow2Engine().create(files, setting);
    const before = randomWorkload(next, setting, { batches: 6, resize: false });
    for (const request of before.flat()) await send(fresh, request);
    await fresh.close();

    const twin = new MemoryFiles(new Map([...files.all].map(([name, one]) => [name, one.copy()])));
    const later: FileOpener = {
      open: (name) => answeringLater(files.open(name), () => next.below(5)),
    };
    const disk = await qcow2Engine().open(later, setting);
    const other = await qcow2Engine().open(twin, setting);
    const list = pieces(next, setting.size, next.pick([512, 2 ** setting.clusterBits]));
    await writeAhead(disk, list);
    await writeOneByOne(other, list);
    assert.is(firstDifference(await readWhole(disk), await readWhole(other)), '', about);
    await disk.close();
    await other.close();
    for (const [name, one] of files.all) {
      const same = twin.all.get(name) as typeof one;
      assert.is(firstDifference(one.toBytes(), same.toBytes()), '', `${name}, ${about}`);
    }
  });
}

test('a raw disk', async () => {
  const next = rng(SEED);
  const size = 2 ** 16;
  const bytes = randomBytes(next, size);
  const [storage, twin] = [memoryStorage(bytes.slice()), memoryStorage(bytes.slice())];
  const later = answeringLater(storage, () => next.below(5));
  const disk = await RawImage.open(later, { writable: true });
  const other = await RawImage.open(twin, { writable: true });
  const list = pieces(next, size, 512);
  await writeAhead(disk, list);
  await writeOneByOne(other, list);
  assert.is(firstDifference(storage.snapshot(), twin.snapshot()), '', `SEED=${SEED}`);
});

test('what reads a raw disk waits for what is being written', async () => {
  const storage = answeringLater(memoryStorage(new Uint8Array(4096)), () => 3);
  const disk = await RawImage.open(storage, { writable: true });
  const under = await disk.writeAhead(0, new Uint8Array(512).fill(7));
  const into = new Uint8Array(512);
  await disk.read(0, into);
  assert.is(into[511], 7);
  await under.written;
});

test('who follows a write that lets go of clusters waits until it has', async () => {
  const setting = { ...SMALL, clusterBits: 12, size: 2 ** 18 };
  const files = new MemoryFiles(firstFiles(rng(SEED), setting));
  const later: FileOpener = { open: (name) => answeringLater(files.open(name), () => 3) };
  await (await qcow2Engine().create(later, setting)).close();
  const disk = await qcow2Engine().open(later, setting);
  const bytes = new Uint8Array(4096).fill(5);
  await disk.writeCompressed(4096, bytes);
  const isDone = async (guest: number) => {
    let done = false;
    const under = await disk.writeAhead?.(guest, bytes);
    under?.written.then(() => {
      done = true;
    });
    await tick();
    const was = done;
    await under?.written;
    return was;
  };
  assert.is(await isDone(0), false, 'a new cluster');
  assert.is(await isDone(0), false, 'its own cluster');
  assert.is(await isDone(4096), true, 'in place of a stream');
  await disk.close();
});

test('no request begins after one that failed', async () => {
  const file = memoryStorage(new Uint8Array(4096));
  let begun = 0;
  const failing = standIn<Storage>(file, {
    write() {
      begun++;
      throw new Qcow2Error('NO_SPACE', 'full');
    },
  });
  const target = new AheadTarget(await RawImage.open(failing, { writable: true }));
  const ends = await Promise.allSettled(
    [0, 512, 1024].map((guest) => target.write(guest, new Uint8Array(512).fill(1))),
  );
  assert.is(begun, 1);
  for (const end of ends) {
    assert.is(end.status, 'rejected');
    assert.is((end as PromiseRejectedResult).reason.code, 'NO_SPACE');
  }
});

test('a write fails while others are under way: theirs are whole', async () => {
  const next = rng(SEED);
  const setting = { ...SMALL, clusterBits: 12, size: 2 ** 18 };
  const files = new MemoryFiles(firstFiles(next, setting));
  let left = 5;
  const later: FileOpener = {
    open(name) {
      const file = files.open(name);
      return answeringLater(
        standIn<Storage>(file, {
          write(at, from) {
            if (from.length === 4096 && from[0] === 9 && --left === 0) {
              throw new Qcow2Error('IO', 'no');
            }
            return file.write(at, from);
          },
        }),
        () => next.below(4),
      );
    },
  };
  await (await qcow2Engine().create(later, setting)).close();
  const disk = await qcow2Engine().open(later, setting);
  const target = new AheadTarget(disk);
  const bytes = new Uint8Array(4096).fill(9);
  const ends = await Promise.allSettled(
    Array.from({ length: 20 }, (_, index) => target.write(index * 8192, bytes)),
  );
  assert.is(ends.filter(({ status }) => status === 'rejected').length > 0, true);
  const into = new Uint8Array(4096);
  for (const [index, { status }] of ends.entries()) {
    if (status === 'rejected') continue;
    await disk.read(index * 8192, into);
    assert.is(firstDifference(into, bytes), '', `write ${index}, SEED=${SEED}`);
  }
  await disk.close();
});

test.run();
