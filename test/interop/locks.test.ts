/**
 * Image locks against QEMU's tools, both ways: what qemu-io has open the tool refuses in qemu-img's
 * words, and what the tool has open QEMU's tools refuse.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { hasNative } from '../native-layer.ts';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { type Ended, inScratch, oftenEnough, qemuImg, qemuIo, run, TOOL, tool } from '../tool.ts';

const IO_TOOL = resolve('dist/qcow2-io.js');

/** Makes raw and qcow2 images, alone, over a backing file and with a data file. */
async function prepare(cwd: string): Promise<void> {
  await qemuImg(['create', '-q', '-f', 'raw', 'a.raw', '1M'], { cwd });
  await qemuImg(['create', '-q', '-f', 'raw', 'b.raw', '1M'], { cwd });
  await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '1M'], { cwd });
  const overlay = ['create', '-q', '-f', 'qcow2', '-F'];
  await qemuImg([...overlay, 'qcow2', '-b', 'a.qcow2', 'over.qcow2'], { cwd });
  await qemuImg([...overlay, 'raw', '-b', 'a.raw', 'over-raw.qcow2'], { cwd });
  await qemuImg(['create', '-q', '-f', 'qcow2', '-o', 'data_file=d.raw', 'd.qcow2', '1M'], { cwd });
}

/** Makes a LUKS container, and says how it is opened. */
async function prepareLuks(cwd: string): Promise<void> {
  const options = ['-f', 'luks', '-o', 'key-secret=s,iter-time=10'];
  await oftenEnough(() =>
    qemuImg(['create', '-q', ...SECRET, ...options, 'a.luks', '64k'], { cwd }),
  );
}

const SECRET = ['--object', 'secret,id=s,data=open sesame'];
const LUKS = 'driver=luks,key-secret=s,file.filename=a.luks';

/** Lets `work` run while qemu-io, or the tool that is like it, has an image open. */
async function whileHeld(
  cwd: string,
  [format, image, ...options]: readonly string[],
  work: () => Promise<void>,
  holders: readonly string[] = [requireQemu().io],
): Promise<void> {
  const named = format === 'luks' ? [...SECRET, '--image-opts'] : ['-f', format!];
  const args = [...holders.slice(1), ...named, ...options, image!];
  const holder = spawn(holders[0]!, args, { cwd, stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(holder, 'exit');
  try {
    // It asks for its first command when the image is open.
    await Promise.race([
      once(holder.stdout, 'data'),
      ended.then(() => Promise.reject(new Error('qemu-io ended'))),
    ]);
    await work();
  } finally {
    holder.stdin.end('quit\n');
    await ended;
  }
}

/** What a run said, without the name of the program. */
function said({ code, stdout, stderr }: Ended, program: string): string {
  return `${code} ${stdout}${stderr.replaceAll(`${program}: `, 'PROGRAM: ')}`;
}

const WRITER = ['qcow2', 'a.qcow2'];
const READER = ['qcow2', 'a.qcow2', '-r'];
const RAW_WRITER = ['raw', 'a.raw'];

/** What is open, and which command lines must end as qemu-img's do. */
const CASES: readonly (readonly [
  fact: string,
  held: readonly string[],
  lines: readonly string[],
])[] = [
  [
    'a qcow2 image that is written',
    WRITER,
    [
      'info a.qcow2',
      'info -U a.qcow2',
      'info --force-share a.qcow2',
      'info -f raw a.qcow2',
      'info over.qcow2',
      'info --backing-chain over.qcow2',
      'info -U --backing-chain over.qcow2',
      'convert -O raw a.qcow2 t.raw',
      'convert -f raw -O raw a.qcow2 t.raw',
      'convert -U -O raw a.qcow2 t.raw',
      'convert -O raw over.qcow2 t.raw',
      'convert -U -O raw over.qcow2 t.raw',
      'convert -O raw b.raw a.qcow2',
      'convert -U -O raw b.raw a.qcow2',
      'convert -n -O raw b.raw a.qcow2',
      'convert -O raw b.raw a.qcow2 t.raw',
      'create -q -f qcow2 a.qcow2 1M',
      'create -q -f qcow2 -b a.qcow2 -F qcow2 new.qcow2',
      'resize a.qcow2 2M',
    ],
  ],
  [
    'a qcow2 image that is read',
    READER,
    ['info a.qcow2', 'convert -O raw a.qcow2 t.raw', 'convert -O raw b.raw a.qcow2'],
  ],
  [
    'a raw image that is written',
    RAW_WRITER,
    [
      'info -f raw a.raw',
      'convert -f raw -O raw a.raw t.raw',
      'convert -U -f raw -O raw a.raw t.raw',
      'convert -U -O raw over-raw.qcow2 t.raw',
      'convert -f raw -O raw b.raw a.raw',
      'convert -n -f raw -O raw b.raw a.raw',
    ],
  ],
  [
    'an image with a data file that is written',
    ['qcow2', 'd.qcow2'],
    [
      'convert -O raw d.qcow2 t.raw',
      'convert -f raw -O raw d.raw t.raw',
      'convert -f raw -O raw b.raw d.raw',
      'convert -U -O raw d.qcow2 t.raw',
    ],
  ],
  [
    'a data file that is written by itself',
    ['raw', 'd.raw'],
    ['info d.qcow2', 'convert -O raw d.qcow2 t.raw', 'convert -U -O raw d.qcow2 t.raw'],
  ],
  [
    'an image with a data file that is read',
    ['qcow2', 'd.qcow2', '-r'],
    ['resize -f raw d.raw 1M', 'resize -f raw d.raw 2M', 'convert -f raw -O raw b.raw d.raw'],
  ],
];

/** Command lines of a container that somebody has open; the settings say which it is. */
const LUKS_LINES = [
  ...['info a.luks', 'map', 'measure', 'convert -O raw t.raw', 'compare -f raw a.luks a.luks'],
  ...['resize -q 64k', 'resize -f luks a.luks 64k', 'rebase -b a.luks -F luks a.luks'],
  ...['amend -o new-secret=s,state=active', 'amend --force -o state=inactive,keyslot=7'],
];

const test = qemuSuite('image locks against QEMU');

for (const [fact, held, lines] of CASES) {
  for (const native of hasNative ? [true, false] : [false]) {
    test(`${fact}${native ? '' : ', by the list of locks'}`, () =>
      inScratch(async (cwd) => {
        await prepare(cwd);
        await whileHeld(cwd, held, async () => {
          for (const line of lines) {
            const args = line.split(' ');
            const theirs = await run(requireQemu().img, args, { cwd });
            const off = native ? [] : ['QCOW2_NATIVE=0'];
            const ours = await run('env', [...off, process.execPath, TOOL, ...args], { cwd });
            assert.is(said(ours, 'qcow2-img'), said(theirs, 'qemu-img'), line);
          }
        });
      }));
  }
}

for (const more of [[], ['-r']]) {
  test(`a container that somebody ${more.length > 0 ? 'reads' : 'writes'}`, () =>
    inScratch(async (cwd) => {
      await prepareLuks(cwd);
      copyFileSync(join(cwd, 'a.luks'), join(cwd, 'first.luks'));
      for (const line of LUKS_LINES) {
        copyFileSync(join(cwd, 'first.luks'), join(cwd, 'a.luks'));
        await whileHeld(cwd, ['luks', LUKS, ...more], async () => {
          const args = luksLine(line);
          const theirs = await run(requireQemu().img, args, { cwd });
          const ours = await run(process.execPath, [TOOL, ...args], { cwd });
          assert.is(said(ours, 'qcow2-img'), said(theirs, 'qemu-img'), line);
        });
      }
    }));
}

test('a raw backing file that is written is not read', () =>
  inScratch(async (cwd) => {
    await prepare(cwd);
    await whileHeld(cwd, RAW_WRITER, async () => {
      const { code, stderr } = await tool(['convert', '-O', 'raw', 'over-raw.qcow2', 't.raw'], {
        cwd,
      });
      assert.is(code, 1);
      // qemu-img does not say that it is the backing file here, as it does of a qcow2 one.
      const busy = 'Could not open backing file: Failed to get shared "write" lock';
      const hint = 'Is another process using the image [a.raw]?\n';
      assert.is(stderr, `qcow2-img: Could not open 'over-raw.qcow2': ${busy}\n${hint}`);
    });
  }));

/** A command line about the container by its settings, unless it is named; a size comes last. */
function luksLine(line: string): string[] {
  const words = line.split(' ');
  if (line.includes('a.luks')) return [words[0]!, ...SECRET, ...words.slice(1)];
  const last = /^\d|^t\./.test(words.at(-1)!) ? words.splice(-1) : [];
  return [words[0]!, ...SECRET, ...words.slice(1), '--image-opts', LUKS, ...last];
}

/** What opens the images by command, and what it must say while another has one of them. */
const IO_LINES = [
  '-c length a.qcow2',
  '-r -c length a.qcow2',
  '-r -U -c length a.qcow2',
  '-s -c length a.qcow2',
  '-f raw -c length a.raw',
  '-c length over.qcow2',
  '-c length over-raw.qcow2',
  '-c length d.qcow2',
  '-r -U -c length d.qcow2',
];

for (const held of [WRITER, READER, RAW_WRITER, ['qcow2', 'over.qcow2'], ['qcow2', 'd.qcow2']]) {
  test(`qcow2-io beside one who has ${held.join(' ')} open`, () =>
    inScratch(async (cwd) => {
      await prepare(cwd);
      await whileHeld(cwd, held, async () => {
        for (const line of IO_LINES) {
          const theirs = await run(requireQemu().io, line.split(' '), { cwd });
          const ours = await run(process.execPath, [IO_TOOL, ...line.split(' ')], { cwd });
          assert.is(said(ours, 'qcow2-io'), said(theirs, 'qemu-io'), line);
        }
      });
    }));
}

/** Lets `work` run while the tool is stopped in the middle of what it does. */
async function whileStopped(child: ChildProcess, work: () => Promise<void>): Promise<void> {
  const ended = once(child, 'exit');
  try {
    child.kill('SIGSTOP');
    await work();
  } finally {
    child.kill('SIGCONT');
    child.stdout?.resume();
    assert.equal(await ended, [0, null]);
  }
}

/** What QEMU's tools answer; empty where they do what they are asked to. */
async function answer(cwd: string, program: 'img' | 'io', line: string): Promise<string> {
  const { code, stderr } = await run(requireQemu()[program], line.split(' '), { cwd });
  assert.is(code === 0, stderr === '', `${line}: ${stderr}`);
  return stderr;
}

const nativeTest: (title: string, body: () => Promise<void>) => void = hasNative
  ? test
  : (title) => test.skip(title);

nativeTest('what is converted is not written, and neither is what lies behind it', () =>
  inScratch(async (cwd) => {
    await prepare(cwd);
    await qemuImg(['resize', '-q', 'over.qcow2', '64M'], { cwd });
    await qemuIo('over.qcow2', ['write -P 5 0 16M'], { cwd });
    // Nobody takes what it writes, so it stops by itself.
    const child = spawn(process.execPath, [TOOL, 'convert', '-O', 'raw', 'over.qcow2', '-'], {
      cwd,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'readable');
    await whileStopped(child, async () => {
      for (const image of ['over.qcow2', 'a.qcow2']) {
        const hint = `Is another process using the image [${image}]?\n`;
        const busy = `qemu-io: can't open device ${image}: Failed to get "write" lock\n${hint}`;
        assert.is(await answer(cwd, 'io', `-c quit ${image}`), busy);
        assert.is(await answer(cwd, 'io', `-r -c quit ${image}`), '');
        assert.is(await answer(cwd, 'img', `info ${image}`), '');
        const making = await answer(cwd, 'img', `convert -O raw b.raw ${image}`);
        assert.is(
          making,
          `qemu-img: ${image}: error while converting raw: Failed to get "write" lock\n${hint}`,
        );
      }
    });
    assert.is(await answer(cwd, 'io', '-c quit over.qcow2'), '');
  }),
);

nativeTest('what is force-shared may be written', () =>
  inScratch(async (cwd) => {
    await prepare(cwd);
    await qemuImg(['resize', '-q', 'a.qcow2', '64M'], { cwd });
    await qemuIo('a.qcow2', ['write -P 5 0 16M'], { cwd });
    const args = [TOOL, 'convert', '-U', '-O', 'raw', 'a.qcow2', '-'];
    const child = spawn(process.execPath, args, { cwd, stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'readable');
    await whileStopped(child, async () => {
      assert.is(await answer(cwd, 'io', '-c quit a.qcow2'), '');
    });
  }),
);

nativeTest('a target that is being written is not read', () =>
  inScratch(async (cwd) => {
    await qemuImg(['create', '-q', '-f', 'qcow2', 'empty.qcow2', '256M'], { cwd });
    // It takes seconds, so that it is not done before it is stopped.
    const slow = ['-r', '64M', '-S', '0'];
    const args = [TOOL, 'convert', ...slow, '-O', 'raw', 'empty.qcow2', 't.raw'];
    const child = spawn(process.execPath, args, { cwd, stdio: ['ignore', 'pipe', 'inherit'] });
    const target = join(cwd, 't.raw');
    while (!existsSync(target) || statSync(target).size === 0) {
      assert.is(child.exitCode, null, 'it has begun before it ends');
      await sleep(1);
    }
    await whileStopped(child, async () => {
      const hint = 'Is another process using the image [t.raw]?\n';
      assert.is(
        await answer(cwd, 'img', 'convert -f raw -O raw t.raw x.raw'),
        `qemu-img: Could not open 't.raw': Failed to get shared "write" lock\n${hint}`,
      );
      const ours = await tool(['convert', '-f', 'raw', '-O', 'raw', 't.raw', 'x.raw'], { cwd });
      assert.is(
        ours.stderr,
        `qcow2-img: Could not open 't.raw': Failed to get shared "write" lock\n${hint}`,
      );
    });
    assert.is(await answer(cwd, 'img', 'convert -f raw -O raw t.raw x.raw'), '');
  }),
);

nativeTest('what qcow2-io has open others get as if qemu-io had it', () =>
  inScratch(async (cwd) => {
    await prepare(cwd);
    const own = [process.execPath, IO_TOOL];
    for (const held of [WRITER, RAW_WRITER, ['qcow2', 'over-raw.qcow2']]) {
      const answers: string[][] = [];
      for (const holder of [own, [requireQemu().io]]) {
        const said: string[] = [];
        const ask = async () => {
          for (const line of IO_LINES) said.push(await answer(cwd, 'io', line));
          said.push(await answer(cwd, 'img', 'info over.qcow2'));
        };
        await whileHeld(cwd, held, ask, holder);
        answers.push(said);
      }
      assert.equal(answers[0], answers[1], held.join(' '));
    }
  }),
);

test.run();
