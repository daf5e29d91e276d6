/** Help texts, completion and the manual page: whatever a command takes is described. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Command } from '../../src/cli/command.ts';
import { describeCommands, GLOBAL_OPTIONS } from '../../src/cli/help/description.ts';
import { inScratch, must, run, tool } from '../tool.ts';

const test = suite('help');

const NAMES = readdirSync('src/cli/commands').map((name) => basename(name, '.ts'));
const GLOBAL = GLOBAL_OPTIONS.map(({ name }) => name);

test('every option of every command is described, and none that there is not', async () => {
  for (const described of describeCommands(NAMES)) {
    const { name } = described;
    assert.is.not(described.summary, 'not described yet', name);
    const command: Command = (await import(`../../src/cli/commands/${name}.ts`))[name];
    assert.ok(command.options, `${name} says what it takes`);
    const taken = command.options
      .filter((option) => !GLOBAL.includes(option.name))
      .map((option) => `${option.short ?? ''} ${option.name} ${option.value}`);
    const told = described.options.map(
      (option) => `${option.short ?? ''} ${option.name} ${option.value !== undefined}`,
    );
    assert.equal(told.toSorted(), taken.toSorted(), name);
    for (const { text } of described.options) assert.match(text, /\w/);
  }
});

test('--help tells of the tool, and of a command, in lines that fit', async () => {
  for (const args of [['--help'], ...NAMES.map((name) => [name, '--help'])]) {
    const { code, stdout, stderr } = await tool(args);
    assert.is(code, 0, stderr);
    const text = stdout.toString();
    assert.match(text, /usage: /);
    // Scripts look for an option in the line of its command: that has no other lines.
    const [fits = ''] = text.split('\nSyntax:\n');
    for (const line of fits.split('\n')) assert.ok(line.length <= 100, line);
  }
  const { stdout } = await tool(['snapshot', '-h']);
  assert.match(stdout.toString(), /-d, --delete=NAME/);
});

test('bash completes commands, options and values', async () => {
  const script = (await tool(['completion', 'bash'])).stdout.toString();
  const complete = async (...words: string[]) => {
    const list = words.map((word) => `'${word}'`).join(' ');
    const ask = `COMP_WORDS=(${list}); COMP_CWORD=${words.length - 1}; _qcow2_img`;
    const shown = `${script}\n${ask}\nprintf '%s\\n' "\${COMPREPLY[@]}"\n`;
    return (await must('bash', ['-c', shown])).toString().trim().split('\n');
  };
  assert.equal(await complete('qcow2-img', 're'), ['rebase', 'resize']);
  assert.equal(await complete('qcow2-img', 'resize', '--s'), ['--shrink']);
  assert.equal(await complete('qcow2-img', 'info', '-f', 'q'), ['qcow2']);
  assert.equal(await complete('qcow2-img', 'info', '--output', '=', 'j'), ['json']);
});

test('scripts of other shells have every command and option', async () => {
  for (const shell of ['zsh', 'fish']) {
    const { code, stdout } = await tool(['completion', shell]);
    assert.is(code, 0);
    const script = stdout.toString();
    for (const { name, options } of describeCommands(NAMES)) {
      assert.ok(script.includes(name));
      for (const option of options) assert.ok(script.includes(option.name), option.name);
    }
    // Where the shell is there, it has to read them.
    await inScratch(async (folder) => {
      const path = join(folder, 'script');
      writeFileSync(path, script);
      const check = `! command -v ${shell} >&2 || ${shell} -n "$0"`;
      const { code, stderr } = await run('sh', ['-c', check, path]);
      assert.is(code, 0, stderr);
    });
  }
  assert.is((await tool(['completion', 'tcsh'])).code, 1);
});

test('the manual page has every command', () => {
  const page = readFileSync('dist/qcow2-img.1', 'utf8');
  for (const name of NAMES) assert.ok(page.includes(`.SS ${name}\n`), name);
});

test.run();
