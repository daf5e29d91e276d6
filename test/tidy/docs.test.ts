/** Files say what they are, exported names what they mean, and lines fit a screen. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { broken, sourceFiles } from './tree.ts';

const COLUMNS_MAX = 100;

const MODIFIERS = /(?:(?:default|declare|abstract|async) )*/;
const KEYWORD = /(?:function\*?|class|const|let|interface|type|enum|namespace)/;
const EXPORT = new RegExp(`^export ${MODIFIERS.source}${KEYWORD.source} (\\w+)`);

/**
 * Exported names that no doc comment stands right above. Overloads share the first one's; so do
 * one-line exports that follow each other without a blank line, such as two ends of a range.
 */
function undocumented(text: string): string[] {
  const lines = text.split('\n');
  let before = '';
  return lines.flatMap((line, i) => {
    const name = EXPORT.exec(line)?.[1];
    if (name === undefined || name === before) return [];
    before = name;
    let above = i - 1;
    while (/^export .*;$/.test(lines[above] ?? '')) above--;
    return endsDocComment(lines, above) ? [] : [`line ${i + 1}: ${name} has no doc comment`];
  });
}

function endsDocComment(lines: string[], end: number): boolean {
  if (!lines[end]?.trimEnd().endsWith('*/')) return false;
  let start = end;
  while (start > 0 && !lines[start]!.includes('/*')) start--;
  return lines[start]!.trimStart().startsWith('/**');
}

function headless(text: string): string[] {
  const first = text.replace(/^#!.*\n/, '');
  return /^\/[/*]/.test(first) ? [] : ['does not open with a comment that says what it is'];
}

function longLines(text: string): string[] {
  return text.split('\n').flatMap((line, i) => {
    const columns = [...line].length;
    return columns <= COLUMNS_MAX ? [] : [`line ${i + 1} has ${columns} columns`];
  });
}

const test = suite('docs');

test('every exported name of src has a doc comment', () => {
  assert.equal(broken(sourceFiles('src'), undocumented), []);
});

test('every file opens with what it is', () => {
  const files = sourceFiles('src', 'assembly', 'bench', 'scripts');
  assert.equal(
    broken(
      files.filter((path) => !path.endsWith('.d.ts')),
      headless,
    ),
    [],
  );
});

test('every line fits', () => {
  const files = sourceFiles('src', 'assembly', 'test', 'bench', 'scripts');
  assert.equal(broken(files, longLines), []);
});

for (const text of [
  'export const A = 1;',
  '// not a doc comment\nexport function f() {}',
  '/* nor this */\nexport class C {}',
  '/** Too far away. */\n\nexport type T = 1;',
  '/** About a. */\nexport const a = 1;\n\nexport const b = 2;',
  'export default async function bench() {}',
  'export declare abstract class D {}',
]) {
  test(`finds the undocumented name in ${JSON.stringify(text)}`, () => {
    assert.is(undocumented(text).length, 1);
  });
}

for (const text of [
  '/** About it. */\nexport interface I {}',
  '/**\n * About it,\n * at length.\n */\nexport async function* rows() {}',
  '/** Both. */\nexport function f(a: 1): 1;\nexport function f(a: 2): 2;',
  '/** Both ends. */\nexport const MIN = 1;\nexport const MAX = 2;',
  "export { a } from './a.ts';",
  'const local = 1;',
]) {
  test(`finds nothing in ${JSON.stringify(text)}`, () => assert.equal(undocumented(text), []));
}

test('finds a file without a header', () => {
  assert.is(headless("import './a.ts';\n").length, 1);
  assert.is(headless('#!/usr/bin/env node\nconst a = 1;\n').length, 1);
  assert.equal(headless('#!/usr/bin/env node\n// What it is.\n'), []);
});

test('finds a line that is too long', () => {
  assert.equal(longLines(`${'é'.repeat(COLUMNS_MAX)}\n`), []);
  assert.is(longLines(`\n${'x'.repeat(COLUMNS_MAX + 1)}`).length, 1);
});

test.run();
