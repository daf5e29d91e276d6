/** Storage in memory: for tests, and for images that are made and used within one program. */
import { alignUp } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import { rangeCursor, type Storage, type StorageCursor } from './storage.ts';

/** Grows by doubling, so that many small writes at the end stay cheap. */
class MemoryStorage implements Storage {
  constructor(
    private bytes: Uint8Array,
    private length: number,
    readonly name: string,
    readonly writable: boolean,
  ) {}

  size(): number {
    return this.length;
  }

  read(at: number, into: Uint8Array): number {
    const got = Math.max(0, Math.min(into.length, this.length - at));
    into.set(this.bytes.subarray(at, at + got));
    return got;
  }

  cursor(from: number, to: number): StorageCursor {
    return rangeCursor(this, from, to);
  }

  write(at: number, from: Uint8Array): void {
    this.needWritable();
    if (from.length === 0) return;
    this.reach(at + from.length);
    this.bytes.set(from, at);
  }

  zero(at: number, length: number): void {
    this.needWritable();
    if (length === 0) return;
    this.reach(at + length);
    this.bytes.fill(0, at, at + length);
  }

  truncate(size: number): void {
    this.needWritable();
    if (size < this.length) this.bytes.fill(0, size, this.length);
    else this.reach(size);
    this.length = size;
  }

  flush(): void {}
  close(): void {}

  /** A copy of all bytes. */
  snapshot(): Uint8Array {
    return this.bytes.slice(0, this.length);
  }

  private needWritable(): void {
    if (!this.writable) throw new Qcow2Error('READ_ONLY', `${this.name} is read-only`);
  }

  private reach(end: number): void {
    if (end > this.bytes.length) {
      const grown = new Uint8Array(Math.max(end, alignUp(this.bytes.length * 2, 4096)));
      grown.set(this.bytes.subarray(0, this.length));
      this.bytes = grown;
    }
    if (end > this.length) this.length = end;
  }
}

/**
 * Storage over an array, which it reads without copying; a writable one takes the array over.
 * @param bytes the first content, empty by default
 */
export function memoryStorage(
  bytes: Uint8Array = new Uint8Array(),
  options: { readonly name?: string; readonly writable?: boolean } = {},
): Storage & { snapshot(): Uint8Array } {
  const { name = 'memory', writable = true } = options;
  return new MemoryStorage(bytes, bytes.length, name, writable);
}
