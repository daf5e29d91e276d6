/**
 * A raw image: guest offset and file offset are the same. Bytes past the file's end, up to the
 * next multiple of 512, read as zeros.
 */
import { type Awaitable, settled } from '../../base/awaitable.ts';
import { alignUp } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { extendStorage } from '../../storage/extend.ts';
import type { Storage } from '../../storage/storage.ts';
import {
  type DataSource,
  type Extent,
  ExtentKind,
  type ExtentList,
  iterateExtents,
  type ResizeOptions,
  type WritableDisk,
  type WriteUnderWay,
  type ZeroOptions,
} from '../disk.ts';

/** How a raw image is opened. */
export interface RawOpenOptions {
  /** How many images stand in front of this one in its chain. */
  readonly depth?: number;
  readonly writable?: boolean;
  /** `ignore`: requests to discard do nothing. Default `unmap`. */
  readonly discard?: 'ignore' | 'unmap';
}

/** A raw disk over storage that it owns. */
export class RawImage implements WritableDisk {
  readonly format = 'raw';
  readonly sources: readonly DataSource[];
  /** Short holes of the file are told, too, where what is asked costs more than what they save. */
  exactHoles = false;
  /** The last requests, where they are not done yet: requests that change bytes queue behind it. */
  private last: Promise<unknown> | undefined;
  /** The last one of them that is not a write ahead: these wait for no more than that. */
  private turn: Promise<unknown> | undefined;

  private constructor(
    private readonly storage: Storage,
    private bytes: number,
    private readonly writable: boolean,
    private readonly ignoresDiscards: boolean,
    depth: number,
  ) {
    this.sources = [{ storage, depth, clusterSize: 1, codec: 'deflate' }];
  }

  /** @throws Qcow2Error READ_ONLY where it is to be writable and the storage is not */
  static async open(storage: Storage, options: RawOpenOptions = {}): Promise<RawImage> {
    const { depth = 0, writable = false, discard = 'unmap' } = options;
    if (writable && !storage.writable) {
      await storage.close();
      throw new Qcow2Error('READ_ONLY', `${storage.name} is read-only`);
    }
    try {
      const size = alignUp(await storage.size(), 512);
      return new RawImage(storage, size, writable, discard === 'ignore', depth);
    } catch (cause) {
      await storage.close();
      throw cause;
    }
  }

  get size(): number {
    return this.bytes;
  }

  async read(guest: number, into: Uint8Array): Promise<void> {
    this.needInside(guest, into.length, 'read');
    if (this.storage.announce) await this.storage.announce('read_aio');
    const got = await this.inTurn(() => this.storage.read(guest, into));
    into.fill(0, got);
  }

  async write(guest: number, from: Uint8Array): Promise<void> {
    this.needWritable();
    this.needInside(guest, from.length, 'write');
    if (this.storage.announce) await this.storage.announce('write_aio');
    if (from.length > 0) await this.inTurn(() => this.storage.write(guest, from));
  }

  async writeAhead(guest: number, from: Uint8Array): Promise<WriteUnderWay> {
    this.needWritable();
    this.needInside(guest, from.length, 'write');
    if (!this.storage.announce) this.later ??= this.storage.background?.();
    const { later } = this;
    if (!later || from.length === 0) {
      await this.write(guest, from);
      return { written: Promise.resolve() };
    }
    const written = Promise.resolve(this.turn).then(() => later.write(guest, from));
    this.last = this.untilDone(Promise.allSettled([this.last, written]));
    return { written };
  }
  /** The storage, for requests that others follow before they are done. */
  private later: Storage | undefined;

  /** Room for the range stays with the file, or comes to it, unless it may go (`unmap`). */
  async zero(guest: number, length: number, { unmap = false }: ZeroOptions = {}): Promise<void> {
    this.needWritable();
    this.needInside(guest, length, 'write');
    if (length === 0) return;
    await this.inTurn(async () => {
      await this.storage.zero(guest, length);
      if (!unmap || this.ignoresDiscards) await this.storage.allocate?.(guest, length);
    });
  }

  /**
   * Acts on any range: a raw disk has no clusters. The room of the range goes back to the host,
   * where the storage can do that, and it reads as zeros then; else it stays as it is.
   */
  async discard(guest: number, length: number): Promise<void> {
    this.needWritable();
    this.needInside(guest, length, 'discard');
    if (this.ignoresDiscards || !this.storage.discard) return;
    await this.inTurn(async () => {
      const end = Math.min(guest + length, await this.storage.size());
      if (end > guest) await this.storage.discard?.(guest, end - guest);
    });
  }

  async writeCompressed(): Promise<void> {
    this.needWritable();
    throw new Qcow2Error('UNSUPPORTED', 'raw images hold nothing compressed');
  }

  /** Any number of bytes will do for the file; the disk's size is rounded up to sectors. */
  async resize(size: number, { preallocation = 'off' }: ResizeOptions = {}): Promise<void> {
    this.needWritable();
    if (preallocation === 'metadata') {
      throw new Qcow2Error('UNSUPPORTED', 'Unsupported preallocation mode: metadata');
    }
    await this.inTurn(() => extendStorage(this.storage, size, preallocation));
    if (!this.isFixed) this.bytes = alignUp(size, 512);
  }

  /** A device: it has the size that it has, whatever `resize` is told. */
  get isFixed(): boolean {
    return this.storage.isFixed ?? false;
  }

  async flush(): Promise<void> {
    if (this.writable) await this.inTurn(() => this.storage.flush());
  }

  extents(from = 0, to = this.size): AsyncIterable<Extent> {
    return iterateExtents(this, from, to);
  }

  /** Holes of a sparse file are zeros that have their place in it, as QEMU sees them. */
  collectExtents(from: number, to: number, list: ExtentList, sourceBase = 0): void {
    const push = (kind: ExtentKind, start: number, end: number) => {
      if (end > start) list.push(kind, start, end - start, sourceBase, start);
    };
    if (this.storage.holdsNothing) {
      if (to > from) list.push(ExtentKind.hole, from, to - from, sourceBase, -1);
      return;
    }
    let at = from;
    const ranges = this.storage.dataRanges?.(from, to, this.exactHoles);
    for (const [start, end] of ranges ?? [[from, to] as const]) {
      push(ExtentKind.zero, at, start);
      push(ExtentKind.data, start, end);
      at = end;
    }
    push(ExtentKind.zero, at, to);
  }

  async close(): Promise<void> {
    await this.last;
    await this.storage.close();
  }

  private needWritable(): void {
    if (!this.writable) throw new Qcow2Error('READ_ONLY', `${this.storage.name} is read-only`);
  }

  private needInside(guest: number, length: number, what: string): void {
    if (guest < 0 || length < 0 || guest + length > this.bytes) {
      throw new Qcow2Error('OUT_OF_RANGE', `${what} past the end of the disk`, guest);
    }
  }

  /**
   * Requests that overlap are carried out in the order they came. Storage that answers at once
   * does so by itself, and some other storage; for the rest they queue, all of them, and only where
   * the disk may change: those who write raw images through such storage are few.
   */
  private inTurn<T>(work: () => Awaitable<T>): Awaitable<T> {
    if (!this.writable || this.storage.keepsOrder) return work();
    const answer = this.last ? this.last.then(work) : work();
    if (settled(answer)) return answer;
    this.last = this.untilDone(answer);
    this.turn = this.last;
    return answer;
  }

  /** Resolves when a request is done, of which nobody need know then. */
  private untilDone(request: Promise<unknown>): Promise<void> {
    const forget = () => {
      if (this.last === done) this.last = undefined;
      if (this.turn === done) this.turn = undefined;
    };
    const done: Promise<void> = request.then(forget, forget);
    return done;
  }
}
