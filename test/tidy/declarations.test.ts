/** What dist/lib/types says can be read by strict projects, whichever way they resolve modules. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const TSC = resolve('node_modules/.bin/tsc');

/** What the compiler has to say about `source` in a project that has this package installed. */
function compile(source: string, module: string, moduleResolution: string): string {
  mkdirSync('.cache', { recursive: true });
  const folder = mkdtempSync(resolve('.cache', 'declarations-'));
  try {
    const link = join(folder, 'node_modules', 'qcow2');
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(process.cwd(), link, 'dir');
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
    writeFileSync(join(folder, 'user.ts'), source);
    const options = {
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      skipLibCheck: false,
      noEmit: true,
      target: 'es2022',
      lib: ['es2023', 'dom', 'dom.iterable', 'dom.asynciterable'],
      types: [],
      module,
      moduleResolution,
    };
    const config = { compilerOptions: options, files: ['user.ts'] };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config));
    return spawnSync(TSC, ['-p', folder], { encoding: 'utf8' }).stdout;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const test = suite('declarations');

const USE = `
import { Qcow2Error, isQcow2Error } from 'qcow2';
import * as node from 'qcow2/node';
const err: unknown = new Qcow2Error('IO', 'a message');
if (isQcow2Error(err, 'IO')) console.log(err.code.length, node);
`;

for (const [module, moduleResolution] of [
  ['nodenext', 'nodenext'],
  ['esnext', 'bundler'],
] as const) {
  test(`compile with moduleResolution ${moduleResolution}`, () => {
    assert.is(compile(USE, module, moduleResolution), '');
  });

  test(`are more than "any" with moduleResolution ${moduleResolution}`, () => {
    const wrong = "import { Qcow2Error } from 'qcow2';\nnew Qcow2Error('NO SUCH CODE', 'text');\n";
    assert.match(compile(wrong, module, moduleResolution), 'NO SUCH CODE');
  });
}

test.run();
