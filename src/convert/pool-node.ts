/** Workers as threads of Node. */
import { Worker } from 'node:worker_threads';
import type { FromWorker, JobWorker, ToWorker, WorkerSetup } from './pool.ts';
import { type JobThread, ThreadWorker } from './pool-thread.ts';

class NodeThread implements JobThread {
  private readonly worker: Worker;
  private listener: Parameters<JobThread['listen']>[0];

  constructor() {
    const url = new URL('./convert-worker.js', import.meta.url);
    this.worker = new Worker(url, { trackUnmanagedFds: false })
      .on('message', (message: FromWorker) => this.listener?.message(message))
      .on('error', (cause: Error) => this.listener?.fail(cause))
      .on('exit', () => this.listener?.fail(new Error('a conversion worker ended')));
  }

  send(message: ToWorker, moved: readonly ArrayBuffer[]): void {
    this.worker.postMessage(message, moved);
  }

  listen(listener: Parameters<JobThread['listen']>[0]): void {
    this.listener = listener;
  }

  needed(needed: boolean): void {
    if (needed) this.worker.ref();
    else this.worker.unref();
  }

  async end(): Promise<void> {
    await this.worker.terminate();
  }
}

/** Starts threads; the compiled kernels are shared with them, machine code and all. */
export function startNodeWorkers(setup: WorkerSetup, count: number): JobWorker[] {
  return Array.from({ length: count }, () => new ThreadWorker(new NodeThread(), setup));
}

/** Threads that serve one conversion after another. */
export class NodePool {
  private readonly idle: JobThread[] = [];

  /** Starts threads ahead of the conversion that will want them, so that they are up by then. */
  warm(count: number): void {
    while (this.idle.length < count) {
      const thread = new NodeThread();
      thread.needed(false);
      this.idle.push(thread);
    }
  }

  /** As `startNodeWorkers`, with threads that are idle first. */
  readonly start = (setup: WorkerSetup, count: number): JobWorker[] =>
    Array.from({ length: count }, () => {
      const thread = this.idle.pop() ?? new NodeThread();
      return new ThreadWorker(thread, setup, (left) => this.idle.push(left));
    });
}
