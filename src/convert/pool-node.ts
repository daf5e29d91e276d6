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
import { emptyTally, type Placement, type Tally, type Turn } from './runner.ts';

interface Waiting {
  readonly turn: Turn | undefined;
  readonly resolve: () => void;
  readonly reject: (cause: Error) => void;
}

class ThreadWorker implements JobWorker {
  tally: Tally = emptyTally();
  private readonly jobs = new Map<number, Waiting>();
  private failure: Error | undefined;
  private nextId = 0;

  constructor(private readonly thread: Worker) {
    thread.on('message', (message: FromWorker) => this.receive(message));
    thread.on('error', (cause) => this.fail(cause));
    thread.on('exit', () => this.fail(new Error('a conversion worker ended')));
    // A thread that waits for work must not keep the process alive.
    thread.unref();
  }

  get pending(): number {
    return this.jobs.size;
  }

  run(ops: Float64Array<ArrayBuffer>, turn?: Turn): Promise<void> {
    if (this.failure) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      if (this.jobs.size === 0) this.thread.ref();
      const id = this.nextId++;
      this.jobs.set(id, { turn, resolve, reject });
      this.send({ kind: 'job', id, ops, ordered: turn !== undefined }, [ops.buffer]);
    });
  }

  async close(): Promise<void> {
    await this.thread.terminate();
  }

  private send(message: ToWorker, moved: readonly ArrayBuffer[]): void {
    this.thread.postMessage(message, moved);
  }

  private receive(message: FromWorker): void {
    const { id } = message;
    const job = this.jobs.get(id);
    // Jobs are dropped when the worker fails; what it still says does not matter then.
    if (!job) return;
    if (message.kind === 'turn') {
      assert(job.turn, 'only jobs that are ordered ask for their turn');
      // A turn that never comes belongs to a conversion that failed: its pool is closed.
      job.turn(message.units).then(
        (placement) => this.send({ kind: 'go', id, placement }, buffersOf(placement)),
        () => {},
      );
      return;
    }
    this.jobs.delete(id);
    if (this.jobs.size === 0) this.thread.unref();
    if (message.kind === 'done') {
      this.tally = message.tally;
      job.resolve();
    } else job.reject(fromWire(message.error));
  }

  private fail(cause: Error): void {
    this.failure ??= cause;
    const jobs = [...this.jobs.values()];
    this.jobs.clear();
    for (const job of jobs) job.reject(this.failure);
  }
}

function buffersOf(placement: Placement | undefined): ArrayBuffer[] {
  if (!placement) return [];
  return [placement.hosts.buffer, ...placement.tables.map(({ bytes }) => bytes.buffer)];
}

/** Starts threads; the compiled kernels are shared with them, machine code and all. */
export function startNodeWorkers(setup: WorkerSetup, count: number): JobWorker[] {
  const url = new URL('./convert-worker.js', import.meta.url);
  return Array.from(
    { length: count },
    () => new ThreadWorker(new Worker(url, { workerData: setup, trackUnmanagedFds: false })),
  );
}
