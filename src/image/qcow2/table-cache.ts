/**
 * L2 slices in kernel memory, the least recently used of which gives way. A slice is the part of
 * an L2 table that one read brings in: all of it, up to 64 KiB.
 *
 * A slice's address is good until the next `await`: look (`peek`), and if it is not there load it
 * and look again. A slice stays until it was looked at once: so each load brings one reader
 * further, and any number of them get through a cache of one slice.
 */
import { type Awaitable, settled } from '../../base/awaitable.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { Lru } from '../../base/lru.ts';
import type { Region } from '../../kernels/arena.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { Storage } from '../../storage/storage.ts';

/** A bounded cache of equal slices of one file. */
export class TableCache {
  private readonly free: number[] = [];
  private readonly slots: Lru<number, number>;
  private readonly loading = new Map<number, Promise<void>>();
  /** Slices that somebody waited for and has not looked at yet. */
  private readonly awaited = new Set<number>();
  private waiting: (() => void)[] = [];
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
    if (slot === undefined) return undefined;
    if (this.awaited.delete(file)) this.wake();
    return this.region.at + slot * this.sliceBytes;
  }

  /**
   * Brings a slice in. Whoever asks for it must `peek` when it is there.
   * @param tableStart file offset of the table: one that starts past the end of the file is
   * corrupt, one that is cut short reads as zeros from there
   */
  load(file: number, tableStart: number): Awaitable<void> {
    const pending = this.loading.get(file);
    if (pending) return pending;
    if (this.slots.has(file)) return;
    const slot = this.takeSlot();
    if (slot === undefined) return this.loadWhenFree(file, tableStart);
    const into = this.region.bytes.subarray(slot * this.sliceBytes, (slot + 1) * this.sliceBytes);
    let read: Awaitable<number>;
    try {
      this.storage.announce?.('l2_load');
      read = readFully(this.storage, file, into);
    } catch (cause) {
      this.free.push(slot);
      throw cause;
    }
    // Nothing is rare: the whole slice lies past the end of the file.
    if (settled(read) && read > 0) {
      into.fill(0, read);
      this.slots.set(file, slot);
      return;
    }
    const loaded = this.loadLate({ file, tableStart, slot, into, read });
    this.loading.set(file, loaded);
    return loaded;
  }

  clear(): void {
    this.awaited.clear();
    this.slots.clear();
    this.free.length = 0;
    this.used = 0;
  }

  /** At most `capacity` slices exist, so a slot is free once one gave way. */
  private takeSlot(): number | undefined {
    const slot = this.free.pop();
    if (slot !== undefined) return slot;
    if (this.used < this.slots.capacity) return this.used++;
    this.slots.evictOldest((file) => this.awaited.has(file));
    return this.free.pop();
  }

  /** Every slot is being read into, or holds what was not looked at: waits for one of them. */
  private async loadWhenFree(file: number, tableStart: number): Promise<void> {
    await new Promise<void>((resolve) => this.waiting.push(resolve));
    await this.load(file, tableStart);
  }

  private wake(): void {
    const { waiting } = this;
    this.waiting = [];
    for (const resume of waiting) resume();
  }

  private async loadLate({ file, tableStart, slot, into, read }: Load): Promise<void> {
    try {
      const got = await read;
      // Past the end of the file a table's rest is zeros, a whole table is not.
      if (got === 0 && (await this.storage.size()) <= tableStart) {
        throw new Qcow2Error('CORRUPT', 'L2 table lies past the end of the file', tableStart);
      }
      into.fill(0, got);
      this.slots.set(file, slot);
      this.awaited.add(file);
    } catch (cause) {
      this.free.push(slot);
      this.wake();
      throw cause;
    } finally {
      this.loading.delete(file);
    }
  }
}

/** A slice on its way in. */
interface Load {
  readonly file: number;
  readonly tableStart: number;
  readonly slot: number;
  readonly into: Uint8Array;
  readonly read: Awaitable<number>;
}
