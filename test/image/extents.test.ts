/** Extents of disks larger than what is looked at in one go. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { extentWindow } from '../../src/image/disk.ts';
import { openDisk } from '../../src/image/open.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { collect } from './disk-contract.ts';
import { buildTiny, type Cluster } from './tiny-qcow2.ts';

const test = suite('extents of large disks');

const CLUSTER = 512;

async function open(size: number, clusters: Map<number, Cluster>) {
  const { file } = buildTiny({ version: 3, clusterBits: 9, size }, clusters);
  return openDisk(memoryStorage(file));
}

test('ranges that go on from window to window are one extent', async () => {
  const disk = await open(2 ** 27, new Map([[9, { kind: 'zero' }]]));
  assert.ok(disk.size > 3 * extentWindow(disk));
  const extents = await collect(disk.extents());
  assert.equal(
    extents.map(({ kind, guest, length }) => [kind, guest, length]),
    [
      ['hole', 0, 9 * CLUSTER],
      ['zero', 9 * CLUSTER, CLUSTER],
      ['hole', 10 * CLUSTER, disk.size - 10 * CLUSTER],
    ],
  );
});

test('no window cuts a compressed cluster in two, wherever the range starts', async () => {
  const bytes = new Uint8Array(CLUSTER).fill(7);
  const size = 2 ** 27;
  const at = extentWindow(await open(size, new Map()));
  const disk = await open(size, new Map([[at / CLUSTER, { kind: 'compressed', bytes }]]));
  for (const from of [0, 100, 511, 513]) {
    const extents = await collect(disk.extents(from, at + 2 * CLUSTER));
    assert.equal(
      extents.map(({ kind, guest, length }) => [kind, guest, length]),
      [
        ['hole', from, at - from],
        ['compressed', at, CLUSTER],
        ['hole', at + CLUSTER, CLUSTER],
      ],
    );
  }
});

test('a window meets a bounded number of clusters, and is a multiple of each', async () => {
  for (const clusterBits of [9, 16, 21]) {
    const { file } = buildTiny({ version: 3, clusterBits, size: 512 }, new Map());
    const window = extentWindow(await openDisk(memoryStorage(file)));
    assert.ok(window / 2 ** clusterBits <= 65_536);
    assert.is(window % 2 ** 21, 0);
  }
});

test.run();
