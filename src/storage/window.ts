/** A part of other storage as storage of its own: from an offset on, up to its end or so far. */
import type { Awaitable } from '../base/awaitable.ts';
import { Qcow2Error } from '../base/errors.ts';
import { rangeCursor, type Storage, type StorageCursor } from './storage.ts';

/** The window [offset, offset + size) of `inner`, which it owns; without a size, all the rest. */
export class WindowStorage implements Storage {
  constructor(
    private readonly inner: Storage,
    private readonly offset: number,
    private readonly fixedSize: number | undefined,
    readonly label?: string,
  ) {}

  get name(): string {
    return this.inner.name;
  }

  get placedAt(): number {
    return this.offset + (this.inner.placedAt ?? 0);
  }

  get writable(): boolean {
    return this.inner.writable;
  }

  get clusterBytes(): number | undefined {
    return this.inner.clusterBytes;
  }

  get holdsNothing(): boolean {
    return this.inner.holdsNothing ?? false;
  }

  size(): Awaitable<number> {
    if (this.fixedSize !== undefined) return this.fixedSize;
    const whole = this.inner.size();
    const rest = (bytes: number) => Math.max(0, bytes - this.offset);
    return typeof whole === 'number' ? rest(whole) : whole.then(rest);
  }

  read(at: number, into: Uint8Array): Awaitable<number> {
    const { fixedSize } = this;
    const room = fixedSize === undefined ? into.length : Math.max(0, fixedSize - at);
    const part = into.length > room ? into.subarray(0, room) : into;
    if (part.length === 0) return 0;
    const held = this.announce('read_aio');
    const bring = () => this.inner.read(this.offset + at, part);
    return held ? held.then(bring) : bring();
  }

  cursor(from: number, to: number): StorageCursor {
    return rangeCursor(this, from, to);
  }

  write(at: number, from: Uint8Array): Awaitable<void> {
    this.needInside(at, from.length);
    const held = this.announce('write_aio');
    const bring = () => this.inner.write(this.offset + at, from);
    return held ? held.then(bring) : bring();
  }

  zero(at: number, length: number): Awaitable<void> {
    this.needInside(at, length);
    return this.inner.zero(this.offset + at, length);
  }

  discard(at: number, length: number): Awaitable<void> {
    this.needInside(at, length);
    return this.inner.discard?.(this.offset + at, length);
  }

  *dataRanges(from: number, to: number, exact = false): Iterable<readonly [number, number]> {
    const { inner, offset } = this;
    const found = inner.dataRanges?.(offset + from, offset + to, exact);
    for (const [start, end] of found ?? [[offset + from, offset + to] as const]) {
      yield [start - offset, end - offset];
    }
  }

  truncate(size: number): Awaitable<void> {
    if (this.fixedSize !== undefined) {
      throw new Qcow2Error('UNSUPPORTED', 'Cannot resize fixed-size raw disks');
    }
    return this.inner.truncate(this.offset + size);
  }

  flush(): Awaitable<void> {
    return this.inner.flush();
  }

  close(): Awaitable<void> {
    return this.inner.close();
  }

  allocatedBytes(): number {
    return this.inner.allocatedBytes?.() ?? 0;
  }

  announce(event: Parameters<NonNullable<Storage['announce']>>[0]): Awaitable<void> {
    return this.inner.announce?.(event);
  }

  private needInside(at: number, length: number): void {
    if (this.fixedSize !== undefined && at + length > this.fixedSize) {
      throw new Qcow2Error('IO', 'past the end of the part of the file', at);
    }
  }
}
