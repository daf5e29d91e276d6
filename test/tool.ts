/** Programs as tests run them: the built tool, QEMU's, and folders for their files. Node only. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { requireQemu } from './oracle.ts';

/** The built tool, which is run as a process of its own. */
export const TOOL = resolve('dist/qcow2-img.js');

/** How a program ended, and what it printed. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** Where a program runs. */
export interface RunOptions {
  readonly cwd?: string;
}

/** What takes longer hangs: no run here needs more than seconds, on a machine with time for it. */
export const RUN_MS_MAX = 600_000;

/** Runs a program to its end. */
export function run(
  program: string,
  args: readonly string[],
  { cwd }: RunOptions = {},
): Promise<Ended> {
  return new Promise((done, fail) => {
    const child = spawn(program, args, {
      ...(cwd === undefined ? {} : { cwd }),
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: RUN_MS_MAX,
      killSignal: 'SIGKILL',
    });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on('data', (part: Buffer) => out.push(part));
    child.stderr.on('data', (part: Buffer) => err.push(part));
    child.once('error', fail);
    child.once('close', (code, signal) => {
      done({ code, signal, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString() });
    });
  });
}

/** Runs the built tool. */
export function tool(args: readonly string[], options?: RunOptions): Promise<Ended> {
  return run(process.execPath, [TOOL, ...args], options);
}

/** Runs a program that has to succeed, and gives its standard output. */
export async function must(
  program: string,
  args: readonly string[],
  options?: RunOptions,
): Promise<Buffer> {
  const { code, signal, stdout, stderr } = await run(program, args, options);
  if (code === 0) return stdout;
  const line = [program, ...args].join(' ');
  throw new Error(`${line}\nended with ${signal ?? code}:\n${stdout}${stderr}`);
}

/** Runs qemu-img, which has to succeed. */
export function qemuImg(args: readonly string[], options?: RunOptions): Promise<Buffer> {
  return must(requireQemu().img, args, options);
}

/** Runs qemu-io's commands on an image, all in one process; each has to succeed. */
export async function qemuIo(
  image: string,
  commands: readonly string[],
  { format = 'qcow2', ...options }: RunOptions & { readonly format?: string } = {},
): Promise<void> {
  if (commands.length === 0) return;
  const args = ['-f', format, ...commands.flatMap((command) => ['-c', command]), image];
  const output = await must(requireQemu().io, args, options);
  // It may end well also where a command failed.
  if (/failed|error|invalid|argument|aligned/i.test(output.toString())) {
    throw new Error(`qemu-io ${args.join(' ')}\n${output}`);
  }
}

/** A folder for a test's files, removed when `work` is done. */
export async function inScratch<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'qcow2-test-'));
  try {
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Works through a list, as many at a time as there are processors, and one more. */
export async function eachAtOnce<T>(
  list: Iterable<T>,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const left = list[Symbol.iterator]();
  const lane = async () => {
    for (let next = left.next(); !next.done; next = left.next()) await work(next.value);
  };
  await Promise.all(Array.from({ length: availableParallelism() + 1 }, lane));
}

/** Where two buffers differ, as a person can use it; empty where they are equal. */
export function difference(ours: Uint8Array, theirs: Uint8Array): string {
  if (ours.length !== theirs.length) return `${ours.length} bytes, not ${theirs.length}`;
  if (Buffer.compare(ours, theirs) === 0) return '';
  const at = ours.findIndex((byte, i) => byte !== theirs[i]);
  return `first difference at ${at}: ${ours[at]}, not ${theirs[at]}`;
}

/**
 * Reads all files of a folder. Linux takes room that was reserved and not written for a hole until
 * it is read, and who reads the head of a file reads on ahead: afterwards each program that looks
 * for holes finds the same.
 */
export function readFiles(folder: string): void {
  for (const name of readdirSync(folder)) readFileSync(join(folder, name));
}

/**
 * Compares what two programs say of files; asks both again where they differ in nothing but the
 * room that files take, which a file system changes whenever it gets to writing them out.
 */
export async function askedAlike<T>(
  ask: () => Promise<readonly [ours: T, theirs: T]>,
): Promise<readonly [ours: T, theirs: T]> {
  const roomless = (value: T) =>
    JSON.stringify(value).replaceAll(/(disk size: |actual-size\\?": ).*?(\\n|,)/g, '$1$2');
  for (let attempt = 1; ; attempt++) {
    const both = await ask();
    const [ours, theirs] = both.map((value) => JSON.stringify(value));
    if (ours === theirs || roomless(both[0]) !== roomless(both[1]) || attempt === 5) return both;
  }
}

/** QEMU measures its own speed for the key's iterations, and on a busy machine it cannot. */
export async function oftenEnough(work: () => Promise<unknown>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await work();
      return;
    } catch (cause) {
      if (attempt === 100 || !/CPU usage/.test(String(cause))) throw cause;
    }
  }
}
