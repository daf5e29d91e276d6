/** Timing whole processes: wall and CPU time, peak memory; in turns, so that drift hits all. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** One command of a comparison. */
export interface Contender {
  readonly name: string;
  readonly command: readonly string[];
  /** Runs before each counted run: puts things back as they were. */
  readonly before?: () => void;
  /** Where it runs. Default: here. */
  readonly folder?: string;
}

/** What the runs of one command took, medians. */
export interface Figures {
  readonly wall: number;
  readonly cpu: number;
  /** Largest resident set, MiB. */
  readonly peak: number;
}

/** The middle of several values. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] as number)) / 2;
}

/** Runs one command under time(1). */
function runOnce({ command, before, folder }: Contender, report: string): Figures {
  before?.();
  const start = performance.now();
  const { status, stderr } = spawnSync(
    '/usr/bin/time',
    ['-q', '-o', report, '-f', '%U %S %M', ...command],
    { stdio: ['ignore', 'ignore', 'pipe'], ...(folder ? { cwd: folder } : {}) },
  );
  const wall = (performance.now() - start) / 1000;
  if (status !== 0) throw new Error(`${command.join(' ')}: ${stderr}`);
  const [user = 0, system = 0, kilobytes = 0] = readFileSync(report, 'utf8').split(' ').map(Number);
  return { wall, cpu: user + system, peak: kilobytes / 1024 };
}

/** Runs the contenders in turn, `rounds` times each after one round that does not count. */
export function race(contenders: readonly Contender[], rounds: number): Map<string, Figures> {
  const folder = mkdtempSync(join(tmpdir(), 'bench-'));
  const report = join(folder, 'time');
  const runs = new Map(contenders.map(({ name }) => [name, [] as Figures[]]));
  try {
    for (let round = 0; round <= rounds; round++) {
      for (const contender of contenders) {
        const figures = runOnce(contender, report);
        if (round > 0) runs.get(contender.name)?.push(figures);
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  return new Map(
    [...runs].map(([name, all]) => [
      name,
      {
        wall: median(all.map(({ wall }) => wall)),
        cpu: median(all.map(({ cpu }) => cpu)),
        peak: Math.max(...all.map(({ peak }) => peak)),
      },
    ]),
  );
}
