// The built tools ask for a passphrase on a terminal of their own, which script(1) makes, and show
// nothing of it.
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { inScratch, must, RUN_MS_MAX, TOOL } from '../tool.ts';

const IO = resolve('dist/qcow2-io.js');
const PASSPHRASE = 'tête à tête';
const PROMPT = /Passphrase for '[^']*': /;

const hasTerminals = /util-linux/.test(spawnSync('script', ['--version']).stdout?.toString() ?? '');
const test = suite('asking for a passphrase');
const check = hasTerminals || process.env.CI === 'true' ? test : test.skip;

interface Session {
  readonly code: number | null;
  readonly shown: string;
}

/** Runs a tool on a terminal; each answer is typed when the tool asks once more. */
function onTerminal(folder: string, command: readonly string[], answers: readonly string[]) {
  const quoted = command.map((word) => `'${word}'`).join(' ');
  return new Promise<Session>((done, fail) => {
    const child = spawn('script', ['-qec', quoted, '/dev/null'], {
      cwd: folder,
      timeout: RUN_MS_MAX,
    });
    let shown = '';
    let asked = 0;
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      shown += text;
      for (; asked < shown.split(PROMPT).length - 1; asked++) {
        // At once: by the time it asks it has turned the echo off.
        child.stdin.write(answers[asked] ?? '\u0003');
      }
    });
    child.once('error', fail);
    child.once('close', (code) => done({ code, shown }));
  });
}

async function makeImage(folder: string): Promise<void> {
  const secret = ['--object', `secret,id=s,data=${PASSPHRASE}`];
  const layout = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10';
  const create = ['create', '-q', ...secret, '-f', 'qcow2', '-o', layout, 'image', '1M'];
  await must(process.execPath, [TOOL, ...create], { cwd: folder });
  const name = 'driver=qcow2,file.filename=image,encrypt.key-secret=s';
  const write = [...secret, '--image-opts', '-c', 'write -P 9 0 512', name];
  await must(process.execPath, [IO, ...write], { cwd: folder });
}

check('the image tool takes what is typed, corrections and all, and shows none of it', async () => {
  await inScratch(async (folder) => {
    await makeImage(folder);
    const convert = [process.execPath, TOOL, 'convert', '-O', 'raw', 'image', 'plain'];
    // Letters of two bytes that are erased go as a whole.
    const typed = `tëx\u007f\u007fête à tête!\b\r`;
    const { code, shown } = await onTerminal(folder, convert, [typed]);
    assert.is(code, 0, shown);
    assert.match(shown, /^Passphrase for 'image': \r?\n/);
    assert.not.match(shown, /t.te|!/, 'what was typed');
    assert.is(readFileSync(`${folder}/plain`)[0], 9);
  });
});

check('so does the tool for reading and writing', async () => {
  await inScratch(async (folder) => {
    await makeImage(folder);
    const read = [process.execPath, IO, '-r', '-c', 'read -P 9 0 512', 'image'];
    const { code, shown } = await onTerminal(folder, read, [`${PASSPHRASE}\r`]);
    assert.is(code, 0, shown);
    assert.match(shown, 'read 512/512 bytes at offset 0');
    assert.not.match(shown, /tête/, 'what was typed');
  });
});

check('a wrong passphrase is refused, an interrupted question ends the tool', async () => {
  await inScratch(async (folder) => {
    await makeImage(folder);
    const convert = [process.execPath, TOOL, 'convert', '-O', 'raw', 'image', 'plain'];
    const wrong = await onTerminal(folder, convert, ['another one\r']);
    assert.is(wrong.code, 1);
    assert.match(wrong.shown, 'Invalid password, cannot unlock any keyslot');
    assert.not.match(wrong.shown, 'another');
    const interrupted = await onTerminal(folder, convert, ['half of i\u0003']);
    assert.is.not(interrupted.code, 0);
    assert.not.match(interrupted.shown, 'half');
  });
});

check('nobody is asked where there is no terminal', async () => {
  await inScratch(async (folder) => {
    await makeImage(folder);
    const line = ['convert', '-O', 'raw', 'image', 'plain'];
    const { status, stderr } = spawnSync(process.execPath, [TOOL, ...line], {
      cwd: folder,
      input: `${PASSPHRASE}\n`,
    });
    assert.is(status, 1);
    assert.match(stderr.toString(), "Parameter 'encrypt.key-secret' is required for cipher");
  });
});

test.run();
