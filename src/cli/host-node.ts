/** The process as a command's host: the only file that knows it. */

import { existsSync, realpathSync, statSync, unlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename } from 'node:path';
import { isQcow2Error, type Qcow2Error } from '../base/errors.ts';
import { decodeText, encodeText } from '../base/text.ts';
import type { NodePool } from '../convert/pool-node.ts';
import { isLibcLoaded, libc } from '../storage/native-libc.ts';
import { ioError } from '../storage/node-error.ts';
import { openNodeFile } from '../storage/node-file.ts';
import { hostPath } from '../storage/node-path.ts';
import { PipeStorage } from '../storage/node-pipe.ts';
import { threadsWithin } from './address-space.ts';
import type { Host } from './command.ts';
import { Secrets } from './secrets.ts';

const STDOUT = 1;
const STDERR = 2;

/**
 * Code runs longer before V8 compiles it anew: what is hot here is in the kernels, and compiling
 * what is merely warm, in each thread, took a fifth of a conversion's CPU time.
 */
const LATE_COMPILING = '--interrupt-budget=600000';

function compileLate(): void {
  // Later versions of V8 have no such flag, and say so.
  if (!process.versions.v8.startsWith('11.')) return;
  process.getBuiltinModule?.('node:v8').setFlagsFromString(LATE_COMPILING);
}

/**
 * Writes text straight to a descriptor: setting up Node's streams costs milliseconds.
 * @returns why it cannot be written, if it cannot
 */
function writeText(fd: number, text: string): Qcow2Error | undefined {
  try {
    const name = fd === STDOUT ? 'standard output' : 'standard error';
    new PipeStorage(fd, name).write(0, encodeText(text));
    return undefined;
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    return cause;
  }
}

/** Nobody reads what is written: who does not want to know the rest may leave. */
const isUnread = ({ cause }: Qcow2Error) => (cause as { code?: string } | null)?.code === 'EPIPE';

/** The name that stands in messages: that of the link the tool was called through, if any. */
function programName(script: string | undefined): string {
  return basename(script ?? 'qcow2-img').replace(/\.js$/, '');
}

/** @param script path that the tool was called by */
export function nodeHost(script: string | undefined): Host & { end(): void } {
  const interrupt = new AbortController();
  const program = programName(script);
  let listening = false;
  const ends: (() => void)[] = [];
  let pool: NodePool | undefined;
  const threads = async () => {
    if (!pool) {
      compileLate();
      pool = new (await import('../convert/pool-node.ts')).NodePool();
    }
    return pool;
  };
  let answer: (() => void) | undefined;
  let unwritten: Qcow2Error | undefined;
  return {
    program,
    get terminal() {
      // Not imported: with it come Node's streams and sockets, which cost milliseconds.
      const tty = createRequire(import.meta.url)('node:tty') as typeof import('node:tty');
      return tty.isatty(STDOUT);
    },
    threads: threadsWithin(),
    startWorkers: async (setup, count) => (await threads()).start(setup, count),
    warmWorkers: async (count) => (await threads()).warm(count),
    moveInBackground: () => {
      // Node reads it when a thread of its pool is first asked for.
      process.env.UV_THREADPOOL_SIZE ??= '1';
      compileLate();
    },
    out: (text) => {
      const failure = writeText(STDOUT, text);
      if (failure && !isUnread(failure)) unwritten ??= failure;
    },
    tell: (text) => void writeText(STDOUT, text),
    get unwritten() {
      return unwritten;
    },
    error: (message) => void writeText(STDERR, `${program}: ${message}\n`),
    note: (text) => void writeText(STDERR, text),
    atEnd: (work) => {
      ends.push(work);
    },
    end: () => {
      for (const work of ends.splice(0)) work();
    },
    openFile: openNodeFile,
    openInput: async () => (await import('../storage/node-input.ts')).openStandardInput(),
    openOutput: () => new PipeStorage(STDOUT, 'standard output'),
    exists: (path) => existsSync(hostPath(path)),
    remove: (path) => unlinkSync(hostPath(path)),
    modifiedAt: (path) => statSync(hostPath(path)).mtimeMs,
    allocatedBytes: (path) => statSync(hostPath(path)).blocks * 512,
    realPath: (path) => {
      try {
        return decodeText(realpathSync.native(hostPath(path), 'buffer'));
      } catch (cause) {
        throw ioError(cause, `Could not open '${path}'`);
      }
    },
    secrets: new Secrets(),
    askPassphrase: async (prompt) => {
      const { passphrasePrompt } = await import('./passphrase-prompt.ts');
      return passphrasePrompt((text) => void writeText(STDERR, text))?.(prompt);
    },
    hideArguments: () => {
      process.title = program;
    },
    onProgressRequest: (tell) => {
      // One process may run many commands: the last one answers.
      if (!answer) process.on('SIGUSR1', () => answer?.());
      answer = tell;
    },
    get interrupted() {
      if (!listening) {
        listening = true;
        for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
          // The second time the signal does what it always does.
          process.once(signal, () => interrupt.abort(signal));
        }
      }
      return interrupt.signal;
    },
  };
}

/** A command's exit code; that of a failure where its answer could not be written. */
export function codeOfOutput(host: Pick<Host, 'error' | 'unwritten'>, code: number): number {
  if (!host.unwritten) return code;
  host.error(host.unwritten.message);
  return code === 0 ? 1 : code;
}

/** A signal is on its way that ends the process. */
let isDying = false;

/** A run of so many milliseconds has V8 compile something, and that is done after so many more. */
const COMPILES_AFTER_MS = 100;
const COMPILING_MS = 20;

/**
 * Ends the process at once where that can be had, when nothing more is said or done. Node takes
 * apart threads and memories that the kernel frees anyway, and needs up to 12 ms for it. And it
 * waits for what V8 is compiling in other threads, which may wait for this one to collect garbage,
 * and both for ever (nodejs/node#54918): elsewhere that is given the time to be done.
 */
export function leave(code: number): void {
  process.exitCode = code;
  if (isDying) return;
  const { NODE_OPTIONS, NODE_V8_COVERAGE } = process.env;
  // Whoever looks on from inside sees Node's own end.
  const isWatched = process.execArgv.length > 0 || process.listenerCount('exit') > 0;
  const isFree = !isWatched && !NODE_OPTIONS && !NODE_V8_COVERAGE;
  if (isFree && isLibcLoaded()) libc()?.exit(code);
  if (performance.now() > COMPILES_AFTER_MS) setTimeout(() => {}, COMPILING_MS);
}

/** Ends the process by the signal that interrupted it, so that the shell sees what happened. */
export function dieBySignal(reason: unknown): void {
  isDying = true;
  if (typeof reason === 'string') process.kill(process.pid, reason as NodeJS.Signals);
}
