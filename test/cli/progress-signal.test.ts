/** SIGUSR1 asks a command how far it is: it answers as qemu-img does, and goes on. */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { nodeHost } from '../../src/cli/host-node.ts';
import { startProgress } from '../../src/cli/progress.ts';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { inScratch, qemuImg, TOOL } from '../tool.ts';

const test = qemuSuite('SIGUSR1');

/** What a program is run with, and the file that it writes to. */
interface Run {
  readonly cwd: string;
  readonly target: string;
}

/** Whether a file's first byte has been written, which is not 0. */
function hasBegun(path: string): boolean {
  if (!existsSync(path)) return false;
  const byte = Buffer.alloc(1);
  const file = openSync(path, 'r');
  readSync(file, byte, 0, 1, 0);
  closeSync(file);
  return byte[0] !== 0;
}

/** Asks again and again until the program has answered, and gives what it printed in the end. */
function asked(program: string, args: readonly string[], { cwd, target }: Run) {
  return new Promise<{ code: number | null; stdout: string; stderr: string }>((done, fail) => {
    const child = spawn(program, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    let [stdout, stderr] = ['', ''];
    const timer = setInterval(() => {
      // Not before there is somebody to answer: Node takes the signal for something else, and
      // qemu-img dies of it.
      if (hasBegun(join(cwd, target))) child.kill('SIGUSR1');
    }, 50);
    child.stdout.on('data', (part) => {
      stdout += part;
    });
    child.stderr.on('data', (part) => {
      stderr += part;
      clearInterval(timer);
    });
    child.once('error', fail);
    child.once('close', (code) => {
      clearInterval(timer);
      done({ code, stdout, stderr });
    });
  });
}

test('a conversion tells, and is whole', () =>
  inScratch(async (folder) => {
    writeFileSync(join(folder, 'a'), Buffer.alloc(12 * 2 ** 20, 0x61));
    const args = ['convert', '-r', '6M', '-f', 'raw', '-O', 'raw', 'a'];
    for (const [program, first, target] of [
      [process.execPath, [TOOL], 'ours'],
      [requireQemu().img, [], 'theirs'],
    ] as const) {
      const { code, stdout, stderr } = await asked(program, [...first, ...args, target], {
        cwd: folder,
        target,
      });
      assert.is(code, 0, stderr);
      assert.is(stdout, '');
      assert.match(stderr, /^( {4}\(\d+\.\d\d\/100%\)\n)+$/, target);
      await qemuImg(['compare', '-f', 'raw', '-F', 'raw', 'a', target], { cwd: folder });
    }
  }));

test('a commit tells, too', () =>
  inScratch(async (folder) => {
    const cwd = { cwd: folder };
    writeFileSync(join(folder, 'a'), Buffer.alloc(12 * 2 ** 20, 0x62));
    await qemuImg(['create', '-q', '-f', 'raw', 'base', '12M'], cwd);
    await qemuImg(['convert', '-O', 'qcow2', '-B', 'base', '-F', 'raw', 'a', 'over'], cwd);
    const args = [TOOL, 'commit', '-r', '6M', 'over'];
    const { code, stdout, stderr } = await asked(process.execPath, args, {
      cwd: folder,
      target: 'base',
    });
    assert.is(code, 0, stderr);
    assert.is(stdout, 'Image committed.\n');
    assert.match(stderr, /^( {4}\(\d+\.\d\d\/100%\)\n)+$/);
    await qemuImg(['compare', '-f', 'raw', '-F', 'raw', 'a', 'base'], cwd);
  }));

test('many commands of one process listen but once', () => {
  const before = process.listenerCount('SIGUSR1');
  const host = nodeHost('qemu-img');
  for (let i = 0; i < 20; i++)
    startProgress(host, { enabled: false, total: () => 1, stream: false });
  assert.is(process.listenerCount('SIGUSR1'), before + 1);
});

test.run();
