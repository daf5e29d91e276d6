/** The tool as a process of this process, which does nothing but wait for it. */
import { spawn } from 'node:child_process';
import { fstatSync } from 'node:fs';

/** The run has to hear of these. */
const PASSED_ON = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1'] as const;

/** Set for the run that another one waits for. */
const AGAIN = 'QCOW2_RUN_AGAIN';

/** Descriptors that names on the command line mean: Node passes none on unasked. */
const NAMED_DESCRIPTOR = /\/(?:dev|proc\/self)\/fd\/(\d{1,4})\b/g;

/** Standard streams, the descriptors that arguments name, and behind them a channel. */
function passedDescriptors(args: readonly string[]): ('inherit' | 'ignore' | 'ipc')[] {
  const passed: ('inherit' | 'ignore' | 'ipc')[] = ['inherit', 'inherit', 'inherit'];
  for (const [, digits] of args.join('\n').matchAll(NAMED_DESCRIPTOR)) {
    const fd = Number(digits);
    if (!isOpen(fd)) continue;
    while (passed.length <= fd) passed.push('ignore');
    passed[fd] = 'inherit';
  }
  return [...passed, 'ipc'];
}

function isOpen(fd: number): boolean {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
}

/** Runs the tool with more of Node's options; resolves with its exit code, or dies as it does. */
export function runWith(options: readonly string[]): Promise<number> {
  return new Promise((done, fail) => {
    const args = [...process.execArgv, ...options, ...process.argv.slice(1)];
    // The C library otherwise sets aside 64 MiB of addresses for each thread.
    const env = { ...process.env, MALLOC_ARENA_MAX: '1', [AGAIN]: '1' };
    const stdio = passedDescriptors(process.argv.slice(2));
    const child = spawn(process.execPath, args, { stdio, env });
    for (const signal of PASSED_ON) process.on(signal, () => child.kill(signal));
    child.once('error', fail);
    child.once('exit', (code, signal) => {
      if (signal === null) {
        done(code ?? 1);
        return;
      }
      process.removeAllListeners(signal);
      process.kill(process.pid, signal);
    });
  });
}

/**
 * In the run that another one waits for: ends it with that one, which may be killed without being
 * able to pass that on. Nobody may find a target written to by a tool that is gone.
 */
export function endWithStarter(): void {
  if (process.env[AGAIN] !== '1' || !process.channel) return;
  process.once('disconnect', () => process.kill(process.pid, 'SIGKILL'));
  process.channel.unref();
}
