/**
 * Storage over a Blob or File: what a browser gives for a file that a person picked. Read-only.
 *
 * Each slice costs about a millisecond before its first byte, so small reads are served from one
 * window of 256 KiB, and `cursor` reads one long slice as a stream.
 */
import { alignDown } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import type { Storage, StorageCursor, StorageHandle } from './storage.ts';

const WINDOW_BYTES = 256 * 1024;

/** Streams in use: one that nothing reaches may be collected in the middle of a read. */
const alive = new Set<ReadableStreamDefaultReader<Uint8Array>>();

class BlobStorage implements Storage {
  readonly writable = false;
  private windowAt = -1;
  private window: Promise<Uint8Array> | undefined;

  constructor(
    private readonly blob: Blob,
    readonly name: string,
  ) {}

  size(): number {
    return this.blob.size;
  }

  async read(at: number, into: Uint8Array): Promise<number> {
    const length = Math.max(0, Math.min(into.length, this.blob.size - at));
    if (length > WINDOW_BYTES) {
      into.set(await this.slice(at, at + length));
      return length;
    }
    for (let done = 0; done < length; ) {
      const start = alignDown(at + done, WINDOW_BYTES);
      const window = await this.windowOf(start);
      const from = at + done - start;
      const take = Math.min(window.length - from, length - done);
      if (take <= 0) throw new Qcow2Error('IO', `${this.name} became shorter`, at + done);
      into.set(window.subarray(from, from + take), done);
      done += take;
    }
    return length;
  }

  cursor(from: number, to: number): StorageCursor {
    const reader = this.blob.slice(from, Math.max(from, to)).stream().getReader();
    alive.add(reader);
    let rest: Uint8Array = new Uint8Array();
    const { name } = this;
    return {
      async read(into) {
        let done = 0;
        while (done < into.length) {
          if (rest.length === 0) {
            const next = await reader.read().catch((cause) => {
              throw new Qcow2Error('IO', `could not read ${name}`, undefined, cause);
            });
            if (next.done) break;
            rest = next.value;
          }
          const take = Math.min(rest.length, into.length - done);
          into.set(rest.subarray(0, take), done);
          rest = rest.subarray(take);
          done += take;
        }
        return done;
      },
      async close() {
        alive.delete(reader);
        // A stream that has failed says so once more.
        await reader.cancel().catch(() => {});
      },
    };
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
  close(): void {
    this.window = undefined;
  }

  share(): StorageHandle {
    return { kind: 'blob', blob: this.blob, name: this.name };
  }

  private readOnly(): Qcow2Error {
    return new Qcow2Error('READ_ONLY', `${this.name} is read-only`);
  }

  private windowOf(start: number): Promise<Uint8Array> {
    if (this.windowAt !== start || this.window === undefined) {
      this.windowAt = start;
      this.window = this.slice(start, start + WINDOW_BYTES);
    }
    return this.window;
  }

  private async slice(from: number, to: number): Promise<Uint8Array> {
    try {
      return new Uint8Array(await this.blob.slice(from, to).arrayBuffer());
    } catch (cause) {
      this.window = undefined;
      throw new Qcow2Error('IO', `could not read ${this.name}`, from, cause);
    }
  }
}

/** Storage over a Blob; a File's own name serves in messages. */
export function blobStorage(blob: Blob, options: { readonly name?: string } = {}): Storage {
  const own = 'name' in blob && typeof blob.name === 'string' ? blob.name : 'blob';
  return new BlobStorage(blob, options.name ?? own);
}
