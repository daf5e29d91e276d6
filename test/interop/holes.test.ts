/** Sparse raw disks and preallocated targets, beside qemu-img. */
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { openDisk } from '../../src/image/open.ts';
import { openNodeFile } from '../../src/storage/node-file.ts';
import { hasNative } from '../native-layer.ts';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { difference, inScratch, must, qemuImg, qemuIo, tool } from '../tool.ts';
import { mapOf, parseMap } from './map-json.ts';

const MIB = 2 ** 20;

/** Everything is compared. */
const RULES = { rawDepths: [] };

/** A raw disk with data at a few places. */
async function makeSparse(folder: string, name: string, size: number, at: number[]): Promise<void> {
  writeFileSync(join(folder, name), '');
  truncateSync(join(folder, name), size);
  const writes = at.map((guest) => `write -P 9 ${guest} 64k`);
  await qemuIo(name, writes, { cwd: folder, format: 'raw' });
}

async function ours(folder: string, args: string[]): Promise<void> {
  const { code, stderr } = await tool(args, { cwd: folder });
  assert.is(stderr, '');
  assert.is(code, 0);
}

const real = qemuSuite('sparse raw disks');
const test: typeof real = hasNative
  ? real
  : Object.assign((title: string) => real.skip(title), real);

test('extents are those of qemu-img map, also behind an overlay', () =>
  inScratch(async (folder) => {
    await makeSparse(folder, 'a.raw', 200 * MIB, [0, 50 * MIB, 199 * MIB]);
    const overlay = ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'a.raw', 'over.qcow2'];
    await qemuImg([...overlay, '250M'], { cwd: folder });
    await qemuIo('over.qcow2', ['write -P 1 20M 1M', 'write -z 50M 64k'], { cwd: folder });
    for (const [name, format] of [
      ['a.raw', 'raw'],
      ['over.qcow2', 'qcow2'],
    ] as const) {
      const disk = await openDisk(openNodeFile(join(folder, name)), {
        format,
        gate: (request) => openNodeFile(join(folder, request.name)),
      });
      const json = await qemuImg(['map', '--output=json', '-f', format, name], { cwd: folder });
      assert.equal(await mapOf(disk.extents()), parseMap(json.toString(), RULES), name);
      await disk.close();
    }
  }));

test('holes of a source stay holes, however long zeros have to be to become some', () =>
  inScratch(async (folder) => {
    // Holes of 4 KiB, zeros as short, and zeros that reach up to a hole.
    const bytes = Buffer.alloc(16384, 7).fill(0, 4096, 8192);
    writeFileSync(join(folder, 'src.raw'), '');
    truncateSync(join(folder, 'src.raw'), MIB);
    const file = openSync(join(folder, 'src.raw'), 'r+');
    for (const at of [0, 20480, 65536, 86016, 131072, 200704, 524288]) {
      writeSync(file, bytes.subarray(0, at === 86016 ? 8192 : 16384), 0, undefined, at);
    }
    closeSync(file);
    const overlay = ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'src.raw', 'over.qcow2'];
    await qemuImg(overlay, { cwd: folder });
    for (const source of ['src.raw', 'over.qcow2']) {
      for (const sparse of ['4k', '8k', '12k', '64k', '1M']) {
        for (const target of [['raw'], ['qcow2', '-o', 'cluster_size=4k']]) {
          const args = ['convert', '-S', sparse, '-O', ...target, source];
          await qemuImg([...args, 'theirs'], { cwd: folder });
          await ours(folder, [...args, 'ours']);
          const [format = ''] = target;
          const maps = ['theirs', 'ours'].map(async (name) => {
            const map = ['map', '-f', format, '--output=json', name];
            const json = await qemuImg(map, { cwd: folder });
            return parseMap(json.toString(), RULES);
          });
          assert.equal(await maps[1], await maps[0], args.join(' '));
        }
      }
    }
  }));

test('part of a cluster becomes zeros in place where what lies behind it has no data', () =>
  inScratch(async (folder) => {
    await makeSparse(folder, 'a.raw', MIB, [0]);
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', `${MIB + 1024}`], { cwd: folder });
    const behind = ['write -P 0 0 64k', 'write -z 64k 64k', 'write -c -P 0 192k 64k'];
    await qemuIo('a.qcow2', [...behind, `write -P 0 ${MIB} 1k`], { cwd: folder });
    for (const format of ['raw', 'qcow2']) {
      const maps = [requireQemu().io, process.execPath].map(async (program, index) => {
        const name = `${format}${index}.qcow2`;
        const backed = ['create', '-q', '-f', 'qcow2', '-F', format, '-b', `a.${format}`];
        await qemuImg([...backed, name, `${MIB + 2048}`], { cwd: folder });
        const places = [1, 65, 129, 193, 257, 1024].map((at) => `write -z ${at}k 1k`);
        const commands = places.flatMap((place) => ['-c', place]);
        const before = index === 0 ? [] : [resolve('dist/qcow2-io.js')];
        await must(program, [...before, ...commands, name], { cwd: folder });
        return (await qemuImg(['map', '--output=json', name], { cwd: folder })).toString();
      });
      const [theirs, mine] = await Promise.all(maps);
      assert.is(mine, theirs, format);
    }
  }));

test('a disk of 1 TiB with little in it converts at once', () =>
  inScratch(async (folder) => {
    await makeSparse(folder, 'a.raw', 2 ** 40, [0, 2 ** 39, 2 ** 40 - 65536]);
    const start = performance.now();
    await ours(folder, ['convert', '-f', 'raw', '-O', 'raw', 'a.raw', 'b.raw']);
    // Reading it would take many minutes.
    assert.ok(performance.now() - start < 90_000);
    const { size, blocks } = statSync(join(folder, 'b.raw'));
    assert.is(size, 2 ** 40);
    assert.ok(blocks * 512 < MIB);
    await qemuImg(['compare', '-f', 'raw', '-F', 'raw', 'a.raw', 'b.raw'], { cwd: folder });
  }));

test('a new raw disk has its holes where qemu-img leaves them', () =>
  inScratch(async (folder) => {
    const cwd = folder;
    const lists = [[], ['-S', '0'], ['-S', '512'], ['-o', 'preallocation=falloc'], ['-W']];
    for (const size of [0, 512, 1024, 4096, 5120, 3 * MIB]) {
      await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', `${size}`], { cwd });
      if (size > MIB) await qemuIo('a.qcow2', ['write -P 5 1M 100k'], { cwd });
      for (const list of lists) {
        const args = ['convert', ...list, '-f', 'qcow2', '-O', 'raw', 'a.qcow2'];
        await qemuImg([...args, 'theirs.raw'], { cwd });
        await ours(folder, [...args, 'ours.raw']);
        const maps = ['ours.raw', 'theirs.raw'].map((name) =>
          qemuImg(['map', '--output=json', '-f', 'raw', name], { cwd }),
        );
        const [mine, expected] = (await Promise.all(maps)).map(String);
        assert.is(mine, expected, `${size} ${list.join(' ')}`);
        for (const name of ['ours.raw', 'theirs.raw']) rmSync(join(folder, name));
      }
    }
  }));

test('into a file that is there: zeros give room back, what lies behind the disk stays', () =>
  inScratch(async (folder) => {
    await makeSparse(folder, 'a.raw', 32 * MIB, [MIB, 20 * MIB]);
    const before = Buffer.alloc(40 * MIB + 5, 0x5a);
    for (const name of ['theirs.raw', 'ours.raw']) writeFileSync(join(folder, name), before);
    const args = ['convert', '-n', '-f', 'raw', '-O', 'raw', 'a.raw'];
    await qemuImg([...args, 'theirs.raw'], { cwd: folder });
    await ours(folder, [...args, 'ours.raw']);
    const [a, b] = ['ours.raw', 'theirs.raw'].map((name) => readFileSync(join(folder, name)));
    assert.is(difference(a!, b!), '');
    assert.ok(statSync(join(folder, 'ours.raw')).blocks * 512 < 10 * MIB);
  }));

test('what a qcow2 disk lets go of leaves the file, as with qemu-io', () =>
  inScratch(async (folder) => {
    const { io } = requireQemu();
    for (const [discard, verb] of [
      ['unmap', 'discard'],
      ['unmap', 'write -z -u'],
      ['ignore', 'discard'],
      ['ignore', 'write -z -u'],
    ] as const) {
      const blocks = [];
      for (const name of ['ours.qcow2', 'theirs.qcow2']) {
        await qemuImg(['create', '-q', '-f', 'qcow2', name, '8M'], { cwd: folder });
        await qemuIo(name, ['write -P 7 0 8M'], { cwd: folder });
        if (name === 'theirs.qcow2') {
          await must(io, ['-d', discard, '-c', `${verb} 1M 4M`, name], { cwd: folder });
        } else {
          const file = openNodeFile(join(folder, name), { writable: true });
          const disk = await openDisk(file, { writable: true, discard });
          if (verb === 'discard') await disk.discard(MIB, 4 * MIB);
          else await disk.zero(MIB, 4 * MIB, { unmap: true });
          await disk.close();
        }
        blocks.push(Math.round((statSync(join(folder, name)).blocks * 512) / MIB));
      }
      assert.is(blocks[0], blocks[1], `${discard} ${verb}`);
      await qemuImg(['compare', '-q', 'ours.qcow2', 'theirs.qcow2'], { cwd: folder });
    }
  }));

/** Options of the image, of the backing file if there is one, and what is written before. */
const PARTS: readonly {
  readonly options: string;
  readonly backing?: string;
  readonly first?: readonly string[];
}[] = [
  { options: 'cluster_size=64k' },
  { options: 'cluster_size=2M' },
  { options: 'cluster_size=2M,extended_l2=on' },
  { options: 'cluster_size=64k', first: ['write -z 0 8M'] },
  { options: 'cluster_size=2M,extended_l2=on', first: ['write 1M 64k', 'write -z 0 1M'] },
  { options: 'cluster_size=64k,preallocation=metadata' },
  { options: 'cluster_size=512k,compat=0.10', first: ['write 0 1M', 'discard 0 1M'] },
  { options: 'cluster_size=512k', backing: 'qcow2' },
  { options: 'cluster_size=512k,extended_l2=on', backing: 'qcow2' },
  { options: 'cluster_size=512k', backing: 'raw' },
  { options: 'cluster_size=512k,data_file=d.data' },
];

const PART_WRITES = [
  ...['write -P 1 100 100', 'write -P 2 700k 10k', 'write -P 3 2100k 1100k'],
  ...['write -P 4 5000000 9', 'write -P 5 4095k 2k', 'write -P 6 8388600 8'],
];

for (const { options, backing, first = [] } of PARTS) {
  const about = `${options}${backing ? `, on ${backing}` : ''} ${first.join(', ')}`;
  test(`a part of a cluster is written, the zeros around it are not: ${about}`, () =>
    inScratch(async (folder) => {
      const seen = [];
      for (const program of [[process.execPath, resolve('dist/qcow2-io.js')], [requireQemu().io]]) {
        const cwd = join(folder, `${seen.length}`);
        mkdirSync(cwd);
        const behind = backing ? ['-b', 'base', '-F', backing] : [];
        if (backing) {
          await qemuImg(['create', '-q', '-f', backing, 'base', '6M'], { cwd });
          const format = backing === 'raw' ? 'raw' : 'qcow2';
          await qemuIo('base', ['write -P 9 4M 64k'], { cwd, format });
        }
        await qemuImg(['create', '-q', '-f', 'qcow2', '-o', options, ...behind, 'a', '8M'], {
          cwd,
        });
        if (first.length > 0) await qemuIo('a', first, { cwd });
        const commands = PART_WRITES.flatMap((one) => ['-c', one]);
        await must(program[0]!, [...program.slice(1), ...commands, 'a'], { cwd });
        const files = options.includes('data_file') ? ['a', 'd.data'] : ['a'];
        const maps = files.map((name) =>
          qemuImg(['map', '-f', 'raw', '--output=json', name], { cwd }),
        );
        const [check, ...holes] = await Promise.all([qemuImg(['check', 'a'], { cwd }), ...maps]);
        seen.push({ check: `${check}`, holes: holes.join(), bytes: readFileSync(join(cwd, 'a')) });
      }
      const [mine, real] = seen as [(typeof seen)[0], (typeof seen)[0]];
      assert.is(difference(mine.bytes, real.bytes), '');
      assert.equal([mine.check, mine.holes], [real.check, real.holes]);
    }));
}

test('zeros keep their room in a raw data file, unless it may go', () =>
  inScratch(async (cwd) => {
    const { io } = requireQemu();
    for (const verb of ['write -z', 'write -z -u', 'discard']) {
      const blocks = [];
      for (const name of ['ours', 'theirs']) {
        const options = `data_file=${name}.data,data_file_raw=on`;
        await qemuImg(['create', '-q', '-f', 'qcow2', '-o', options, name, '8M'], { cwd });
        const program = name === 'ours' ? [process.execPath, resolve('dist/qcow2-io.js')] : [io];
        const commands = ['-c', 'write -P 7 0 4M', '-c', `${verb} 1M 5M`, name];
        await must(program[0]!, [...program.slice(1), ...commands], { cwd });
        blocks.push(Math.round((statSync(join(cwd, `${name}.data`)).blocks * 512) / MIB));
      }
      assert.is(blocks[0], blocks[1], verb);
    }
  }));

test('preallocation=falloc reserves room for all of the disk and writes only data', () =>
  inScratch(async (folder) => {
    await makeSparse(folder, 'a.raw', 64 * MIB, [MIB]);
    const args = ['-f', 'raw', '-O', 'raw', '-o', 'preallocation=falloc', 'a.raw', 'b.raw'];
    await ours(folder, ['convert', ...args]);
    const { size, blocks } = statSync(join(folder, 'b.raw'));
    assert.is(size, 64 * MIB);
    assert.ok(blocks * 512 >= 64 * MIB);
    await qemuImg(['compare', '-f', 'raw', '-F', 'raw', 'a.raw', 'b.raw'], { cwd: folder });
  }));

real('preallocation=falloc without native calls writes zeros', () =>
  inScratch(async (folder) => {
    await makeSparse(folder, 'a.raw', 8 * MIB, [MIB]);
    process.env.QCOW2_NATIVE = '0';
    try {
      const args = ['-f', 'raw', '-O', 'raw', '-o', 'preallocation=falloc', 'a.raw', 'b.raw'];
      await ours(folder, ['convert', ...args]);
    } finally {
      delete process.env.QCOW2_NATIVE;
    }
    assert.ok(statSync(join(folder, 'b.raw')).blocks * 512 >= 8 * MIB);
    await qemuImg(['compare', '-f', 'raw', '-F', 'raw', 'a.raw', 'b.raw'], { cwd: folder });
  }),
);

test.run();
