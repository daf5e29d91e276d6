/**
 * Checking whole images against qemu-img: time, and memory that does not grow with what is checked.
 *
 *   npm run bench -- cli/check [--rounds=5] [--rows=1T,4k,ext,snap,comp]
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { race } from '../process.ts';

/** An image of the table. */
interface Row {
  readonly name: string;
  readonly title: string;
  readonly size: string;
  readonly options: string;
  readonly snapshots?: number;
}

const ROWS: readonly Row[] = [
  { name: '1T', title: '1 TiB', size: '1T', options: 'preallocation=metadata' },
  {
    name: '4k',
    title: '64 GiB, 4 KiB clusters',
    size: '64G',
    options: 'preallocation=metadata,cluster_size=4k',
  },
  {
    name: 'ext',
    title: '1 TiB, subclusters',
    size: '1T',
    options: 'preallocation=metadata,extended_l2=on,cluster_size=128k',
  },
  {
    name: 'narrow',
    title: '1 TiB, 1-bit refcounts',
    size: '1T',
    options: 'preallocation=metadata,refcount_bits=1',
  },
  {
    name: 'snap',
    title: '256 GiB, 10 snapshots',
    size: '256G',
    options: 'preallocation=metadata',
    snapshots: 10,
  },
];

/** Prints the table. */
export default async function bench(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      rows: { type: 'string', default: ROWS.map(({ name }) => name).join(',') },
    },
  });
  const wanted = values.rows.split(',');
  console.log('| image | × wall | × CPU | ours | peak | qemu-img | peak |');
  console.log('|---|---|---|---|---|---|---|');
  for (const row of ROWS.filter(({ name }) => wanted.includes(name))) {
    const folder = mkdtempSync(join('/dev/shm', 'bench-'));
    try {
      console.log(measure(row, join(folder, 'image.qcow2'), Number(values.rounds)));
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
}

function measure({ title, size, options, snapshots = 0 }: Row, image: string, rounds: number) {
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, image, size]);
  for (let i = 0; i < snapshots; i++) {
    execFileSync('qemu-img', ['snapshot', '-c', `s${i}`, image]);
  }
  const tool = [process.execPath, join(process.cwd(), 'dist', 'qcow2-img.js')];
  const figures = race(
    [
      { name: 'ours', command: [...tool, 'check', '-q', image] },
      { name: 'theirs', command: ['qemu-img', 'check', '-q', image] },
    ],
    rounds,
  );
  const [ours, theirs] = [figures.get('ours')!, figures.get('theirs')!];
  const ms = (seconds: number) => `${(seconds * 1000).toFixed(0)} ms`;
  const cells = [
    title,
    (theirs.wall / ours.wall).toFixed(1),
    (theirs.cpu / ours.cpu).toFixed(1),
    ms(ours.wall),
    `${Math.round(ours.peak)} MiB`,
    ms(theirs.wall),
    `${Math.round(theirs.peak)} MiB`,
  ];
  return `| ${cells.join(' | ')} |`;
}
