/** Rules by event (blkdebug), below an image: the steps of a request fail where qemu-io's do. */
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { eachAtOnce, inScratch, qemuImg, qemuIo, run } from '../tool.ts';

const IO_TOOL = resolve('dist/qcow2-io.js');
const test = qemuSuite('rules by event');

const EVENTS = [
  ...['l1_update', 'l2_load', 'l2_update', 'l2_alloc_write', 'write_aio'],
  ...['refblock_load', 'refblock_update_part', 'refblock_alloc', 'cluster_alloc'],
  ...['l1_grow_alloc_table', 'l1_grow_write_table', 'l1_grow_activate_table'],
];
/** Without an L2 table, and with one. */
const IMAGES = ['fresh.qcow2', 'used.qcow2'];
const REQUESTS = ['write 0 128k', 'write -b 0 128k', 'write -z 0 128k'];

/** Without times, and whose tool it is. */
function plain(text: string | Uint8Array): string {
  return text
    .toString()
    .replace(/, \d+ ops; .*/g, '')
    .replace(/^qcow2-io:/gm, 'qemu-io:');
}

test('requests fail at the same steps, and closing tells of the same', async () => {
  await inScratch(async (folder) => {
    const base = join(folder, 'base');
    mkdirSync(base);
    const options = ['-o', 'cluster_size=1k', 'fresh.qcow2', '1G'];
    await qemuImg(['create', '-q', '-f', 'qcow2', ...options], { cwd: base });
    cpSync(join(base, 'fresh.qcow2'), join(base, 'used.qcow2'));
    await qemuIo('used.qcow2', ['write 0 512'], { cwd: base });
    const cases = EVENTS.flatMap((event) =>
      ['on', 'off'].flatMap((once) =>
        IMAGES.flatMap((image) => REQUESTS.map((request) => ({ event, once, image, request }))),
      ),
    );
    await eachAtOnce(cases.entries(), async ([index, { event, once, image, request }]) => {
      const { img, io } = requireQemu();
      const results = await Promise.all(
        [
          { who: 'theirs', program: [io] },
          { who: 'mine', program: [process.execPath, IO_TOOL] },
        ].map(async ({ who, program: [name = '', ...tool] }) => {
          const cwd = join(folder, `${who}-${index}`);
          mkdirSync(cwd);
          cpSync(join(base, image), join(cwd, 'a.qcow2'));
          const rule = `[inject-error]\nevent = "${event}"\nerrno = "5"\nonce = "${once}"\n`;
          writeFileSync(join(cwd, 'rules'), rule);
          // The first request makes the table, the second meets it in memory.
          const args = ['-c', request, '-c', request, 'blkdebug:rules:a.qcow2'];
          const { code, stdout, stderr } = await run(name, [...tool, ...args], { cwd });
          const checked = await run(img, ['check', '-q', 'a.qcow2'], { cwd });
          const sound = checked.code === 0 || checked.code === 3;
          return { code, stdout: plain(stdout), stderr: plain(stderr), sound };
        }),
      );
      const [wanted, mine] = results;
      assert.equal(mine, wanted, `${event}, once ${once}, ${image}, ${request}`);
    });
  });
});

/** Lines of a file of rules, as people get them wrong. */
const LINES = [
  ...['errno="5"', 'errno= "5"', 'errno ="5"', 'errno = 5', 'errno = ""', 'errno = "5" x'],
  ...['errno = "5', ' errno  =  "5"', '', '# c', '  # c', '   ', 'once="on"', 'once = "yes"'],
  ...['bogus = "1"', '[x]', ' [x]', '[inject-error "a"]', 'event', 'event "read_aio"'],
  ...['sector = "-1"', 'errno = "5"\r', '\tonce = "off"', 'errno = "5"\nerrno = "28"'],
];

test('lines of a file of rules are read as by qemu-io', async () => {
  await inScratch(async (cwd) => {
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '1M'], { cwd });
    const firsts = ['', '[inject-error]\nevent = "read_aio"\n'];
    const cases = firsts.flatMap((first) => LINES.map((line) => `${first}${line}\n`));
    await eachAtOnce(cases.entries(), async ([index, rules]) => {
      const name = `rules-${index}`;
      writeFileSync(join(cwd, name), rules);
      const args = ['-r', '-U', '-c', 'read 0 512', `blkdebug:${name}:a.qcow2`];
      const [theirs, mine] = await Promise.all([
        run(requireQemu().io, args, { cwd }),
        run(process.execPath, [IO_TOOL, ...args], { cwd }),
      ]);
      const shown = ({ code, stdout, stderr }: typeof mine) =>
        `${code}\n${plain(stdout)}${plain(stderr)}`;
      assert.is(shown(mine), shown(theirs), rules);
    });
  });
});

test.run();
