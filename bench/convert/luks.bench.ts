/**
 * Conversions into and out of LUKS against qemu-img's fastest flags, whole processes.
 *
 *   npm run bench -- convert/luks [--size=1] [--rows=to-raw,from-raw,rekey] [--rounds=3]
 *                                 [--dir=/dev/shm]
 *   npm run bench -- convert/luks --chromium          the same in Chromium, see `luks.page.ts`
 *
 * Deriving keys is not what is measured: each conversion is also run on a disk of the same size,
 * under the same keys, that is empty, in the same rounds, and what that takes is subtracted on
 * both sides. Both figures are printed. qemu-img writes into an image that is there already, for
 * it spends seconds on calibrating itself otherwise; what is made here is made anew. Memory-backed
 * storage, touched before each run, so that the tools are measured and not a disk.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Figures, race } from '../process.ts';
import { touchMemory } from './sources.ts';
import { makeSystemDisk } from './system-disk.ts';

const GIB = 2 ** 30;
/** Part of the disk's bytes that a target takes. */
const TARGET_PART = 0.7;
const SECRETS = ['secret,id=s,data=source', 'secret,id=t,data=target'].flatMap((secret) => [
  '--object',
  secret,
]);

const luks = (path: string, id: string) =>
  `driver=qcow2,file.filename=${path},encrypt.key-secret=${id}`;
const layout = (id: string) => [
  '-o',
  `encrypt.format=luks,encrypt.key-secret=${id},encrypt.iter-time=10`,
];

/** A conversion: what it reads, and whether that and its target are encrypted. */
interface Row {
  readonly name: string;
  readonly title: string;
  readonly decrypts: boolean;
  readonly encrypts: boolean;
}

const ROWS: readonly Row[] = [
  { name: 'to-raw', title: 'LUKS → raw', decrypts: true, encrypts: false },
  { name: 'from-raw', title: 'raw → LUKS', decrypts: false, encrypts: true },
  { name: 'rekey', title: 'LUKS → LUKS', decrypts: true, encrypts: true },
];

/** Prints the table. */
export default async function bench(): Promise<void> {
  const { values } = parseArgs({
    options: {
      size: { type: 'string', default: '1' },
      rows: { type: 'string', default: ROWS.map(({ name }) => name).join(',') },
      rounds: { type: 'string', default: '3' },
      dir: { type: 'string', default: '/dev/shm' },
    },
  });
  const folder = mkdtempSync(join(values.dir, 'bench-'));
  try {
    const disks = makeDisks(folder, Number(values.size) * GIB);
    console.log(
      '| | disk | × faster, keys subtracted | × less CPU | × faster, all | ours | of it keys ' +
        '| CPU | qemu-img -m 8 -W | of it keys | CPU | peak |',
    );
    console.log('|---|---|---|---|---|---|---|---|---|---|---|---|');
    const wanted = values.rows.split(',');
    for (const row of ROWS.filter(({ name }) => wanted.includes(name))) {
      const figures = race(contenders(row, disks), Number(values.rounds));
      console.log(`| ${cells(row.title, `${values.size} GiB`, figures).join(' | ')} |`);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What is converted, and where to; `empty` are the same with nothing in them. */
interface Disks {
  readonly folder: string;
  readonly size: number;
  readonly full: { readonly raw: string; readonly luks: string };
  readonly empty: { readonly raw: string; readonly luks: string };
  /** An empty image under the target's key. */
  readonly fresh: string;
}

function makeDisks(folder: string, size: number): Disks {
  const at = (name: string) => join(folder, name);
  const run = ([program = '', ...args]: readonly string[]) => execFileSync(program, args);
  const create = (id: string, path: string) =>
    run(ours('create', '-q', ...SECRETS, '-f', 'qcow2', ...layout(id), path, String(size)));
  const full = { raw: at('disk.raw'), luks: at('s.qcow2') };
  const empty = { raw: at('empty.raw'), luks: at('empty.qcow2') };
  const fresh = at('fresh.qcow2');
  makeSystemDisk(full.raw, size);
  run(ours('create', '-q', '-f', 'raw', empty.raw, String(size)));
  create('s', empty.luks);
  create('t', fresh);
  // The full one has the empty one's key slots: both take as long to open.
  copyFileSync(empty.luks, full.luks);
  const into = ['--target-image-opts', full.raw, luks(full.luks, 's')];
  run(ours('convert', '-n', ...SECRETS, ...into));
  return { folder, size, full, empty, fresh };
}

function ours(...args: string[]): string[] {
  return [process.execPath, join(process.cwd(), 'dist', 'qcow2-img.js'), ...args];
}

/** Four commands: both tools, on the full disk and on the empty one. */
function contenders({ decrypts, encrypts }: Row, disks: Disks) {
  const { folder, size, fresh } = disks;
  const target = join(folder, 'target');
  const before = () => {
    touchMemory(target, (size / 2 ** 20) * TARGET_PART);
    if (encrypts) copyFileSync(fresh, target);
  };
  const commands = (disk: Disks['full']) => {
    const raw = `driver=raw,file.filename=${disk.raw}`;
    const source = ['--image-opts', decrypts ? luks(disk.luks, 's') : raw];
    const made = ['-O', encrypts ? 'qcow2' : 'raw', ...(encrypts ? layout('t') : [])];
    const there = ['-n', '--target-image-opts'];
    const [options, into] = encrypts ? [there, luks(target, 't')] : [['-O', 'raw'], target];
    return {
      ours: ours('convert', ...SECRETS, ...made, ...source, target),
      theirs: ['qemu-img', 'convert', '-m', '8', '-W', ...SECRETS, ...options, ...source, into],
    };
  };
  const [full, empty] = [commands(disks.full), commands(disks.empty)];
  return [
    { name: 'ours', command: full.ours, before },
    { name: 'theirs', command: full.theirs, before },
    { name: 'our keys', command: empty.ours, before },
    { name: 'their keys', command: empty.theirs, before },
  ];
}

function cells(title: string, disk: string, figures: ReadonlyMap<string, Figures>): string[] {
  const of = (name: string) => figures.get(name)!;
  const [a, b, c, d] = [of('ours'), of('theirs'), of('our keys'), of('their keys')];
  const seconds = (value: number) => `${value.toFixed(2)} s`;
  return [
    title,
    disk,
    `${((b.wall - d.wall) / (a.wall - c.wall)).toFixed(2)}×`,
    `${((b.cpu - d.cpu) / (a.cpu - c.cpu)).toFixed(2)}×`,
    `${(b.wall / a.wall).toFixed(2)}×`,
    ...[a.wall, c.wall, a.cpu, b.wall, d.wall, b.cpu].map(seconds),
    `${Math.round(a.peak)} MiB`,
  ];
}
