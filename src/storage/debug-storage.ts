/**
 * Storage whose requests fail by rules: QEMU's blkdebug. What a disk does is announced to it, see
 * `Storage.announce`; the rules say which of the requests that follow meet an error.
 */
import type { Awaitable } from '../base/awaitable.ts';
import type { DebugEvent } from './debug-events.ts';
import type { DebugLimits } from './debug-limits.ts';
import { DebugRequests } from './debug-requests.ts';
import type { DebugRules } from './debug-rules.ts';
import { rangeCursor, type Storage, type StorageCursor } from './storage.ts';

/** How a storage is debugged, beside its rules. */
export interface DebugOptions {
  /** What tells it from the file of that name. */
  readonly label?: string | undefined;
  readonly limits?: DebugLimits | undefined;
}

/** Other storage, which it owns, with rules before it. */
export class DebugStorage implements Storage {
  readonly label: string | undefined;
  readonly limits: DebugLimits | undefined;
  readonly discard?: (at: number, length: number) => Awaitable<void>;
  readonly dataRanges?: NonNullable<Storage['dataRanges']>;
  /** Where there are limits, requests wait for each other here. */
  readonly keepsOrder: boolean;
  private readonly requests: DebugRequests;

  constructor(
    private readonly inner: Storage,
    readonly rules: DebugRules,
    { label, limits }: DebugOptions = {},
  ) {
    this.label = label;
    this.limits = limits;
    this.keepsOrder = limits !== undefined;
    const requests = new DebugRequests(inner, rules, limits);
    this.requests = requests;
    if (inner.discard) {
      this.discard = (at, length) =>
        requests.discard(at, length, (from, bytes) => inner.discard?.(from, bytes));
    }
    if (inner.dataRanges) {
      this.dataRanges = (from, to, exact) => {
        this.meetStatus(from, to - from);
        return inner.dataRanges?.(from, to, exact);
      };
    }
  }

  get name(): string {
    return this.inner.name;
  }

  get writable(): boolean {
    return this.inner.writable;
  }

  get holdsNothing(): boolean {
    return this.inner.holdsNothing ?? false;
  }

  /** Somebody asks what a range is made of. @throws Qcow2Error where a rule says so */
  meetStatus(at: number, length: number): void {
    this.requests.meet('block-status', at, length);
  }

  announce(event: DebugEvent): Awaitable<void> {
    return this.rules.happens(event);
  }

  size(): Awaitable<number> {
    return this.inner.size();
  }

  read(at: number, into: Uint8Array): Awaitable<number> {
    return this.requests.read(at, into);
  }

  cursor(from: number, to: number): StorageCursor {
    return rangeCursor(this, from, to);
  }

  write(at: number, from: Uint8Array): Awaitable<void> {
    return this.requests.write(at, from);
  }

  zero(at: number, length: number): Awaitable<void> {
    return this.requests.zero(at, length, (from, bytes) => this.inner.zero(from, bytes));
  }

  async zeroUnwritten(at: number, length: number): Promise<boolean> {
    let done = this.inner.zeroUnwritten !== undefined;
    if (!done) return false;
    await this.requests.zero(at, length, async (from, bytes) => {
      if (!(await this.inner.zeroUnwritten?.(from, bytes))) done = false;
    });
    return done;
  }

  truncate(size: number): Awaitable<void> {
    return this.inner.truncate(size);
  }

  flush(): Awaitable<void> {
    return this.requests.flush(() => this.inner.flush());
  }

  close(): Awaitable<void> {
    return this.inner.close();
  }
}
