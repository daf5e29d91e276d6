/**
 * Disks that have no more room: what is told, the exit code, and what is left. The oracle is
 * qemu-img on equal file systems. Needs to mount these: elsewhere there is nothing to see.
 */
import {
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { inScratch, qemuImg, run, TOOL } from '../tool.ts';

const test = qemuSuite('full disks');

/** Whether this machine lets a small file system be mounted. */
const mayMount = await inScratch(async (folder) => {
  const { code } = await run('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', folder]);
  if (code === 0) await run('umount', [folder]);
  return code === 0;
});
const mounted: typeof test = mayMount
  ? test
  : Object.assign((title: string) => test.skip(title), test);

/** What a command did where so much was left. */
interface Seen {
  readonly said: string;
  readonly code: number | null;
  /** Bytes of the files that there are in the end, and what qemu-img thinks of the images. */
  readonly left: Readonly<Record<string, string>>;
}

const FILLER = 'filler';

/**
 * Runs shell commands before, with qemu-img, fills the disk up, and runs one command.
 * @param setup shell text
 * @param room kibibytes that are left
 */
async function seen(
  program: string,
  setup: string,
  room: number,
  args: readonly string[],
): Promise<Seen> {
  return inScratch(async (folder) => {
    await run('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'none', folder]);
    try {
      const { code: ready, stderr: why } = await run('sh', ['-ec', setup], { cwd: folder });
      assert.is(ready, 0, why);
      const { bavail, bsize } = statfsSync(folder);
      writeFileSync(join(folder, FILLER), Buffer.alloc(bavail * bsize - room * 1024, 1));
      const { code, stdout, stderr } = await run(program, args, { cwd: folder });
      const left: Record<string, string> = {};
      for (const name of readdirSync(folder)) {
        if (name === FILLER || name === 'source') continue;
        const path = join(folder, name);
        left[name] = String(statSync(path).size);
        const isImage = readFileSync(path).subarray(0, 3).toString('latin1') === 'QFI';
        if (!isImage) continue;
        const { code: verdict } = await run(requireQemu().img, ['check', '-q', path]);
        const info = await qemuImg(['info', '--output=json', path]);
        // What leaks costs nothing but room.
        const state = verdict === 0 || verdict === 3 ? 'sound' : 'broken';
        left[name] = `${state}, disk ${JSON.parse(info.toString())['virtual-size']}`;
      }
      const said = stdout.toString() + stderr.replaceAll('qcow2-img', 'qemu-img');
      return { said, code, left };
    } finally {
      await run('umount', [folder]);
    }
  });
}

const CREATE = 'qemu-img create -q -f qcow2';
const IMAGE = `${CREATE} i 4M; qemu-io -c 'write -P 1 0 1M' i >&2`;
const SOURCE = 'head -c 3M /dev/urandom >source';
/** Zeros in place of what counts clusters: the first block, and the table that names it. */
const wiped = (at: number) =>
  `${IMAGE}; head -c 8 /dev/zero | dd of=i bs=1 seek=${at} conv=notrunc status=none`;

/** What happens is the same, but for what the texts of the differences name. */
const cases: readonly [setup: string, ...lines: string[]][] = [
  ['true', 'create -q -f qcow2 out 1G', 'create -q -f raw out 1G'],
  [
    IMAGE,
    'resize i 100T',
    'resize --preallocation=falloc i +2M',
    'resize --preallocation=full i +2M',
    'resize --preallocation=metadata i +2M',
    'amend -o refcount_bits=64 i',
    'snapshot -c one i',
  ],
  [wiped(65536), 'check -r all i'],
  [wiped(131072), 'check -r all i'],
  [
    `${CREATE} b 4M; ${CREATE} -b b -F qcow2 t; qemu-io -c 'write -P 3 0 1M' t >&2`,
    'commit t',
    'rebase -b  t',
  ],
];

for (const [setup, ...lines] of cases) {
  for (const line of lines) {
    mounted(`${line}: as qemu-img, whatever the room`, async () => {
      for (const room of [0, 4, 64, 128, 192]) {
        const args = line.split(' ');
        const theirs = await seen(requireQemu().img, setup, room, args);
        const ours = await seen(TOOL, setup, room, args);
        assert.equal(ours, theirs, `${room} KiB left`);
      }
    });
  }
}

mounted(
  'a copy that there is no room for says so, and leaves nothing that looks whole',
  async () => {
    for (const line of [
      'convert -O raw source out',
      'convert -O qcow2 source out',
      'convert -c -O qcow2 source out',
      'convert -C -O qcow2 source out',
      'convert -O qcow2 -o preallocation=metadata source out',
      'convert -O qcow2 -o preallocation=full source out',
      'convert -O raw -o preallocation=falloc source out',
      'dd if=source of=out bs=64k',
      'dd -O qcow2 if=source of=out bs=64k',
    ]) {
      const args = line.split(' ');
      const theirs = await seen(requireQemu().img, SOURCE, 1024, args);
      const ours = await seen(TOOL, SOURCE, 1024, args);
      const plain = (text: string) => text.replace(/at byte \d+/, 'at byte N');
      assert.is(plain(ours.said), plain(theirs.said), line);
      assert.is(ours.code, theirs.code, line);
      assert.equal(ours.left, {}, line);
    }
  },
);

test('a process that may write no larger file hears of the file that was to be', () =>
  inScratch(async (folder) => {
    await run('truncate', ['-s', '3M', join(folder, 'source')]);
    for (const line of ['dd if=source of=out', 'dd -O qcow2 if=source of=out', 'create out 3M']) {
      const limited = (program: string) =>
        run('sh', ['-c', 'ulimit -f 100; exec "$@"', 'sh', program, ...line.split(' ')], {
          cwd: folder,
        });
      const theirs = await limited(requireQemu().img);
      rmSync(join(folder, 'out'), { force: true });
      const ours = await limited(TOOL);
      assert.is(ours.stderr.replace('qcow2-img', 'qemu-img'), theirs.stderr, line);
      assert.is(ours.code, theirs.code, line);
      assert.not(existsSync(join(folder, 'out')), line);
    }
  }));

mounted('what was there before a copy that finds no room is emptied', async () => {
  const setup = `${SOURCE}; >out`;
  for (const line of ['convert -O raw source out', 'dd if=source of=out']) {
    const { code, left } = await seen(TOOL, setup, 1024, line.split(' '));
    assert.is(code, 1);
    assert.equal(left, { out: '0' }, line);
  }
});

mounted('bitmaps that there is no room for are told, and the others stay', async () => {
  const setup = `${IMAGE}; qemu-img bitmap --add i one`;
  for (const room of [0, 4]) {
    const { code, said } = await seen(TOOL, setup, room, ['bitmap', '--add', 'i', 'two']);
    assert.is(code, 1, `${room} KiB left`);
    assert.match(
      said,
      /^qemu-img: Operation add on bitmap two failed: .*: No space left on device\n$/,
    );
  }
});

test.run();
