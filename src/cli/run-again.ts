/** The tool as a process of this process, which does nothing but wait for it. */
import { spawn } from 'node:child_process';

/** The run has to hear of these. */
const PASSED_ON = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1'] as const;

/** Runs the tool with more of Node's options; resolves with its exit code, or dies as it does. */
export function runWith(options: readonly string[]): Promise<number> {
  return new Promise((done, fail) => {
    const args = [...process.execArgv, ...options, ...process.argv.slice(1)];
    // The C library otherwise sets aside 64 MiB of addresses for each thread.
    const env = { ...process.env, MALLOC_ARENA_MAX: '1' };
    const child = spawn(process.execPath, args, { stdio: 'inherit', env });
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
