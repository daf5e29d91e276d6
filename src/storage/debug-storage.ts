/**
 * Storage whose requests fail by rules: QEMU's blkdebug. What a disk does is announced to it, see
 * `Storage.announce`; the rules say which of the requests that follow meet an error.
 */
import type { Awaitable } from '../base/awaitable.ts';
import { Qcow2Error } from '../base/errors.ts';
import type { DebugEvent, DebugRequest } from './debug-events.ts';
import type { DebugRules } from './debug-rules.ts';
import { rangeCursor, type Storage, type StorageCursor } from './storage.ts';

/** Errors by Linux's numbers, with the C library's words. */
const ERRORS: Record<number, readonly [code: string, text: string]> = {
  1: ['EPERM', 'Operation not permitted'],
  2: ['ENOENT', 'No such file or directory'],
  4: ['EINTR', 'Interrupted system call'],
  5: ['EIO', 'Input/output error'],
  9: ['EBADF', 'Bad file descriptor'],
  11: ['EAGAIN', 'Resource temporarily unavailable'],
  12: ['ENOMEM', 'Cannot allocate memory'],
  13: ['EACCES', 'Permission denied'],
  16: ['EBUSY', 'Device or resource busy'],
  22: ['EINVAL', 'Invalid argument'],
  27: ['EFBIG', 'File too large'],
  28: ['ENOSPC', 'No space left on device'],
  30: ['EROFS', 'Read-only file system'],
  95: ['ENOTSUP', 'Operation not supported'],
};

/** The error of a number, as a file's own would be. */
function injected(errno: number, at: number): Qcow2Error {
  const [code, text] = ERRORS[errno] ?? [`E${errno}`, `Unknown error ${errno}`];
  const cause = Object.assign(new Error(text), { code, errno: -errno });
  return new Qcow2Error(code === 'ENOSPC' ? 'NO_SPACE' : 'IO', text, at, cause);
}

/** Other storage, which it owns, with rules before it. */
export class DebugStorage implements Storage {
  readonly discard?: (at: number, length: number) => Awaitable<void>;
  readonly dataRanges?: NonNullable<Storage['dataRanges']>;
  /** Something was to be changed since the last flush; else there is nothing that could fail. */
  private changed = false;

  constructor(
    private readonly inner: Storage,
    readonly rules: DebugRules,
    readonly label?: string,
  ) {
    if (inner.discard) {
      this.discard = (at, length) => {
        this.changed = true;
        this.meet('discard', at, length);
        return inner.discard?.(at, length);
      };
    }
    if (inner.dataRanges) {
      this.dataRanges = (from, to, exact) => {
        this.meet('block-status', from, to - from);
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

  announce(event: DebugEvent): Awaitable<void> {
    return this.rules.happens(event);
  }

  size(): Awaitable<number> {
    return this.inner.size();
  }

  read(at: number, into: Uint8Array): Awaitable<number> {
    this.meet('read', at, into.length);
    return this.inner.read(at, into);
  }

  cursor(from: number, to: number): StorageCursor {
    return rangeCursor(this, from, to);
  }

  write(at: number, from: Uint8Array): Awaitable<void> {
    return this.changing('pwritev', () => {
      this.meet('write', at, from.length);
      return this.inner.write(at, from);
    });
  }

  zero(at: number, length: number): Awaitable<void> {
    return this.changing('pwritev_zero', () => {
      this.meet('write-zeroes', at, length);
      return this.inner.zero(at, length);
    });
  }

  truncate(size: number): Awaitable<void> {
    return this.inner.truncate(size);
  }

  flush(): Awaitable<void> {
    if (this.changed) this.meet('flush', 0, 0);
    this.changed = false;
    return this.inner.flush();
  }

  close(): Awaitable<void> {
    return this.inner.close();
  }

  /** Tells the rules that a write begins and that it is over. */
  private changing(event: DebugEvent, change: () => Awaitable<void>): Awaitable<void> {
    const { rules } = this;
    this.changed = true;
    const held = rules.happens(event);
    const carryOut = () => {
      const done = change();
      return done ? done.then(() => rules.happens('pwritev_done')) : rules.happens('pwritev_done');
    };
    return held ? held.then(carryOut) : carryOut();
  }

  /** @throws Qcow2Error IO or NO_SPACE where a rule says so */
  private meet(request: DebugRequest, at: number, length: number): void {
    const errno = this.rules.failure(request, at, length);
    if (errno !== 0) throw injected(errno, at);
  }
}
