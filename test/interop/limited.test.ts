/**
 * The tools as services run them: by QEMU's names, with an address space of a gigabyte or two, for
 * a hostile image must not take all memory of a host.
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { rng, SEED } from '../random.ts';
import { inScratch, qemuImg, qemuIo, run, TOOL } from '../tool.ts';

const test = qemuSuite('limited processes');

const IO_TOOL = resolve('dist/qcow2-io.js');
/** Kibibytes: what virtual machine managers grant, and what a conversion is granted. */
const LIMITS = [976_562, 2_097_152];
/** A shell that limits itself, and becomes the program that follows. */
const limited = (kibibytes: number) => ['-c', `ulimit -v ${kibibytes}; exec "$@"`, 'sh'];

/** Two disks of the same bytes, one of them compressed; more than a thread does by itself. */
async function makeDisks(folder: string): Promise<void> {
  const next = rng(SEED);
  const bytes = Buffer.alloc(8 * 2 ** 20);
  for (let at = 0; at < bytes.length; at += 4) {
    // Half of each number is zeros: it is worth compressing.
    bytes.writeUInt32LE(next.below(65536), at);
  }
  writeFileSync(join(folder, 'raw'), bytes);
  const options = { cwd: folder };
  await qemuImg(['convert', '-O', 'qcow2', 'raw', 'plain'], options);
  await qemuImg(['convert', '-c', '-O', 'qcow2', 'raw', 'packed'], options);
  await qemuIo('plain', ['write -z 1M 3M'], options);
  await qemuIo('packed', ['write -z 1M 3M'], options);
}

for (const kibibytes of LIMITS) {
  test(`all commands do their work within ${kibibytes} KiB of addresses`, () =>
    inScratch(async (folder) => {
      await makeDisks(folder);
      const within = (program: string, ...args: string[]) =>
        run('sh', [...limited(kibibytes), program, ...args], { cwd: folder });
      const does = async (...args: string[]) => {
        const { code, stderr } = await within(TOOL, ...args);
        assert.is(`${code} ${stderr}`, '0 ', args.join(' '));
      };
      for (const source of ['plain', 'packed']) {
        for (const target of [
          ['-O', 'raw'],
          ['-O', 'qcow2'],
          ['-c', '-O', 'qcow2'],
        ]) {
          await does('convert', ...target, source, 'out');
          const format = target.at(-1) as string;
          await qemuImg(['compare', '-f', 'qcow2', '-F', format, source, 'out'], { cwd: folder });
        }
        await does('check', source);
      }
      await does('snapshot', '-c', 'one', 'plain');
      await does('resize', 'plain', '+1M');
      await does('compare', 'plain', 'packed');
      const io = await within(IO_TOOL, '-c', 'write -P 7 0 64k', '-c', 'read -P 7 0 64k', 'plain');
      assert.is(io.code, 0, io.stderr);
      assert.match(io.stdout.toString(), 'read 65536/65536 bytes at offset 0');
      await qemuImg(['check', 'plain'], { cwd: folder });
      for (const args of [['compare', 'plain', 'packed'], ['resize']]) {
        const [ours, theirs] = await Promise.all([
          within(TOOL, ...args),
          within(requireQemu().img, ...args),
        ]);
        assert.is(ours.code, theirs.code, args.join(' '));
        assert.is(ours.stdout.toString(), theirs.stdout.toString());
        assert.is(ours.stderr, theirs.stderr.replaceAll('qemu-img', 'qcow2-img'));
      }
    }));
}

test('a limited conversion hears of signals, and ends by them', () =>
  inScratch(async (folder) => {
    await makeDisks(folder);
    const args = ['convert', '-r', '512k', '-O', 'raw', 'plain', 'out'];
    const shell = [...limited(LIMITS[0] as number), TOOL, ...args];
    const child = spawn('sh', shell, { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
    const ended = new Promise((done) => child.once('exit', (_, signal) => done(signal)));
    while (!existsSync(join(folder, 'out'))) await new Promise((done) => setTimeout(done, 20));
    child.kill('SIGTERM');
    assert.is(await ended, 'SIGTERM');
    assert.not(existsSync(join(folder, 'out')), 'what is not whole must not look whole');
  }));

test('a limited tool reads images by descriptors that it was given', () =>
  inScratch(async (folder) => {
    await makeDisks(folder);
    for (const name of ['/dev/fd/7', '/proc/self/fd/23', 'json:{"file.filename":"/dev/fd/9"}']) {
      const line = `${limited(LIMITS[0] as number)[1]} 7<plain 23<packed 9<raw`;
      const ask = (program: string) =>
        run('bash', ['-c', line.replace('"$@"', '"$0" info "$1"'), program, name], { cwd: folder });
      const [ours, theirs] = await Promise.all([ask(TOOL), ask(requireQemu().img)]);
      assert.is(ours.stdout.toString(), theirs.stdout.toString(), name);
      assert.is(`${ours.code} ${ours.stderr}`, '0 ', name);
    }
  }));

/** Whether a process other than this one has a text among its arguments. */
function runsWith(text: string): boolean {
  return readdirSync('/proc').some((name) => {
    if (!/^\d+$/.test(name) || name === String(process.pid)) return false;
    try {
      return readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(text);
    } catch {
      // It has ended meanwhile.
      return false;
    }
  });
}

test('a limited conversion that is killed leaves nobody behind who writes on', () =>
  inScratch(async (folder) => {
    await makeDisks(folder);
    const target = join(folder, 'out');
    const args = ['convert', '-r', '256k', '-O', 'raw', 'plain', target];
    const shell = [...limited(LIMITS[0] as number), TOOL, ...args];
    const child = spawn('sh', shell, { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
    const ended = new Promise((done) => child.once('exit', done));
    while (!existsSync(target)) await new Promise((done) => setTimeout(done, 20));
    assert.ok(runsWith(target));
    child.kill('SIGKILL');
    await ended;
    const deadline = Date.now() + 15_000;
    while (runsWith(target) && Date.now() < deadline) {
      await new Promise((done) => setTimeout(done, 50));
    }
    assert.not(runsWith(target));
  }));

test('by the name of a tool of QEMU, it says which version of that it stands in for', () =>
  inScratch(async (folder) => {
    for (const [name, program, real] of [
      ['qemu-img', TOOL, requireQemu().img],
      ['qemu-io', IO_TOOL, requireQemu().io],
    ] as const) {
      symlinkSync(program, join(folder, name));
      // What programs look for, in both texts.
      const told = /^(\S+) version (\d+)\.(\d+)\.\d+ \(/;
      const texts = await Promise.all([
        run(join(folder, name), ['--version']),
        run(real, ['--version']),
      ]);
      const [ours, theirs] = texts.map(({ stdout }) => told.exec(stdout.toString())?.slice(1));
      assert.equal(ours, [name, '7', '2']);
      assert.is(theirs?.[0], name);
    }
    assert.match((await run(TOOL, ['--version'])).stdout.toString(), /^qcow2-img version 0\./);
  }));

test.run();
