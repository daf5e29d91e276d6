/**
 * Requests before which QEMU's blkdebug driver stands: they meet its rules, are made to fit its
 * limits, and are announced on the way. What is not aligned is read, changed and written back, with
 * nothing else in its place meanwhile.
 */
import { type Awaitable, settled } from '../base/awaitable.ts';
import { alignUp } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import type { DebugEvent, DebugRequest } from './debug-events.ts';
import {
  type DebugLimits,
  discardPieces,
  type Piece,
  transferPieces,
  zeroPieces,
} from './debug-limits.ts';
import type { DebugRules } from './debug-rules.ts';

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

/** What requests are carried out on. */
export interface DebugTarget {
  /** @returns how many bytes there were, as `Storage.read` does */
  read(at: number, into: Uint8Array): Awaitable<number>;
  write(at: number, from: Uint8Array): Awaitable<void>;
}

/** A range that is not needed any more, or reads as zeros: carried out by whoever asks for it. */
type PassOn = (at: number, length: number) => Awaitable<void>;

/** A request under way. */
interface Tracked extends Piece {
  readonly changes: boolean;
  waits: boolean;
  readonly done: Promise<void>;
}

/** Nothing lies between the units that a range covers in part. */
function isReadAtOnce(range: Piece, whole: Piece, align: number): boolean {
  const head = range.at > whole.at;
  const tail = range.at + range.length < whole.at + whole.length;
  return (head || tail) && whole.length <= align * (head && tail ? 2 : 1);
}

/** Requests to one storage or disk. */
export class DebugRequests {
  /** Something was to be changed since the last flush; else there is nothing that could fail. */
  private changed = false;
  private readonly tracked = new Set<Tracked>();

  constructor(
    private readonly target: DebugTarget,
    readonly rules: DebugRules,
    private readonly limits?: DebugLimits,
  ) {}

  read(at: number, into: Uint8Array): Awaitable<number> {
    if (this.limits) return this.readAligned(this.limits, at, into);
    this.meet('read', at, into.length);
    return this.target.read(at, into);
  }

  write(at: number, from: Uint8Array): Awaitable<void> {
    this.changed = true;
    const { limits } = this;
    if (limits) return this.writeAligned(limits, at, from);
    return this.announced('pwritev', () => {
      this.meet('write', at, from.length);
      return this.target.write(at, from);
    });
  }

  zero(at: number, length: number, pass: PassOn): Awaitable<void> {
    this.changed = true;
    const { limits } = this;
    if (limits) return this.zeroAligned(limits, { at, length }, pass);
    return this.announced('pwritev_zero', () => {
      this.meet('write-zeroes', at, length);
      return pass(at, length);
    });
  }

  discard(at: number, length: number, pass: PassOn): Awaitable<void> {
    this.changed = true;
    const { limits } = this;
    if (limits) return this.discardAligned(limits, { at, length }, pass);
    this.meet('discard', at, length);
    return pass(at, length);
  }

  flush(pass: () => Awaitable<void>): Awaitable<void> {
    if (this.changed) this.meet('flush', 0, 0);
    this.changed = false;
    return pass();
  }

  /** @throws Qcow2Error IO or NO_SPACE where a rule says so */
  meet(request: DebugRequest, at: number, length: number): void {
    const errno = this.rules.failure(request, at, length);
    if (errno !== 0) throw injected(errno, at);
  }

  /** Tells the rules that a change begins and that it is over. */
  private announced(event: DebugEvent, change: () => Awaitable<void>): Awaitable<void> {
    const { rules } = this;
    const held = rules.happens(event);
    const carryOut = () => {
      const done = change();
      return done ? done.then(() => rules.happens('pwritev_done')) : rules.happens('pwritev_done');
    };
    return held ? held.then(carryOut) : carryOut();
  }

  private async readAligned(limits: DebugLimits, at: number, into: Uint8Array): Promise<number> {
    return this.alone(limits, { at, length: into.length }, false, async (whole) => {
      const isWhole = whole.length === into.length;
      const bytes = isWhole ? into : new Uint8Array(whole.length);
      const got = await this.readPieces(limits, whole.at, bytes);
      if (isWhole) return got;
      const had = Math.max(0, Math.min(got - (at - whole.at), into.length));
      into.set(bytes.subarray(at - whole.at, at - whole.at + had));
      return had;
    });
  }

  private async readPieces(limits: DebugLimits, at: number, into: Uint8Array): Promise<number> {
    let got = 0;
    for (const piece of transferPieces(limits, { at, length: into.length })) {
      const start = piece.at - at;
      this.meet('read', piece.at, piece.length);
      const had = await this.target.read(piece.at, into.subarray(start, start + piece.length));
      if (had > 0) got = start + had;
    }
    return got;
  }

  private async writeAligned(limits: DebugLimits, at: number, from: Uint8Array): Promise<void> {
    await this.alone(limits, { at, length: from.length }, true, async (whole) => {
      if (whole.length === from.length) return this.writePieces(limits, at, from);
      const bytes = new Uint8Array(whole.length);
      await this.readEdges(limits, { at, length: from.length }, whole, bytes);
      bytes.set(from, at - whole.at);
      await this.writePieces(limits, whole.at, bytes);
    });
  }

  private async zeroAligned(limits: DebugLimits, range: Piece, pass: PassOn): Promise<void> {
    const { align } = limits;
    await this.alone(limits, range, true, async (whole) => {
      const end = whole.at + whole.length;
      const head = range.at - whole.at;
      const tail = end - range.at - range.length;
      const isOne = isReadAtOnce(range, whole, align);
      const edges = new Uint8Array(head + tail > 0 ? Math.min(whole.length, 2 * align) : 0);
      await this.readEdges(limits, range, whole, edges);
      if (isOne) {
        edges.fill(0, head, edges.length - tail);
        return this.writePieces(limits, whole.at, edges);
      }
      if (head) {
        await this.writePieces(limits, whole.at, edges.subarray(0, align).fill(0, head));
      }
      const middle = { at: whole.at + (head && align), length: 0 };
      const length = end - (tail && align) - middle.at;
      if (length > 0) await this.zeroPieces(limits, { ...middle, length }, pass);
      if (tail) {
        const last = edges.subarray(-align).fill(0, 0, align - tail);
        await this.writePieces(limits, end - align, last);
      }
    });
  }

  private async discardAligned(limits: DebugLimits, range: Piece, pass: PassOn): Promise<void> {
    await this.alone(limits, range, true, async () => {
      for (const { at, length } of discardPieces(limits, range)) {
        this.meet('discard', at, length);
        await pass(at, length);
      }
    });
  }

  private async writePieces(limits: DebugLimits, at: number, from: Uint8Array): Promise<void> {
    await this.happens('pwritev');
    try {
      for (const piece of transferPieces(limits, { at, length: from.length })) {
        const start = piece.at - at;
        this.meet('write', piece.at, piece.length);
        await this.target.write(piece.at, from.subarray(start, start + piece.length));
      }
    } finally {
      await this.happens('pwritev_done');
    }
  }

  private async zeroPieces(limits: DebugLimits, range: Piece, pass: PassOn): Promise<void> {
    await this.happens('pwritev_zero');
    try {
      for (const { at, length, written } of zeroPieces(limits, range)) {
        this.meet(written ? 'write' : 'write-zeroes', at, length);
        await (written ? this.target.write(at, new Uint8Array(length)) : pass(at, length));
      }
    } finally {
      await this.happens('pwritev_done');
    }
  }

  /**
   * Reads the first and the last unit of an aligned range, where what is written covers only a
   * part of them, to the two ends of `into`; at once, where there is nothing in between.
   */
  private async readEdges(
    limits: DebugLimits,
    range: Piece,
    whole: Piece,
    into: Uint8Array,
  ): Promise<void> {
    const { align } = limits;
    const end = whole.at + whole.length;
    const head = range.at > whole.at;
    const tail = range.at + range.length < end;
    if (!head && !tail) return;
    const isOne = isReadAtOnce(range, whole, align);
    if (head || isOne) {
      if (head) await this.happens('pwritev_rmw_head');
      if (isOne && tail) await this.happens('pwritev_rmw_tail');
      await this.readPieces(limits, whole.at, into.subarray(0, isOne ? whole.length : align));
      if (head) await this.happens('pwritev_rmw_after_head');
      if (isOne && tail) await this.happens('pwritev_rmw_after_tail');
    }
    if (isOne || !tail) return;
    await this.happens('pwritev_rmw_tail');
    await this.readPieces(limits, end - align, into.subarray(-align));
    await this.happens('pwritev_rmw_after_tail');
  }

  private async happens(event: DebugEvent): Promise<void> {
    const held = this.rules.happens(event);
    if (!settled(held)) await held;
  }

  /**
   * Carries a request out with no other in its aligned range, unless both only read. As in QEMU it
   * does not wait for one that waits itself: that one goes on after it.
   */
  private async alone<T>(
    { align }: DebugLimits,
    { at, length }: Piece,
    changes: boolean,
    work: (whole: Piece) => Promise<T>,
  ): Promise<T> {
    const start = at - (at % align);
    const end = alignUp(at + length, align);
    let finish = () => {};
    const done = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const own: Tracked = { at: start, length: end - start, changes, waits: false, done };
    this.tracked.add(own);
    try {
      for (let other = this.inTheWay(own); other; other = this.inTheWay(own)) {
        own.waits = true;
        await other.done;
        own.waits = false;
      }
      return await work(own);
    } finally {
      this.tracked.delete(own);
      finish();
    }
  }

  private inTheWay(own: Tracked): Tracked | undefined {
    for (const other of this.tracked) {
      if (other === own || other.waits || !(other.changes || own.changes)) continue;
      if (other.at < own.at + own.length && own.at < other.at + other.length) return other;
    }
    return undefined;
  }
}
