/**
 * Driving jobs: they go to workers, a few ahead each, and to this thread, which also starts at once
 * while workers are still coming up.
 *
 *   jobs ──▶ worker 1 … n     (a few ahead each)
 *        └─▶ this thread      (letting events in between)
 *
 * or, as long as there is little to do but reading and writing:
 *
 *   jobs ──▶ lane 1 … n       (of this thread, whose reads and writes the host does meanwhile)
 */
import { Qcow2Error } from '../base/errors.ts';
import { tick } from '../base/tick.ts';
import { OP_STRIDE } from './job.ts';
import { keepsThread, type Lane } from './lane.ts';
import type { JobSource, PlannedJob } from './plan.ts';
import type { JobWorker } from './pool.ts';
import {
  addLost,
  addTally,
  emptyTally,
  type Placement,
  type Runner,
  type Tally,
  type Turn,
  type Units,
} from './runner.ts';

/** Jobs that a worker has ahead: enough to last while this thread does one of its own. */
const JOBS_AHEAD = 3;

/** What jobs wait for before they write. */
export type TurnOrder =
  /** Nothing: each has its own place in the target. */
  | { readonly kind: 'none' }
  /** For the jobs before them to be written. */
  | { readonly kind: 'written' }
  /** For the jobs before them to have their places; `inLine`: also to be written. */
  | {
      readonly kind: 'placed';
      readonly place: (units: Units) => Placement;
      readonly inLine: boolean;
    };

/** A conversion's parts. */
export interface ConversionParts {
  readonly jobs: JobSource;
  readonly runner: Runner;
  readonly order: TurnOrder;
  /** Bytes of the target, for progress. */
  readonly total: number;
  readonly startWorkers: () => Promise<readonly JobWorker[]>;
  /** They do all jobs until one comes that is more than moving bytes: then workers are started. */
  readonly lanes?: readonly Lane[];
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((done: number, total: number, rate: number) => void) | undefined;
  /** Target bytes a second, at most. */
  readonly bytesPerSecond?: number | undefined;
  /** Whether this thread does jobs where there are workers. Default true. */
  readonly jobsHere?: boolean | undefined;
}

/** Leave to write, handed from job to job in order. */
class Turns {
  private next = 0;
  private readonly waiting = new Map<number, () => void>();
  private failure: { readonly cause: unknown } | undefined;

  wait(index: number): Promise<void> {
    if (this.failure) return Promise.reject(this.failure.cause);
    if (index === this.next) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.waiting.set(index, () => (this.failure ? reject(this.failure.cause) : resolve()));
    });
  }

  /** A job passes its turn on; later calls for the same job do nothing. */
  done(index: number): void {
    if (index !== this.next) return;
    this.next = index + 1;
    const resume = this.waiting.get(this.next);
    this.waiting.delete(this.next);
    resume?.();
  }

  /** Ends every wait, now and later: a job that failed never passes its turn on. */
  fail(cause: unknown): void {
    this.failure ??= { cause };
    for (const resume of this.waiting.values()) resume();
    this.waiting.clear();
  }
}

/** One conversion under way. */
export class Conversion {
  private readonly turns = new Turns();
  private workers: readonly JobWorker[] = [];
  private readonly lanes: readonly Lane[];
  private inLanes: boolean;
  private readonly running = new Set<Promise<void>>();
  private failure: { readonly cause: unknown } | undefined;
  private stop = () => {};
  /** Resolves when something failed: ends the wait for jobs that would take long. */
  private readonly stopped = new Promise<void>((resolve) => {
    this.stop = resolve;
  });
  private jobs = 0;
  private planned = 0;
  /** Bytes of the operations of all jobs so far; unlike `planned` without what nobody writes. */
  private handedOut = 0;
  private doneBytes = 0;
  private readonly started = Date.now();

  constructor(private readonly parts: ConversionParts) {
    this.lanes = parts.lanes ?? [];
    this.inLanes = this.lanes.length > 0;
  }

  /** Carries out all jobs. @throws Qcow2Error of any kind; ABORTED when the signal says so */
  async run(): Promise<Tally> {
    const { signal, runner, jobs, onProgress, total } = this.parts;
    const stop = () => this.fail(abortError(signal));
    signal?.addEventListener('abort', stop, { once: true });
    try {
      if (signal?.aborted) stop();
      this.workers = this.inLanes ? this.lanes : await this.parts.startWorkers();
      await this.drive();
      const last = jobs.last();
      if (last.length > 0) await runner.run(last);
      onProgress?.(total, total, this.rate());
      const tally = emptyTally();
      for (const { tally: part } of this.all()) addTally(tally, part);
      for (const range of jobs.lost ?? []) addLost(tally.lost, range);
      return tally;
    } finally {
      signal?.removeEventListener('abort', stop);
      await Promise.all([...this.lanes, ...this.workers].map((worker) => worker.close()));
    }
  }

  /** Whoever has done jobs. */
  private all(): Iterable<Pick<Runner, 'tally'>> {
    return new Set([this.parts.runner, ...this.lanes, ...this.workers]);
  }

  /** Whether this thread has jobs of its own. */
  private get jobsHere(): boolean {
    return !this.inLanes && (this.parts.jobsHere ?? true);
  }

  private async drive(): Promise<void> {
    const { runner } = this.parts;
    for (;;) {
      this.check();
      if ((await this.feedWorkers()) === 'all given') break;
      if (!this.jobsHere && this.workers.length > 0) {
        await Promise.race([...this.running, this.stopped]);
        continue;
      }
      const job = await this.nextJob();
      if (!job) break;
      this.dispatch(runner, job);
      await Promise.race([runner.ready(), this.stopped]);
      await tick();
    }
    while (this.running.size > 0) {
      await Promise.race([...this.running, this.stopped]);
      this.check();
    }
    this.check();
  }

  private async feedWorkers(): Promise<'all given' | 'all busy'> {
    for (const worker of this.workers) {
      // What waits for one that is not up holds up all that come after it.
      if (this.jobsHere && !worker.isUp) continue;
      while (worker.pending < JOBS_AHEAD) {
        const job = await this.nextJob();
        if (!job) return 'all given';
        this.dispatch(worker, job);
      }
    }
    return 'all busy';
  }

  private async nextJob(): Promise<PlannedJob | undefined> {
    const job = await this.parts.jobs.next();
    if (!job) return undefined;
    await this.throttle();
    this.handedOut += opBytes(job.ops);
    if (this.inLanes && keepsThread(job.ops)) {
      this.inLanes = false;
      this.workers = await this.parts.startWorkers();
    }
    return job;
  }

  private dispatch(runner: Pick<Runner, 'run'>, job: PlannedJob): void {
    const index = this.jobs++;
    const span = job.until - this.planned;
    this.planned = job.until;
    const promise = runner
      .run(job.ops, this.turnOf(index))
      .then(
        () => {
          this.turns.done(index);
          this.report(span);
        },
        (cause) => {
          this.fail(cause);
        },
      )
      .finally(() => this.running.delete(promise));
    this.running.add(promise);
  }

  private turnOf(index: number): Turn | undefined {
    const { order } = this.parts;
    if (order.kind === 'none') return undefined;
    return async (units) => {
      await this.turns.wait(index);
      if (order.kind === 'written' || !units) return undefined;
      let placement: Placement;
      try {
        placement = order.place(units);
      } catch (cause) {
        // A worker is never told: it would wait for its turn, and who waits for it as well.
        this.fail(cause);
        throw cause;
      }
      if (!order.inLine) this.turns.done(index);
      return placement;
    };
  }

  private report(span: number): void {
    this.doneBytes += span;
    this.parts.onProgress?.(this.doneBytes, this.parts.total, this.rate());
  }

  /** Bytes a second so far. */
  private rate(): number {
    return this.doneBytes / Math.max(0.001, (Date.now() - this.started) / 1000);
  }

  /** Waits until the bytes that were handed out so far are due. */
  private async throttle(): Promise<void> {
    const { bytesPerSecond } = this.parts;
    if (!bytesPerSecond) return;
    const due = this.started + (this.handedOut / bytesPerSecond) * 1000;
    const wait = due - Date.now();
    if (wait <= 0) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const passed = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, wait);
    });
    await Promise.race([passed, this.stopped]);
    clearTimeout(timer);
    this.check();
  }

  /** The first failure counts: others follow from it. */
  private fail(cause: unknown): void {
    this.failure ??= { cause };
    this.turns.fail(cause);
    this.stop();
  }

  private check(): void {
    if (this.failure) throw this.failure.cause;
  }
}

/** Target bytes that operations make. */
function opBytes(ops: Float64Array): number {
  let bytes = 0;
  for (let op = 0; op < ops.length; op += OP_STRIDE) bytes += ops[op + 5]!;
  return bytes;
}

function abortError(signal: AbortSignal | undefined): Qcow2Error {
  return new Qcow2Error('ABORTED', 'conversion was stopped', undefined, signal?.reason);
}
