/** Names of drivers that an image may have for its backing file: all that qemu-img lists. */
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { inScratch, must, run, tool } from '../tool.ts';

const test = qemuSuite('names of drivers');

test('with -u an image names any driver that QEMU knows, and no other', () =>
  inScratch(async (cwd) => {
    const help = (await must(requireQemu().img, ['--help'])).toString();
    const names = /^Supported formats: (.*)$/m.exec(help)?.[1]?.split(' ') ?? [];
    // What is longer has no place in an image.
    const listed = names.filter((name) => name.length < 16);
    assert.ok(listed.length > 20, help);
    const commands = [
      ['create', '-q', '-f', 'qcow2', '-u', '-b', 'x', '-F'],
      ['rebase', '-u', '-b', 'x', '-F'],
    ];
    for (const [first = '', ...rest] of commands) {
      for (const name of [...listed, 'bogus']) {
        const size = first === 'create' ? ['1M'] : [];
        const args = [first, ...rest, name, 'a.qcow2', ...size];
        const ours = await tool(args, { cwd });
        const theirs = await run(requireQemu().img, args, { cwd });
        // Network drivers are packages of their own; iser is a name that only some commands know.
        if (/module .* not found/.test(theirs.stderr) || name === 'iser') continue;
        const said = ours.stderr.replace('qcow2-img', 'qemu-img');
        assert.is(said, theirs.stderr, args.join(' '));
        assert.is(ours.code, theirs.code);
        if (ours.code === 0) {
          const info = await must(requireQemu().img, ['info', join(cwd, 'a.qcow2')]);
          assert.match(info.toString(), `backing file format: ${name}\n`);
        }
      }
    }
  }));

test.run();
