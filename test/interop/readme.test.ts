/** The README's programs run as they stand, against the built package. */
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';

const test = qemuSuite('README');
const root = process.cwd();
let folder = '';

/** The fenced TypeScript programs for Node, in order; those for browsers have their own suites. */
function programs(): string[] {
  const text = readFileSync(join(root, 'README.md'), 'utf8');
  const all = [...text.matchAll(/```ts\n(.*?)```/gs)].map((match) => match[1] as string);
  return all.filter((program) => program.includes("'qcow2/node'"));
}

test.before(() => {
  folder = mkdtempSync(join(tmpdir(), 'qcow2-readme-'));
  mkdirSync(join(folder, 'node_modules'));
  symlinkSync(root, join(folder, 'node_modules', 'qcow2'));
  mkdirSync(join(folder, 'images'));
  cpSync(join(root, 'src', 'cli', 'sample.qcow2'), join(folder, 'disk.qcow2'));
  cpSync(join(folder, 'disk.qcow2'), join(folder, 'images', 'base.qcow2'));
  const { img } = requireQemu();
  const create = ['create', '-q', '-u', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2'];
  execFileSync(img, [...create, 'overlay.qcow2', '64M'], { cwd: folder });
});

test.after(() => rmSync(folder, { recursive: true }));

test('every program runs', () => {
  const all = programs();
  assert.is(all.length, 3);
  for (const [index, program] of all.entries()) {
    const file = join(folder, `program-${index}.mjs`);
    writeFileSync(file, program);
    const output = execFileSync(process.execPath, [file], { cwd: folder, encoding: 'utf8' });
    if (index === 0) assert.match(output, /^qcow2 67108864\n0 \d+ compressed 0\n/);
  }
});

test.run();
