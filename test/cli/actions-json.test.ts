/**
 * `--output=json` of commands that qemu-img has no JSON for: exact values, and those that qemu-img
 * tells of the same image elsewhere.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { inScratch, qemuImg, qemuIo, run, tool } from '../tool.ts';

const test = qemuSuite('JSON of actions');

async function told(cwd: string, ...args: string[]): Promise<unknown> {
  const { code, stdout, stderr } = await tool([...args], { cwd });
  assert.is(code, 0, stderr);
  assert.is(stderr, '');
  return JSON.parse(stdout.toString());
}

async function infoOf(cwd: string, name: string) {
  return JSON.parse((await qemuImg(['info', '--output=json', name], { cwd })).toString());
}

test('snapshot tells of the one that it took, went back to or deleted', () =>
  inScratch(async (folder) => {
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a', '1M'], { cwd: folder });
    const act = (...args: string[]) => told(folder, 'snapshot', '--output=json', ...args, 'a');
    assert.equal(await act('-l'), []);
    const created = await act('-c', 'one');
    await act('-c', 'two');
    const { snapshots } = await infoOf(folder, 'a');
    assert.is(snapshots.length, 2);
    assert.equal(created, { action: 'create', snapshot: snapshots[0] });
    assert.equal(await act('-l'), snapshots);
    assert.equal(await act('-a', '2'), { action: 'apply', snapshot: snapshots[1] });
    assert.equal(await act('-d', 'one'), { action: 'delete', snapshot: snapshots[0] });
    assert.equal(await act('-l'), [snapshots[1]]);
    assert.equal(await act(), {}, 'no action');
  }));

test('bitmap tells of the bitmaps that there are in the end', () =>
  inScratch(async (folder) => {
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a', '1M'], { cwd: folder });
    const act = (...args: string[]) => told(folder, 'bitmap', '--output=json', ...args);
    const one = { name: 'one', granularity: 65536, enabled: true, inconsistent: false };
    const two = { name: 'two', granularity: 4096, enabled: false, inconsistent: false };
    assert.equal(await act('--add', 'a', 'one'), [one]);
    assert.equal(await act('--add', '--disable', '-g', '4k', 'a', 'two'), [one, two]);
    assert.equal(await act('--list', 'a'), [one, two]);
    const { bitmaps } = (await infoOf(folder, 'a'))['format-specific'].data;
    assert.equal(bitmaps, [
      { flags: ['auto'], name: 'one', granularity: 65536 },
      { flags: [], name: 'two', granularity: 4096 },
    ]);
    // Left in use by whoever had it open.
    const bytes = readFileSync(join(folder, 'a'));
    const directory = Number(bytes.readBigUInt64BE(bytes.indexOf('23852875', 0, 'hex') + 24));
    bytes.writeUInt32BE(bytes.readUInt32BE(directory + 12) | 1, directory + 12);
    writeFileSync(join(folder, 'a'), bytes);
    assert.equal(await act('--list', 'a'), [{ ...one, inconsistent: true }, two]);
    assert.equal(await act('--remove', 'a', 'one'), [two]);
  }));

test('convert tells of bytes and clusters', () =>
  inScratch(async (folder) => {
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a', '1M'], { cwd: folder });
    const fill = ['write -P 1 0 128k', 'write -z 128k 64k', 'write -c -P 3 256k 64k'];
    await qemuIo('a', [...fill, 'write -P 0 512k 64k'], { cwd: folder });
    const convert = (...args: string[]) => told(folder, 'convert', '--output=json', ...args);
    // Two clusters of data, one of zeros, and the sector that the compressed one lies in.
    const read = 3 * 65536 + 512;
    const same = { 'disk-size': 2 ** 20, 'bytes-read': read, 'bytes-skipped': 2 ** 20 - 3 * 65536 };
    assert.equal(await convert('-O', 'raw', 'a', 'b'), {
      ...same,
      'bytes-written': 3 * 65536,
      clusters: { data: 0, compressed: 0, copied: 0 },
    });
    assert.equal(await convert('-O', 'qcow2', 'a', 'c'), {
      ...same,
      'bytes-written': 3 * 65536,
      clusters: { data: 3, compressed: 0, copied: 0 },
    });
    const packed = (await convert('-c', '-O', 'qcow2', 'a', 'd')) as Record<string, unknown>;
    const { 'bytes-written': written, ...rest } = packed;
    assert.equal(rest, { ...same, clusters: { data: 0, compressed: 2, copied: 1 } });
    assert.ok((written as number) > 0 && (written as number) < 4096, String(written));
    for (const name of ['b', 'c', 'd']) await qemuImg(['compare', 'a', name], { cwd: folder });
  }));

test('convert counts the clusters of targets that are written through the engine', () =>
  inScratch(async (folder) => {
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a', '8M'], { cwd: folder });
    await qemuImg(['bitmap', '--add', '-g', '4k', 'a', 'dirty'], { cwd: folder });
    const fill = ['write -P 1 60k 8k', 'write -P 2 300k 1k', 'write -P 3 3M 3001k'];
    await qemuIo('a', fill, { cwd: folder });
    const count = async (options: string[], setting: string) => {
      await qemuImg(['create', '-q', '-f', 'qcow2', '-o', setting, 'b', '8M'], { cwd: folder });
      const result = await told(folder, 'convert', '--output=json', ...options, 'a', 'b');
      const check = await qemuImg(['check', '--output=json', 'b'], { cwd: folder });
      const { clusters } = result as { clusters: Record<string, number> };
      assert.is(clusters.data, JSON.parse(check.toString())['allocated-clusters'], setting);
    };
    for (const setting of ['cluster_size=512', 'cluster_size=4k', 'cluster_size=64k']) {
      await count(['-n', '-O', 'qcow2'], setting);
      await count(['-n', '-O', 'qcow2', '--bitmap', 'dirty'], setting);
      await count(['-O', 'qcow2', '-o', setting], setting);
      await count(['-O', 'qcow2', '--bitmap', 'dirty', '-o', setting], setting);
    }
  }));

test('compare tells what differs, and where', () =>
  inScratch(async (folder) => {
    for (const [name, ...commands] of [
      ['a'],
      ['b', 'write -P 1 64k 512'],
      ['c', 'write -z 0 64k'],
    ]) {
      await qemuImg(['create', '-q', '-f', 'qcow2', name as string, '1M'], { cwd: folder });
      await qemuIo(name as string, commands, { cwd: folder });
    }
    const compare = async (...args: string[]) => {
      const { code, stdout } = await tool(['compare', '--output=json', ...args], { cwd: folder });
      return { code, told: JSON.parse(stdout.toString()) };
    };
    const sizes = { 'virtual-sizes': [2 ** 20, 2 ** 20] };
    assert.equal(await compare('a', 'c'), { code: 0, told: { identical: true, ...sizes } });
    const content = { identical: false, ...sizes, difference: 'content', offset: 65536 };
    assert.equal(await compare('a', 'b'), { code: 1, told: content });
    // What is said of a range counts from its start, as in qemu-img.
    assert.equal(await compare('-s', 'a', 'b'), {
      code: 1,
      told: { ...content, difference: 'status', offset: 0 },
    });
    const said = await run(requireQemu().img, ['compare', '-s', 'a', 'b'], { cwd: folder });
    assert.match(said.stdout.toString(), 'Offset 0 block status mismatch!');
    const quiet = await tool(['compare', '-q', '--output=json', 'a', 'b'], { cwd: folder });
    assert.is(quiet.code, 1);
    assert.is(quiet.stdout.toString(), '');
  }));

test.run();
