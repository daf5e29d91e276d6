/**
 * Conversions into and out of LUKS against qemu-img's fastest flags, whole processes.
 *
 *   npm run bench -- convert/luks [--size=1] [--rounds=3] [--dir=/dev/shm]
 *
 * Keys are derived with few iterations, so that it takes no time on either side. qemu-img writes
 * into an image that is there already, for it spends seconds on calibrating itself otherwise; what
 * is made here is made anew. Memory-backed storage, so that the tools are measured and not a disk.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { race } from '../process.ts';
import { touchMemory } from './sources.ts';
import { makeSystemDisk } from './system-disk.ts';

const GIB = 2 ** 30;
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

/** Prints the table. */
export default async function bench(): Promise<void> {
  const { values } = parseArgs({
    options: {
      size: { type: 'string', default: '1' },
      rounds: { type: 'string', default: '3' },
      dir: { type: 'string', default: '/dev/shm' },
    },
  });
  const size = Number(values.size) * GIB;
  const tool = [process.execPath, join(process.cwd(), 'dist', 'qcow2-img.js')];
  const ours = (...args: string[]) => [...tool, ...args];
  const runOurs = (...args: string[]) => {
    const [program = '', ...rest] = ours(...args);
    execFileSync(program, rest);
  };
  const folder = mkdtempSync(join(values.dir, 'bench-'));
  const at = (name: string) => join(folder, name);
  try {
    makeSystemDisk(at('disk.raw'), size);
    runOurs('convert', ...SECRETS, '-O', 'qcow2', ...layout('s'), at('disk.raw'), at('s.qcow2'));
    const empty = ['-q', ...SECRETS, '-f', 'qcow2', ...layout('t'), at('empty.qcow2')];
    runOurs('create', ...empty, String(size));
    const options = ['--image-opts', '--target-image-opts'];
    const fast = ['qemu-img', 'convert', '-m', '8', '-W', ...SECRETS, ...options];
    const raw = (name: string) => `driver=raw,file.filename=${at(name)}`;
    const into = luks(at('target'), 't');
    const fresh = () => copyFileSync(at('empty.qcow2'), at('target'));
    const touched = () => touchMemory(at('target'), (size / 2 ** 20) * 0.65);
    const made = ['-O', 'qcow2', ...layout('t')];
    const source = luks(at('s.qcow2'), 's');
    const rows = [
      {
        title: 'LUKS → raw',
        ours: ours('convert', ...SECRETS, '--image-opts', '-O', 'raw', source, at('target')),
        theirs: ['qemu-img', 'convert', '-m', '8', '-W', ...SECRETS, '--image-opts'].concat([
          ...['-O', 'raw', source, at('target')],
        ]),
        before: touched,
      },
      {
        title: 'raw → LUKS',
        ours: ours('convert', ...SECRETS, ...made, at('disk.raw'), at('target')),
        theirs: [...fast, '-n', raw('disk.raw'), into],
        before: fresh,
      },
      {
        title: 'LUKS → LUKS',
        ours: ours('convert', ...SECRETS, '--image-opts', ...made, source, at('target')),
        theirs: [...fast, '-n', source, into],
        before: fresh,
      },
    ];
    console.log('| | disk | × faster | × less CPU | ours | qemu-img -m 8 -W | peak |');
    console.log('|---|---|---|---|---|---|---|');
    for (const { title, ours: command, theirs, before } of rows) {
      const figures = race(
        [
          { name: 'ours', command, before },
          { name: 'theirs', command: theirs, before },
        ],
        Number(values.rounds),
      );
      const [a, b] = ['ours', 'theirs'].map((name) => figures.get(name)!) as [
        { wall: number; cpu: number; peak: number },
        { wall: number; cpu: number; peak: number },
      ];
      const cells = [
        title,
        `${values.size} GiB`,
        (b.wall / a.wall).toFixed(2),
        (b.cpu / a.cpu).toFixed(2),
        `${a.wall.toFixed(2)} s`,
        `${b.wall.toFixed(2)} s`,
        `${a.peak.toFixed(0)} MiB`,
      ];
      console.log(`| ${cells.join(' | ')} |`);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}
