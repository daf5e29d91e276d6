// Bytes that the host copies out of another file: the disk, and its file, are those that the same
// writes would make. Replay a failure with SEED=….
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { RawImage } from '../../src/image/raw/raw-image.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { rng, SEED } from '../random.ts';
import { copying } from './copying-storage.ts';
import { type FileOpener, MemoryFiles } from './paged-bytes.ts';
import { qcow2Engine } from './qcow2-engine.ts';
import { randomWorkload, send } from './workload.ts';
import {
  describeSetting,
  firstDifference,
  firstFiles,
  randomBytes,
  randomWriteSetting,
  readWhole,
  SMALL,
} from './write-engine.ts';

const test = suite('copyFrom');

const HOSTS = [
  { about: 'all', bytesMax: (length: number) => length },
  { about: 'nothing', bytesMax: () => 0 },
  { about: 'a part', bytesMax: (length: number) => length >> 1 },
];

for (let round = 0; round < 40; round++) {
  const host = HOSTS[round % HOSTS.length] as (typeof HOSTS)[number];
  test(`a host that copies ${host.about}, round ${round}`, async () => {
    const next = rng(SEED + round);
    const setting = randomWriteSetting(next);
    const about = `${describeSetting(setting)}, SEED=${SEED}`;
    const files = new MemoryFiles(firstFiles(next, setting));
    const isWhole = host.about === 'all';
    // What lies behind a file's end is zeros, and left to the writer.
    const fileBytes = randomBytes(next, isWhole ? setting.size : 1 + next.below(setting.size));
    const source = memoryStorage(fileBytes, { writable: false });
    const fresh = await qcow2Engine().create(files, setting);
    const before = randomWorkload(next, setting, { batches: 6, resize: false });
    for (const request of before.flat()) await send(fresh, request);
    await fresh.close();

    const twin = new MemoryFiles(new Map([...files.all].map(([name, one]) => [name, one.copy()])));
    const copies: FileOpener = { open: (name) => copying(files.open(name), host.bytesMax) };
    const disk = await qcow2Engine().open(copies, setting);
    const written = await qcow2Engine().open(twin, setting);
    for (let request = 0; request < 8; request++) {
      const unit = next.pick([1, 512, 2 ** setting.clusterBits]);
      const guest = unit * next.below(Math.ceil(setting.size / unit));
      const length = 1 + next.below(setting.size - guest);
      const from = next.below(isWhole ? setting.size - length + 1 : fileBytes.length);
      const done = (await disk.copyFrom?.(source, from, guest, length)) ?? 0;
      if (isWhole) assert.is(done, length, about);
      const bytes = new Uint8Array(length);
      bytes.set(fileBytes.subarray(from, from + length));
      if (done < length) await disk.write(guest + done, bytes.subarray(done));
      await written.write(guest, bytes);
    }
    assert.is(firstDifference(await readWhole(disk), await readWhole(written)), '', about);
    await disk.close();
    await written.close();
    if (!isWhole) return;
    for (const [name, one] of files.all) {
      const same = twin.all.get(name) as typeof one;
      assert.is(firstDifference(one.toBytes(), same.toBytes()), '', `${name}, ${about}`);
    }
  });
}

test('a host that copies nothing is asked once', async () => {
  const next = rng(SEED);
  const setting = { ...SMALL, clusterBits: 12, size: 2 ** 19 };
  const files = new MemoryFiles(firstFiles(next, setting));
  let asked = 0;
  const copies: FileOpener = {
    open: (name) =>
      copying(files.open(name), () => {
        asked++;
        return 0;
      }),
  };
  const disk = await qcow2Engine().create(copies, setting);
  const source = memoryStorage(randomBytes(next, 2 ** 19));
  for (let guest = 0; guest < setting.size; guest += 4096) {
    const done = (await disk.copyFrom?.(source, guest, guest, 4096)) ?? 0;
    if (guest > 0) assert.is(done, 0);
    if (done < 4096) {
      await disk.write(guest + done, source.snapshot().subarray(guest + done, guest + 4096));
    }
  }
  assert.is(firstDifference(await readWhole(disk), source.snapshot()), '');
  assert.is(asked, 1);
  await disk.close();
});

test('a raw disk has its file copy, as far as that does', async () => {
  const next = rng(SEED);
  const source = memoryStorage(randomBytes(next, 4096));
  const storage = memoryStorage(new Uint8Array(8192));
  const disk = await RawImage.open(
    copying(storage, () => 700),
    { writable: true },
  );
  assert.is(await disk.copyFrom(source, 1024, 512, 2048), 700);
  assert.is(
    firstDifference(storage.snapshot().slice(512, 1212), source.snapshot().slice(1024, 1724)),
    '',
  );
  const plain = await RawImage.open(memoryStorage(new Uint8Array(8192)), { writable: true });
  assert.is(await plain.copyFrom(source, 0, 0, 512), 0);
});

test.run();
