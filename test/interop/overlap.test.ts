/**
 * An L2 entry that names metadata: which of that a write is kept from, at which level, is what
 * QEMU says.
 */
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { openDisk } from '../../src/image/open.ts';
import {
  guardedKinds,
  OVERLAP_LEVELS,
  type OverlapOptions,
} from '../../src/image/qcow2/overlap-options.ts';
import { openNodeFile } from '../../src/storage/node-file.ts';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { eachAtOnce, inScratch, qemuImg, qemuIo, run } from '../tool.ts';

const IMAGE = 'image.qcow2';

/** Where an image has its metadata, found in its bytes. */
function placesOf(bytes: Buffer): Map<string, number> {
  const u64 = (at: number) => Number(bytes.readBigUInt64BE(at) & 0x00ff_ffff_ffff_fe00n);
  const [l1, table, snapshots] = [u64(40), u64(48), u64(64)];
  const inactive = u64(snapshots);
  const extension = bytes.indexOf(Buffer.from('23852875', 'hex'));
  return new Map([
    ['main-header', 0],
    ['active-l1', l1],
    ['active-l2', u64(l1)],
    ['refcount-table', table],
    ['refcount-block', u64(table)],
    ['snapshot-table', snapshots],
    ['inactive-l1', inactive],
    ['inactive-l2', u64(inactive)],
    ['bitmap-directory', Number(bytes.readBigUInt64BE(extension + 8 + 16))],
  ]);
}

/** An image with all kinds of metadata. */
async function makeImage(folder: string): Promise<void> {
  const cwd = folder;
  await qemuImg(['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', IMAGE, '1M'], { cwd });
  await qemuImg(['bitmap', '--add', '--disable', IMAGE, 'b'], { cwd });
  await qemuIo(IMAGE, ['write 0 64k'], { cwd });
  await qemuImg(['snapshot', '-c', 's', IMAGE], { cwd });
  await qemuIo(IMAGE, ['write 0 64k'], { cwd });
}

/** The same as the library takes it. */
function optionsOf(named: ReadonlyMap<string, string>): OverlapOptions {
  const entries = [...named].map(([name, value]) => {
    if (name === '' || name === 'template') return ['template', value];
    return [name, value === 'on'];
  });
  return Object.fromEntries(entries) as OverlapOptions;
}

/** Whether QEMU stops a write to the first cluster. */
async function theirs(folder: string, name: string, option: string): Promise<boolean> {
  const target = `driver=qcow2,${option}file.driver=file,file.filename=${name}`;
  const args = ['--image-opts', '-c', 'write -P 1 0 4k', target];
  const { stdout } = await run(requireQemu().io, args, { cwd: folder });
  return stdout.includes('failed');
}

/** Whether we do. */
async function ours(path: string, overlapCheck: OverlapOptions): Promise<boolean> {
  const file = openNodeFile(path, { writable: true });
  const disk = await openDisk(file, { writable: true, overlapCheck });
  try {
    await disk.write(0, new Uint8Array(4096).fill(1));
    return false;
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'CORRUPT'), String(cause));
    return true;
  } finally {
    await disk.close().catch(() => {});
  }
}

const test = qemuSuite('levels of the overlap check');

test('stop what QEMU stops', () =>
  inScratch(async (folder) => {
    await makeImage(folder);
    const bytes = readFileSync(join(folder, IMAGE));
    const places = placesOf(bytes);
    const l2 = places.get('active-l2') as number;
    const cases = [...places].flatMap(([kind, at]) => [
      ...OVERLAP_LEVELS.map((level) => ({ kind, at, options: new Map([['', level as string]]) })),
      { kind, at, options: new Map([[kind, 'off']]) },
      {
        kind,
        at,
        options: new Map([
          ['template', 'none'],
          [kind, 'on'],
        ]),
      },
    ]);
    await eachAtOnce(cases.entries(), async ([index, { kind, at, options }]) => {
      const broken = Buffer.from(bytes);
      broken.writeBigUInt64BE(BigInt(at) | (1n << 63n), l2);
      const names = [`${index}.ours`, `${index}.theirs`] as const;
      writeFileSync(join(folder, names[0]), broken);
      copyFileSync(join(folder, names[0]), join(folder, names[1]));
      const text = [...options].map(
        ([name, value]) => `overlap-check${name === '' ? '' : `.${name}`}=${value},`,
      );
      const parsed = optionsOf(options);
      const mine = await ours(join(folder, names[0]), parsed);
      assert.is(mine, await theirs(folder, names[1], text.join('')), `${kind} ${text}`);
      // An entry without a place is none to be kept from: offset 0 is the header's.
      if (kind !== 'main-header') assert.is(mine, guardedKinds(parsed).has(kind as never), kind);
    });
  }));

test('snapshots come and go under the highest level', () =>
  inScratch(async (folder) => {
    await makeImage(folder);
    const file = openNodeFile(join(folder, IMAGE), { writable: true });
    const disk = await openDisk(file, { format: 'qcow2', writable: true, overlapCheck: 'all' });
    const { Qcow2Image } = await import('../../src/image/qcow2/qcow2-image.ts');
    if (!(disk instanceof Qcow2Image)) throw new Error('not qcow2');
    for (let round = 0; round < 3; round++) {
      await disk.write(round * 8192, new Uint8Array(20_000).fill(round + 1));
      await disk.snapshots.create({ name: `round ${round}` });
      await disk.write(round * 8192, new Uint8Array(10_000).fill(round + 9));
    }
    await disk.snapshots.delete('round 1');
    await disk.write(0, new Uint8Array(65536).fill(3));
    await disk.close();
    await qemuImg(['check', '-q', IMAGE], { cwd: folder });
  }));

test.run();
