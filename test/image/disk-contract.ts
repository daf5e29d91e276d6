/** What every disk must keep, as a suite that is a function of an implementation. */
import { inflateRaw } from 'pako';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { type Disk, type Extent, ExtentList } from '../../src/image/disk.ts';
import { rng, SEED } from '../random.ts';

/** An open disk, and what it must read. */
export interface DiskUnderTest {
  readonly disk: Disk;
  readonly model: Uint8Array;
  /** What was opened for it and is not closed, or was used wrongly; empty when all is well. */
  leaks(): string;
}

/** Opens a disk anew for each test. */
export type OpenForTest = (seed: number) => Promise<DiskUnderTest>;

/** Empty where equal. */
export function unlike(actual: Uint8Array, expected: Uint8Array): string {
  if (actual.length !== expected.length) return `length ${actual.length}, not ${expected.length}`;
  for (let i = 0; i < actual.length; i++) {
    if (actual[i] !== expected[i]) return `at ${i}: ${actual[i]}, not ${expected[i]}`;
  }
  return '';
}

async function checkRead(disk: Disk, model: Uint8Array, guest: number, length: number) {
  const into = new Uint8Array(length).fill(0xa5);
  await disk.read(guest, into);
  const wrong = unlike(into, model.subarray(guest, guest + length));
  assert.is(wrong, '', `read of ${length} at ${guest}, SEED=${SEED}`);
}

/** All of an iteration. */
export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}

/** The bytes that an extent promises, found without the engine. */
async function bytesOf(disk: Disk, extent: Extent): Promise<Uint8Array> {
  const { kind, length, host, storage, stream, depth } = extent;
  const bytes = new Uint8Array(length);
  if (kind === 'hole' || kind === 'zero') return bytes;
  const source = disk.sources.find((each) => each.storage === storage);
  assert.ok(source, 'the extent lies in one of the disk’s files');
  assert.is(source.depth, depth);
  if (kind === 'data') {
    const got = await source.storage.read(host!, bytes);
    bytes.fill(0, got);
    return bytes;
  }
  const packed = new Uint8Array(stream!.length);
  const got = await source.storage.read(stream!.at, packed);
  const plain = inflateRaw(packed.subarray(0, got));
  assert.is(plain.length, source.clusterSize);
  return plain.slice(stream!.skip, stream!.skip + length);
}

/** True where the second extent says nothing that a longer first one would not. */
function joins(a: Extent, b: Extent): boolean {
  if (a.kind !== b.kind || a.kind === 'compressed') return false;
  if (a.depth !== b.depth || a.storage !== b.storage) return false;
  return a.host === undefined ? b.host === undefined : a.host + a.length === b.host;
}

/** The part of a list of extents that lies in [from, to). */
function clip(extents: readonly Extent[], from: number, to: number): Extent[] {
  return extents.flatMap((extent) => {
    const start = Math.max(from, extent.guest);
    const end = Math.min(to, extent.guest + extent.length);
    if (start >= end) return [];
    const skip = start - extent.guest;
    const host = extent.host === undefined ? undefined : extent.host + skip;
    const part = { ...extent, guest: start, length: end - start, host };
    if (!extent.stream) return [part];
    return [{ ...part, stream: { ...extent.stream, skip: extent.stream.skip + skip } }];
  });
}

/** Extents without their storages, which are compared by identity and print badly. */
function plain(disk: Disk, extents: readonly Extent[]): unknown[] {
  return extents.map((extent) => ({
    ...extent,
    storage: disk.sources.findIndex(({ storage }) => storage === extent.storage),
  }));
}

async function refused(work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'OUT_OF_RANGE'), String(cause));
    return;
  }
  assert.unreachable('OUT_OF_RANGE was expected');
}

/** Holds a disk to the contract. */
export function diskSuite(title: string, open: OpenForTest): void {
  const test = suite(`disk: ${title}`);

  const use = async (work: (under: DiskUnderTest) => Promise<void>) => {
    const under = await open(SEED);
    try {
      await work(under);
    } finally {
      await under.disk.close();
    }
    assert.is(under.leaks(), '', `close closes everything, once; SEED=${SEED}`);
  };

  test('is as large as it should be', () =>
    use(async ({ disk, model }) => assert.is(disk.size, model.length)));

  test('reads whole', () =>
    use(async ({ disk, model }) => checkRead(disk, model, 0, model.length)));

  test('reads at any offset and length', () =>
    use(async ({ disk, model }) => {
      const next = rng();
      for (let i = 0; i < 60; i++) {
        const guest = next.below(model.length + 1);
        const most = Math.min(model.length - guest, next.pick([0, 1, 512, 5000, 200_000]));
        await checkRead(disk, model, guest, next.below(most + 1));
      }
    }));

  test('reads that run at once do not disturb each other', () =>
    use(async ({ disk, model }) => {
      const next = rng();
      const reads = Array.from({ length: 40 }, () => {
        const guest = next.below(model.length);
        const length = next.below(Math.min(model.length - guest, 100_000));
        return checkRead(disk, model, guest, length);
      });
      const listed = collect(disk.extents());
      await Promise.all([...reads, listed]);
      const again = await collect(disk.extents());
      assert.equal(plain(disk, await listed), plain(disk, again));
    }));

  test('refuses what reaches past its end', () =>
    use(async ({ disk }) => {
      const { size } = disk;
      await disk.read(size, new Uint8Array());
      await refused(() => disk.read(size, new Uint8Array(1)));
      await refused(() => disk.read(size - 1, new Uint8Array(2)));
      await refused(() => disk.read(size + 1, new Uint8Array()));
      await refused(() => disk.read(-1, new Uint8Array(1)));
      await refused(() => disk.read(-512, new Uint8Array(512)));
      await refused(() => collect(disk.extents(0, size + 1)));
      await refused(() => collect(disk.extents(-1, size)));
    }));

  test('extents cover it in order, without gaps, joined, and agree with read', () =>
    use(async ({ disk, model }) => {
      const extents = await collect(disk.extents());
      let at = 0;
      for (const [index, extent] of extents.entries()) {
        assert.is(extent.guest, at, `SEED=${SEED}`);
        assert.ok(extent.length > 0);
        at += extent.length;
        const before = extents[index - 1];
        if (before) assert.not(joins(before, extent), `not joined at ${extent.guest}`);
        const bytes = await bytesOf(disk, extent);
        const wrong = unlike(bytes, model.subarray(extent.guest, extent.guest + extent.length));
        assert.is(wrong, '', `${extent.kind} at ${extent.guest}, SEED=${SEED}`);
      }
      assert.is(at, model.length);
    }));

  test('extents of a part are that part of all extents', () =>
    use(async ({ disk, model }) => {
      const next = rng();
      const all = await collect(disk.extents());
      for (let i = 0; i < 25; i++) {
        const from = next.below(model.length + 1);
        const to = from + next.below(model.length - from + 1);
        const part = await collect(disk.extents(from, to));
        const place = `[${from}, ${to}) SEED=${SEED}`;
        assert.equal(plain(disk, part), plain(disk, clip(all, from, to)), place);
      }
    }));

  test('extents in bulk count their sources from where they are told', () =>
    use(async ({ disk }) => {
      const list = new ExtentList();
      await disk.collectExtents(0, disk.size, list, 5);
      const all = await collect(disk.extents());
      assert.is(list.count, all.length);
      for (const [index, extent] of all.entries()) {
        assert.is(disk.sources[list.source(index) - 5]?.storage, extent.storage);
      }
    }));

  test.run();
}
