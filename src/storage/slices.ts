/**
 * What storages share whose every request costs a millisecond before its first byte (a Blob's
 * slices, a server's ranges): small reads are served from windows of 256 KiB, the last few of which
 * are kept; reads that follow one another come from one long stream. Read-only.
 */
import { alignDown } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import { Lru } from '../base/lru.ts';
import type { Storage, StorageCursor, StorageHandle } from './storage.ts';

const WINDOW_BYTES = 256 * 1024;
const WINDOWS = 16;
/** A gap that a stream is read over rather than ended for. */
const GAP_BYTES = 256 * 1024;
/** Bytes that one stream is asked for: what of them nobody wants may still have been sent. */
const STREAM_BYTES = 16 * 1024 * 1024;

/** Storage that gives ranges of bytes, each as a whole or as a stream. */
export abstract class SliceStorage implements Storage {
  readonly writable = false;
  readonly slowStart = true;
  private readonly windows = new Lru<number, Promise<Uint8Array>>(WINDOWS);
  /** A stream that large reads come from, and where it is. */
  private run: { readonly cursor: StorageCursor; at: number; readonly to: number } | undefined;
  /** Where the last large read ended. */
  private lastEnd = -1;
  private largeReads: Promise<unknown> = Promise.resolve();

  abstract readonly name: string;
  abstract size(): number;
  abstract share(): StorageHandle;
  /** The bytes [from, to), which are there. @throws Qcow2Error IO */
  protected abstract slice(from: number, to: number): Promise<Uint8Array>;
  /** The same as they come. @throws Qcow2Error IO */
  protected abstract stream(
    from: number,
    to: number,
  ): Promise<ReadableStreamDefaultReader<Uint8Array>>;

  async read(at: number, into: Uint8Array): Promise<number> {
    const length = Math.max(0, Math.min(into.length, this.size() - at));
    if (length > WINDOW_BYTES) {
      const reading = this.largeReads.then(() => this.readLarge(at, into.subarray(0, length)));
      this.largeReads = reading.catch(() => {});
      await reading;
      return length;
    }
    for (let done = 0; done < length; ) {
      const start = alignDown(at + done, WINDOW_BYTES);
      const window = await this.windowOf(start);
      const from = at + done - start;
      const take = Math.min(window.length - from, length - done);
      if (take <= 0) throw this.shorter(at + done);
      into.set(window.subarray(from, from + take), done);
      done += take;
    }
    return length;
  }

  cursor(from: number, to: number): StorageCursor {
    return new SliceCursor(
      () => this.stream(from, Math.max(from, Math.min(to, this.size()))),
      this.name,
    );
  }

  write(): never {
    throw this.readOnly();
  }
  zero(): never {
    throw this.readOnly();
  }
  truncate(): never {
    throw this.readOnly();
  }
  flush(): void {}
  async close(): Promise<void> {
    this.windows.clear();
    await this.endRun();
  }

  /** Fills `into`, from a stream where this read follows the last. One read at a time. */
  private async readLarge(at: number, into: Uint8Array): Promise<void> {
    const end = at + into.length;
    const follows = this.lastEnd >= 0 && at >= this.lastEnd && at - this.lastEnd <= GAP_BYTES;
    this.lastEnd = end;
    if (this.run && (at < this.run.at || at - this.run.at > GAP_BYTES || end > this.run.to)) {
      await this.endRun();
    }
    if (!this.run && follows) {
      const to = Math.min(this.size(), Math.max(end, at + STREAM_BYTES));
      this.run = { cursor: this.cursor(at, to), at, to };
    }
    const { run } = this;
    if (!run) {
      const bytes = await this.slice(at, end);
      if (bytes.length < into.length) throw this.shorter(at + bytes.length);
      into.set(bytes);
      return;
    }
    try {
      const between = at - run.at;
      const skipped = await run.cursor.read(new Uint8Array(between));
      const got = await run.cursor.read(into);
      if (skipped < between || got < into.length) throw this.shorter(at + got);
      run.at = end;
    } catch (cause) {
      await this.endRun();
      throw cause;
    }
  }

  private async endRun(): Promise<void> {
    const { run } = this;
    this.run = undefined;
    await run?.cursor.close();
  }

  private windowOf(start: number): Promise<Uint8Array> {
    const known = this.windows.get(start);
    if (known) return known;
    const window = this.slice(start, Math.min(start + WINDOW_BYTES, this.size()));
    this.windows.set(start, window);
    // A window that failed is asked for anew by who wants it next.
    window.catch(() => this.windows.delete(start));
    return window;
  }

  private shorter(at: number): Qcow2Error {
    return new Qcow2Error('IO', `${this.name} became shorter`, at);
  }

  private readOnly(): Qcow2Error {
    return new Qcow2Error('READ_ONLY', `${this.name} is read-only`);
  }
}

/** Streams in use: one that nothing reaches may be collected in the middle of a read. */
const alive = new Set<SliceCursor>();

class SliceCursor implements StorageCursor {
  private reader: Promise<ReadableStreamDefaultReader<Uint8Array>> | undefined;
  private rest: Uint8Array = new Uint8Array();

  constructor(
    private readonly open: () => Promise<ReadableStreamDefaultReader<Uint8Array>>,
    private readonly name: string,
  ) {}

  async read(into: Uint8Array): Promise<number> {
    alive.add(this);
    let done = 0;
    while (done < into.length) {
      if (this.rest.length === 0) {
        this.reader ??= this.open();
        const next = await (await this.reader).read().catch((cause) => {
          if (cause instanceof Qcow2Error) throw cause;
          throw new Qcow2Error('IO', `could not read ${this.name}`, undefined, cause);
        });
        if (next.done) break;
        this.rest = next.value;
      }
      const take = Math.min(this.rest.length, into.length - done);
      into.set(this.rest.subarray(0, take), done);
      this.rest = this.rest.subarray(take);
      done += take;
    }
    return done;
  }

  async close(): Promise<void> {
    alive.delete(this);
    // A stream that has failed says so once more.
    await this.reader?.then((reader) => reader.cancel()).catch(() => {});
  }
}
