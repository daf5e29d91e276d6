/**
 * The tool as a process, beside qemu-img: the same messages, exit codes and files; and what is left
 * behind when it is stopped in the middle.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { rng } from '../random.ts';
import {
  difference,
  type Ended,
  inScratch,
  must,
  qemuImg,
  qemuIo,
  run,
  TOOL,
  tool,
} from '../tool.ts';

const MIB = 2 ** 20;

/** Makes a.qcow2, 2 MiB with some data, and other files that the command lines below name. */
async function prepare(folder: string): Promise<void> {
  const cwd = folder;
  await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '2M'], { cwd });
  await qemuIo('a.qcow2', ['write -P 5 64k 300k', 'write -z 1M 64k'], { cwd });
  await qemuImg(['snapshot', '-c', 's1', 'a.qcow2'], { cwd });
  await qemuImg(['create', '-q', '-f', 'qcow2', 'empty.qcow2', '2M'], { cwd });
  const data = ['create', '-q', '-f', 'qcow2', '-o', 'data_file=data.bin', 'data.qcow2', '2M'];
  await qemuImg(data, { cwd });
  writeFileSync(join(folder, 'small.raw'), Buffer.alloc(MIB, 7));
  writeFileSync(join(folder, 'odd.raw'), Buffer.alloc(1000, 9));
  mkdirSync(join(folder, 'folder'));
  const overlay = ['create', '-q', '-u', '-f', 'qcow2', '-F', 'raw', '-b'];
  await qemuImg([...overlay, 'gone.raw', 'overlay.qcow2', '1M'], { cwd });
  const unknown = ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'small.raw'];
  await qemuImg([...unknown, 'format.qcow2', '1M'], { cwd });
  const bytes = readFileSync(join(folder, 'format.qcow2'));
  bytes.write('bad', bytes.indexOf(Buffer.from('e2792aca', 'hex')) + 8);
  writeFileSync(join(folder, 'format.qcow2'), bytes);
}

/** What a run said, without the name of the program. */
function said({ code, stdout, stderr }: Ended, program: string): string {
  const err = stderr
    .replaceAll(`${program}: `, 'PROGRAM: ')
    .replaceAll(`'${program} `, "'PROGRAM ");
  // How often progress is told is up to the program: the first and the last line are not.
  const out = stdout
    .toString()
    .replace(/(?<=\(0\.00\/100%\)\r) .*(?=( {4}\(100\.00\/100%\)\r){2}\n)/s, '');
  return `exit code ${code}\n${out}${err}`;
}

/** The prepared files, made once. */
let template = '';

/** Runs both programs on the same files, each in a folder of its own. */
function compare(args: readonly string[]): Promise<void> {
  return inScratch(async (folder) => {
    const [here, there] = [join(folder, 'here'), join(folder, 'there')];
    for (const path of [here, there]) cpSync(template, path, { recursive: true });
    const [ours, theirs] = await Promise.all([
      tool(args, { cwd: here }),
      run(requireQemu().img, args, { cwd: there }),
    ]);
    assert.is(said(ours, 'qcow2-img'), said(theirs, 'qemu-img'));
    // A target that could not be finished is ours to leave or to remove.
    if (theirs.code !== 0) return;
    for (const name of ['b.raw', 'small.raw']) {
      const [left, right] = [join(here, name), join(there, name)].map((path) =>
        existsSync(path) ? readFileSync(path) : Buffer.from('none'),
      );
      assert.is(difference(left!, right!), '', `${name}: ${args.join(' ')}`);
    }
  });
}

const messages = qemuSuite('messages and exit codes are those of qemu-img');

messages.before(async () => {
  template = mkdtempSync(join(tmpdir(), 'qcow2-test-'));
  await prepare(template);
});

messages.after(() => rmSync(template, { recursive: true, force: true }));

for (const line of [
  '',
  '--bogus',
  '-x',
  'bogus',
  'convert',
  'convert a.qcow2',
  'convert --bogus a.qcow2 b.raw',
  'convert -Z a.qcow2 b.raw',
  'convert -S 1000 a.qcow2 b.raw',
  'convert -S 1x a.qcow2 b.raw',
  'convert -S 1G a.qcow2 b.raw',
  'convert -S -1 a.qcow2 b.raw',
  'convert -S 0x200 -O raw a.qcow2 b.raw',
  'convert -S 1.5k -O raw a.qcow2 b.raw',
  'convert -S 0.3k -O raw a.qcow2 b.raw',
  'convert -S 0 -O raw a.qcow2 b.raw',
  'convert -m 0 a.qcow2 b.raw',
  'convert -m 17 a.qcow2 b.raw',
  'convert -m x a.qcow2 b.raw',
  'convert -m 16 -O raw a.qcow2 b.raw',
  'convert -W -m 2 -O raw a.qcow2 b.raw',
  'convert --target-is-zero a.qcow2 b.raw',
  'convert -n --target-is-zero -O raw a.qcow2 nowhere.raw',
  'convert -n -o preallocation=full a.qcow2 b.raw',
  'convert -n -O raw a.qcow2 small.raw',
  'convert -n -O raw odd.raw small.raw',
  'convert -n -c -O qcow2 a.qcow2 data.qcow2',
  'convert -O raw nowhere.qcow2 b.raw',
  'convert -O raw folder b.raw',
  'convert -O raw a.qcow2 nowhere/b.raw',
  'convert -O raw a.qcow2 folder',
  'convert -n -O raw a.qcow2 nowhere.raw',
  'convert -O raw overlay.qcow2 b.raw',
  'convert -O raw -l nowhere overlay.qcow2 b.raw',
  'convert -O raw format.qcow2 b.raw',
  'convert -f qcow2 -O raw odd.raw b.raw',
  'convert -f qcow2 -O raw small.raw b.raw',
  'convert -f bogus -O raw a.qcow2 b.raw',
  'convert -f raw -O raw a.qcow2 b.raw',
  'convert -O bogus a.qcow2 b.raw',
  'convert -O bogus nowhere.qcow2 b.raw',
  'convert -O bogus -l nowhere a.qcow2 b.raw',
  'convert -c -O raw -l nowhere a.qcow2 b.raw',
  'convert -c -O qcow2 -o preallocation=full -l nowhere a.qcow2 b.qcow2',
  'convert -c -O qcow2 -o preallocation=full nowhere.qcow2 b.qcow2',
  'convert -O qcow2 -B small.raw -l nowhere a.qcow2 b.qcow2',
  'convert -O qcow2 -o bogus=1 -l nowhere a.qcow2 b.qcow2',
  'convert -O bogus -l s1 a.qcow2 a.qcow2 b.raw',
  'convert -O bogus --bitmaps a.qcow2 a.qcow2 b.raw',
  'convert -t bogus -O qcow2 --bitmaps a.qcow2 a.qcow2 b.raw',
  'convert -o bogus=1 -O raw a.qcow2 b.raw',
  'convert -o preallocation=bogus -O raw a.qcow2 b.raw',
  'convert -o preallocation=metadata -O raw a.qcow2 b.raw',
  'convert -o preallocation -O raw a.qcow2 b.raw',
  'convert -o preallocation=falloc -O raw a.qcow2 b.raw',
  'convert -o preallocation=full -O raw a.qcow2 b.raw',
  'convert -o size=1M -O raw a.qcow2 b.raw',
  'convert -l nowhere -O raw a.qcow2 b.raw',
  'convert -l s1 -O raw a.qcow2 b.raw',
  'convert -l 1 -O raw a.qcow2 b.raw',
  'convert -l snapshot.foo=1 -O raw a.qcow2 b.raw',
  'convert -l snapshot.id=1,snapshot.name=3 -O raw a.qcow2 b.raw',
  'convert -l s1 -O raw a.qcow2 a.qcow2 b.raw',
  'convert -l s1 -f raw -O raw a.qcow2 b.raw',
  'convert -O raw a.qcow2 odd.raw a.qcow2 b.raw',
  'convert -O raw a.qcow2 nowhere.raw b.raw',
  'convert -O raw -l s1 a.qcow2 nowhere.raw b.raw',
  'convert -O',
  'convert -O raw a.qcow2 b.raw -f',
  'convert -q -p -O raw a.qcow2 b.raw',
  'convert -p -O raw a.qcow2 b.raw',
  'convert -p -O raw empty.qcow2 b.raw',
  'convert -Oraw a.qcow2 b.raw',
  'convert -qO raw -- a.qcow2 b.raw',
  'convert -U -O raw a.qcow2 b.raw',
]) {
  messages(`qemu-img ${line}`, () => compare(line === '' ? [] : line.split(' ')));
}

for (const args of [
  ['convert', '-O', 'raw', '', 'b.raw'],
  ['convert', '-O', 'raw', 'a.qcow2', ''],
  ['convert', '-m', '', 'a.qcow2', 'b.raw'],
  ['convert', '-l', '', '-O', 'raw', 'a.qcow2', 'b.raw'],
  ['convert', '-S', '', '-O', 'raw', 'a.qcow2', 'b.raw'],
]) {
  messages(`empty arguments: ${JSON.stringify(args)}`, () => compare(args));
}

messages('the last image of a chain that is missing', async () => {
  await inScratch(async (cwd) => {
    await prepare(cwd);
    const create = ['create', '-q', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b'];
    await qemuImg([...create, 'overlay.qcow2', 'top.qcow2', '1M'], { cwd });
    const args = ['convert', '-O', 'raw', 'top.qcow2', 'b.raw'];
    const theirs = await run(requireQemu().img, args, { cwd });
    assert.is(said(await tool(args, { cwd }), 'qcow2-img'), said(theirs, 'qemu-img'));
  });
});

messages('a data file that is missing', async () => {
  await inScratch(async (cwd) => {
    const args = ['create', '-q', '-f', 'qcow2', '-o', 'data_file=d.raw', 'top.qcow2', '1M'];
    await qemuImg(args, { cwd });
    rmSync(join(cwd, 'd.raw'));
    const line = ['convert', '-O', 'raw', 'top.qcow2', 'b.raw'];
    const theirs = await run(requireQemu().img, line, { cwd });
    assert.is(said(await tool(line, { cwd }), 'qcow2-img'), said(theirs, 'qemu-img'));
  });
});

messages('where both outputs go to one file, what is said comes in the order of qemu-img', () =>
  inScratch(async (cwd) => {
    await prepare(cwd);
    writeFileSync(join(cwd, 'target.raw'), '');
    const args = 'convert -p -n -f qcow2 -O raw a.qcow2 target.raw 2>&1';
    // One after the other: both want to write the target.
    const ours = await run('sh', ['-c', `"${process.execPath}" "${TOOL}" ${args}`], { cwd });
    const theirs = await run('sh', ['-c', `"${requireQemu().img}" ${args}`], { cwd });
    const said = ours.stdout.toString().replace('qcow2-img', 'qemu-img');
    assert.is(said, theirs.stdout.toString());
    assert.match(said, /100%\)\rqemu-img: .*\n\n$/);
  }),
);

messages.run();

// ---- files and names -------------------------------------------------------------------------

const names = qemuSuite('files and names');

/** What both tools make of an image, in the folder. */
async function converted(cwd: string, image: string, args: readonly string[] = []): Promise<void> {
  await qemuImg(['convert', '-O', 'raw', image, 'theirs.raw'], { cwd });
  const { code, stderr } = await tool(['convert', ...args, '-O', 'raw', image, 'ours.raw'], {
    cwd,
  });
  assert.is(stderr, '');
  assert.is(code, 0);
  const [ours, theirs] = ['ours.raw', 'theirs.raw'].map((name) => readFileSync(join(cwd, name)));
  assert.is(difference(ours!, theirs!), '');
}

names('spaces, other alphabets and leading dashes', () =>
  inScratch(async (folder) => {
    const cwd = join(folder, 'ein Ordner – папка 📁');
    mkdirSync(cwd);
    await qemuImg(['create', '-q', '-f', 'raw', 'unten ü.raw', '1M'], { cwd });
    await qemuIo('unten ü.raw', ['write -P 9 0 100k'], { cwd, format: 'raw' });
    const create = ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'unten ü.raw'];
    await qemuImg([...create, 'oben 图.qcow2', '1M'], { cwd });
    await qemuIo('oben 图.qcow2', ['write -P 3 300k 64k'], { cwd });
    await converted(cwd, 'oben 图.qcow2');
    await converted(cwd, join(cwd, 'oben 图.qcow2'));
    copyFileSync(join(cwd, 'unten ü.raw'), join(cwd, '-x.raw'));
    const { code } = await tool(['convert', '-f', 'raw', '-O', 'raw', '--', '-x.raw', '-y.raw'], {
      cwd,
    });
    assert.is(code, 0);
    const [x, y] = ['-x.raw', '-y.raw'].map((name) => readFileSync(join(cwd, name)));
    assert.is(difference(y!, x!), '');
  }),
);

names('the name that the tool is called by stands in its messages', () =>
  inScratch(async (cwd) => {
    const link = join(cwd, 'qemu-img');
    symlinkSync(TOOL, link);
    const args = ['convert', '-O', 'raw', 'nowhere', 'b.raw'];
    const ours = await run(link, args, { cwd });
    const theirs = await run(requireQemu().img, args, { cwd });
    assert.is(ours.stderr, theirs.stderr);
    assert.is(ours.code, theirs.code);
  }),
);

names('--untrusted keeps names inside images in the folder of the image', () =>
  inScratch(async (folder) => {
    const cwd = join(folder, 'in');
    mkdirSync(cwd);
    for (const path of ['out.raw', 'in/near.raw']) {
      writeFileSync(join(folder, path), Buffer.alloc(MIB, 6));
    }
    symlinkSync('../out.raw', join(cwd, 'link.raw'));
    const make = async (backing: string, name: string) => {
      const args = ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', backing, name, '1M'];
      await qemuImg(args, { cwd });
    };
    await make('near.raw', 'good.qcow2');
    await converted(cwd, 'good.qcow2', ['--untrusted']);
    await converted(cwd, join(cwd, 'good.qcow2'), ['--untrusted']);
    for (const [index, backing] of ['../out.raw', join(folder, 'out.raw'), 'link.raw'].entries()) {
      const name = `bad${index}.qcow2`;
      await make(backing, name);
      await converted(cwd, name);
      rmSync(join(cwd, 'ours.raw'));
      const args = ['convert', '--untrusted', '-O', 'raw', name, 'ours.raw'];
      const { code, stderr } = await tool(args, { cwd });
      assert.is(code, 1);
      assert.match(stderr, /lies outside of the image's folder/);
      assert.not(existsSync(join(cwd, 'ours.raw')));
    }
  }),
);

names('names inside an image that are no paths are refused', () =>
  inScratch(async (cwd) => {
    for (const backing of ['nbd://localhost/', 'json:{"driver":"null-co"}', 'fat:/etc']) {
      const create = ['create', '-q', '-u', '-f', 'qcow2', '-F', 'raw', '-b', backing];
      await qemuImg([...create, 'a.qcow2', '1M'], { cwd });
      const { code, stderr } = await tool(['convert', '-O', 'raw', 'a.qcow2', 'b.raw'], { cwd });
      assert.is(code, 1);
      assert.match(stderr, /Unknown protocol/);
      assert.not(existsSync(join(cwd, 'b.raw')));
    }
  }),
);

names('a source as the target is refused, by whatever name', () =>
  inScratch(async (cwd) => {
    await prepare(cwd);
    symlinkSync('a.qcow2', join(cwd, 'link'));
    const before = readFileSync(join(cwd, 'a.qcow2'));
    for (const target of ['a.qcow2', './a.qcow2', 'link', join(cwd, 'a.qcow2')]) {
      const { code } = await tool(['convert', '-O', 'raw', 'a.qcow2', target], { cwd });
      assert.is(code, 1, target);
      assert.is(difference(readFileSync(join(cwd, 'a.qcow2')), before), '', target);
    }
  }),
);

names('a backing file as the target is refused', () =>
  inScratch(async (cwd) => {
    writeFileSync(join(cwd, 'base.raw'), Buffer.alloc(MIB, 6));
    const create = ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'base.raw'];
    await qemuImg([...create, 'a.qcow2'], { cwd });
    for (const way of [[], ['-n']]) {
      const { code } = await tool(['convert', ...way, '-O', 'raw', 'a.qcow2', 'base.raw'], { cwd });
      assert.is(code, 1);
    }
    assert.is(difference(readFileSync(join(cwd, 'base.raw')), Buffer.alloc(MIB, 6)), '');
  }),
);

names('an empty disk becomes an empty file', () =>
  inScratch(async (cwd) => {
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '0'], { cwd });
    await converted(cwd, 'a.qcow2');
    const { stdout, code } = await tool(['convert', '-O', 'raw', 'a.qcow2', '-'], { cwd });
    assert.is(stdout.length, 0);
    assert.is(code, 0);
  }),
);

names('an empty disk of 16 TiB takes no longer than a small one', () =>
  inScratch(async (cwd) => {
    const timed = async (size: string) => {
      // Room for tables of that many entries is in larger clusters only.
      const options = ['-o', 'cluster_size=2M'];
      await qemuImg(['create', '-q', '-f', 'qcow2', ...options, 'a.qcow2', size], { cwd });
      rmSync(join(cwd, 'b.raw'), { force: true });
      const start = performance.now();
      const { code, stderr } = await tool(['convert', '-O', 'raw', 'a.qcow2', 'b.raw'], { cwd });
      assert.is(stderr, '');
      assert.is(code, 0);
      return performance.now() - start;
    };
    const times: string[] = [];
    // What else the machine does may hold up a run, but hardly each of so many.
    for (let attempt = 0; attempt < 20; attempt++) {
      const small = await timed('1M');
      const large = await timed('15T');
      assert.is(statSync(join(cwd, 'b.raw')).size, 15 * 2 ** 40);
      // All but the first block is a hole, as with qemu-img.
      assert.ok(statSync(join(cwd, 'b.raw')).blocks * 512 <= 4096);
      if (large < small * 3 + 200) return;
      times.push(`${large} ms, and ${small} ms for 1 MiB`);
    }
    assert.unreachable(times.join('\n'));
  }),
);

for (const mode of ['falloc', 'full']) {
  names(`preallocation=${mode} leaves no holes`, () =>
    inScratch(async (cwd) => {
      await prepare(cwd);
      await converted(cwd, 'a.qcow2', ['-o', `preallocation=${mode}`]);
      const { size, blocks } = statSync(join(cwd, 'ours.raw'));
      assert.ok(blocks * 512 >= size, `${blocks} blocks for ${size} bytes`);
    }),
  );
}

names('zeros become holes of the target, and -S 0 writes them', () =>
  inScratch(async (cwd) => {
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '4M'], { cwd });
    await qemuIo('a.qcow2', ['write -P 0 0 4M', 'write -P 1 1M 64k'], { cwd });
    await converted(cwd, 'a.qcow2');
    assert.ok(statSync(join(cwd, 'ours.raw')).blocks * 512 <= 128 * 1024);
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '4M'], { cwd });
    await converted(cwd, 'a.qcow2', ['-S', '0']);
    assert.ok(statSync(join(cwd, 'ours.raw')).blocks * 512 >= 4 * MIB);
  }),
);

names('progress on standard error where the disk goes to standard output', () =>
  inScratch(async (cwd) => {
    await prepare(cwd);
    await qemuImg(['convert', '-O', 'raw', 'a.qcow2', 'theirs.raw'], { cwd });
    const ended = await tool(['convert', '-p', '-O', 'raw', 'a.qcow2', '-'], { cwd });
    assert.is(difference(ended.stdout, readFileSync(join(cwd, 'theirs.raw'))), '');
    assert.match(ended.stderr, /^ {4}\(0\.00\/100%\)\r.*\(100\.00\/100%\)\r\n$/s);
  }),
);

names('standard output that is closed early ends the tool', () =>
  inScratch(async (cwd) => {
    await prepare(cwd);
    await qemuIo('a.qcow2', ['write -P 7 0 2M'], { cwd });
    const script = `"${process.execPath}" "${TOOL}" convert -O raw a.qcow2 - | head -c 1000 | wc -c
      echo "\${PIPESTATUS[0]}"`;
    const { stdout, stderr } = await run('bash', ['-c', script], { cwd });
    const [count, code] = stdout.toString().trim().split(/\s+/);
    assert.is(count, '1000');
    assert.is.not(code, '0', stderr);
    assert.not.match(stderr, /internal error|at .*:\d+:\d+/);
  }),
);

names.run();

// ---- ends that are not good ------------------------------------------------------------------

const broken = qemuSuite('what does not come to its end leaves nothing that looks whole');

/** An image of random data that takes a moment to convert. */
async function makeLarge(cwd: string, mebibytes: number): Promise<void> {
  const next = rng();
  const bytes = Buffer.alloc(MIB);
  for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE(next.u32(), at);
  writeFileSync(join(cwd, 'pattern'), bytes);
  await qemuImg(['create', '-q', '-f', 'qcow2', 'large.qcow2', `${mebibytes}M`], { cwd });
  await qemuIo('large.qcow2', [`write -s pattern 0 ${mebibytes}M`], { cwd });
}

/** The target is not there, or shorter than the disk. */
function assertNotWhole(path: string, size: number): void {
  const found = statSync(path, { throwIfNoEntry: false });
  assert.ok(found === undefined || found.size < size, `${found?.size} of ${size} bytes`);
}

/**
 * Whether the target has the length of the disk. If so it must be the disk to the last byte: a
 * signal may come when all is written and the process has yet to end.
 */
function isWhole(path: string, disk: Uint8Array): boolean {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined || found.size < disk.length) return false;
  assert.is(difference(readFileSync(path), disk), '', 'looks whole and is not');
  return true;
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGKILL'] as const) {
  broken(`stopped by ${signal}`, () =>
    inScratch(async (cwd) => {
      await makeLarge(cwd, 96);
      await qemuImg(['convert', '-O', 'raw', 'large.qcow2', 'theirs.raw'], { cwd });
      const disk = readFileSync(join(cwd, 'theirs.raw'));
      const target = join(cwd, 'b.raw');
      let stopped = 0;
      for (const workers of ['1', '4']) {
        // Stopped at the first sight of the target, then ever later; and one that takes seconds,
        // which nothing that holds up this process lets come to its end.
        for (const [delay, ...rate] of [[0], [10], [40], [20, '-r', '24M']] as const) {
          rmSync(target, { force: true });
          const how = ['-m', workers, ...rate, '-O', 'raw'];
          const args = [TOOL, 'convert', ...how, 'large.qcow2', 'b.raw'];
          const child = spawn(process.execPath, args, { cwd, stdio: 'ignore' });
          const ended = new Promise<[number | null, NodeJS.Signals | null]>((done) => {
            child.once('exit', (code, by) => done([code, by]));
          });
          while (!existsSync(target) && child.exitCode === null) {
            await new Promise((done) => setTimeout(done, 2));
          }
          await new Promise((done) => setTimeout(done, delay));
          child.kill(signal);
          const [code, by] = await ended;
          const whole = isWhole(target, disk);
          if (code === 0) {
            assert.ok(whole, 'a conversion that says it is done is');
            continue;
          }
          assert.is(by, signal, `ended with ${code}`);
          if (whole) continue;
          stopped++;
          if (signal !== 'SIGKILL') assert.not(existsSync(target), 'a new file is removed');
        }
      }
      assert.ok(stopped > 0, 'every conversion was done before it could be stopped');
    }),
  );
}

/** Spoils the L2 entry of the image's cluster `index`. */
function spoilEntry(path: string, index: number): void {
  const bytes = readFileSync(path);
  const l1 = Number(bytes.readBigUInt64BE(40));
  const l2 = Number(bytes.readBigUInt64BE(l1) & 0x00ff_ffff_ffff_fe00n);
  bytes.writeBigUInt64BE(0x8000_0000_0005_0200n, l2 + index * 8);
  writeFileSync(path, bytes);
}

for (const existing of [false, true]) {
  const target = existing ? 'a target that was there' : 'a new target';
  broken(`a source that is corrupt in the middle, ${target}`, () =>
    inScratch(async (cwd) => {
      await makeLarge(cwd, 40);
      spoilEntry(join(cwd, 'large.qcow2'), 500);
      for (const workers of ['1', '3']) {
        if (existing) writeFileSync(join(cwd, 'b.raw'), Buffer.alloc(41 * MIB, 1));
        const args = ['convert', '-m', workers, '-O', 'raw', 'large.qcow2', 'b.raw'];
        const { code, stderr } = await tool(args, { cwd });
        assert.is(code, 1);
        assert.match(
          stderr,
          /^qcow2: Image is corrupt: Cluster allocation offset 0x50200 unaligned/,
        );
        assert.match(
          stderr,
          / unaligned [^\n]*\nqcow2-img: error while reading block status at offset \d+: Input/,
        );
        assertNotWhole(join(cwd, 'b.raw'), 40 * MIB);
        assert.is(existsSync(join(cwd, 'b.raw')), existing);
      }
    }),
  );
}

broken('a compressed cluster that is damaged', () =>
  inScratch(async (cwd) => {
    await prepare(cwd);
    await qemuImg(['convert', '-c', '-O', 'qcow2', 'a.qcow2', 'c.qcow2'], { cwd });
    const bytes = readFileSync(join(cwd, 'c.qcow2'));
    const l1 = Number(bytes.readBigUInt64BE(40));
    const l2 = Number(bytes.readBigUInt64BE(l1) & 0x00ff_ffff_ffff_fe00n);
    const host = Number(bytes.readBigUInt64BE(l2 + 8 * 2) & 0x003f_ffff_ffff_ffffn);
    bytes.fill(0xff, host, host + 40);
    writeFileSync(join(cwd, 'c.qcow2'), bytes);
    const theirs = await run(requireQemu().img, ['convert', '-O', 'raw', 'c.qcow2', 'x'], { cwd });
    assert.is(theirs.code, 1);
    const ours = await tool(['convert', '-O', 'raw', 'c.qcow2', 'b.raw'], { cwd });
    assert.is(ours.code, 1);
    assert.match(ours.stderr, /compressed cluster \(deflate\) cannot be read/);
    assert.not(existsSync(join(cwd, 'b.raw')));
  }),
);

broken('a source that cannot be read', () =>
  inScratch(async (cwd) => {
    await prepare(cwd);
    const { code, stderr } = await tool(
      ['convert', '-f', 'raw', '-O', 'raw', '/proc/self/mem', 'b.raw'],
      { cwd },
    );
    assert.is.not(code, null);
    assert.not.match(stderr, /internal error|at .*:\d+:\d+/);
  }),
);

broken.run();

// ---- devices ---------------------------------------------------------------------------------

const devices = qemuSuite('disks that are full, and block devices');

/** Runs a program as it comes; what a machine does not allow skips the test, and says so. */
function allowed(program: string, args: readonly string[]): string | undefined {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
  if (status === 0) return stdout.trim();
  console.error(`skipped, as ${program} does not work here: ${error?.message ?? stderr.trim()}`);
  return undefined;
}

devices('a disk that is full: nothing is left but an error', () =>
  inScratch(async (cwd) => {
    const mount = join(cwd, 'mount');
    mkdirSync(mount);
    if (allowed('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', mount]) === undefined) return;
    try {
      await makeLarge(cwd, 3);
      for (const workers of ['1', '3']) {
        const args = ['convert', '-m', workers, '-O', 'raw', 'large.qcow2', 'mount/b.raw'];
        const { code, stderr } = await tool(args, { cwd });
        assert.is(code, 1);
        assert.match(stderr, /No space left on device/);
        assert.not(existsSync(join(mount, 'b.raw')));
      }
    } finally {
      await must('umount', [mount]);
    }
  }),
);

devices('a block device as the target, and as the source', () =>
  inScratch(async (cwd) => {
    await prepare(cwd);
    await qemuImg(['convert', '-O', 'raw', 'a.qcow2', 'theirs.raw'], { cwd });
    // Larger than the disk, and full of something else.
    writeFileSync(join(cwd, 'disk'), Buffer.alloc(3 * MIB, 0xee));
    const device = allowed('losetup', ['--find', '--show', join(cwd, 'disk')]);
    if (device === undefined) return;
    try {
      const args = ['convert', '-n', '-O', 'raw', 'a.qcow2', device];
      const { code, stderr } = await tool(args, { cwd });
      assert.is(stderr, '');
      assert.is(code, 0);
      const back = ['convert', '-f', 'raw', '-O', 'raw', device, 'back.raw'];
      assert.is((await tool(back, { cwd })).stderr, '');
      const back3 = readFileSync(join(cwd, 'back.raw'));
      const theirs = readFileSync(join(cwd, 'theirs.raw'));
      assert.is(back3.length, 3 * MIB);
      assert.is(difference(back3.subarray(0, 2 * MIB), theirs), '');
      assert.is(difference(back3.subarray(2 * MIB), Buffer.alloc(MIB, 0xee)), '');
      const small = ['convert', '-n', '-O', 'raw', 'a.qcow2', 'a.qcow2', device];
      assert.match((await tool(small, { cwd })).stderr, /output file is smaller than input file/);
    } finally {
      await must('losetup', ['--detach', device]);
    }
  }),
);

devices.run();
