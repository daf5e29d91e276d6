/** Limits on requests (blkdebug), above a file and above a format, against qemu-io's. */
import { cpSync, mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { type Random, rng, SEED, someOf } from '../random.ts';
import { eachAtOnce, inScratch, qemuImg, qemuIo, run } from '../tool.ts';

const IO_TOOL = resolve('dist/qcow2-io.js');
const test = qemuSuite('limits on requests');

const SIZE = 2 ** 22;
/** What rules are put before, and what is looked at afterwards. */
const DISKS = [
  ['driver=blkdebug,image.driver=qcow2,image.file.filename=a.qcow2', '', 'a.qcow2'],
  ['driver=blkdebug,image.driver=file,image.filename=a.raw', '', 'a.raw'],
  ['driver=raw,file.driver=blkdebug,file.image.filename=a.raw', 'file.', 'a.raw'],
  ['driver=qcow2,file.driver=blkdebug,file.image.filename=a.qcow2', 'file.', 'a.qcow2'],
] as const;

/** Settings of limits that go together. */
function limits(next: Random, prefix: string): string {
  const align = next.pick([512, 512, 512, 4096, 65536]);
  const of = (unit: number) => unit * (1 + next.below(5));
  const [zero, discard] = [of(align), of(align)];
  const all = [
    `align=${align}`,
    ...(next.oneIn(2) ? [`max-transfer=${of(align)}`] : []),
    ...(next.oneIn(2) ? [`opt-write-zero=${zero}`, `max-write-zero=${of(zero)}`] : []),
    ...(next.oneIn(2) ? [`opt-discard=${discard}`, `max-discard=${of(discard)}`] : []),
  ];
  return all.map((one) => `${prefix}${one}`).join();
}

function request(next: Random): string {
  const at = 512 * next.below(SIZE / 512 - 1);
  const length = Math.min(SIZE - at, 512 * (1 + next.below(next.pick([8, 200, 2000]))));
  const verb = next.pick(['write -P 7', 'write -P 9', 'write -z', 'write -zu', 'discard', 'read']);
  return `${verb} ${at} ${length}`;
}

test('requests come to the same, with the same room', async () => {
  await inScratch(async (folder) => {
    const base = join(folder, 'base');
    mkdirSync(base);
    for (const format of ['qcow2', 'raw']) {
      await qemuImg(['create', '-q', '-f', format, `a.${format}`, `${SIZE}`], { cwd: base });
    }
    let compared = 0;
    const seeds = Array.from({ length: 24 }, (_, index) => index);
    await eachAtOnce(someOf(seeds, 8).entries(), async ([index, seed]) => {
      const next = rng(SEED + seed);
      const [driver, prefix, file] = DISKS[index % DISKS.length]!;
      const commands = Array.from({ length: 12 }, () => request(next));
      const args = [
        ...commands.flatMap((one) => ['-c', one]),
        ...['--image-opts', `${driver},${limits(next, prefix)}`],
      ];
      const { img, io } = requireQemu();
      const results = await Promise.all(
        [
          { who: 'theirs', program: [io] },
          { who: 'mine', program: [process.execPath, IO_TOOL] },
        ].map(async ({ who, program: [name = '', ...before] }) => {
          const cwd = join(folder, `${who}-${index}`);
          cpSync(base, cwd, { recursive: true });
          const { code, stdout, stderr } = await run(name, [...before, ...args], { cwd });
          const format = file.slice(2);
          const map = await run(img, ['map', '-f', format, '--output=json', file], { cwd });
          // Where a raw file has room is the host's to say, where clusters are is each tool's own.
          const kept = format === 'raw' ? '' : withoutPlaces(map.stdout.toString());
          return { cwd, code, out: plain(stdout.toString()), stderr, kept };
        }),
      );
      const line = `${args.join(' ')}\nSEED=${SEED}`;
      const [theirs, mine] = results.map(({ cwd: _, ...rest }) => rest);
      // QEMU's driver holds requests to more than it makes of them itself, and aborts.
      if (theirs!.code === null) return;
      compared++;
      assert.equal(mine, theirs, line);
      const same = await run(img, ['compare', file, join(results[0]!.cwd, file)], {
        cwd: results[1]!.cwd,
      });
      assert.is(same.code, 0, `${same.stdout}${line}`);
    });
    assert.ok(compared > 0, `SEED=${SEED}`);
  });
});

/** A map, without the places in the file; what goes on in the disk is one range. */
function withoutPlaces(text: string): string {
  interface Entry {
    start: number;
    length: number;
  }
  const joined: Entry[] = [];
  for (const { offset: _, ...entry } of JSON.parse(text) as (Entry & { offset?: number })[]) {
    const last = joined.at(-1);
    const { start, length, ...kind } = entry;
    const { start: __, length: ___, ...kindBefore } = last ?? entry;
    if (last && JSON.stringify(kind) === JSON.stringify(kindBefore)) last.length += length;
    else joined.push(entry);
  }
  return JSON.stringify(joined);
}

/** Speeds differ from run to run. */
function plain(text: string): string {
  return text.replaceAll(/\d+ ops; .*/g, 'ops');
}

/** Both tools carry out commands, each in a folder of its own, with images of its own. */
async function bothCarryOut(
  folder: string,
  commands: readonly string[],
  image: readonly string[],
  makeImages: (cwd: string) => Promise<unknown>,
) {
  const programs = [[process.execPath, IO_TOOL], [requireQemu().io]];
  const ended = programs.map(async ([name = '', ...before], index) => {
    const cwd = join(folder, `${index}`);
    mkdirSync(cwd, { recursive: true });
    await makeImages(cwd);
    const args = [...commands.flatMap((one) => ['-c', one]), ...image];
    const { code, stdout, stderr } = await run(name, [...before, ...args], { cwd });
    return { code, out: plain(stdout.toString()), stderr };
  });
  return Promise.all(ended);
}

test('requests that share an aligned unit wait for each other', async () => {
  await inScratch(async (folder) => {
    const script = [
      ...['break pwritev_rmw_after_tail A', 'aio_write -P 10 0x6000 0x200', 'wait_break A'],
      ...['aio_write -P 11 0x6800 0x1000', 'break pwritev_rmw_after_head B'],
      ...['aio_write -P 12 0x7e00 0x200', 'wait_break B', 'resume A', 'sleep 20', 'resume B'],
      ...['aio_flush', 'read -P 10 0x6000 0x200', 'read -P 11 0x6800 0x1000'],
      ...['read -P 12 0x7e00 0x200', 'read -P 0 0x7800 0x600'],
    ];
    const node = 'driver=raw,file.driver=blkdebug,file.align=4k,file.image.filename=a.raw';
    const [mine, theirs] = await bothCarryOut(folder, script, ['--image-opts', node], (cwd) =>
      qemuImg(['create', '-q', '-f', 'raw', 'a.raw', '64k'], { cwd }),
    );
    assert.equal(mine, theirs);
  });
});

test('what is asked while a copy on write is held goes on without it', async () => {
  await inScratch(async (folder) => {
    const verbs = [
      'read 1M 4k',
      'write 1M 4k',
      'write 64k 64k',
      'discard 2M 64k',
      'write -z 1M 1k',
    ];
    await eachAtOnce(verbs, async (verb) => {
      const held = ['break cow_write A', 'aio_write -P 7 0 1k', 'wait_break A'];
      const script = [...held, verb, 'resume A', 'aio_flush', 'read -P 7 0 1k', 'read -P 1 1k 63k'];
      const where = join(folder, verb);
      const [mine, theirs] = await bothCarryOut(
        where,
        script,
        ['blkdebug::a.qcow2'],
        async (cwd) => {
          await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '4M'], { cwd });
          await qemuIo('a.qcow2', ['write -P 1 0 64k', 'write -P 2 1M 64k'], { cwd });
          await qemuImg(['snapshot', '-c', 'one', 'a.qcow2'], { cwd });
        },
      );
      assert.equal(mine, theirs, verb);
    });
  });
});

test('rules before a format meet the requests of the guest', async () => {
  await inScratch(async (folder) => {
    const rule = 'inject-error.0.event=none,inject-error.0.sector=8,inject-error.0.iotype';
    for (const kind of ['read', 'write', 'write-zeroes', 'discard', 'flush']) {
      const node = `driver=blkdebug,image.driver=qcow2,image.file.filename=a.qcow2,${rule}=${kind}`;
      const verbs = ['read 0 4k', 'read 4k 4k', 'write 0 4k', 'write 0 5k', 'flush'];
      const commands = [...verbs, 'write -z 2k 4k', 'discard 0 64k', 'break pwritev A'];
      const where = join(folder, kind);
      const image = ['--image-opts', node];
      const [mine, theirs] = await bothCarryOut(where, commands, image, (cwd) =>
        qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '1M'], { cwd }),
      );
      assert.equal(mine, theirs, kind);
    }
  });
});

test.run();
