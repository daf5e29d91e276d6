/**
 * Every call of a workload fails once: the error is one of ours, what comes later is answered, the
 * image closes, and nothing is damaged that the failed request was not about.
 */
import { isQcow2Error } from '../../src/base/errors.ts';
import type { WritableDisk } from '../../src/image/disk.ts';
import type { Random } from '../random.ts';
import { DoubtfulBytes } from './doubtful-bytes.ts';
import { delayedFiles, type FaultKind, type FaultPlan, FaultyFiles } from './faulty-storage.ts';
import { MemoryFiles } from './paged-bytes.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { type Batch, describeStep, outcome, type Step, send } from './workload.ts';
import {
  describeSetting,
  firstContent,
  firstFiles,
  IMAGE,
  readWhole,
  type WriteEngine,
  type WriteSetting,
} from './write-engine.ts';

/** Which failures. */
export interface FaultOptions {
  readonly kinds: readonly FaultKind[];
  readonly how: FaultPlan['how'];
  readonly forever: boolean;
  readonly partial?: NonNullable<FaultPlan['partial']>;
  /** Only every so many-th call fails, from a random one on. Default 1: each. */
  readonly stride?: number;
  readonly delayed?: boolean;
  /** Milliseconds that a whole run may take before it counts as hanging. */
  readonly msMax?: number;
}

/** Lets every call of a workload fail in turn. @returns how many runs there were */
export async function runFaults(
  engine: WriteEngine,
  setting: WriteSetting,
  workload: readonly Batch[],
  next: Random,
  options: FaultOptions,
): Promise<number> {
  const { stride = 1, msMax = 20_000 } = options;
  let runs = 0;
  for (let index = next.below(stride); ; index += stride) {
    const run = new FaultRun(engine, setting, workload, next, options, index);
    const failed = await withTimeout(run.all(), msMax).catch((cause) => {
      const text = cause instanceof Error ? cause.message : String(cause);
      const plan = `${options.kinds.join('/')} number ${index} fails with ${options.how}`;
      const more = `${options.forever ? ', and all after it' : ''}${
        options.partial ? `, carried out: ${options.partial}` : ''
      }`;
      const steps = run.log.join('\n  ');
      throw new Error(`${describeSetting(setting)}\n${plan}${more}\n${text}\n  ${steps}`, {
        cause,
      });
    });
    runs++;
    // The plan's number was not reached: every call has had its turn.
    if (!failed) return runs;
  }
}

class FaultRun {
  readonly log: string[] = [];
  private content: Uint8Array;
  /** Requests that failed, or that were not flushed when something else failed. */
  private doubtful: Step[] = [];
  /** Requests that were done since the last flush. */
  private unflushed: Step[] = [];
  private readonly sizes = new Set<number>();
  private readonly memory: MemoryFiles;
  private readonly files: FaultyFiles;

  constructor(
    private readonly engine: WriteEngine,
    private readonly setting: WriteSetting,
    private readonly workload: readonly Batch[],
    private readonly next: Random,
    private readonly options: FaultOptions,
    private readonly index: number,
  ) {
    const first = firstFiles(next, setting);
    this.content = firstContent(first, setting);
    this.memory = new MemoryFiles(first);
    this.files = new FaultyFiles(this.memory);
  }

  /** @returns whether anything failed */
  async all(): Promise<boolean> {
    const { options, setting } = this;
    const host = options.delayed ? delayedFiles(this.files, this.next) : this.files;
    const disk = await this.engine.create(host, setting);
    await disk.flush();
    const { kinds, how, forever, partial = 'none' } = options;
    this.files.arm({ kinds, how, forever, partial, index: this.index });
    for (const batch of this.workload) await this.batch(disk, batch);
    // A read is a request, too: it may be what fails.
    await this.attempt('read', async () => {
      await disk.read(0, new Uint8Array(Math.min(disk.size, 4096)));
    });
    const closed = await this.attempt('close', () => disk.close());
    this.files.arm();
    const { failures } = this.files;
    if (!closed) this.unflushedInDoubt();

    const found = checkQcow2(this.memory.bytes(IMAGE));
    if (found.corruptions.length > 0) {
      throw new Error(`corruption:\n  ${found.corruptions.slice(0, 8).join('\n  ')}`);
    }
    if (found.dirty && !setting.lazy) throw new Error('dirty without lazy refcounts');
    if (failures === 0 && (found.leaks > 0 || found.dirty)) {
      throw new Error(`${found.leaks} leaked clusters, and nothing had failed`);
    }
    await this.compare();
    return failures > 0;
  }

  private async batch(disk: WritableDisk, batch: Batch): Promise<void> {
    const done = await Promise.all(
      batch.map((step) => this.attempt(describeStep(step), () => send(disk, step))),
    );
    for (const [i, step] of batch.entries()) {
      if (step.kind === 'flush') {
        if (done[i]) this.unflushed = [];
        continue;
      }
      // What the disk's size is by now decides which requests make sense after a failed resize.
      if (done[i]) this.apply(step);
      else this.doubtful.push(step);
    }
  }

  /** @returns whether it went well; a failure must be one of ours */
  private async attempt(what: string, work: () => Promise<void>): Promise<boolean> {
    const before = this.files.failures;
    try {
      await work();
      this.log.push(`${what}: done${this.files.failures > before ? ', despite a failure' : ''}`);
      return true;
    } catch (cause) {
      this.log.push(`${what}: ${cause}`);
      if (!isQcow2Error(cause)) throw new Error(`${what}: not one of our errors: ${cause}`);
      if (this.files.failures === 0) throw new Error(`${what} fails, and the storage did not`);
      if (before > 0 && this.files.failures === before && !this.mayFailStill(cause.code)) {
        throw new Error(`${what} still fails, long after the storage did: ${cause.message}`);
      }
      return false;
    }
  }

  /** After a resize that failed, requests beyond the old size are refused. */
  private mayFailStill(code: string): boolean {
    const resized = this.doubtful.some(({ kind }) => kind === 'resize');
    return this.options.forever || (resized && code === 'OUT_OF_RANGE');
  }

  private apply(step: Step): void {
    this.unflushed.push(step);
    const change = outcome(step, this.content.length);
    if (!change) return;
    const size = step.kind === 'resize' ? step.size : this.content.length;
    const end = change.at + change.bytes.length;
    const content = new Uint8Array(Math.max(size, step.kind === 'resize' ? 0 : end));
    content.set(this.content.subarray(0, content.length));
    if (change.at < content.length) {
      content.set(change.bytes.subarray(0, content.length - change.at), change.at);
    }
    if (step.kind === 'resize') this.sizes.add(this.content.length);
    // Older doubts end where new bytes have been written over them, and stay elsewhere.
    this.history.push({ content: this.content, step });
    this.content = content;
  }

  private readonly history: { readonly content: Uint8Array; readonly step: Step }[] = [];

  /** The close failed: nothing says that what was not flushed is there. */
  private unflushedInDoubt(): void {
    this.doubtful.push(...this.unflushed);
  }

  private async compare(): Promise<void> {
    const disk = await this.engine.open(this.memory, this.setting);
    const actual = await readWhole(disk);
    await disk.close();
    const wanted = new DoubtfulBytes(this.content, this.content.length);
    for (const step of this.doubtful) {
      const change = outcome(step, this.content.length);
      if (step.kind === 'resize') {
        wanted.sizes.add(step.size);
        for (const size of this.sizes) wanted.sizes.add(size);
      }
      // What a discard lets go of may be handed out at once, as in QEMU: until a flush has gone
      // well, the entry on disk may show what was written there since.
      const letsGo = step.kind === 'discard' || step.kind === 'unmap';
      if (change) wanted.maybe(change.at, change.bytes, letsGo ? 'any' : 'known');
    }
    // What was there before a doubtful request may be there again.
    if (this.doubtful.length > 0) {
      for (const { content, step } of this.history) {
        const range = outcome(step, content.length);
        if (!range || !this.touchesDoubt(range.at, range.bytes.length)) continue;
        wanted.maybe(range.at, padded(content, range.at, range.bytes.length));
      }
    }
    const wrong = wanted.mismatch(actual);
    if (wrong) throw new Error(wrong);
    const left = checkQcow2(this.memory.bytes(IMAGE));
    if (left.corruptions.length > 0) {
      throw new Error(`corruption after the next writer:\n  ${left.corruptions.join('\n  ')}`);
    }
  }

  private touchesDoubt(at: number, length: number): boolean {
    return this.doubtful.some((step) => {
      const range = outcome(step, this.content.length);
      return range && range.at < at + length && at < range.at + range.bytes.length;
    });
  }
}

function padded(content: Uint8Array, at: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes.set(content.subarray(at, at + length));
  return bytes;
}

async function withTimeout<T>(work: Promise<T>, ms: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer after ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
