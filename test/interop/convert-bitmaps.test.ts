/** `convert --bitmaps` beside qemu-img's, and `--bitmap NAME`, which only this tool has. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { difference, inScratch, qemuImg, qemuIo, run, tool } from '../tool.ts';

const MIB = 2 ** 20;
const test = qemuSuite('convert and bitmaps');

async function makeSource(folder: string): Promise<void> {
  const cwd = { cwd: folder };
  await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '10M'], cwd);
  await qemuIo('a.qcow2', ['write -P 1 0 6M'], cwd);
  await qemuImg(['bitmap', '--add', 'a.qcow2', 'b0'], cwd);
  await qemuImg(['bitmap', '--add', '--disable', '-g', '4k', 'a.qcow2', 'b1'], cwd);
  await qemuImg(['bitmap', '--enable', 'a.qcow2', 'b1'], cwd);
  await qemuIo('a.qcow2', ['write -P 2 1M 100k', 'write -z 3M 1M', 'write -P 3 9M 1M'], cwd);
  await qemuImg(['bitmap', '--disable', 'a.qcow2', 'b1'], cwd);
}

/** A copy whose first bitmap a writer has left in use. */
function breakBitmap(from: string, to: string): void {
  const bytes = readFileSync(from);
  for (let at = bytes.indexOf('b0'); at >= 0; at = bytes.indexOf('b0', at + 1)) {
    bytes.writeUInt32BE((bytes.readUInt32BE(at - 12) | 1) >>> 0, at - 12);
  }
  writeFileSync(to, bytes);
}

async function both(folder: string, args: readonly string[]) {
  const cwd = { cwd: folder };
  const mine = await tool(['convert', ...args.map((arg) => arg.replace('OUT', 'mine'))], cwd);
  const theirs = await run(
    requireQemu().img,
    ['convert', ...args.map((arg) => arg.replace('OUT', 'theirs'))],
    cwd,
  );
  const said = ({ code, stdout, stderr }: typeof mine) => ({
    code,
    stdout: stdout.toString(),
    stderr: stderr.replaceAll('qcow2-img', 'qemu-img').replaceAll(/mine|theirs/g, 'OUT'),
  });
  assert.equal(said(mine), said(theirs), args.join(' '));
  return mine.code;
}

async function bitmapsOf(folder: string, name: string) {
  const text = await qemuImg(['info', '--output=json', name], { cwd: folder });
  return JSON.parse(text.toString())['format-specific'].data.bitmaps;
}

/** Bits as QEMU has them: both merged into bitmaps of one image, they must make the same file. */
async function sameBits(folder: string): Promise<void> {
  const cwd = { cwd: folder };
  for (const bitmap of ['b0', 'b1']) {
    const dirty: Buffer[] = [];
    for (const name of ['mine', 'theirs']) {
      await qemuImg(['create', '-q', '-f', 'qcow2', 'probe', '10M'], cwd);
      await qemuImg(['bitmap', '--add', '-g', '4k', 'probe', 'x'], cwd);
      const merge = ['bitmap', '--merge', bitmap, '-b', name, '-F', 'qcow2', 'probe', 'x'];
      const { code, stderr } = await run(requireQemu().img, merge, cwd);
      if (!(await bitmapsOf(folder, name)).some((one: { name: string }) => one.name === bitmap)) {
        assert.is.not(code, 0);
        continue;
      }
      assert.is(code, 0, stderr);
      dirty.push(readFileSync(join(folder, 'probe')));
    }
    if (dirty.length > 0) assert.is(difference(dirty[0]!, dirty[1]!), '', bitmap);
  }
}

test('--bitmaps copies them, and says what qemu-img says', async () => {
  await inScratch(async (folder) => {
    const cwd = { cwd: folder };
    await makeSource(folder);
    breakBitmap(join(folder, 'a.qcow2'), join(folder, 'broken.qcow2'));
    await qemuImg(['create', '-q', '-f', 'raw', 'r.raw', '1M'], cwd);
    const good = [
      '--bitmaps -O qcow2 a.qcow2 OUT',
      '--bitmaps -c -O qcow2 a.qcow2 OUT',
      '--bitmaps -O qcow2 -o cluster_size=4k a.qcow2 OUT',
      '--bitmaps -O qcow2 -o data_file=OUT.data a.qcow2 OUT',
      '--bitmaps --skip-broken-bitmaps -O qcow2 broken.qcow2 OUT',
    ];
    for (const line of good) {
      assert.is(await both(folder, line.split(' ')), 0, line);
      assert.equal(await bitmapsOf(folder, 'mine'), await bitmapsOf(folder, 'theirs'), line);
      await qemuImg(['check', '-q', 'mine'], cwd);
      await qemuImg(['compare', '-q', 'mine', 'a.qcow2'], cwd);
      await sameBits(folder);
    }
    for (const name of ['mine', 'theirs']) {
      await qemuImg(['create', '-q', '-f', 'qcow2', name, '20M'], cwd);
    }
    const wrong = [
      '--bitmaps -n -O qcow2 a.qcow2 OUT',
      '--bitmaps -O raw a.qcow2 OUT',
      '--bitmaps -O qcow2 broken.qcow2 OUT',
      '--skip-broken-bitmaps -O qcow2 a.qcow2 OUT',
      '--skip-broken-bitmaps -O bogus a.qcow2 OUT',
      '--bitmaps -O bogus a.qcow2 OUT',
      '--bitmaps -O qcow2 a.qcow2 a.qcow2 OUT',
      '--bitmaps -O qcow2 -o compat=0.10 a.qcow2 OUT',
      '--bitmaps -f raw -O qcow2 r.raw OUT',
      '--bitmaps -O qcow2 absent OUT',
      '--bitmaps -O qcow2 -t bogus -f raw r.raw OUT',
      '--bitmaps -O qcow2 -t bogus broken.qcow2 OUT',
      '--bitmaps -O qcow2 -o compat=0.10,cluster_size=3 a.qcow2 OUT',
      '--bitmaps -O qcow2 -o compat=0.10 -B absent -F raw a.qcow2 OUT',
      '--bitmaps -c -O raw a.qcow2 OUT',
    ];
    for (const line of wrong) assert.is(await both(folder, line.split(' ')), 1, line);
    await qemuImg(['create', '-q', '-f', 'qcow2', 'none.qcow2', '10M'], cwd);
    for (const size of ['1M', '10M']) {
      for (const name of ['mine', 'theirs']) {
        await qemuImg(['create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', name, size], cwd);
      }
      for (const source of ['a', 'none']) {
        const line = `--bitmaps -n -O qcow2 ${source}.qcow2 OUT`;
        assert.is(await both(folder, line.split(' ')), 1, line);
      }
    }
  });
});

test('--bitmap copies what is dirty, over what the target has', async () => {
  await inScratch(async (folder) => {
    const cwd = { cwd: folder };
    await makeSource(folder);
    await qemuImg(['create', '-q', '-f', 'qcow2', 'base.qcow2', '10M'], cwd);
    await qemuIo('base.qcow2', ['write -P 1 0 6M', 'write -P 7 6M 64k'], cwd);
    // What b0 does not say stays the base's.
    await qemuImg(['convert', '-O', 'raw', 'base.qcow2', 'wanted'], cwd);
    const wanted = readFileSync(join(folder, 'wanted'));
    const fresh = Buffer.alloc(10 * MIB);
    for (const disk of [wanted, fresh]) {
      // A bit is 64 KiB: what was written, and the rest of the last range's cluster.
      disk.fill(2, MIB, MIB + 100 * 1024).fill(1, MIB + 100 * 1024, MIB + 128 * 1024);
      disk.fill(0, 3 * MIB, 4 * MIB).fill(3, 9 * MIB);
    }
    const convert = async (line: string) => {
      const { code, stderr } = await tool(['convert', ...line.split(' ')], cwd);
      assert.is(code, 0, stderr);
    };
    const sameDisk = async (name: string, expected: Buffer) => {
      await qemuImg(['convert', '-O', 'raw', name, 'seen'], cwd);
      assert.is(difference(readFileSync(join(folder, 'seen')), expected), '', name);
    };
    for (const more of ['', '-c ', '-o cluster_size=512 ', '-c -o compression_type=zstd ']) {
      await convert(`--bitmap b0 ${more}-O qcow2 -B base.qcow2 -F qcow2 a.qcow2 out.qcow2`);
      await qemuImg(['check', '-q', 'out.qcow2'], cwd);
      await sameDisk('out.qcow2', wanted);
      await convert(`--bitmap b0 ${more}-O qcow2 a.qcow2 out.qcow2`);
      await qemuImg(['check', '-q', 'out.qcow2'], cwd);
      await sameDisk('out.qcow2', fresh);
    }
    await convert('--bitmap b0 -O raw a.qcow2 out.raw');
    assert.is(difference(readFileSync(join(folder, 'out.raw')), fresh), '');
    await convert('--bitmap b0 -n -O raw a.qcow2 wanted');
    assert.is(difference(readFileSync(join(folder, 'wanted')), wanted), '');
    await convert('--bitmap b0 --bitmaps -n -O qcow2 a.qcow2 base.qcow2');
    await sameDisk('base.qcow2', wanted);
    assert.is((await bitmapsOf(folder, 'base.qcow2')).length, 2);
    const { code, stderr } = await tool(
      ['convert', '--bitmap', 'none', '-O', 'raw', 'a.qcow2', 'no.raw'],
      cwd,
    );
    assert.is(code, 1);
    assert.match(stderr, /Dirty bitmap 'none' not found/);
    assert.not(existsSync(join(folder, 'no.raw')));
  });
});

test.run();
