/**
 * Whole conversions to raw against qemu-img, with its defaults and with its fastest flags.
 *
 *   npm run bench -- convert/to-raw [--size=1,4] [--rows=zlib,zstd] [--rounds=5] [--dir=/dev/shm]
 *
 * Files lie in memory-backed storage, so that the tools are measured and not a disk.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { race } from '../process.ts';
import { type MakeSource, makeChain, qemuConvert, touchMemory } from './sources.ts';
import { makeSystemDisk } from './system-disk.ts';

const GIB = 2 ** 30;

/** A source image of the table: how it is made of the raw disk. */
interface Row {
  readonly name: string;
  readonly title: string;
  readonly make: MakeSource;
}

const ROWS: readonly Row[] = [
  { name: 'zlib', title: 'zlib', make: qemuConvert(['-c']) },
  { name: 'zstd', title: 'zstd', make: qemuConvert(['-c', '-o', 'compression_type=zstd']) },
  { name: 'plain', title: 'uncompressed', make: qemuConvert([]) },
  { name: 'sub', title: 'subclusters', make: qemuConvert(['-o', 'extended_l2=on']) },
  { name: '4k', title: '4 KiB clusters', make: qemuConvert(['-o', 'cluster_size=4k']) },
  { name: 'chain', title: 'chain of three', make: makeChain },
];

/** Prints the table. */
export default async function bench(): Promise<void> {
  const { values } = parseArgs({
    options: {
      size: { type: 'string', default: '1,4' },
      rows: { type: 'string', default: ROWS.map(({ name }) => name).join(',') },
      rounds: { type: 'string', default: '5' },
      dir: { type: 'string', default: '/dev/shm' },
    },
  });
  const wanted = values.rows.split(',');
  console.log(
    '| source → raw | disk | × fastest flags | × defaults | ours | CPU | peak | qemu-img |',
  );
  console.log('|---|---|---|---|---|---|---|---|');
  for (const gib of values.size.split(',').map(Number)) {
    const folder = mkdtempSync(join(values.dir, 'bench-'));
    try {
      const disk = join(folder, 'disk.raw');
      makeSystemDisk(disk, gib * GIB);
      for (const row of ROWS.filter(({ name }) => wanted.includes(name))) {
        const source = row.make(disk, folder, gib * GIB);
        console.log(measure(row.title, gib, source, folder, Number(values.rounds)));
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
}

function measure(
  title: string,
  gib: number,
  source: string,
  folder: string,
  rounds: number,
): string {
  const target = join(folder, 'target.raw');
  const before = () => touchMemory(target, gib * 1024 * 0.65);
  const tool = join(process.cwd(), 'dist', 'qcow2-img.js');
  const ours = [process.execPath, tool, 'convert', '-O', 'raw', source, target];
  const qemu = ['qemu-img', 'convert', '-O', 'raw'];
  const figures = race(
    [
      { name: 'ours', command: ours, before },
      { name: 'fast', command: [...qemu, '-m', '8', '-W', source, target], before },
      { name: 'ours again', command: ours, before },
      { name: 'defaults', command: [...qemu, source, target], before },
    ],
    rounds,
  );
  rmSync(target);
  const of = (name: string) => figures.get(name)!;
  const wall = (of('ours').wall + of('ours again').wall) / 2;
  const ratio = (name: string) => `${(of(name).wall / wall).toFixed(2)}×`;
  const seconds = (value: number) => `${value.toFixed(2)} s`;
  const cells = [
    title,
    `${gib} GiB`,
    ratio('fast'),
    ratio('defaults'),
    seconds(wall),
    seconds(of('ours').cpu),
    `${Math.round(Math.max(of('ours').peak, of('ours again').peak))} MiB`,
    `${seconds(of('fast').wall)}, CPU ${seconds(of('fast').cpu)}`,
  ];
  return `| ${cells.join(' | ')} |`;
}
