/** Images that others made: each behaves as test/fixtures/corpus/README.md says. */
import { copyFileSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { openDisk } from '../../src/image/open.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { openNodeFile } from '../../src/storage/node-file.ts';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { rng } from '../random.ts';
import { askedAlike, inScratch, must, qemuImg, run, tool } from '../tool.ts';
import { mapOf, parseMap } from './map-json.ts';

const CORPUS = resolve('test/fixtures/corpus');
const corpus = (name: string) => join(CORPUS, name);

const test = qemuSuite('images that others made');

interface Sample {
  readonly name: string;
  readonly size: number;
  readonly version: 2 | 3;
  readonly kinds: readonly string[];
}

const SAMPLES: readonly Sample[] = [
  { name: 'dfvfs-ext2.qcow2', size: 4 * 2 ** 20, version: 3, kinds: ['data', 'hole'] },
  { name: 'plaso-image.qcow2', size: 102_400, version: 2, kinds: ['compressed', 'hole'] },
  { name: 'vasi-test.qcow2', size: 1000 * 2 ** 20, version: 3, kinds: ['data', 'hole'] },
  { name: 'terraform-512-byte.qcow2', size: 512, version: 3, kinds: ['hole'] },
];

for (const { name, size, version, kinds } of SAMPLES) {
  test(`${name} converts to the same bytes, and is mapped the same`, () =>
    inScratch(async (cwd) => {
      await qemuImg(['convert', '-O', 'raw', corpus(name), 'theirs.raw'], { cwd });
      const line = ['convert', '-f', 'qcow2', '-O', 'raw', corpus(name), 'ours.raw'];
      const { code, stderr } = await tool(line, { cwd });
      assert.is(stderr, '');
      assert.is(code, 0);
      // Passes over holes, which one of them has nearly a gigabyte of.
      const [ours, theirs] = ['ours.raw', 'theirs.raw'].map(
        (path) => statSync(join(cwd, path)).size,
      );
      assert.is(ours, theirs);
      const compare = ['compare', '-f', 'raw', '-F', 'raw', 'ours.raw', 'theirs.raw'];
      await qemuImg(compare, { cwd });

      const image = await Qcow2Image.open(openNodeFile(corpus(name)));
      assert.is(image.size, size);
      assert.is(image.header.version, version);
      const found = new Set<string>();
      for await (const { kind } of image.extents()) found.add(kind);
      assert.equal([...found].sort(), kinds);
      const json = await qemuImg(['map', '--output=json', corpus(name)], { cwd });
      const rules = { rawDepths: [] };
      assert.equal(await mapOf(image.extents()), parseMap(json.toString(), rules));
      await image.close();
    }));
}

test('an overlay without its base says which file is missing', () =>
  inScratch(async (cwd) => {
    const name = corpus('cdi-cirros-overlay.qcow2');
    const args = ['convert', '-O', 'raw', name, 'out.raw'];
    const ours = await tool(args, { cwd });
    const theirs = await run(requireQemu().img, args, { cwd });
    assert.is(ours.code, theirs.code);
    assert.is(ours.stderr, theirs.stderr.replace('qemu-img: ', 'qcow2-img: '));
    assert.not(existsSync(join(cwd, 'out.raw')));
  }));

test('an overlay is not followed by a library that was given no gate', async () => {
  try {
    await openDisk(openNodeFile(corpus('cdi-cirros-overlay.qcow2')));
    assert.unreachable();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'REFUSED'), String(cause));
    assert.match(cause.message, 'cirros.raw');
  }
});

test('an overlay whose base is there again reads through it', () =>
  inScratch(async (cwd) => {
    copyFileSync(corpus('cdi-cirros-overlay.qcow2'), join(cwd, 'a.qcow2'));
    const next = rng(1);
    const base = Buffer.alloc(2 ** 20);
    for (let at = 0; at < base.length; at += 4) base.writeUInt32LE(next.u32(), at);
    writeFileSync(join(cwd, 'cirros.raw'), base);
    await qemuImg(['convert', '-O', 'raw', 'a.qcow2', 'theirs.raw'], { cwd });
    assert.is((await tool(['convert', '-O', 'raw', 'a.qcow2', 'ours.raw'], { cwd })).code, 0);
    await must('cmp', ['ours.raw', 'theirs.raw'], { cwd });
  }));

test('65,536 snapshots of rubbish are no reason not to read the disk', () =>
  inScratch(async (cwd) => {
    const name = corpus('cdi-hostile-65536-snapshots.img');
    await qemuImg(['convert', '-O', 'raw', name, 'theirs.raw'], { cwd });
    const start = performance.now();
    const disk = await openDisk(openNodeFile(name));
    await disk.close();
    assert.ok(performance.now() - start < 60_000);
    const { code, stderr } = await tool(['convert', '-O', 'raw', name, 'ours.raw'], { cwd });
    assert.is(stderr, '');
    assert.is(code, 0);
    await must('cmp', ['ours.raw', 'theirs.raw'], { cwd });
    for (const output of ['human', 'json']) {
      const args = ['info', `--output=${output}`, name];
      const [ours, theirs] = await askedAlike(async () => {
        const { stdout } = await tool(args, { cwd });
        return [stdout.toString(), (await qemuImg(args, { cwd })).toString()];
      });
      assert.is(ours, theirs, output);
    }
    // Who may write would have to keep what it cannot tell.
    copyFileSync(name, join(cwd, 'a.qcow2'));
    try {
      await openDisk(openNodeFile(join(cwd, 'a.qcow2'), { writable: true }), { writable: true });
      assert.unreachable();
    } catch (cause) {
      assert.ok(isQcow2Error(cause, 'CORRUPT'), String(cause));
    }
  }));

test('a VMDK descriptor is no qcow2, and the file that it names is not opened', () =>
  inScratch(async (cwd) => {
    const name = corpus('cdi-hostile-not-qcow2.img');
    const refused = await tool(['convert', '-f', 'qcow2', '-O', 'raw', name, 'a.raw'], { cwd });
    assert.is(refused.code, 1);
    assert.match(refused.stderr, 'Image is not in qcow2 format');
    try {
      await openDisk(openNodeFile(name), { format: 'qcow2' });
      assert.unreachable();
    } catch (cause) {
      assert.ok(isQcow2Error(cause, 'NOT_QCOW2'), String(cause));
    }
    // What is not qcow2 is raw: the bytes of the file itself, and of no other.
    assert.is((await tool(['convert', '-O', 'raw', name, 'b.raw'], { cwd })).code, 0);
    const bytes = readFileSync(name);
    const padded = Buffer.alloc(Math.ceil(bytes.length / 512) * 512);
    bytes.copy(padded);
    assert.is(Buffer.compare(readFileSync(join(cwd, 'b.raw')), padded), 0);
  }));

test.run();
