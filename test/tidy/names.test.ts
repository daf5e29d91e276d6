/** Files and folders are named after what is in them, in kebab-case. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { sourceFiles } from './tree.ts';

/** Words that say nothing of what a file is about. */
const BANNED = /(^|-)(utils?|misc|helpers?|commons?|managers?|handlers?|data|infos?)$/;
const KEBAB_CASE = /^[a-z0-9]+(-[a-z0-9]+)*$/;
/** `info` is a subcommand of the tool; whatever is about it is named after it. */
const INFO_COMMAND = /^(src\/cli\/commands|test\/.*)\/info(\.[a-z]+)*\.ts$/;

function badNames(path: string): string[] {
  if (INFO_COMMAND.test(path)) return [];
  const parts = path.split('/');
  const words = parts.flatMap((part, i) => (i < parts.length - 1 ? [part] : part.split('.')));
  return words.flatMap((word) => {
    if (!KEBAB_CASE.test(word)) return [`${path}: ${word} is not kebab-case`];
    return BANNED.test(word) ? [`${path}: ${word} says nothing`] : [];
  });
}

const test = suite('names');

test('every file and folder has a name that says something', () => {
  const files = sourceFiles('src', 'assembly', 'test', 'bench', 'scripts');
  assert.equal(files.flatMap(badNames), []);
});

for (const path of [
  'src/base/util.ts',
  'src/helpers/bits.ts',
  'src/image/lock-manager.ts',
  'src/format/data.ts',
  'src/format/info.ts',
  'src/format/L2Entry.ts',
  'src/format/l2_entry.ts',
]) {
  test(`refuses ${path}`, () => assert.is(badNames(path).length, 1));
}

for (const path of [
  'src/cli/commands/info.ts',
  'test/cli/info.test.ts',
  'src/format/l2-entry.ts',
  'src/image/data-file.ts',
  'test/storage/node-file.node.test.ts',
]) {
  test(`accepts ${path}`, () => assert.equal(badNames(path), []));
}

test.run();
