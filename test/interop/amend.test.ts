// `amend` must leave what qemu-img leaves, and say the same: images of all kinds with snapshots, on
// backing files, are taken up and down, and through all widths of refcounts.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { amend } from '../../src/cli/commands/amend.ts';
import { qemuSuite } from '../oracle.ts';
import { rng, SEED } from '../random.ts';
import { difference, eachAtOnce, inScratch, qemuImg, qemuIo } from '../tool.ts';
import { ours, theirs } from './image-command.ts';
import { fillCommands, makeChain, randomSetting, writePattern } from './random-image.ts';
import { assertAlike, twoFolders } from './two-chains.ts';

const { SLOW } = process.env;
const RUNS = SLOW ? 100 : 4;
const test = qemuSuite('amend, beside qemu-img');

/** What qemu-img tells of an image, but for what it takes on the host. */
async function infoOf(cwd: string, name: string): Promise<unknown> {
  const printed = await qemuImg(['info', '-U', '--output=json', '-f', 'qcow2', name], { cwd });
  const info = JSON.parse(printed.toString());
  for (const key of ['actual-size', 'full-backing-filename', 'children']) delete info[key];
  for (const one of info.snapshots ?? []) delete one['vm-clock-sec'];
  return info;
}

/** What a folder has: where nothing has changed, nothing need be looked at again. */
function contentOf(folder: string): string {
  const hash = createHash('sha256');
  for (const name of readdirSync(folder).sort()) {
    hash.update(`${name}\0`).update(readFileSync(join(folder, name)));
  }
  return hash.digest('hex');
}

async function sameAmends(folder: string, lines: readonly string[], about: string) {
  const folders = twoFolders(folder);
  let before = '';
  for (const [index, line] of lines.entries()) {
    const args = line.split(' ').filter((arg) => arg !== '');
    const title = `SEED=${SEED}\n${about}\n${lines.slice(0, index + 1).join('\n')}`;
    const mine = await ours(amend, folders[0], args);
    const expected = await theirs('amend', folders[1], args);
    assert.equal(mine, expected, title);
    const after = folders.map(contentOf).join();
    if (after === before) continue;
    before = after;
    await assertAlike(folders, title);
    const name = args.at(-1) as string;
    if (!/^(image0|v[23])/.test(name)) continue;
    const [left, right] = await Promise.all(folders.map((one) => infoOf(one, name)));
    assert.equal(left, right, title);
  }
  return folders;
}

/** All that a snapshot shows. */
async function snapshotBytes(cwd: string, image: string, index: number): Promise<Buffer> {
  await qemuImg(['convert', '-l', `s${index}`, '-f', 'qcow2', '-O', 'raw', image, 'past'], { cwd });
  const bytes = readFileSync(`${cwd}/past`);
  rmSync(`${cwd}/past`);
  return bytes;
}

test('random images, step by step', async () => {
  await eachAtOnce(
    Array.from({ length: RUNS }, (_, index) => index),
    async (index) => {
      const next = rng(SEED * 1000 + index);
      await inScratch(async (folder) => {
        const cwd = folder;
        writePattern(next, folder);
        const fixed = { dataFile: 'none', compression: 'none', extended: false } as const;
        // Of large clusters QEMU changes the refcounts one by one: minutes.
        const clusterBits = next.pick([9, 10, 12, 16]);
        const refcountBits = next.pick([8, 16, 32, 64]);
        const depth = next.below(3);
        const version = next.pick([2, 3, 3] as const);
        const setting = {
          ...fixed,
          clusterBits,
          version,
          ...(version === 3 ? { refcountBits } : {}),
        };
        const { about, size } = await makeChain(next, folder, depth, setting);
        const image = 'image0.qcow2';
        let snapshots = 0;
        for (; next.oneIn(2) && snapshots < 3; snapshots++) {
          await qemuImg(['snapshot', '-c', `s${snapshots}`, image], { cwd });
          const more = { ...randomSetting(next), ...setting, clusterBits: 16, size };
          await qemuIo(image, fillCommands(next, more, 8), { cwd });
        }
        const steps = ['compat=1.1', 'compat=0.10,refcount_bits=16', 'compat=v3,lazy_refcounts=on'];
        for (const bits of [1, 2, 4, 8, 16, 32, 64]) steps.push(`refcount_bits=${bits}`);
        steps.push('lazy_refcounts=off', 'compat=0.10', 'compat=v2');
        const before: Buffer[] = [];
        for (let one = 0; one < snapshots; one++) before.push(await snapshotBytes(cwd, image, one));
        const lines = Array.from({ length: 3 }, () => `-f qcow2 -o ${next.pick(steps)} ${image}`);
        const folders = await sameAmends(folder, lines, about);
        // QEMU's own may have lost some: it writes zeros into clusters that snapshots share.
        for (const [one, bytes] of before.entries()) {
          const after = await snapshotBytes(folders[0], image, one);
          const title = `SEED=${SEED}\n${about}\n${lines.join('\n')}\nsnapshot s${one}`;
          assert.is(difference(after, bytes), '', title);
        }
      });
    },
  );
});

/** Makes the entry of an image's only snapshot one without extra data, as version 2 allows. */
function dropExtraData(path: string): void {
  const bytes = readFileSync(path);
  const entry = Number(bytes.readBigUInt64BE(64));
  const extraBytes = bytes.readUInt32BE(entry + 36);
  assert.ok(extraBytes > 0);
  const names = bytes.readUInt16BE(entry + 12) + bytes.readUInt16BE(entry + 14);
  const after = entry + 40 + extraBytes;
  bytes.copyWithin(entry + 40, after, after + names);
  bytes.writeUInt32BE(0, entry + 36);
  writeFileSync(path, bytes);
}

test('what can be changed, and what cannot', async () => {
  await inScratch(async (folder) => {
    const make = (name: string, options: string) =>
      qemuImg(['create', '-q', '-f', 'qcow2', '-o', options, name, '1M'], { cwd: folder });
    await make('v3.qcow2', 'compat=1.1');
    await make('v2.qcow2', 'compat=0.10');
    await make('extended.qcow2', 'extended_l2=on');
    await make('one.qcow2', 'refcount_bits=1');
    await make('file.qcow2', 'data_file=file.data');
    await make('backed.qcow2', 'backing_file=v3.qcow2,backing_fmt=qcow2');
    for (const name of ['v3empty.qcow2', 'v3plain.qcow2', 'v3packed.qcow2']) {
      await make(name, 'compression_type=zstd');
    }
    await qemuIo('v3plain.qcow2', ['write -P 1 0 100k'], { cwd: folder });
    await qemuIo('v3packed.qcow2', ['write -c -P 1 64k 64k'], { cwd: folder });
    await make('past.qcow2', 'compat=0.10');
    await qemuImg(['snapshot', '-c', 'one', 'past.qcow2'], { cwd: folder });
    await make('v3past.qcow2', 'refcount_bits=8');
    await qemuImg(['snapshot', '-c', 'one', 'v3past.qcow2'], { cwd: folder });
    await make('short.qcow2', 'compat=0.10');
    await qemuImg(['snapshot', '-c', 'one', 'short.qcow2'], { cwd: folder });
    dropExtraData(`${folder}/short.qcow2`);
    await qemuImg(['create', '-q', '-f', 'raw', 'raw', '1M'], { cwd: folder });
    const lines = [
      '',
      'v3.qcow2',
      '-o size=1',
      '-o foo=1 v3.qcow2',
      '-o cluster_size=4k v3.qcow2',
      '-o cluster_size=4k,foo=1 v3.qcow2',
      '-o cluster_size=x,size=1M v3.qcow2',
      '-o size=x,cluster_size=4k v3.qcow2',
      '-o compat=0.10 v3empty.qcow2',
      '-o compat=0.10 v3plain.qcow2',
      '-o compat=0.10,size=2M v3packed.qcow2',
      '-o compat=0.9 v3.qcow2',
      '-o compat=v2 v2.qcow2',
      '-o preallocation=full v3.qcow2',
      '-o refcount_bits=7 v3.qcow2',
      '-o refcount_bits=128 v3.qcow2',
      '-o refcount_bits=0 v3.qcow2',
      '-o compat=0.10,refcount_bits=8 v3.qcow2',
      '-o refcount_bits=8 v2.qcow2',
      '-o refcount_bits=16 v2.qcow2',
      '-o lazy_refcounts=on v2.qcow2',
      '-o compat=0.10,lazy_refcounts=on v3.qcow2',
      '-o compat=0.10 file.qcow2',
      '-o compat=0.10 extended.qcow2',
      '-o compat=0.10 one.qcow2',
      '-o data_file=foo v3.qcow2',
      '-o data_file_raw=on v3.qcow2',
      '-o data_file_raw=on file.qcow2',
      '-o data_file_raw=off file.qcow2',
      '-o data_file= v3.qcow2',
      '-o size=1000 v3.qcow2',
      '-o size=1000,data_file_raw=on v3.qcow2',
      '-o backing_file=x,data_file_raw=on v3.qcow2',
      '-o backing_file=x,lazy_refcounts=on v2.qcow2',
      '-o backing_file=x,refcount_bits=8 v2.qcow2',
      '-o refcount_bits=3,data_file=x v3.qcow2',
      '-o encrypt.state=active,compat=bad v3.qcow2',
      '-o size=1000,refcount_bits=3 v3.qcow2',
      '-o size=9223372036854775807 v3.qcow2',
      '-o size=10E v3.qcow2',
      '-o size=10E,compat=bad v3.qcow2',
      '-o size=512k v3.qcow2',
      '-o size=2M -p v3.qcow2',
      '-o size=3M,compat=1.1 v2.qcow2',
      '-o compat=1.1 short.qcow2',
      '-o size=2M past.qcow2',
      '-o size=2M,compat=1.1 past.qcow2',
      '-o compat=0.10 past.qcow2',
      '-o size=1M,compat=0.10 past.qcow2',
      '-o size=512k,compat=0.10 v3past.qcow2',
      '-o size=2M,compat=0.10,refcount_bits=16 v3past.qcow2',
      '-o lazy_refcounts=on v3past.qcow2',
      '-o compat=0.10 v3past.qcow2',
      '-o backing_file=foo v3.qcow2',
      '-o backing_fmt=qcow2 v3.qcow2',
      '-o backing_file=v3.qcow2 backed.qcow2',
      '-o backing_fmt=qcow2 backed.qcow2',
      '-o backing_file=v3.qcow2,backing_fmt=qcow2 backed.qcow2',
      '-o backing_file=v2.qcow2,backing_fmt=qcow2 backed.qcow2',
      '-o size=1M raw',
      '-f raw -o size=1M raw',
      '-t x -o size=1M v3.qcow2',
      '-o help v3.qcow2',
      '-o help',
      '-f qcow2 -o help',
      '-f raw -o help',
      '-f foo -o help',
      '-o size=1M v3.qcow2 v2.qcow2',
      '-o lazy_refcounts=x v3.qcow2',
      '-f foo -o size=1M v3.qcow2',
      '-q -p -f qcow2 -o size=4M v3.qcow2',
      '-o lazy_refcounts=on,refcount_bits=32 v3.qcow2',
    ];
    await sameAmends(folder, lines, '');
  });
});

test('room that is reserved for zeros stays reserved', async () => {
  await inScratch(async (folder) => {
    for (const name of ['v3.qcow2', 'v3over.qcow2']) {
      const backing = name === 'v3.qcow2' ? [] : ['-b', 'v3.qcow2', '-F', 'qcow2'];
      const made = ['create', '-q', '-f', 'qcow2', ...backing, name, '1100k'];
      await qemuImg(made, { cwd: folder });
      const commands = ['write -P 1 0 256k', 'write -P 2 1000k 100k', 'write -z 64k 128k'];
      commands.push('write -z 1024k 76k', 'write -z 512k 64k', 'write -zu 0 64k');
      await qemuIo(name, commands, { cwd: folder });
    }
    const lines = ['-o compat=0.10 v3over.qcow2', '-o compat=0.10 v3.qcow2'];
    const folders = await sameAmends(folder, lines, 'room');
    for (const name of ['v3.qcow2', 'v3over.qcow2']) {
      const [left, right] = folders.map((one) => readFileSync(`${one}/${name}`));
      assert.is(difference(left as Buffer, right as Buffer), '', name);
    }
  });
});

test('a snapshot whose clusters version 2 could not read keeps the version', async () => {
  await inScratch(async (folder) => {
    const cwd = folder;
    const zstd = ['-o', 'compression_type=zstd'];
    await qemuImg(['create', '-q', '-f', 'qcow2', ...zstd, 'a.qcow2', '1M'], { cwd });
    await qemuIo('a.qcow2', ['write -c -P 1 0 64k'], { cwd });
    await qemuImg(['snapshot', '-c', 'one', 'a.qcow2'], { cwd });
    await qemuIo('a.qcow2', ['write -P 2 0 64k'], { cwd });
    const { code, err } = await ours(amend, folder, ['-o', 'compat=0.10', 'a.qcow2']);
    const what = 'zstd compression type and existing compressed clusters';
    assert.equal(
      { code, err },
      { code: 1, err: `qemu-img: Cannot downgrade an image with ${what}\n` },
    );
    await qemuImg(['snapshot', '-a', 'one', 'a.qcow2'], { cwd });
    await qemuIo('a.qcow2', ['read -P 1 0 64k'], { cwd });
  });
});

test('a width that has no room for a count', async () => {
  await inScratch(async (folder) => {
    const cwd = folder;
    await qemuImg(['create', '-q', '-f', 'qcow2', 'image0.qcow2', '1M'], { cwd });
    await qemuIo('image0.qcow2', ['write -P 1 0 300k'], { cwd });
    for (const name of ['a', 'b', 'c']) {
      await qemuImg(['snapshot', '-c', name, 'image0.qcow2'], { cwd });
    }
    const lines = [1, 2, 4, 64].map((bits) => `-o refcount_bits=${bits} image0.qcow2`);
    await sameAmends(folder, lines, '');
  });
});

test('refcounts of another width take the clusters that qemu-img takes', async () => {
  const next = rng(SEED);
  const image = 'image0.qcow2';
  for (const clusterSize of [512, 4096, 65536]) {
    await inScratch(async (folder) => {
      const cwd = folder;
      const options = `cluster_size=${clusterSize},refcount_bits=${next.pick([1, 16, 64])}`;
      await qemuImg(['create', '-q', '-f', 'qcow2', '-o', options, image, '8M'], { cwd });
      await qemuIo(image, [`write 0 ${1 + next.below(8)}M`], { cwd });
      const holes = Array.from({ length: 6 }, () => next.below(15) * 512);
      const discards = holes.map((at) => `discard ${at}k ${next.pick([64, 128, 512])}k`);
      await qemuIo(image, discards, { cwd });
      const lines = [64, 1, 8].map((bits) => `-p -o refcount_bits=${bits} ${image}`);
      const folders = await sameAmends(folder, lines, options);
      const [left, right] = folders.map((one) => readFileSync(`${one}/${image}`));
      const title = `SEED=${SEED} ${options}\n${discards.join('\n')}`;
      assert.is(difference(left as Buffer, right as Buffer), '', title);
    });
  }
});

test('steps of what takes long', async () => {
  await inScratch(async (folder) => {
    const cwd = folder;
    const small = ['-o', 'cluster_size=4k'];
    await qemuImg(['create', '-q', '-f', 'qcow2', ...small, 'v3.qcow2', '40M'], { cwd });
    await qemuIo('v3.qcow2', ['write -z 0 64k', 'write -z 30M 64k'], { cwd });
    await qemuImg(['snapshot', '-c', 'one', 'v3.qcow2'], { cwd });
    await qemuImg(['create', '-q', '-f', 'qcow2', 'v3w.qcow2', '1M'], { cwd });
    const tiny = ['-o', 'cluster_size=512'];
    await qemuImg(['create', '-q', '-f', 'qcow2', ...tiny, 'tiny.qcow2', '6400k'], { cwd });
    const lines = [
      '-p -o refcount_bits=32 v3w.qcow2',
      '-p -o refcount_bits=32 v3w.qcow2',
      '-p -o compat=0.10,refcount_bits=16 v3w.qcow2',
      '-p -o compat=0.10 v3.qcow2',
      '-p -o compat=1.1 v3.qcow2',
      '-p -o compat=0.10,refcount_bits=8 v3.qcow2',
      '-p -o compat=0.10,size=80M v3w.qcow2',
      '-p -o compat=1.1,refcount_bits=64,size=90M v3w.qcow2',
      '-p -o refcount_bits=16,compat=0.10,size=120M v3w.qcow2',
      '-p -o refcount_bits=1 tiny.qcow2',
      '-p -o refcount_bits=16,compat=0.10 tiny.qcow2',
    ];
    await sameAmends(folder, lines, '');
  });
});

test.run();
