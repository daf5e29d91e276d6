/** Completion, asked of the shells themselves, and the manual page, formatted. */
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { inScratch, run, TOOL, tool } from '../tool.ts';

const test = suite('shells');

/** What is typed, and what the shell makes of it: one way to go on. */
const TYPED: readonly (readonly [typed: string, completed: string])[] = [
  ['res', 'resize'],
  ['resize --s', '--shrink'],
  ['check -r l', 'leaks'],
  ['info -f q', 'qcow2'],
  ['convert -O qc', 'qcow2'],
  ['info --output j', 'json'],
  ['info image', 'image.qcow2'],
  ['snapshot --fo', '--force-share'],
  ['completion z', 'zsh'],
];

async function has(program: string): Promise<boolean> {
  return (await run('sh', ['-c', `command -v ${program}`])).code === 0;
}

/** A folder with an image in it, the script for a shell, and the tool in `bin`. */
function withScript(shell: string, work: (folder: string) => Promise<void>): Promise<void> {
  return inScratch(async (folder) => {
    writeFileSync(join(folder, 'image.qcow2'), '');
    symlinkSync(TOOL, join(folder, 'qcow2-img'));
    const { code, stdout } = await tool(['completion', shell]);
    assert.is(code, 0);
    writeFileSync(join(folder, 'script'), stdout);
    await work(folder);
  });
}

test('bash', () =>
  withScript('bash', async (cwd) => {
    for (const [typed, completed] of TYPED) {
      const words = ['qcow2-img', ...typed.split(' ')];
      const asked = [
        'source ./script',
        `COMP_WORDS=(${words.join(' ')}); COMP_CWORD=${words.length - 1}; COMPREPLY=()`,
        // The function that the script has registered, called as bash does; else names of files.
        'fn=$(complete -p qcow2-img | sed "s/.*-F \\([^ ]*\\).*/\\1/")',
        `$fn qcow2-img '${words.at(-1)}' '${words.at(-2)}'`,
        `((\${#COMPREPLY[@]})) || COMPREPLY=($(compgen -f -- '${words.at(-1)}'))`,
        `printf '%s\\n' "\${COMPREPLY[@]}"`,
      ];
      const { stdout, stderr } = await run('bash', ['-c', asked.join('\n')], { cwd });
      assert.is(`${stdout}${stderr}`.trim(), completed, typed);
    }
  }));

test('fish', async () => {
  if (!(await has('fish'))) return console.error('fish is not installed');
  await withScript('fish', async (cwd) => {
    for (const [typed, completed] of TYPED) {
      const ask = `source script; complete -C 'qcow2-img ${typed}'`;
      const { stdout, stderr } = await run('fish', ['--no-config', '-c', ask], { cwd });
      const lines = `${stdout}${stderr}`.trim().split('\n');
      const words = lines.map((line) => line.split('\t')[0]);
      assert.equal(words, [completed], typed);
    }
  });
});

test('zsh', async () => {
  if (!(await has('zsh'))) return console.error('zsh is not installed');
  await withScript('zsh', async (cwd) => {
    // A terminal, and a key that completes and writes down what the line is then.
    const script = `
      zmodload zsh/zpty
      export HOME=$PWD TERM=dumb
      zpty -b inner zsh -f -i
      tell() { zpty -w inner "$1" }
      tell 'autoload -Uz compinit; compinit -u -d dump; source ./script'
      tell 'note() { zle complete-word; print -r -- "$BUFFER" >>lines; BUFFER=; }'
      tell 'zle -N note; bindkey "^T" note; : >ready'
      for i in {1..600}; do [[ -e ready ]] && break; sleep 0.1; zpty -r inner x; done
      typeset -i count=0
      while read -r typed; do
        count+=1
        zpty -w -n inner "qcow2-img $typed"$'\\x14'
        for i in {1..600}; do
          zpty -r -t inner x
          [[ -e lines ]] && (( $(wc -l <lines) >= count )) && break
          sleep 0.1
        done
      done <typed
      zpty -d inner`;
    writeFileSync(join(cwd, 'typed'), TYPED.map(([typed]) => `${typed}\n`).join(''));
    const { stderr } = await run('zsh', ['-f', '-c', script], { cwd });
    assert.is(stderr, '');
    const lines = readFileSync(join(cwd, 'lines'), 'utf8').trimEnd().split('\n');
    const last = lines.map((line) => line.trimEnd().split(' ').at(-1));
    assert.equal(
      last,
      TYPED.map(([, completed]) => completed),
    );
  });
});

test('the manual page is formatted without a warning, and names what --help names', async () => {
  if (!(await has('groff'))) return console.error('groff is not installed');
  const page = ['-ww', '-man', '-Tutf8', '-P-cbou', 'dist/qcow2-img.1'];
  const { code, stdout, stderr } = await run('groff', page);
  assert.is(`${code} ${stderr}`, '0 ');
  const text = stdout.toString().replaceAll('‐\n', '').replaceAll(/[‐−]/g, '-');
  const names = /(?<![\w-])--?[a-zA-Z][\w-]*/g;
  const help = (await tool(['--help'])).stdout.toString();
  const named = new Set(help.match(names));
  assert.ok(named.size > 60, String(named.size));
  for (const name of named) {
    const around = new RegExp(`(?<![\\w-])${name}(?![\\w-])`);
    assert.match(text, around, name);
  }
});

test.run();
