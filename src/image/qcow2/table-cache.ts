/**
 * L2 slices in kernel memory, the least recently used of which gives way. A slice is the part of
 * an L2 table that one read brings in: all of it, up to 64 KiB.
 *
 * A slice's address is good until the next `await`: look (`peek`), and if it is not there load it
 * and look again.
 */
import { type Awaitable, settled } from '../../base/awaitable.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { Lru } from '../../base/lru.ts';
import type { Region } from '../../kernels/arena.ts';
import type { Storage } from '../../storage/storage.ts';

/** A bounded cache of equal slices of one file. */
export class TableCache {
  private readonly free: number[] = [];
  private readonly slots: Lru<number, number>;
  private readonly loading = new Map<number, Promise<void>>();
  private used = 0;

  /**
   * @param region where slices live: as many as fit, at least one
   * @param sliceBytes of each; keys are file offsets that slices start at
   */
  constructor(
    private readonly storage: Storage,
    private readonly region: Region,
    readonly sliceBytes: number,
  ) {
    const capacity = Math.floor(region.length / sliceBytes);
    this.slots = new Lru(capacity, (_key, slot) => this.free.push(slot));
  }

  /** Address of the slice at `file` in kernel memory, or undefined where it is not loaded. */
  peek(file: number): number | undefined {
    const slot = this.slots.get(file);
    return slot === undefined ? undefined : this.region.at + slot * this.sliceBytes;
  }

  /**
   * Brings a slice in.
   * @param tableStart file offset of the table: one that starts past the end of the file is
   * corrupt, one that is cut short reads as zeros from there
   */
  load(file: number, tableStart: number): Awaitable<void> {
    const pending = this.loading.get(file);
    if (pending) return pending;
    // At most `capacity` slices exist, so a slot is free once one gave way.
    const slot = this.takeSlot();
    if (slot === undefined) return this.loadWhenFree(file, tableStart);
    const into = this.region.bytes.subarray(slot * this.sliceBytes, (slot + 1) * this.sliceBytes);
    const finish = (got: number) => {
      if (got === 0) return this.finishEmpty(file, tableStart, slot, into);
      into.fill(0, got);
      this.slots.set(file, slot);
    };
    const got = this.storage.read(file, into);
    if (settled(got)) return finish(got);
    const promise = got
      .then(finish, (cause) => {
        this.free.push(slot);
        throw cause;
      })
      .finally(() => this.loading.delete(file));
    this.loading.set(file, promise);
    return promise;
  }

  clear(): void {
    this.slots.clear();
    this.free.length = 0;
    this.used = 0;
  }

  private takeSlot(): number | undefined {
    const slot = this.free.pop();
    if (slot !== undefined) return slot;
    if (this.used < this.slots.capacity) return this.used++;
    this.slots.evictOldest();
    return this.free.pop();
  }

  /** Every slot is being read into: waits for one of the reads. */
  private async loadWhenFree(file: number, tableStart: number): Promise<void> {
    await Promise.race(this.loading.values());
    await this.load(file, tableStart);
  }

  /** Nothing was read: past the end of the file a table's rest is zeros, a whole table is not. */
  private async finishEmpty(
    file: number,
    tableStart: number,
    slot: number,
    into: Uint8Array,
  ): Promise<void> {
    if ((await this.storage.size()) <= tableStart) {
      this.free.push(slot);
      throw new Qcow2Error('CORRUPT', 'L2 table lies past the end of the file', tableStart);
    }
    into.fill(0);
    this.slots.set(file, slot);
  }
}
