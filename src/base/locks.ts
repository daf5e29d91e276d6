/** Locks between requests of one thread: they queue in the order they came. */
import type { Awaitable } from './awaitable.ts';

/** One holder at a time. Costs no promise while nobody else holds it. */
export class Mutex {
  private held = false;
  private readonly queue: (() => void)[] = [];

  /** Answers at once where the lock is free. */
  acquire(): Awaitable<void> {
    if (!this.held) {
      this.held = true;
      return;
    }
    return new Promise((resolve) => this.queue.push(resolve));
  }

  release(): void {
    const next = this.queue.shift();
    // The lock passes on directly: nobody gets in between.
    if (next) next();
    else this.held = false;
  }

  /** Runs `work` with the lock held. */
  async run<T>(work: () => Awaitable<T>): Promise<T> {
    const wait = this.acquire();
    if (wait) await wait;
    try {
      return await work();
    } finally {
      this.release();
    }
  }
}

/** A range that a request holds or waits for. */
export interface RangeHold {
  readonly start: number;
  readonly end: number;
  readonly shared: boolean;
  granted: boolean;
  resume: (() => void) | undefined;
}

/**
 * Ranges of numbers: two that overlap are held one after the other, in the order they were asked
 * for, unless both are shared.
 */
export class RangeLock {
  /** Holders and waiters, oldest first. */
  private holds: RangeHold[] = [];

  /** Asks for [start, end); `ready` resolves with it, or is undefined where it is free. */
  acquire(start: number, end: number, shared: boolean): RangeHold & { ready?: Promise<void> } {
    const hold: RangeHold & { ready?: Promise<void> } = {
      start,
      end,
      shared,
      granted: false,
      resume: undefined,
    };
    this.holds.push(hold);
    hold.granted = this.isFree(hold);
    if (!hold.granted) {
      hold.ready = new Promise((resolve) => {
        hold.resume = resolve;
      });
    }
    return hold;
  }

  release(hold: RangeHold): void {
    this.holds.splice(this.holds.indexOf(hold), 1);
    for (const waiting of this.holds) {
      if (waiting.granted || !this.isFree(waiting)) continue;
      waiting.granted = true;
      waiting.resume?.();
    }
  }

  /** No older hold, granted or not, is in the way: who came first goes first. */
  private isFree(hold: RangeHold): boolean {
    for (const other of this.holds) {
      if (other === hold) return true;
      const overlaps = other.start < hold.end && hold.start < other.end;
      if (overlaps && !(other.shared && hold.shared)) return false;
    }
    return true;
  }
}
