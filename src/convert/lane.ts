/**
 * Lanes: runners of this thread whose bytes the host's own threads move. Where a job is little but
 * reading and writing, a few of them keep processors as busy as workers would, and there is no
 * thread to start.
 */
import { settled } from '../base/awaitable.ts';
import { assert, isQcow2Error } from '../base/errors.ts';
import type { ClusterCodec } from '../codec/codec.ts';
import { type Disk, ExtentKind, ExtentList } from '../image/disk.ts';
import type { Storage } from '../storage/storage.ts';
import { collectExtents } from './collect.ts';
import { isStream, OP_STRIDE } from './job.ts';
import { allSources, isAsIs } from './plan.ts';
import type { JobWorker } from './pool.ts';
import type { CopyBatch, Runner, Tally, Turn } from './runner.ts';

/** While one waits for its read, the other one's bytes are looked at or written. */
const LANES = 2;
/** Operations of a job that lanes are quick with. */
const LANE_OPS_MAX = 128;
/** Guest bytes that are looked at for what a conversion begins with. */
const LOOK_BYTES = 64 * 2 ** 20;

/** A runner as a worker. */
export class Lane implements JobWorker {
  readonly isUp = true;
  private readonly running = new Set<Promise<void>>();

  constructor(private readonly runner: Runner) {}

  get tally(): Tally {
    return this.runner.tally;
  }

  run(ops: Float64Array<ArrayBuffer>, turn?: Turn): Promise<void> {
    return this.track(this.runner.run(ops, turn));
  }

  copy(batch: CopyBatch): Promise<void> {
    assert(this.runner.copy, 'clusters are copied to images');
    return this.track(this.runner.copy(batch));
  }

  private track(job: Promise<void>): Promise<void> {
    this.running.add(job);
    const done = () => {
      this.running.delete(job);
    };
    job.then(done, done);
    return job;
  }

  /** Waits for what was begun: its calls need their files open. */
  async close(): Promise<void> {
    await Promise.allSettled(this.running);
  }
}

/**
 * Whether a job keeps the thread that does it from all else: it has streams to decode, or pieces so
 * small that each is read at once.
 */
export function keepsThread(ops: Float64Array): boolean {
  if (ops.length > LANE_OPS_MAX * OP_STRIDE) return true;
  for (let op = 0; op < ops.length; op += OP_STRIDE) {
    if (isStream(ops[op]!)) return true;
  }
  return false;
}

/** Storages as lanes use them; undefined where one of them can't be had so. */
export function allInBackground(
  storages: readonly Pick<Storage, 'background'>[],
): Storage[] | undefined {
  const later: Storage[] = [];
  for (const storage of storages) {
    const twin = storage.background?.();
    if (!twin) return undefined;
    later.push(twin);
  }
  return later;
}

/**
 * Lanes over storages; none where one of these has no calls in the background. One is enough where
 * it is only writes that answer later: it reads while they are done.
 * @param make makes a runner that reads and writes them so
 */
export function lanesOver<Runs extends Runner>(
  storages: readonly Pick<Storage, 'background'>[],
  make: (storages: readonly Storage[]) => Runs,
): Lane[] {
  const later = allInBackground(storages);
  if (!later) return [];
  const waits = later.some(({ readsAtOnce }) => !readsAtOnce);
  return Array.from({ length: waits ? LANES : 1 }, () => new Lane(make(later)));
}

/**
 * Whether a conversion that does not compress will begin in lanes, as far as its sources go. What
 * threads are started before it is known for sure is no more than a loss of time.
 */
export async function beginsInLanes(disks: readonly Disk[]): Promise<boolean> {
  const sources = allSources(disks);
  if (!allInBackground(sources.map(({ storage }) => storage))) return false;
  return !(await beginsCompressed(disks));
}

/** Whether one that compresses will begin with clusters that are copied as they are. */
export async function beginsWithCopies(
  disks: readonly Disk[],
  target: { readonly codec: ClusterCodec; readonly clusterSize: number },
): Promise<boolean> {
  return allSources(disks).some((source) => isAsIs(source, target)) && beginsCompressed(disks);
}

/** Whether something that disks begin with is compressed; what is broken is told in its turn. */
async function beginsCompressed(disks: readonly Disk[]): Promise<boolean> {
  const list = new ExtentList();
  for (const disk of disks) {
    list.clear();
    try {
      const collected = collectExtents(disk, [0, Math.min(disk.size, LOOK_BYTES)], list, 0);
      if (!settled(collected)) await collected;
    } catch (cause) {
      if (!isQcow2Error(cause)) throw cause;
    }
    for (let index = 0; index < list.count; index++) {
      if (list.kind(index) === ExtentKind.compressed) return true;
    }
  }
  return false;
}
