/** What scripts look for in help texts, before they use what they find. */
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { run, tool } from '../tool.ts';

const test = qemuSuite('help for scripts');

/** Lines of commands: two spaces, a name, and options in brackets. */
function commandLines(text: string): Map<string, string> {
  const lines = text.split('\n').filter((line) => /^ {2}[a-z]+ .*\[-/.test(line));
  return new Map(lines.map((line) => [line.trim().split(' ')[0] as string, line]));
}

async function helpOf(...args: string[]): Promise<[ours: string, theirs: string]> {
  const both = await Promise.all([tool(args), run(requireQemu().img, args)]);
  for (const { code, stderr } of both) assert.is(`${code} ${stderr}`, '0 ');
  const [ours, theirs] = both.map(({ stdout }) => stdout.toString());
  return [ours as string, theirs as string];
}

test("a line for each of qemu-img's commands has each option that its line there has", async () => {
  const texts = await helpOf('--help');
  const [ours, theirs] = [commandLines(texts[0]), commandLines(texts[1])];
  assert.equal([...ours.keys()].toSorted(), [...theirs.keys()].toSorted());
  const words = (text: string): string[] => text.match(/(?<![\w-])--?[a-zA-Z][\w-]*/g) ?? [];
  for (const [name, line] of theirs) {
    const mine = words(ours.get(name) ?? '');
    assert.ok(words(line).length > 0, line);
    for (const word of words(line)) assert.ok(mine.includes(word), `${name} ${word}`);
  }
});

test('operands have the names that they have there', async () => {
  const [ours, theirs] = await helpOf('--help');
  for (const pattern of [
    /^\s+bitmap (.+) filename bitmap$/m,
    /^\s+compare (.+) filename1 filename2$/m,
    /^\s+check (.+) filename$/m,
    /^\s+info (.+) filename$/m,
  ]) {
    assert.match(theirs, pattern);
    assert.match(ours, pattern);
  }
});

test('formats are listed where they are looked for', async () => {
  const listed = (text: string) => /^Supported formats: (.*)$/m.exec(text)?.[1]?.split(' ') ?? [];
  const [ours, theirs] = (await helpOf('--help')).map(listed);
  for (const name of ours ?? []) assert.ok(theirs?.includes(name), name);
  // Those that a command refuses are not listed, and the others are.
  const made = ['raw', 'qcow2', 'luks', 'vmdk', 'vdi', 'qed'].filter((name) =>
    ours?.includes(name),
  );
  assert.equal(made, ['raw', 'qcow2', 'luks']);
  for (const name of theirs ?? []) {
    const { stderr } = await tool(['info', '--image-opts', `driver=${name}`]);
    const known = !/Unknown driver|not supported/i.test(stderr);
    assert.is(known, ours?.includes(name), `${name}: ${stderr}`);
  }
});

test('asking a command for help succeeds', async () => {
  const [text] = await helpOf('--help');
  for (const name of commandLines(text).keys()) {
    for (const option of ['-h', '--help']) {
      // qemu-img's `resize` wants operands first.
      if (name !== 'resize') await helpOf(name, option);
      else assert.is((await tool([name, option])).code, 0);
    }
  }
});

test.run();
