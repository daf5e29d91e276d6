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

/** A worker of one conversion, in a thread that may go on to serve another. */
class ThreadWorker implements JobWorker {
  tally: Tally = emptyTally();
  private readonly jobs = new Map<number, Waiting>();
  private failure: Error | undefined;
  private nextId = 0;

  /** @param release takes the thread back when it is idle; without it the thread ends */
  constructor(
    private readonly thread: Worker,
    private readonly release?: (thread: Worker) => void,
  ) {
    thread.on('message', this.onMessage);
    thread.on('error', this.onError);
    thread.on('exit', this.onExit);
    // A thread that waits for work must not keep the process alive.
    thread.unref();
  }

  private readonly onMessage = (message: FromWorker) => this.receive(message);
  private readonly onError = (cause: Error) => this.fail(cause);
  private readonly onExit = () => this.fail(new Error('a conversion worker ended'));

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
    if (!this.release || this.jobs.size > 0 || this.failure) {
      await this.thread.terminate();
      return;
    }
    this.thread.off('message', this.onMessage).off('error', this.onError).off('exit', this.onExit);
    this.release(this.thread);
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

function startThread(setup: WorkerSetup): Worker {
  const url = new URL('./convert-worker.js', import.meta.url);
  return new Worker(url, { workerData: setup, trackUnmanagedFds: false });
}

/** Starts threads; the compiled kernels are shared with them, machine code and all. */
export function startNodeWorkers(setup: WorkerSetup, count: number): JobWorker[] {
  return Array.from({ length: count }, () => new ThreadWorker(startThread(setup)));
}

/** Threads that serve one conversion after another. */
export class NodePool {
  private readonly idle: Worker[] = [];

  /** As `startNodeWorkers`, with threads that are idle first. */
  readonly start = (setup: WorkerSetup, count: number): JobWorker[] =>
    Array.from({ length: count }, () => {
      const known = this.idle.pop();
      const message: ToWorker = { kind: 'setup', setup };
      known?.postMessage(message);
      return new ThreadWorker(known ?? startThread(setup), (thread) => this.idle.push(thread));
    });

  /** Ends the threads that are idle. */
  async close(): Promise<void> {
    await Promise.all(this.idle.splice(0).map((thread) => thread.terminate()));
  }
}
