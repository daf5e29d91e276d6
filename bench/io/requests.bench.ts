/**
 * Single requests of a writable image against `qemu-img bench`: the same offsets on equal files,
 * the host's cache in use for both. qemu-img has no random offsets; a large odd step that wraps
 * around serves both. The tools take turns as A B B A; figures are medians. Nothing is
 * flushed within the time: qemu-img would not wait for a flush behind the last request.
 *
 *   npm run bench -- io/requests [--rows=write] [--rounds=3] [--dir=/dev/shm]
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { openDisk, openNodeFile } from '../../src/node.ts';
import { median } from '../process.ts';

interface Row {
  readonly title: string;
  readonly create: readonly string[];
  readonly size: string;
  readonly write: boolean;
  readonly bytes: number;
  readonly step: number;
  readonly count: number;
  readonly depth: number;
}

const MIB = 2 ** 20;
/** Odd multiples of the request size, so that all of the disk is visited before one comes back. */
const STEP_4K = 4096 * 262_147;
const STEP_64K = 65536 * 16_411;

const ROWS: readonly Row[] = [
  {
    title: 'write 1 MiB in sequence, fresh image',
    create: [],
    size: '4G',
    write: true,
    bytes: MIB,
    step: MIB,
    count: 2048,
    depth: 1,
  },
  ...[1, 32].flatMap((depth) => [
    {
      title: `write 4 KiB at random, depth ${depth}`,
      create: ['-o', 'preallocation=metadata'],
      size: '8G',
      write: true,
      bytes: 4096,
      step: STEP_4K,
      count: 40_000,
      depth,
    },
    {
      title: `write 64 KiB at random, fresh image, depth ${depth}`,
      create: [],
      size: '8G',
      write: true,
      bytes: 65536,
      step: STEP_64K,
      count: 16_000,
      depth,
    },
  ]),
  {
    title: 'read 4 KiB at random, 64 GiB mapped, depth 1',
    create: ['-o', 'preallocation=metadata'],
    size: '64G',
    write: false,
    bytes: 4096,
    step: STEP_4K,
    count: 60_000,
    depth: 1,
  },
];

/** Seconds that qemu-img reports for the row's requests. */
function runQemu(image: string, row: Row): number {
  const options = [
    '-f',
    'qcow2',
    '-t',
    'writeback',
    '-c',
    String(row.count),
    '-d',
    String(row.depth),
  ];
  const shape = ['-s', String(row.bytes), '-S', String(row.step)];
  if (row.write) shape.push('-w');
  const text = execFileSync('qemu-img', ['bench', ...options, ...shape, image], {
    encoding: 'utf8',
  });
  return Number(/completed in ([\d.]+) seconds/.exec(text)?.[1]);
}

/** Seconds that the library takes for the same, and the growth of its memory in MiB. */
async function runOurs(image: string, row: Row): Promise<{ seconds: number; grown: number }> {
  const disk = await openDisk(openNodeFile(image, { writable: true }), { writable: true });
  const buffers = Array.from({ length: row.depth }, () => new Uint8Array(row.bytes));
  const memory = process.memoryUsage.rss();
  let next = 0;
  let at = 0;
  const start = performance.now();
  const lane = async (buffer: Uint8Array) => {
    while (next < row.count) {
      next++;
      const offset = at;
      at = (at + row.step) % disk.size;
      if (offset + row.bytes > disk.size) continue;
      if (row.write) await disk.write(offset, buffer);
      else await disk.read(offset, buffer);
    }
  };
  await Promise.all(buffers.map(lane));
  const seconds = (performance.now() - start) / 1000;
  const grown = (process.memoryUsage.rss() - memory) / MIB;
  await disk.close();
  return { seconds, grown };
}

/** What the runs of one row came to. */
interface Figures {
  readonly ours: number[];
  readonly qemu: number[];
  /** The most that a run of ours added to this process, in MiB. */
  grown: number;
}

/**
 * One run on a fresh image. A virtual machine's host may take back memory that was freed, and then
 * whoever writes next pays for getting it again: touching as much as the image takes, just before,
 * makes runs alike.
 */
async function runOnce(row: Row, dir: string, who: 'ours' | 'qemu', figures: Figures) {
  const folder = mkdtempSync(join(dir, 'bench-'));
  try {
    const image = join(folder, 'disk.qcow2');
    const mib = row.write ? Math.ceil((row.count * row.bytes) / MIB) + 64 : 64;
    const touch = ['if=/dev/zero', `of=${image}`, 'bs=1M', `count=${mib}`];
    execFileSync('dd', touch, { stdio: 'ignore' });
    rmSync(image);
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...row.create, image, row.size]);
    if (who === 'qemu') {
      figures.qemu.push(runQemu(image, row));
      return;
    }
    const { seconds, grown } = await runOurs(image, row);
    figures.ours.push(seconds);
    figures.grown = Math.max(figures.grown, grown);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function line(row: Row, { ours, qemu, grown }: Figures): string {
  const rate = (seconds: number) => {
    const perSecond = row.count / seconds;
    return row.bytes >= MIB
      ? `${Math.round((perSecond * row.bytes) / MIB)} MiB/s`
      : `${Math.round(perSecond).toLocaleString('en')} /s`;
  };
  const [a, b] = [median(ours), median(qemu)];
  const ratio = `${(b / a).toFixed(2)}×`;
  return `| ${[row.title, ratio, rate(a), rate(b), `${Math.round(grown)} MiB`].join(' | ')} |`;
}

/** Prints the table. */
export default async function bench(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rows: { type: 'string', default: '' },
      rounds: { type: 'string', default: '3' },
      dir: { type: 'string', default: '/dev/shm' },
    },
  });
  console.log('| requests | × qemu-img bench | ours | qemu-img | memory grows by |');
  console.log('|---|---|---|---|---|');
  for (const row of ROWS.filter(({ title }) => title.includes(values.rows))) {
    const figures: Figures = { ours: [], qemu: [], grown: 0 };
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const who of ['ours', 'qemu', 'qemu', 'ours'] as const) {
        await runOnce(row, values.dir, who, figures);
      }
    }
    console.log(line(row, figures));
  }
}
