/** Workers as threads of Node. */
import { Worker } from 'node:worker_threads';
import { assert } from '../base/errors.ts';
import {
  type FromWorker,
  fromWire,
  type JobWorker,
  type ToWorker,
  type WorkerSetup,
} from './pool.ts';
import type { Turn } from './worker.ts';

interface Waiting {
  readonly turn: Turn | undefined;
  readonly resolve: () => void;
  readonly reject: (cause: Error) => void;
}

class ThreadWorker implements JobWorker {
  private readonly queue: Waiting[] = [];
  private failure: Error | undefined;

  constructor(private readonly thread: Worker) {
    thread.on('message', (message: FromWorker) => this.receive(message));
    thread.on('error', (cause) => this.fail(cause));
    thread.on('exit', () => this.fail(new Error('a conversion worker ended')));
    // A thread that waits for work must not keep the process alive.
    thread.unref();
  }

  get pending(): number {
    return this.queue.length;
  }

  run(ops: Float64Array<ArrayBuffer>, turn?: Turn): Promise<void> {
    if (this.failure) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      if (this.queue.length === 0) this.thread.ref();
      this.queue.push({ turn, resolve, reject });
      const message: ToWorker = { kind: 'job', ops, ordered: turn !== undefined };
      this.thread.postMessage(message, [ops.buffer]);
    });
  }

  async close(): Promise<void> {
    await this.thread.terminate();
  }

  private receive(message: FromWorker): void {
    const first = this.queue[0];
    assert(first, 'a worker answered without a job');
    if (message.kind === 'turn') {
      const go: ToWorker = { kind: 'go' };
      // A turn that never comes belongs to a conversion that failed: its pool is closed.
      first.turn?.().then(
        () => this.thread.postMessage(go),
        () => {},
      );
      return;
    }
    this.queue.shift();
    if (this.queue.length === 0) this.thread.unref();
    if (message.kind === 'done') first.resolve();
    else first.reject(fromWire(message.error));
  }

  private fail(cause: Error): void {
    this.failure ??= cause;
    for (const waiting of this.queue.splice(0)) waiting.reject(this.failure);
  }
}

/** Starts threads; the compiled kernels are shared with them, machine code and all. */
export function startNodeWorkers(setup: WorkerSetup, count: number): JobWorker[] {
  const url = new URL('./convert-worker.js', import.meta.url);
  return Array.from(
    { length: count },
    () => new ThreadWorker(new Worker(url, { workerData: setup, trackUnmanagedFds: false })),
  );
}
