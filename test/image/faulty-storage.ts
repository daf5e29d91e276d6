/**
 * Storage that misbehaves as real ones do: it fails, it is full, it answers late and in any order.
 */
import type { Awaitable } from '../../src/base/awaitable.ts';
import { type ErrorCode, Qcow2Error } from '../../src/base/errors.ts';
import { rangeCursor } from '../../src/storage/storage.ts';
import type { Random } from '../random.ts';
import type { Files, SplitFlushStorage } from './paged-bytes.ts';

/** Calls that can fail. */
export const FAULT_KINDS = ['read', 'write', 'zero', 'truncate', 'flush'] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

/** When calls fail, and how. */
export interface FaultPlan {
  /** Counts only these. */
  readonly kinds: readonly FaultKind[];
  /** Which of them fails, counted from 0. */
  readonly index: number;
  /** All that follow fail, too. */
  readonly forever?: boolean;
  /** `short`: a read that gives less than there is, without a word. */
  readonly how: Extract<ErrorCode, 'IO' | 'NO_SPACE'> | 'short';
  /** A write that fails may have been carried out in part, or whole. */
  readonly partial?: 'none' | 'half' | 'all';
}

type Wrap = Partial<Pick<SplitFlushStorage, FaultKind | 'discard' | 'startFlush' | 'close'>>;

/** A storage like another but for some calls. */
function wrapped(inner: SplitFlushStorage, calls: Wrap): SplitFlushStorage {
  const storage: SplitFlushStorage = {
    name: inner.name,
    writable: inner.writable,
    size: () => inner.size(),
    read: (at, into) => inner.read(at, into),
    cursor: (from, to) => rangeCursor(storage, from, to),
    write: (at, from) => inner.write(at, from),
    zero: (at, length) => inner.zero(at, length),
    discard: (at, length) => inner.discard?.(at, length),
    truncate: (size) => inner.truncate(size),
    flush: () => inner.flush(),
    startFlush: () => inner.startFlush(),
    close: () => inner.close(),
    ...calls,
  };
  return storage;
}

/** Files of which one call fails, counted over all of them. */
export class FaultyFiles implements Files {
  /** Calls so far, of each kind. */
  readonly counts: Record<FaultKind, number> = {
    read: 0,
    write: 0,
    zero: 0,
    truncate: 0,
    flush: 0,
  };
  /** How many calls failed. */
  failures = 0;
  private plan: FaultPlan | undefined;
  private seen = 0;

  constructor(private readonly inner: Files) {}

  /** Starts to count for a plan; without one, nothing fails any more. */
  arm(plan?: FaultPlan): void {
    this.plan = plan;
    this.seen = 0;
  }

  open(name: string): SplitFlushStorage {
    const inner = this.inner.open(name);
    return wrapped(inner, {
      read: (at, into) => {
        const plan = this.hit('read');
        if (plan?.how === 'short') return inner.read(at, into.subarray(0, into.length >> 1));
        if (plan) throw failure(plan, 'read', name);
        return inner.read(at, into);
      },
      write: (at, from) => {
        const plan = this.hit('write');
        if (plan?.partial === 'all') inner.write(at, from);
        // Half of the sectors: what is within one is never divided.
        if (plan?.partial === 'half') inner.write(at, from.subarray(0, halfOf(at, from.length)));
        if (plan) throw failure(plan, 'write', name);
        return inner.write(at, from);
      },
      zero: (at, length) => {
        const plan = this.hit('zero');
        if (plan?.partial === 'all') inner.zero(at, length);
        if (plan?.partial === 'half') inner.zero(at, halfOf(at, length));
        if (plan) throw failure(plan, 'zero', name);
        return inner.zero(at, length);
      },
      discard: (at, length) => {
        const plan = this.hit('zero');
        if (plan?.partial === 'half') inner.discard?.(at, halfOf(at, length));
        if (plan) throw failure(plan, 'zero', name);
        return inner.discard?.(at, length);
      },
      truncate: (size) => {
        const plan = this.hit('truncate');
        if (plan) throw failure(plan, 'truncate', name);
        return inner.truncate(size);
      },
      flush: () => {
        const plan = this.hit('flush');
        if (plan) throw failure(plan, 'flush', name);
        return inner.flush();
      },
      startFlush: () => {
        const plan = this.hit('flush');
        if (plan) throw failure(plan, 'flush', name);
        return inner.startFlush();
      },
    });
  }

  private hit(kind: FaultKind): FaultPlan | undefined {
    this.counts[kind]++;
    const { plan } = this;
    if (!plan?.kinds.includes(kind)) return undefined;
    const index = this.seen++;
    if (index !== plan.index && !(plan.forever && index > plan.index)) return undefined;
    this.failures++;
    return plan;
  }
}

function halfOf(at: number, length: number): number {
  const middle = at + length / 2;
  return Math.max(0, middle - (middle % 512) - at);
}

function failure(plan: FaultPlan, kind: FaultKind, name: string): Qcow2Error {
  const code = plan.how === 'NO_SPACE' ? 'NO_SPACE' : 'IO';
  return new Qcow2Error(code, `made-up failure of ${kind} number ${plan.index} of ${name}`);
}

/** Files that cannot grow beyond a number of bytes each. */
export function limitedFiles(inner: Files, bytesMax: number): Files {
  return {
    open: (name) => {
      const storage = inner.open(name);
      const need = (end: number) => {
        if (end > bytesMax) throw new Qcow2Error('NO_SPACE', `${name} is full`);
      };
      return wrapped(storage, {
        write: (at, from) => {
          need(at + from.length);
          return storage.write(at, from);
        },
        zero: (at, length) => {
          need(at + length);
          return storage.zero(at, length);
        },
        truncate: (size) => {
          need(size);
          return storage.truncate(size);
        },
      });
    },
  };
}

/**
 * Files that answer with promises, late and in an order of their own. Delays are turns of the
 * microtask queue, so a seed replays them.
 *
 * A change is carried out when its time is up, with the bytes that are in the caller's array then
 * or were there at the call: a host may look at any moment in between. A flush covers what was
 * done when it was asked for.
 */
export function delayedFiles(inner: Files, next: Random, turnsMax = 30): Files {
  const wait = async (): Promise<void> => {
    for (let turns = next.below(next.pick([2, turnsMax])); turns > 0; turns--) await undefined;
  };
  const later = async <T>(work: () => Awaitable<T>): Promise<T> => {
    await wait();
    const result = await work();
    await wait();
    return result;
  };
  return {
    open: (name) => {
      const storage = inner.open(name);
      let inFlight = 0;
      const counted = async <T>(work: Promise<T>): Promise<T> => {
        inFlight++;
        try {
          return await work;
        } finally {
          inFlight--;
        }
      };
      const startFlush = () => storage.startFlush();
      return wrapped(storage, {
        read: (at, into) => {
          if (next.oneIn(8)) return storage.read(at, into);
          return counted(later(() => storage.read(at, into)));
        },
        write: (at, from) => {
          if (next.oneIn(8)) return storage.write(at, from);
          const bytes = next.oneIn(2) ? from : from.slice();
          return counted(later(() => storage.write(at, bytes)));
        },
        zero: (at, length) => counted(later(() => storage.zero(at, length))),
        discard: (at, length) => counted(later(() => storage.discard?.(at, length))),
        truncate: (size) => counted(later(() => storage.truncate(size))),
        flush: () => {
          const finish = startFlush();
          return counted(later(finish));
        },
        startFlush,
        close: () => {
          if (inFlight > 0) throw new Error(`${name} is closed with ${inFlight} calls in flight`);
          return storage.close();
        },
      });
    },
  };
}
