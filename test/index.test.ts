/** The library can do what the tool can, with nothing but memory: each verb through its face. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  benchDisk,
  checkStorage,
  commitDisk,
  compareDisks,
  convert,
  convertDirty,
  copyBitmaps,
  copyPlain,
  type Gate,
  mapDisk,
  measureQcow2,
  measureRaw,
  memoryStorage,
  openDisk,
  Qcow2Image,
  RawImage,
  rebaseImage,
  type Storage,
  type WritableDisk,
} from '../src/index.ts';

const test = suite('the library');
const SIZE = 2 ** 20;
const CLUSTER = 65536;

type Memory = ReturnType<typeof memoryStorage>;

/** Files by their names, each of which may be opened again and again. */
class Files {
  private readonly files = new Map<string, Memory>();

  /** The file, empty where it is new; closing it keeps it. */
  open(name: string): Storage {
    const file = this.files.get(name) ?? memoryStorage(new Uint8Array(), { name });
    this.files.set(name, file);
    return file;
  }

  readonly gate: Gate = ({ name }) => this.open(name);

  async image(name: string, writableDepth?: number): Promise<Qcow2Image> {
    const options = { writable: true, writableDepth, gate: this.gate } as const;
    const disk = await openDisk(this.open(name), options);
    assert.instance(disk, Qcow2Image);
    return disk as Qcow2Image;
  }

  async create(name: string, backing?: string): Promise<Qcow2Image> {
    const options = backing === undefined ? {} : { backing: { name: backing, format: 'qcow2' } };
    const create = { size: SIZE, ...options };
    await (await Qcow2Image.create(this.open(name), create, { backing: 'none' })).close();
    return this.image(name);
  }
}

async function byteAt(disk: { read(at: number, into: Uint8Array): Promise<void> }, at: number) {
  const byte = new Uint8Array(1);
  await disk.read(at, byte);
  return byte[0];
}

const bytes = (value: number, length = CLUSTER) => new Uint8Array(length).fill(value);

/** A base with ones at its start, and an overlay with twos behind them. */
async function makeChain(): Promise<Files> {
  const files = new Files();
  const base = await files.create('base');
  await base.write(0, bytes(1));
  await base.close();
  const overlay = await files.create('overlay', 'base');
  await overlay.write(CLUSTER, bytes(2));
  await overlay.close();
  return files;
}

test('snapshots: taken, listed, gone back to, deleted', async () => {
  const files = new Files();
  const image = await files.create('image');
  await image.write(0, bytes(1));
  await image.snapshots.create({ name: 'one', date: new Date(0) });
  await image.write(0, bytes(2));
  assert.equal(
    image.snapshots.list().map(({ name }) => name),
    ['one'],
  );
  await image.snapshots.apply('one');
  assert.is(await byteAt(image, 0), 1);
  await image.snapshots.delete('one');
  assert.is(image.snapshots.list().length, 0);
  await image.close();
});

test('bitmaps: added, set, iterated, copied, and what they say converted', async () => {
  const files = new Files();
  const image = await files.create('image');
  await image.bitmaps.add('changes', { granularity: CLUSTER });
  await image.write(3 * CLUSTER, bytes(3));
  const ranges = [];
  for await (const range of image.bitmaps.ranges('changes')) ranges.push(range);
  assert.equal(ranges, [{ guest: 3 * CLUSTER, length: CLUSTER }]);
  const other = await files.create('other');
  await copyBitmaps(image, other);
  assert.is(other.bitmaps.list()[0]?.name, 'changes');
  await other.bitmaps.remove('changes');
  await convertDirty(image, other, { bitmap: 'changes' });
  assert.is(await byteAt(other, 3 * CLUSTER), 3);
  await image.bitmaps.clear('changes');
  await image.close();
  await other.close();
});

test('check, of an image that is open and of a file', async () => {
  const files = await makeChain();
  const image = await files.image('overlay');
  assert.is((await image.check()).corruptions, 0);
  await image.close();
  assert.is((await checkStorage(files.open('base'), { repair: 'all' })).leaks, 0);
});

test('amend and resize', async () => {
  const files = await makeChain();
  const image = await files.image('base');
  await image.amend({ lazyRefcounts: true });
  await image.amend({ version: 2 });
  assert.is(image.header.version, 2);
  await image.resize(2 * SIZE);
  assert.is(image.size, 2 * SIZE);
  await image.close();
});

test('map, compare and measure', async () => {
  const files = await makeChain();
  const image = await files.image('overlay');
  const kinds = [];
  for await (const { length, depth, data } of mapDisk(image)) kinds.push([length, depth, data]);
  assert.equal(kinds.slice(0, 2), [
    [CLUSTER, 1, true],
    [CLUSTER, 0, true],
  ]);
  const raw = memoryStorage();
  await convert(image, { format: 'raw', file: raw });
  const copy = await RawImage.open(raw);
  assert.is((await compareDisks(image, copy)).identical, true);
  const target = {
    clusterSize: CLUSTER,
    refcountBits: 16,
    extendedL2: false,
    version: 3,
    backing: false,
    allocates: false,
    cryptoBytes: 0,
  } as const;
  const { required, fullyAllocated } = await measureQcow2(image, target);
  assert.ok(required > 2 * CLUSTER && required < fullyAllocated);
  assert.is(measureRaw(image).required, SIZE);
  await image.close();
});

test('commit, and the overlay is empty', async () => {
  const files = await makeChain();
  const overlay = await files.image('overlay', 1);
  await commitDisk(overlay, overlay.backing as WritableDisk);
  await overlay.makeEmpty();
  await overlay.close();
  const base = await files.image('base');
  assert.is(await byteAt(base, CLUSTER), 2);
  await base.close();
});

test('rebase, onto another file and onto none', async () => {
  const files = await makeChain();
  const other = await files.create('other');
  const overlay = await files.image('overlay');
  await rebaseImage(overlay, { name: 'other', format: 'qcow2', disk: other });
  await overlay.close();
  const moved = await files.image('overlay');
  assert.is(moved.backingName.name, 'other');
  assert.is(await byteAt(moved, 0), 1);
  await rebaseImage(moved, undefined);
  await moved.close();
  const alone = await files.image('overlay');
  assert.is(alone.backingName.name, undefined);
  assert.is(await byteAt(alone, 0), 1);
  await alone.close();
  await other.close();
});

test('bytes as they are, and requests at a depth', async () => {
  const files = await makeChain();
  const image = await files.image('overlay');
  const copy = await files.create('copy');
  await copyPlain(image, copy, { from: CLUSTER, length: 2 * CLUSTER });
  assert.is(await byteAt(copy, 0), 2);
  const extents = [];
  for await (const { kind, length } of copy.extents()) extents.push([kind, length]);
  // Zeros, too, are written.
  assert.equal(extents[0], ['data', 2 * CLUSTER]);
  await benchDisk(copy, { requests: 10, depth: 4, bytes: 512, pattern: 9 });
  assert.is(await byteAt(copy, 0), 9);
  await image.close();
  await copy.close();
});

test.run();
