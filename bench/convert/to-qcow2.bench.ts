/**
 * Whole conversions to qcow2 against qemu-img, with its defaults and with its fastest flags.
 *
 *   npm run bench -- convert/to-qcow2 [--size=1,4] [--rows=…] [--rounds=3] [--dir=/dev/shm]
 *
 * `published` is the set-up that QEMU's zstd clusters were announced with: an installed system of
 * 2.2 GiB, compressed and decompressed with both codecs.
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { race } from '../process.ts';
import { type MakeSource, makeChain, qemuConvert, scatter, touchMemory } from './sources.ts';
import { makeSystemDisk } from './system-disk.ts';

const GIB = 2 ** 30;
const PUBLISHED_BYTES = Math.round(2.2 * GIB);

const ZLIB = ['-c'];
const ZSTD = ['-c', '-o', 'compression_type=zstd'];

/** A row of the table: a source, and what it is converted with. */
interface Row {
  readonly name: string;
  readonly title: string;
  readonly make: MakeSource;
  /** The source is no qcow2 image. */
  readonly isRaw?: boolean;
  readonly options: readonly string[];
  /** Part of the disk's bytes that the target takes. */
  readonly part: number;
  readonly toRaw?: boolean;
}

const raw: MakeSource = (disk) => disk;

const ROWS: readonly Row[] = [
  { name: 'raw-zlib', title: 'raw → zlib', make: raw, isRaw: true, options: ZLIB, part: 0.3 },
  { name: 'raw-zstd', title: 'raw → zstd', make: raw, isRaw: true, options: ZSTD, part: 0.3 },
  { name: 'zlib-zlib', title: 'zlib → zlib', make: qemuConvert(ZLIB), options: ZLIB, part: 0.3 },
  { name: 'zstd-zstd', title: 'zstd → zstd', make: qemuConvert(ZSTD), options: ZSTD, part: 0.3 },
  { name: 'zlib-zstd', title: 'zlib → zstd', make: qemuConvert(ZLIB), options: ZSTD, part: 0.3 },
  { name: 'raw-qcow2', title: 'raw → qcow2', make: raw, isRaw: true, options: [], part: 0.7 },
  { name: 'qcow2-qcow2', title: 'qcow2 → qcow2', make: qemuConvert([]), options: [], part: 0.7 },
  {
    name: 'sparse',
    title: '1 TiB of holes → qcow2',
    make: scatter,
    isRaw: true,
    options: [],
    part: 0.7,
  },
  { name: 'chain-qcow2', title: 'chain of three → qcow2', make: makeChain, options: [], part: 0.9 },
];

const PUBLISHED: readonly Row[] = [
  { name: 'published', title: 'compress, zlib', make: raw, isRaw: true, options: ZLIB, part: 0.3 },
  { name: 'published', title: 'compress, zstd', make: raw, isRaw: true, options: ZSTD, part: 0.3 },
  {
    name: 'published',
    title: 'decompress, zlib',
    make: qemuConvert(ZLIB),
    options: [],
    part: 0.7,
    toRaw: true,
  },
  {
    name: 'published',
    title: 'decompress, zstd',
    make: qemuConvert(ZSTD),
    options: [],
    part: 0.7,
    toRaw: true,
  },
];

/** Prints the table. */
export default async function bench(): Promise<void> {
  const names = [...ROWS.map(({ name }) => name), 'published'].join(',');
  const { values } = parseArgs({
    options: {
      size: { type: 'string', default: '1,4' },
      rows: { type: 'string', default: names },
      rounds: { type: 'string', default: '3' },
      dir: { type: 'string', default: '/dev/shm' },
    },
  });
  const wanted = values.rows.split(',');
  const rounds = Number(values.rounds);
  console.log(
    '| conversion | disk | × fastest flags | × defaults | size | ours | CPU | peak | qemu-img |',
  );
  console.log('|---|---|---|---|---|---|---|---|---|');
  for (const gib of values.size.split(',').map(Number)) {
    const rows = ROWS.filter(({ name }) => wanted.includes(name));
    measureAll(rows, { size: gib * GIB, label: `${gib} GiB`, rounds, dir: values.dir });
  }
  if (!wanted.includes('published')) return;
  measureAll(PUBLISHED, { size: PUBLISHED_BYTES, label: '2.2 GiB', rounds, dir: values.dir });
}

interface Setting {
  readonly size: number;
  readonly label: string;
  readonly rounds: number;
  readonly dir: string;
}

function measureAll(rows: readonly Row[], setting: Setting): void {
  if (rows.length === 0) return;
  const folder = mkdtempSync(join(setting.dir, 'bench-'));
  try {
    const disk = join(folder, 'disk.raw');
    makeSystemDisk(disk, setting.size);
    for (const row of rows) {
      const source = row.make(disk, folder, setting.size);
      console.log(measure(row, { ...setting, source, folder }));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function measure(
  { title, isRaw, options, part, toRaw }: Row,
  setting: Setting & { readonly source: string; readonly folder: string },
): string {
  const { source, folder, size, rounds, label } = setting;
  const ours = join(folder, 'ours.out');
  const theirs = join(folder, 'theirs.out');
  const before = (target: string) => () => {
    rmSync(ours, { force: true });
    rmSync(theirs, { force: true });
    touchMemory(target, (size / 2 ** 20) * part);
  };
  const tool = join(process.cwd(), 'dist', 'qcow2-img.js');
  const formats = ['-f', isRaw ? 'raw' : 'qcow2', '-O', toRaw ? 'raw' : 'qcow2'];
  const line = ['convert', ...formats, ...options];
  const mine = [process.execPath, tool, ...line, source, ours];
  const sizes = { ours: 0, theirs: 0 };
  const measured = (key: keyof typeof sizes, path: string) => {
    if (statSync(path, { throwIfNoEntry: false })) sizes[key] = statSync(path).size;
  };
  const contender = (name: string, command: readonly string[], target: string) => ({
    name,
    command,
    before: () => {
      measured('ours', ours);
      measured('theirs', theirs);
      before(target)();
    },
  });
  const figures = race(
    [
      contender('ours', mine, ours),
      contender('fast', ['qemu-img', ...line, '-m', '8', '-W', source, theirs], theirs),
      contender('ours again', mine, ours),
      contender('defaults', ['qemu-img', ...line, source, theirs], theirs),
    ],
    rounds,
  );
  measured('theirs', theirs);
  const of = (name: string) => figures.get(name)!;
  const wall = (of('ours').wall + of('ours again').wall) / 2;
  const ratio = (name: string) => `${(of(name).wall / wall).toFixed(2)}×`;
  const seconds = (value: number) => `${value.toFixed(2)} s`;
  const cells = [
    title,
    label,
    ratio('fast'),
    ratio('defaults'),
    (sizes.ours / sizes.theirs).toFixed(3),
    seconds(wall),
    seconds(of('ours').cpu),
    `${Math.round(Math.max(of('ours').peak, of('ours again').peak))} MiB`,
    `${seconds(of('fast').wall)}, CPU ${seconds(of('fast').cpu)}`,
  ];
  return `| ${cells.join(' | ')} |`;
}
