/**
 * What the tool costs before it does anything, and that nothing is done per unallocated cluster.
 *
 *   npm run bench -- start-up [--rounds=15]
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { race } from '../process.ts';

/** Prints the table. */
export default async function bench(): Promise<void> {
  const { values } = parseArgs({ options: { rounds: { type: 'string', default: '15' } } });
  // Not every file system takes a file of 16 TiB; memory-backed storage does.
  const folder = mkdtempSync(join('/dev/shm', 'bench-'));
  const image = (name: string, size: string) => {
    const path = join(folder, name);
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, size]);
    return path;
  };
  try {
    const small = image('small.qcow2', '1G');
    const large = image('large.qcow2', '16T');
    const target = join(folder, 'target.raw');
    const before = () => rmSync(target, { force: true });
    const tool = [process.execPath, join(process.cwd(), 'dist', 'qcow2-img.js')];
    const convert = (source: string) => [...tool, 'convert', '-O', 'raw', source, target];
    const figures = race(
      [
        { name: 'node -e 0', command: [process.execPath, '-e', '0'] },
        { name: 'info', command: [...tool, 'info', small] },
        { name: 'convert an empty 1 GiB image', command: convert(small), before },
        { name: 'convert an empty 16 TiB image', command: convert(large), before },
        { name: 'qemu-img info', command: ['qemu-img', 'info', small] },
      ],
      Number(values.rounds),
    );
    const base = figures.get('node -e 0')!.wall;
    console.log('| process | wall | above node | peak |');
    console.log('|---|---|---|---|');
    for (const [name, { wall, peak }] of figures) {
      const above = `${((wall - base) * 1000).toFixed(0)} ms`;
      const cells = [name, `${(wall * 1000).toFixed(0)} ms`, above, `${Math.round(peak)} MiB`];
      console.log(`| ${cells.join(' | ')} |`);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}
