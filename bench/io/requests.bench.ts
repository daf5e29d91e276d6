/**
 * Single requests of a writable image against `qemu-img bench`: the same offsets on equal files,
 * the host's cache in use for both. qemu-img has no random offsets; a large odd step that wraps
 * around serves both.
 *
 *   npm run bench -- io/requests [--rounds=3] [--dir=/dev/shm]
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
  const shape = ['-s', String(row.bytes), '-S', String(row.step), ...(row.write ? ['-w'] : [])];
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
  if (row.write) await disk.flush();
  const seconds = (performance.now() - start) / 1000;
  const grown = (process.memoryUsage.rss() - memory) / MIB;
  await disk.close();
  return { seconds, grown };
}

/** Prints the table. */
export default async function bench(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '3' },
      dir: { type: 'string', default: '/dev/shm' },
    },
  });
  console.log('| requests | × qemu-img bench | ours | qemu-img | memory grows by |');
  console.log('|---|---|---|---|---|');
  for (const row of ROWS) {
    const ours: number[] = [];
    const qemu: number[] = [];
    let grown = 0;
    for (let round = 0; round < Number(values.rounds); round++) {
      const folder = mkdtempSync(join(values.dir, 'bench-'));
      try {
        const image = join(folder, 'disk.qcow2');
        const create = ['create', '-q', '-f', 'qcow2', ...row.create, image, row.size];
        execFileSync('qemu-img', create);
        const result = await runOurs(image, row);
        ours.push(result.seconds);
        grown = Math.max(grown, result.grown);
        execFileSync('qemu-img', create);
        qemu.push(runQemu(image, row));
      } finally {
        rmSync(folder, { recursive: true });
      }
    }
    const mbs = (seconds: number) => {
      const perSecond = row.count / seconds;
      return row.bytes >= MIB
        ? `${Math.round((perSecond * row.bytes) / MIB)} MiB/s`
        : `${Math.round(perSecond).toLocaleString('en')} /s`;
    };
    const a = median(ours);
    const b = median(qemu);
    const cells = [row.title, `${(b / a).toFixed(2)}×`, mbs(a), mbs(b), `${Math.round(grown)} MiB`];
    console.log(`| ${cells.join(' | ')} |`);
  }
}
