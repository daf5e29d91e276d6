/**
 * A disk as storage: what an image that lies within another's disk is opened on. Where the disk can
 * be written it grows when it must, by whole sectors.
 */
import { type Awaitable, settled } from '../base/awaitable.ts';
import { alignUp } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import { rangeCursor, type Storage, type StorageCursor } from '../storage/storage.ts';
import type { Disk, WritableDisk } from './disk.ts';

/** Sizes of disks are multiples of this. */
const SECTOR_BYTES = 512;

/** Storage over a disk that it owns. */
export class DiskStorage implements Storage {
  readonly name: string;

  /** @param target the same disk, where it may be written */
  constructor(
    private readonly disk: Disk,
    private readonly target?: WritableDisk,
  ) {
    this.name = disk.sources[0]?.storage.name ?? '';
  }

  get writable(): boolean {
    return this.target !== undefined;
  }

  get clusterBytes(): number | undefined {
    return this.disk.format === 'qcow2' ? this.disk.sources[0]?.clusterSize : undefined;
  }

  size(): number {
    return this.disk.size;
  }

  async read(at: number, into: Uint8Array): Promise<number> {
    const length = Math.max(0, Math.min(into.length, this.disk.size - at));
    if (length > 0) await this.disk.read(at, into.subarray(0, length));
    return length;
  }

  cursor(from: number, to: number): StorageCursor {
    return rangeCursor(this, from, to);
  }

  async write(at: number, from: Uint8Array): Promise<void> {
    if (from.length === 0) return;
    const target = await this.grown(at + from.length);
    await target.write(at, from);
  }

  async zero(at: number, length: number): Promise<void> {
    if (length === 0) return;
    const target = await this.grown(at + length);
    await target.zero(at, length, { unmap: true });
  }

  async discard(at: number, length: number): Promise<void> {
    const inside = Math.min(length, this.disk.size - at);
    if (inside > 0) await this.needTarget().discard(at, inside);
  }

  async truncate(size: number): Promise<void> {
    const whole = alignUp(size, SECTOR_BYTES);
    if (whole !== this.disk.size) await this.needTarget().resize(whole);
  }

  async flush(): Promise<void> {
    await this.target?.flush();
  }

  close(): Promise<void> {
    return this.disk.close();
  }

  allocatedBytes(): number {
    const own = this.disk.sources.filter(({ depth }) => depth === 0);
    return own.reduce((sum, { storage }) => sum + (storage.allocatedBytes?.() ?? 0), 0);
  }

  /** The disk, made so long that a request fits in. */
  private grown(end: number): Awaitable<WritableDisk> {
    const target = this.needTarget();
    if (end <= target.size) return target;
    const done = target.resize(alignUp(end, SECTOR_BYTES));
    return settled(done) ? target : done.then(() => target);
  }

  private needTarget(): WritableDisk {
    if (this.target) return this.target;
    throw new Qcow2Error('READ_ONLY', `${this.name} is read-only`);
  }
}
