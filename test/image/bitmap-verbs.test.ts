/** Bitmaps of an open image: verbs, limits, bits in bounded memory, and hostile tables. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type ErrorCode, isQcow2Error } from '../../src/base/errors.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { rng, SEED } from '../random.ts';
import { MemoryFiles } from './paged-bytes.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { IMAGE } from './write-engine.ts';

const test = suite('bitmap verbs');
const CLUSTER = 4096;
const SIZE = 2 ** 20;

async function make(size = SIZE, clusterSize = CLUSTER) {
  const files = MemoryFiles.empty(IMAGE);
  const image = await Qcow2Image.create(files.open(IMAGE), { size, clusterSize });
  return { files, image };
}

function reopen(files: MemoryFiles): Promise<Qcow2Image> {
  return Qcow2Image.open(files.open(IMAGE), { writable: true });
}

async function bits(image: Qcow2Image, name: string): Promise<number[][]> {
  const ranges: number[][] = [];
  for await (const { guest, length } of image.bitmaps.ranges(name)) ranges.push([guest, length]);
  return ranges;
}

async function refused(code: ErrorCode, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, code), String(cause));
    return;
  }
  assert.unreachable(`not refused: ${code}`);
}

function sound(files: MemoryFiles): void {
  const { corruptions, leaks, dirty } = checkQcow2(files.bytes(IMAGE));
  assert.equal([corruptions, leaks, dirty], [[], 0, false]);
}

test('ranges are set, cleared and read, also across an open', async () => {
  const { files, image } = await make();
  await image.bitmaps.add('x', { granularity: 512, enabled: false });
  await image.bitmaps.set('x', { guest: 1000, length: 3000 });
  assert.equal(await bits(image, 'x'), [[512, 3584]]);
  assert.is(await image.bitmaps.get('x', 600), true);
  assert.is(await image.bitmaps.get('x', 4096), false);
  await image.bitmaps.clear('x', { guest: 1024, length: 512 });
  const wanted = [
    [512, 512],
    [1536, 2560],
  ];
  await image.close();
  const again = await reopen(files);
  assert.equal(await bits(again, 'x'), wanted);
  await refused('OUT_OF_RANGE', () => again.bitmaps.set('x', { guest: SIZE, length: 1 }));
  await again.bitmaps.clear('x');
  assert.equal(await bits(again, 'x'), []);
  await again.close();
  sound(files);
});

test('merging between granularities is what the ranges say', async () => {
  const next = rng();
  for (let round = 0; round < 12; round++) {
    const size = 512 * (1 + next.below(16384));
    const { files, image } = await make(size, next.pick([512, 4096, 65536]));
    const grains = [9, 10, 12, 15, 16, 20, 31];
    const [from, to] = [2 ** next.pick(grains), 2 ** next.pick(grains)];
    await image.bitmaps.add('from', { granularity: from, enabled: false });
    await image.bitmaps.add('to', { granularity: to, enabled: false });
    const wanted = new Uint8Array(size / 512);
    const note = (guest: number, length: number) => {
      const start = Math.floor(guest / to) * to;
      const end = Math.min(size, Math.ceil((guest + length) / to) * to);
      wanted.fill(1, start / 512, end / 512);
    };
    for (const name of ['from', 'from', 'from', 'to']) {
      const guest = next.below(size);
      await image.bitmaps.set(name, {
        guest,
        length: 1 + next.below(Math.min(size - guest, 9000)),
      });
    }
    for (const name of ['from', 'to']) for (const [at, n] of await bits(image, name)) note(at!, n!);
    await image.bitmaps.merge('to', 'from');
    const found = new Uint8Array(size / 512);
    for (const [at, n] of await bits(image, 'to')) found.fill(1, at! / 512, (at! + n!) / 512);
    assert.equal(found, wanted, `SEED=${SEED} round ${round}: ${from} to ${to}`);
    await image.close();
    sound(files);
  }
});

test('bits of a disk that is far larger than the memory for them follow writes', async () => {
  const size = 2 ** 40;
  const { files, image } = await make(size, 65536);
  await image.bitmaps.add('x', { granularity: 4096 });
  const next = rng();
  const wanted = new Set<number>();
  for (let i = 0; i < 200; i++) {
    const at = 4096 * next.below(size / 4096);
    wanted.add(at);
    await image.zero(at, 512);
  }
  await image.close();
  const again = await reopen(files);
  const found = await bits(again, 'x');
  assert.equal(
    found.flatMap(([at, length]) =>
      Array.from({ length: length! / 4096 }, (_, i) => at! + i * 4096),
    ),
    [...wanted].sort((a, b) => a - b),
    `SEED=${SEED}`,
  );
  await again.close();
  sound(files);
});

test('a bitmap in use is only listed, and can only go', async () => {
  const { files, image } = await make();
  await image.bitmaps.add('x');
  await image.write(0, new Uint8Array(CLUSTER).fill(1));
  // A crash: the file as it is now.
  const crashed = new MemoryFiles(
    new Map([...files.all].map(([name, bytes]) => [name, bytes.copy()])),
  );
  await image.close();
  const again = await reopen(crashed);
  assert.equal(
    again.bitmaps.list().map(({ name, inconsistent }) => [name, inconsistent]),
    [['x', true]],
  );
  for (const verb of ['clear', 'enable', 'disable'] as const) {
    await refused('CORRUPT', () => again.bitmaps[verb]('x'));
  }
  await refused('CORRUPT', () => bits(again, 'x'));
  await refused('CORRUPT', () => again.bitmaps.set('x', { guest: 0, length: 1 }));
  await again.write(CLUSTER, new Uint8Array(CLUSTER).fill(1));
  await again.bitmaps.remove('x');
  assert.equal(again.bitmaps.list(), []);
  await again.close();
  assert.equal(checkQcow2(crashed.bytes(IMAGE)).corruptions, []);
});

test('limits are typed errors', async () => {
  const { files, image } = await make();
  await refused('OUT_OF_RANGE', () => image.bitmaps.add(''));
  await refused('OUT_OF_RANGE', () => image.bitmaps.add('x', { granularity: 256 }));
  await refused('OUT_OF_RANGE', () => image.bitmaps.add('x', { granularity: 2 ** 32 }));
  await refused('OUT_OF_RANGE', () => image.bitmaps.add('x', { granularity: 1000 }));
  await refused('UNSUPPORTED', () => image.bitmaps.add('x'.repeat(1024)));
  await image.bitmaps.add('x');
  await refused('OUT_OF_RANGE', () => image.bitmaps.add('x'));
  await refused('OUT_OF_RANGE', () => image.bitmaps.remove('y'));
  await refused('OUT_OF_RANGE', () => image.bitmaps.merge('x', 'y'));
  await refused('UNSUPPORTED', async () => {
    await image.snapshots.create({ name: 's' });
    await image.snapshots.apply('s');
  });
  await image.close();
  sound(files);
  const reader = await Qcow2Image.open(files.open(IMAGE));
  await refused('READ_ONLY', async () => reader.bitmaps.add('z'));
  await reader.close();
});

/** Overwrites the first entry of the first bitmap's table. */
async function damaged(entry: number[]): Promise<MemoryFiles> {
  const { files, image } = await make();
  await image.bitmaps.add('x');
  await image.close();
  const bytes = files.bytes(IMAGE);
  const head = new Uint8Array(CLUSTER);
  bytes.read(0, head);
  const at = indexOf(head, [0x23, 0x85, 0x28, 0x75]);
  const directory = new DataView(head.buffer).getUint32(at + 8 + 20);
  const place = new Uint8Array(8);
  bytes.read(directory, place);
  bytes.write(new DataView(place.buffer).getUint32(4), Uint8Array.from(entry));
  return files;
}

function indexOf(bytes: Uint8Array, wanted: number[]): number {
  for (let at = 0; at < bytes.length; at++) {
    if (wanted.every((byte, i) => bytes[at + i] === byte)) return at;
  }
  return -1;
}

for (const [what, entry] of [
  ['a reserved bit', [0, 0, 0, 0, 0, 0, 0, 4]],
  ['a high reserved bit', [1, 0, 0, 0, 0, 0, 0, 0]],
  ['an unaligned offset', [0, 0, 0, 0, 0, 0, 0x12, 0]],
] as const) {
  test(`${what} in a bitmap table: reading is refused, writing goes on`, async () => {
    const files = await damaged([...entry]);
    const image = await reopen(files);
    await refused('CORRUPT', () => bits(image, 'x'));
    await image.write(0, new Uint8Array(CLUSTER).fill(3));
    const back = new Uint8Array(CLUSTER);
    await image.read(0, back);
    assert.is(back[0], 3);
    await image.close();
    const again = await reopen(files);
    assert.is(again.bitmaps.list()[0]?.inconsistent, true);
    await again.bitmaps.remove('x');
    await again.close();
  });
}

test.run();
