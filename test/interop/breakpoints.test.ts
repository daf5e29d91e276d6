/** Requests that are held at a breakpoint, and those that meet them: as with qemu-io. */
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { eachAtOnce, inScratch, qemuImg, run } from '../tool.ts';

const IO_TOOL = resolve('dist/qcow2-io.js');
const test = qemuSuite('breakpoints');

/** Without times and names of programs. */
function plain(text: string): string {
  return text.replace(/^(qemu|qcow2)-io: /gm, '').replace(/; .* ops\/sec\)$/gm, '');
}

/** The image's first 64 KiB, and those from 2 MiB on, have clusters. */
async function compare(
  commands: readonly string[],
  backing: readonly string[],
  image = 'blkdebug::a.qcow2',
): Promise<void> {
  await inScratch(async (folder) => {
    const [ours, theirs] = await Promise.all(
      [[process.execPath, IO_TOOL], [requireQemu().io]].map(
        async ([name = '', ...first], index) => {
          const cwd = join(folder, `${index}`);
          mkdirSync(cwd);
          await qemuImg(['create', '-q', '-f', 'raw', 'base', '4M'], { cwd });
          await run(requireQemu().io, ['-f', 'raw', '-c', 'write -P 9 0 4M', 'base'], { cwd });
          await qemuImg(['create', '-q', '-f', 'qcow2', ...backing, 'a.qcow2', '4M'], { cwd });
          const fill = ['-c', 'write -P 1 0 64k', '-c', 'write -P 2 2M 128k', 'a.qcow2'];
          await run(requireQemu().io, ['-f', 'qcow2', ...fill], { cwd });
          const args = [...commands.flatMap((one) => ['-c', one]), image];
          const { code, stdout, stderr } = await run(name, [...first, ...args], { cwd });
          const read = ['-f', 'qcow2', '-c', 'read -v 0 2k', '-c', 'read -v 1M 2k', 'a.qcow2'];
          const left = await run(requireQemu().io, read, { cwd });
          const shown = [stdout, left.stdout].map((text) => plain(text.toString()));
          return { code, shown, stderr: plain(stderr) };
        },
      ),
    );
    assert.equal(ours, theirs, commands.join(', '));
  });
}

/** Writes that are held before their bytes are written. */
const HELD: readonly (readonly [write: string, others: readonly string[]])[] = [
  // Clusters that are there already.
  [
    '0 1k',
    [
      ...[
        'read -P 1 0 4k',
        'write -P 3 0 1k',
        'write -P 3 512 4k',
        'write -z 0 4k',
        'discard 0 64k',
      ],
      ...['aio_read 0 4k', 'write -P 3 2M 4k', 'write -z 0 64k', 'write -zu 0 64k', 'flush'],
    ],
  ],
  // New ones: nobody sees them before they are written.
  [
    '1M 64k',
    ['read 1M 4k', 'read 1020k 8k', 'aio_read 1M 64k', 'write -P 3 0 4k', 'read -P 1 0 4k'],
  ],
  ['1M 1k', ['read 1M 4k', 'write -P 3 2M 4k', 'aio_write -P 3 3M 4k']],
];

for (const [what, backing] of [
  ['an image by itself', []],
  ['an image in front of another', ['-b', 'base', '-F', 'raw']],
] as const) {
  test(`who meets a write that is held: ${what}`, () =>
    eachAtOnce(
      HELD.flatMap(([write, others]) => others.map((other) => [write, other] as const)),
      ([write, other]) => {
        const held = ['break write_aio A', `aio_write -P 7 ${write}`, 'wait_break A'];
        return compare([...held, other, 'resume A', 'aio_flush', 'read 0 4k'], backing);
      },
    ));
}

for (const [what, backing] of [
  ['nothing is behind it', []],
  ['a file is', ['-b', 'base', '-F', 'raw']],
] as const) {
  test(`what goes along with data is read and written only where there is some: ${what}`, () =>
    eachAtOnce(['cow_read', 'cow_write', 'cluster_alloc_space'], (event) => {
      const file = { driver: 'file', filename: 'a.qcow2' };
      const rules = [{ event, errno: 5, once: true }];
      const debugged = { driver: 'blkdebug', image: file, 'inject-error': rules };
      const image = `json:${JSON.stringify({ driver: 'qcow2', file: debugged })}`;
      return compare(['write -P 7 1M 1k', 'write -P 8 3M 1k', 'read 0 4k'], backing, image);
    }));
}

test('what would wait for ever fails', () =>
  inScratch(async (cwd) => {
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '4M'], { cwd });
    const held = ['break write_aio A', 'aio_write 0 4k', 'wait_break A'];
    for (const commands of [
      [...held, 'write 0 4k'],
      ['break flush_to_disk A', 'wait_break A'],
    ]) {
      const args = [...commands.flatMap((one) => ['-c', one]), 'blkdebug::a.qcow2'];
      const { code, stderr } = await run(process.execPath, [IO_TOOL, ...args], { cwd });
      assert.is(stderr, 'qcow2-io: nothing is left that this command could wait for\n');
      assert.is(code, 1);
    }
  }));

test.run();
