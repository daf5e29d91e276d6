/**
 * Work on chains of images against qemu-img: commit and rebase. Images are put back before each
 * run, and each run goes over images of its own.
 *
 *   npm run bench -- convert/chains [--size=1] [--rows=…] [--rounds=5] [--dir=/dev/shm]
 *
 * qemu-img 7.2 has no `rebase -c`: that row is against its `convert -c` of the chain, which makes
 * the same disk.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { race } from '../process.ts';
import { makeSystemDisk } from './system-disk.ts';

const GIB = 2 ** 30;
const MIB = 2 ** 20;

/** What a row works on. */
interface Images {
  readonly disk: string;
  readonly folder: string;
  readonly mebibytes: number;
}

/** A row of the table. */
interface Row {
  readonly name: string;
  readonly title: string;
  /** Makes the images; those that change are called `base` and `top`. */
  make(images: Images): void;
  /** Names of the images that change. */
  readonly changes: readonly string[];
  readonly command: readonly string[];
  /** Where qemu-img is asked for something else. */
  readonly theirs?: readonly string[];
}

const REBASE = ['rebase', '-F', 'qcow2', '-b'];

const ROWS: readonly Row[] = [
  {
    name: 'commit',
    title: 'commit half of the disk',
    make: (images) => {
      makeBase(images, 'base');
      overlay(images, { name: 'top', below: 'base', every: 2 });
    },
    changes: ['base', 'top'],
    command: ['commit', '-q', 'top'],
  },
  {
    name: 'commit-d',
    title: 'commit `-d`',
    make: (images) => {
      makeBase(images, 'base');
      overlay(images, { name: 'top', below: 'base', every: 2 });
    },
    changes: ['base', 'top'],
    command: ['commit', '-q', '-d', 'top'],
  },
  {
    name: 'commit-raw',
    title: 'commit into a raw disk',
    make: (images) => {
      copyFileSync(images.disk, join(images.folder, 'base'));
      overlay(images, { name: 'top', below: 'base', every: 2, format: 'raw' });
    },
    changes: ['base', 'top'],
    command: ['commit', '-q', 'top'],
  },
  {
    name: 'commit-zlib',
    title: 'commit what is compressed',
    make: (images) => {
      img(images, 'create', '-q', '-f', 'qcow2', 'base', `${images.mebibytes}M`);
      const onto = ['-c', '-B', 'base', '-F', 'qcow2', '-O', 'qcow2'];
      img(images, 'convert', ...onto, '-f', 'raw', images.disk, 'top');
    },
    changes: ['base', 'top'],
    command: ['commit', '-q', 'top'],
  },
  {
    name: 'rebase',
    title: 'rebase, a tenth differs',
    make: (images) => {
      makeBase(images, 'base');
      makeBase(images, 'other');
      patch(images, 'other', 10);
      overlay(images, { name: 'top', below: 'base', every: 10, from: 5 });
    },
    changes: ['top'],
    command: [...REBASE, 'other', 'top'],
  },
  {
    name: 'rebase-chain',
    title: 'rebase to the base of its base',
    make: (images) => {
      makeBase(images, 'base');
      overlay(images, { name: 'middle', below: 'base', every: 10 });
      overlay(images, { name: 'top', below: 'middle', every: 10, from: 5 });
    },
    changes: ['top'],
    command: [...REBASE, 'base', 'top'],
  },
  {
    name: 'rebase-none',
    title: 'rebase to nothing',
    make: (images) => {
      makeBase(images, 'base');
      overlay(images, { name: 'top', below: 'base', every: 10 });
    },
    changes: ['top'],
    command: ['rebase', '-b', '', 'top'],
  },
  {
    name: 'rebase-c',
    title: 'rebase `-c` to nothing, against `convert -c`',
    make: (images) => {
      makeBase(images, 'base');
      overlay(images, { name: 'top', below: 'base', every: 10 });
    },
    changes: ['top'],
    command: ['rebase', '-c', '-b', '', 'top'],
    theirs: ['convert', '-c', '-m', '8', '-W', '-O', 'qcow2', 'top', 'whole'],
  },
];

function img({ folder }: Images, ...args: readonly string[]): void {
  execFileSync('qemu-img', args, { cwd: folder });
}

function makeBase(images: Images, name: string): void {
  img(images, 'convert', '-m', '8', '-W', '-O', 'qcow2', images.disk, name);
}

/** Writes a mebibyte in each `every`. */
function patch(
  { folder, mebibytes }: Images,
  name: string,
  every: number,
  { from = 0 }: { readonly from?: number } = {},
): void {
  const writes: string[] = [];
  for (let mib = from; mib < mebibytes; mib += every) {
    writes.push('-c', `write -q -P ${(mib % 250) + 1} ${mib}M 1M`);
  }
  execFileSync('qemu-io', ['-t', 'unsafe', ...writes, name], { cwd: folder });
}

/** An image of its own clusters here and there, over another. */
function overlay(
  images: Images,
  {
    name,
    below,
    every,
    from = 0,
    format = 'qcow2',
  }: {
    readonly name: string;
    readonly below: string;
    readonly every: number;
    readonly from?: number;
    readonly format?: string;
  },
): void {
  img(images, 'create', '-q', '-f', 'qcow2', '-b', below, '-F', format, name);
  patch(images, name, every, { from });
}

/** Prints the table. */
export default async function bench(): Promise<void> {
  const { values } = parseArgs({
    options: {
      size: { type: 'string', default: '1' },
      rows: { type: 'string', default: ROWS.map(({ name }) => name).join(',') },
      rounds: { type: 'string', default: '5' },
      dir: { type: 'string', default: '/dev/shm' },
    },
  });
  const wanted = values.rows.split(',');
  const size = Math.round(Number(values.size) * GIB);
  console.log('| work | × qemu-img | ours | CPU | peak | qemu-img | CPU |');
  console.log('|---|---|---|---|---|---|---|');
  const folder = mkdtempSync(join(values.dir, 'bench-'));
  try {
    const disk = join(folder, 'disk.raw');
    makeSystemDisk(disk, size);
    const images = { disk, folder, mebibytes: Math.floor(size / MIB) };
    for (const row of ROWS.filter(({ name }) => wanted.includes(name))) {
      console.log(measure(row, images, Number(values.rounds)));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function measure(row: Row, images: Images, rounds: number): string {
  const { folder } = images;
  const { title, changes, command, theirs = command } = row;
  row.make(images);
  const path = (name: string) => join(folder, name);
  for (const name of changes) copyFileSync(path(name), path(`${name}.kept`));
  const before = () => {
    rmSync(path('whole'), { force: true });
    for (const name of changes) copyFileSync(path(`${name}.kept`), path(name));
  };
  const tool = [process.execPath, join(process.cwd(), 'dist', 'qcow2-img.js')];
  const figures = race(
    [
      { name: 'ours', command: [...tool, ...command], before, folder },
      { name: 'theirs', command: ['qemu-img', ...theirs], before, folder },
    ],
    rounds,
  );
  const ours = figures.get('ours')!;
  const other = figures.get('theirs')!;
  const seconds = (value: number) => `${value.toFixed(2)} s`;
  const cells = [
    title,
    (other.wall / ours.wall).toFixed(2),
    seconds(ours.wall),
    seconds(ours.cpu),
    `${Math.round(ours.peak)} MiB`,
    seconds(other.wall),
    seconds(other.cpu),
  ];
  return `| ${cells.join(' | ')} |`;
}
