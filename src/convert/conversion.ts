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
import { assert, Qcow2Error } from '../base/errors.ts';
import { tick } from '../base/tick.ts';
import { type CopiedClusters, copyBatch } from './copies.ts';
import { OP_STRIDE } from './job.ts';
import { keepsThread, type Lane } from './lane.ts';
import type { JobSource, JobSpan, PlannedJob } from './plan.ts';
import type { JobWorker } from './pool.ts';
import {
  addLost,
  addTally,
  type CopyBatch,
  emptyTally,
  type Placement,
  type Runner,
  type Tally,
  type Turn,
  type Units,
} from './runner.ts';
import { atTarget } from './unwritten.ts';

/** Jobs that a worker has ahead: enough to last while this thread does one of its own. */
const JOBS_AHEAD = 3;
/**
 * Jobs that only copy, for all together: they have their places as soon as those before them, so
 * that what is to be made of the next ones' clusters is known while they are being copied.
 */
const COPIES_AHEAD = 12;
/**
 * Jobs of this thread during which nobody copied, until workers are started where they were not
 * for the copies' sake: some 30 ms.
 */
const JOBS_ALONE = 8;
/** Bytes of a range, on average, below which calls cost more than copies do. */
const RANGE_BYTES = 16 * 1024;
/** Workers that copy: one writes while the other one reads. More would stand at the file's lock. */
const COPIERS = 2;

/** What jobs wait for before they write. */
export type TurnOrder =
  /** Nothing: each has its own place in the target. */
  | { readonly kind: 'none' }
  /** For the jobs before them to be written. */
  | { readonly kind: 'written' }
  /** For the jobs before them to have their places; `inLine`: also to be written. */
  | {
      readonly kind: 'placed';
      readonly place: (units: Units, job: JobSpan) => Placement;
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
  /**
   * Copies while this thread goes on, where the host can do that, as long as it can: then workers
   * are started when there is more to make than this thread has time for.
   */
  readonly copyLane?: { readonly lane: Lane; readonly works: () => boolean } | undefined;
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

/** Whoever does jobs. */
type Hand = Pick<Runner, 'run' | 'copy'>;

/** What is to be copied, and whom to tell how it went. */
interface PlacedCopy {
  readonly batch: CopyBatch;
  readonly resolve: () => void;
  readonly reject: (cause: unknown) => void;
}

/** A job's place in the order of all. */
type JobTurn = JobSpan & { readonly index: number };

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
  /** Jobs that a runner or worker has been given, and has not done. */
  private readonly inHand = new Map<object, number>();
  /** Jobs that only copy: how many are not done, and those that nobody has been given. */
  private copying = 0;
  private readonly placed: PlacedCopy[] = [];
  /** Target bytes of all jobs so far that somebody writes. */
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
      if (this.inLanes) this.workers = this.lanes;
      else if (!this.parts.copyLane) await this.startWorkers();
      await this.drive();
      const last = jobs.last();
      if (last.length > 0) {
        await runner.run(last).catch((cause) => {
          throw atTarget(cause, last[4] as number);
        });
      }
      onProgress?.(total, total, this.rate());
      const tally = emptyTally();
      for (const { tally: part } of this.all()) addTally(tally, part);
      for (const range of jobs.lost ?? []) addLost(tally.lost, range);
      tally.unmapped.push(...(jobs.unmapped ?? []));
      return tally;
    } finally {
      signal?.removeEventListener('abort', stop);
      const { copyLane } = this.parts;
      const all = new Set([...this.lanes, ...this.workers, ...(copyLane ? [copyLane.lane] : [])]);
      await Promise.all([...all].map((worker) => worker.close()));
    }
  }

  private async startWorkers(): Promise<void> {
    this.isStarted = true;
    this.workers = await this.parts.startWorkers();
  }
  private isStarted = false;

  /** Whoever has done jobs. */
  private all(): Iterable<Pick<Runner, 'tally'>> {
    const { runner, copyLane } = this.parts;
    const copies = copyLane ? [copyLane.lane] : [];
    return new Set([runner, ...this.lanes, ...this.workers, ...copies]);
  }

  /** Whether this thread has jobs of its own. */
  private get jobsHere(): boolean {
    return !this.inLanes && (this.parts.jobsHere ?? true);
  }

  private async drive(): Promise<void> {
    const { runner } = this.parts;
    for (let given = false; ; ) {
      this.check();
      given ||= (await this.feedWorkers()) === 'all given';
      // A worker may have come up meanwhile.
      this.handOutCopies();
      const here = this.jobsHere || this.workers.length === 0;
      // The kernel lets one writer at a time into a file: two that copy only wait for each other.
      const batch = here && this.ready().length === 0 ? this.placed.shift() : undefined;
      if (batch) {
        this.copy(runner, batch);
        await tick();
      } else if (given && this.running.size === 0) {
        return;
      } else if (given || !here || this.isAhead(runner)) {
        await Promise.race([...this.running, this.stopped]);
      } else {
        const job = await this.nextJob();
        given = job === undefined;
        if (job) this.dispatch(runner, job);
        await Promise.race([runner.ready(), this.stopped]);
        await tick();
      }
    }
  }

  /** Whether there is enough to do: for a worker, or of what is to be copied for all. */
  private isAhead(worker: object): boolean {
    return this.pending(worker) >= JOBS_AHEAD || this.copying >= COPIES_AHEAD;
  }

  private async feedWorkers(): Promise<'all given' | 'all busy'> {
    if (this.inLanes) return this.feedLanes();
    for (const worker of this.ready()) {
      while (!this.isAhead(worker)) {
        const job = await this.nextJob();
        if (!job) return 'all given';
        this.dispatch(worker, job);
      }
    }
    return 'all busy';
  }

  /** By turns: the one reads what is to be written when the other has written. */
  private async feedLanes(): Promise<'all given' | 'all busy'> {
    while (this.inLanes) {
      const lane = this.lanes.reduce((a, b) => (this.pending(b) < this.pending(a) ? b : a));
      if (this.isAhead(lane)) break;
      const job = await this.nextJob();
      if (!job) return 'all given';
      this.dispatch(lane, job);
    }
    return 'all busy';
  }

  /** Workers that jobs are given to: what waits for one that is not up holds up all behind it. */
  private ready(): readonly JobWorker[] {
    return this.jobsHere ? this.workers.filter(({ isUp }) => isUp) : this.workers;
  }

  private async nextJob(): Promise<PlannedJob | undefined> {
    const job = await this.parts.jobs.next();
    if (!job) return undefined;
    await this.throttle();
    this.handedOut += bytesOf(job);
    if (this.inLanes && (job.copies || keepsThread(job.ops))) {
      this.inLanes = false;
      await this.startWorkers();
    } else if (this.parts.copyLane && !this.isStarted && this.isTooMuch(job)) {
      await this.startWorkers();
    }
    return job;
  }

  /** Whether this thread alone takes too long for what is not copied. */
  private isTooMuch(job: PlannedJob): boolean {
    if (!this.parts.copyLane?.works()) return true;
    if (job.copies || this.copying > 0) return false;
    return this.jobs === 0 || ++this.alone > JOBS_ALONE;
  }
  private alone = 0;

  private pending(worker: object): number {
    return this.inHand.get(worker) ?? 0;
  }

  /** Gives a job to a worker; what is copied, to whoever is free when it has its places. */
  private dispatch(worker: Hand, job: PlannedJob): void {
    const turn = { index: this.jobs++, span: job.span, until: job.until };
    const done = job.copies
      ? this.copyInTurn(job.copies, turn)
      : this.inHands(worker, worker.run(job.ops, this.turnOf(turn)));
    const promise = done
      .then(
        () => {
          this.turns.done(turn.index);
          this.report(job.span);
        },
        (cause) => {
          this.fail(atTarget(cause, beginOf(job)));
        },
      )
      .finally(() => this.running.delete(promise));
    this.running.add(promise);
  }

  /** Counts a job as a worker's until it is done. */
  private async inHands(worker: object, job: Promise<void>): Promise<void> {
    this.inHand.set(worker, this.pending(worker) + 1);
    try {
      await job;
    } finally {
      this.inHand.set(worker, this.pending(worker) - 1);
    }
  }

  /** Gives clusters their places and waits until they have been copied there. */
  private async copyInTurn(copies: CopiedClusters, job: JobTurn): Promise<void> {
    this.copying++;
    try {
      const placement = await this.turnOf(job)?.(copies.units);
      if (!placement || placement.dry) return;
      await new Promise<void>((resolve, reject) => {
        this.placed.push({ batch: copyBatch(copies, placement), resolve, reject });
        this.handOutCopies();
      });
    } finally {
      this.copying--;
    }
  }

  /** Gives what has its places to workers, a few batches ahead each. */
  private handOutCopies(): void {
    const { order, copyLane } = this.parts;
    while (copyLane?.works() && this.placed.length > 0 && isCoarse(this.placed[0]!.batch)) {
      this.copy(copyLane.lane, this.placed.shift()!);
    }
    // Jobs that a worker has in hand may wait for this one to be written.
    const isDue = order.kind === 'placed' && order.inLine;
    for (const worker of this.ready().slice(0, COPIERS)) {
      while (isDue || this.pending(worker) < JOBS_AHEAD) {
        const copy = this.placed.shift();
        if (!copy) return;
        this.copy(worker, copy);
      }
    }
  }

  private copy(worker: Hand, { batch, resolve, reject }: PlacedCopy): void {
    assert(worker.copy, 'clusters are copied to images');
    this.inHands(worker, worker.copy(batch))
      .then(resolve, reject)
      .finally(() => this.handOutCopies());
  }

  private turnOf(job: JobTurn): Turn | undefined {
    const { order } = this.parts;
    const { index } = job;
    if (order.kind === 'none') return undefined;
    return async (units) => {
      await this.turns.wait(index);
      if (order.kind === 'written' || !units) return undefined;
      let placement: Placement;
      try {
        placement = order.place(units, job);
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

/** Target bytes that somebody writes of a job. */
function bytesOf(job: PlannedJob): number {
  if (job.copies) return job.copies.hosts.length * job.copies.clusterSize;
  let bytes = 0;
  for (let op = 0; op < job.ops.length; op += OP_STRIDE) bytes += job.ops[op + 5]!;
  return bytes;
}

/** The first byte of the target that a job writes. */
function beginOf(job: PlannedJob): number {
  if (!job.copies) return job.ops[4] ?? 0;
  const { units, clusterSize } = job.copies;
  return (units[0] ?? 0) * clusterSize;
}

/** Whether a call for each range is nothing beside copying it. */
function isCoarse({ ranges }: CopyBatch): boolean {
  return ranges.reduce((sum, { length }) => sum + length, 0) >= ranges.length * RANGE_BYTES;
}

function abortError(signal: AbortSignal | undefined): Qcow2Error {
  return new Qcow2Error('ABORTED', 'conversion was stopped', undefined, signal?.reason);
}
