/** A worker of one conversion, on whatever thread a host has: the messages of its jobs. */
import { assert } from '../base/errors.ts';
import {
  type FromWorker,
  fromWire,
  type JobWorker,
  type ToWorker,
  type WorkerSetup,
} from './pool.ts';
import { type CopyBatch, emptyTally, type Placement, type Tally, type Turn } from './runner.ts';

/** A thread that a host started, with the entry point of its kind; a setup comes first. */
export interface JobThread {
  /** @param moved buffers that are the thread's from now on */
  send(message: ToWorker, moved: readonly ArrayBuffer[]): void;
  /**
   * Whom the thread tells what it has to say, and that it failed; undefined for nobody.
   */
  listen(
    listener:
      | { readonly message: (message: FromWorker) => void; readonly fail: (cause: Error) => void }
      | undefined,
  ): void;
  /** Whether anybody waits for it: only then may it keep a process alive. */
  needed(needed: boolean): void;
  /** Ends it at once, whatever it is doing. */
  end(): Promise<void>;
}

interface Waiting {
  readonly turn: Turn | undefined;
  readonly resolve: () => void;
  readonly reject: (cause: Error) => void;
}

/** A worker of one conversion, in a thread that may go on to serve another. */
export class ThreadWorker implements JobWorker {
  tally: Tally = emptyTally();
  isUp = false;
  private readonly jobs = new Map<number, Waiting>();
  private failure: Error | undefined;
  private nextId = 0;

  /** @param release takes the thread back when it is idle; without it the thread ends */
  constructor(
    private readonly thread: JobThread,
    setup: WorkerSetup,
    private readonly release?: (thread: JobThread) => void,
  ) {
    thread.listen({
      message: (message) => this.receive(message),
      fail: (cause) => this.fail(cause),
    });
    // A thread that waits for work must not keep the process alive.
    thread.needed(false);
    thread.send({ kind: 'setup', setup }, []);
  }

  run(ops: Float64Array<ArrayBuffer>, turn?: Turn): Promise<void> {
    return this.give(turn, (id) => {
      this.thread.send({ kind: 'job', id, ops, ordered: turn !== undefined }, [ops.buffer]);
    });
  }

  copy(batch: CopyBatch): Promise<void> {
    return this.give(undefined, (id) => {
      this.thread.send({ kind: 'copy', id, batch }, buffersOf(batch));
    });
  }

  private give(turn: Turn | undefined, send: (id: number) => void): Promise<void> {
    if (this.failure) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      if (this.jobs.size === 0) this.thread.needed(true);
      const id = this.nextId++;
      this.jobs.set(id, { turn, resolve, reject });
      send(id);
    });
  }

  async close(): Promise<void> {
    if (!this.release || this.jobs.size > 0 || this.failure) {
      await this.thread.end();
      return;
    }
    this.thread.listen(undefined);
    this.release(this.thread);
  }

  private receive(message: FromWorker): void {
    if (message.kind === 'up') {
      this.isUp = true;
      return;
    }
    const { id } = message;
    const job = this.jobs.get(id);
    // Jobs are dropped when the worker fails; what it still says does not matter then.
    if (!job) return;
    if (message.kind === 'turn') {
      assert(job.turn, 'only jobs that are ordered ask for their turn');
      // A turn that never comes belongs to a conversion that failed: its pool is closed.
      job.turn(message.units).then(
        (placement) => {
          const moved = placement ? [placement.hosts.buffer, ...buffersOf(placement)] : [];
          this.thread.send({ kind: 'go', id, placement }, moved);
        },
        () => {},
      );
      return;
    }
    this.jobs.delete(id);
    if (this.jobs.size === 0) this.thread.needed(false);
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

function buffersOf({ tables }: Pick<Placement, 'tables'>): ArrayBuffer[] {
  return tables.map(({ bytes }) => bytes.buffer);
}
