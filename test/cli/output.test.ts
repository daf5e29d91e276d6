/**
 * Standard output that cannot be written: readers who have left, disks that are full. What a
 * command has to do it does all the same.
 */
import { existsSync, readFileSync, symlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { inScratch, qemuImg, run, TOOL } from '../tool.ts';

const test = qemuSuite('standard output that cannot be written');

/** A line of shell with either tools in the path, by QEMU's names. */
async function inBoth(folder: string, line: string) {
  const own = join(folder, 'bin');
  await run('mkdir', ['-p', own]);
  for (const [name, program] of [
    ['qemu-img', TOOL],
    ['qemu-io', resolve('dist/qcow2-io.js')],
  ] as const) {
    if (!existsSync(join(own, name))) symlinkSync(program, join(own, name));
  }
  const ask = async (path: string) => {
    const script = `PATH='${path}':$PATH; ${line}`;
    const { code, stdout, stderr } = await run('bash', ['-c', script], { cwd: folder });
    return { code, stdout: stdout.toString(), stderr };
  };
  return [await ask(own), await ask(join(requireQemu().img, '..'))] as const;
}

const inFolder = (work: (folder: string) => Promise<void>) => () =>
  inScratch(async (folder) => {
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '1M'], { cwd: folder });
    await work(folder);
  });

test(
  'a reader who has left is no failure',
  inFolder(async (folder) => {
    for (const line of [
      'info a.qcow2',
      'map --output=json a.qcow2',
      'check a.qcow2',
      'compare -p a.qcow2 a.qcow2',
      'convert -p -O raw a.qcow2 b.raw',
      'create -f raw b.raw 1M',
      'resize a.qcow2 2M',
      '--help',
      'info nowhere 2>&1',
    ]) {
      const left = `(sleep 0.5; qemu-img ${line}; echo $? >code) | true; cat code`;
      const [ours, theirs] = await inBoth(folder, left);
      assert.equal(ours, theirs, line);
    }
    const io = "(sleep 0.5; qemu-io -c 'read 0 1k' a.qcow2; echo $? >code) | true; cat code";
    const [ours, theirs] = await inBoth(folder, io);
    assert.equal(ours, theirs);
  }),
);

test(
  'a full disk keeps nobody from working, and from hearing that the answer is cut short',
  inFolder(async (folder) => {
    for (const line of [
      'convert -p -O raw a.qcow2 b.raw',
      'create -f raw c.raw 1M',
      'resize a.qcow2 2M',
      'info nowhere 2>/dev/full',
    ]) {
      const [ours, theirs] = await inBoth(folder, `qemu-img ${line} >/dev/full`);
      assert.equal(ours, theirs, line);
    }
    for (const name of ['b.raw', 'c.raw']) {
      assert.is(readFileSync(join(folder, name)).length, 2 ** 20, name);
    }
    for (const line of ['info a.qcow2', 'map a.qcow2', 'check a.qcow2', 'compare a.qcow2 b.raw']) {
      const [ours] = await inBoth(folder, `qemu-img ${line} >/dev/full`);
      assert.is(ours.code, 1, line);
      const said = "qemu-img: error while writing 'standard output': No space left on device\n";
      assert.is(ours.stderr, said, line);
    }
  }),
);

test.run();
