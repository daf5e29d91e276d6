/**
 * Converting disks to a raw one: extents become jobs, and jobs are done by workers and by this
 * thread, which also starts at once while workers are still coming up.
 *
 *   planner ──job──▶ worker 1 … n     (a few jobs ahead each)
 *           └──job──▶ this thread     (one at a time, letting events in between)
 */
import { Qcow2Error } from '../base/errors.ts';
import { tick } from '../base/tick.ts';
import type { Disk } from '../image/disk.ts';
import { kernelModule } from '../kernels/wasm.ts';
import type { Storage, StorageHandle } from '../storage/storage.ts';
import { allSources, Planner } from './plan.ts';
import type { JobWorker, StartWorkers } from './pool.ts';
import { JobRunner, type RunnerOptions, type Turn } from './worker.ts';

/** How a conversion goes. Sizes are bytes. */
export interface ConvertOptions {
  /**
   * Runs of zeros at least this long become holes of the target; 0 writes every byte, holes of the
   * source included. A multiple of 512. Default 4096, as qemu-img.
   */
  readonly sparseBytes?: number;
  /** The target reads as zeros already: holes need no write. Default true: it is new and empty. */
  readonly targetIsZero?: boolean;
  /** Stops the conversion; it then fails with ABORTED. */
  readonly signal?: AbortSignal;
  /** Told now and then how many bytes of the target are done, of how many. */
  readonly onProgress?: (done: number, total: number) => void;
  /** Threads beside this one, and how they are started. Without them all is done here. */
  readonly workers?: number;
  readonly startWorkers?: StartWorkers;
}

/** Target bytes of a job, where the target has positions: a few milliseconds of work. */
const JOB_BYTES = 8 * 2 ** 20;
/** And where it has none: what a worker can hold while others write. */
const STREAM_JOB_BYTES = 512 * 1024;
/** Jobs that a worker has ahead: enough to last while this thread does one of its own. */
const JOBS_AHEAD = 3;
/** Bytes of sources from which on starting workers pays: some 30 ms of work. */
const WORKERS_FROM_BYTES = 24 * 2 ** 20;
/**
 * What is written last: while it is missing the target is shorter than the disk, so that a
 * conversion that was cut off never looks whole.
 */
const TAIL_BYTES = 4096;

/** Bytes of the raw disk that several disks make, one after another. */
export function concatenatedSize(disks: readonly Disk[]): number {
  return disks.reduce((sum, disk) => sum + disk.size, 0);
}

/**
 * Writes the guest bytes of disks, one after another, to storage. New storage grows to its full
 * size only at the end. On failure the target is left shorter than the disk (or, where it was
 * larger before, with some of it overwritten); it is the caller's to remove.
 * @throws Qcow2Error of any kind; ABORTED when the signal says so
 */
export async function convertToRaw(
  disks: readonly Disk[],
  target: Storage,
  options: ConvertOptions = {},
): Promise<void> {
  const size = concatenatedSize(disks);
  const conversion = new Conversion(disks, target, options, {
    jobBytes: JOB_BYTES,
    holdFrom: Math.max(0, size - TAIL_BYTES),
    stream: false,
  });
  await conversion.run();
  if ((await target.size()) < size) await target.truncate(size);
}

/** A target without positions: takes bytes front to back. */
export type StreamTarget = Pick<Storage, 'write' | 'zero'> & { share?(): StorageHandle };

/**
 * Writes the guest bytes of disks to a stream, front to back, holes as zeros.
 * @throws Qcow2Error of any kind; ABORTED when the signal says so
 */
export async function convertToStream(
  disks: readonly Disk[],
  target: StreamTarget,
  options: Omit<ConvertOptions, 'sparseBytes' | 'targetIsZero'> = {},
): Promise<void> {
  const whole = { ...options, sparseBytes: 0 };
  const conversion = new Conversion(disks, target, whole, {
    jobBytes: STREAM_JOB_BYTES,
    holdFrom: Number.POSITIVE_INFINITY,
    stream: true,
  });
  await conversion.run();
}

interface Shape {
  readonly jobBytes: number;
  readonly holdFrom: number;
  readonly stream: boolean;
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

  done(index: number): void {
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
class Conversion {
  private readonly planner: Planner;
  private readonly runner: JobRunner;
  private readonly runnerOptions: RunnerOptions;
  private readonly turns = new Turns();
  private readonly total: number;
  private workers: JobWorker[] = [];
  private readonly running = new Set<Promise<void>>();
  private failure: { readonly cause: unknown } | undefined;
  private stop = () => {};
  /** Resolves when something failed: ends the wait for jobs that would take long. */
  private readonly stopped = new Promise<void>((resolve) => {
    this.stop = resolve;
  });
  private jobs = 0;
  private planned = 0;
  private doneBytes = 0;

  constructor(
    private readonly disks: readonly Disk[],
    private readonly target: StreamTarget,
    private readonly options: ConvertOptions,
    private readonly shape: Shape,
  ) {
    const { sparseBytes = 4096, targetIsZero = true } = options;
    const sources = allSources(disks);
    this.total = concatenatedSize(disks);
    this.planner = new Planner(disks, {
      jobBytes: shape.jobBytes,
      writeZeros: sparseBytes === 0 || !targetIsZero,
      holdFrom: shape.holdFrom,
    });
    this.runnerOptions = {
      clusterSizeMax: Math.max(1, ...sources.map(({ clusterSize }) => clusterSize)),
      granule: granuleOf(sparseBytes),
      // A target that holds something must get the zeros within data too.
      holeBytes: targetIsZero ? sparseBytes : 0,
      // A stream has no holes; its own way to write zeros is the cheaper one.
      allocate: sparseBytes === 0 && !shape.stream,
    };
    const storages = sources.map(({ storage }) => storage);
    this.runner = new JobRunner(storages, target, this.runnerOptions);
  }

  async run(): Promise<void> {
    const { signal } = this.options;
    const stop = () => this.fail(abortError(signal));
    signal?.addEventListener('abort', stop, { once: true });
    try {
      if (signal?.aborted) stop();
      await this.startWorkers();
      await this.drive();
      await this.runner.run(this.planner.last());
      this.options.onProgress?.(this.total, this.total);
    } finally {
      signal?.removeEventListener('abort', stop);
      await Promise.all(this.workers.map((worker) => worker.close()));
    }
  }

  private async drive(): Promise<void> {
    for (;;) {
      this.check();
      await this.feedWorkers();
      const job = await this.planner.next();
      if (!job) break;
      const index = this.jobs++;
      const span = this.span(job.until);
      await this.runner.run(job.ops, this.turnOf(index));
      this.turns.done(index);
      this.report(span);
      await tick();
    }
    while (this.running.size > 0) {
      await Promise.race([...this.running, this.stopped]);
      this.check();
    }
    this.check();
  }

  private async feedWorkers(): Promise<void> {
    for (const worker of this.workers) {
      while (worker.pending < JOBS_AHEAD) {
        const job = await this.planner.next();
        if (!job) return;
        this.dispatch(worker, job.ops, this.span(job.until));
      }
    }
  }

  private dispatch(worker: JobWorker, ops: Float64Array<ArrayBuffer>, span: number): void {
    const index = this.jobs++;
    const promise = worker
      .run(ops, this.turnOf(index))
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
    return this.shape.stream ? () => this.turns.wait(index) : undefined;
  }

  /** Target bytes that a job reaching to `until` adds. */
  private span(until: number): number {
    const span = until - this.planned;
    this.planned = until;
    return span;
  }

  private report(span: number): void {
    this.doneBytes += span;
    this.options.onProgress?.(this.doneBytes, this.total);
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

  /** Starts workers where that pays and all storages can be shared with them. */
  private async startWorkers(): Promise<void> {
    const { workers = 0, startWorkers } = this.options;
    if (workers === 0 || !startWorkers) return;
    const storages = allSources(this.disks).map(({ storage }) => storage);
    const target = this.target.share?.();
    const handles = storages.map((storage) => storage.share?.());
    if (!target || handles.some((handle) => handle === undefined)) return;
    let bytes = 0;
    for (const storage of storages) bytes += await storage.size();
    if (bytes < WORKERS_FROM_BYTES) return;
    const setup = {
      module: kernelModule(),
      sources: handles as StorageHandle[],
      target,
      options: this.runnerOptions,
      stream: this.shape.stream,
    };
    this.workers = startWorkers(setup, workers);
  }
}

/** Zeros are looked for in blocks of the target: 4 KiB, or 512 bytes where finer ones count. */
function granuleOf(sparseBytes: number): number {
  return sparseBytes > 0 && sparseBytes % 4096 === 0 ? 4096 : 512;
}

function abortError(signal: AbortSignal | undefined): Qcow2Error {
  return new Qcow2Error('ABORTED', 'conversion was stopped', undefined, signal?.reason);
}
