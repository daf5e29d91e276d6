/**
 * Slices of tables in kernel memory, written back when they must give way or on a flush. Holds
 * L2 slices, or refcount blocks.
 *
 * Used with the image's metadata lock held, so that nothing changes between two looks. What must
 * be on disk before this cache writes is declared, never left to luck: `flush-order.ts`.
 */
import { type Awaitable, settled } from '../../base/awaitable.ts';
import { assert, Qcow2Error } from '../../base/errors.ts';
import type { Region } from '../../kernels/arena.ts';
import type { DebugEvent } from '../../storage/debug-events.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { Storage } from '../../storage/storage.ts';

interface Slice {
  readonly slot: number;
  dirty: boolean;
}

/** A bounded write-back cache of equal slices of one file. */
export class WriteBackCache {
  /** By file offset, least recently used first. */
  private readonly slices = new Map<number, Slice>();
  private readonly free: number[] = [];
  private readonly view: DataView;

  /**
   * @param before awaited before anything is written: brings on disk what must be there first
   * @param events what the storage is told of
   * @param checkWrite throws where the place that a slice is about to be written to is another's
   */
  constructor(
    private readonly storage: Storage,
    private readonly region: Region,
    readonly sliceBytes: number,
    private readonly before: () => Awaitable<void>,
    private readonly checkWrite: (file: number, length: number) => void,
    private readonly events?: { readonly load?: DebugEvent; readonly write: DebugEvent },
  ) {
    const capacity = Math.floor(region.length / sliceBytes);
    assert(capacity >= 2, 'a write-back cache needs two slices');
    for (let slot = capacity - 1; slot >= 0; slot--) this.free.push(slot);
    this.view = new DataView(region.bytes.buffer, region.at, region.length);
  }

  /** Address of a slice in kernel memory, or undefined where it is not here. */
  peek(file: number): number | undefined {
    const slice = this.touch(file);
    return slice && this.region.at + slice.slot * this.sliceBytes;
  }

  /** The bytes of a slice that is here, and where they start in it. Good until the next load. */
  bytesAt(file: number): { readonly view: DataView; readonly at: number } {
    const slice = this.touch(file);
    assert(slice, 'the slice is not loaded');
    return { view: this.view, at: slice.slot * this.sliceBytes };
  }

  /** Brings a slice in; a table that starts past the end of the file is corrupt. */
  load(file: number, tableStart: number): Awaitable<void> {
    if (this.slices.has(file)) return;
    return this.loadInto(file, tableStart);
  }

  private async loadInto(file: number, tableStart: number): Promise<void> {
    const slot = await this.takeSlot();
    try {
      const into = this.slotBytes(slot);
      const { storage, events } = this;
      if (events?.load && storage.announce) await storage.announce(events.load);
      const read = readFully(storage, file, into);
      const got = settled(read) ? read : await read;
      if (got === 0 && (await this.storage.size()) <= tableStart) {
        throw new Qcow2Error('CORRUPT', 'table lies past the end of the file', tableStart);
      }
      into.fill(0, got);
    } catch (cause) {
      this.free.push(slot);
      throw cause;
    }
    this.add(file, { slot, dirty: false });
  }

  /** Makes a slice of zeros that is new in the file: dirty, and not read. */
  async create(file: number): Promise<void> {
    this.drop(file);
    const slot = await this.takeSlot();
    this.slotBytes(slot).fill(0);
    this.add(file, { slot, dirty: true });
  }

  /** Takes in a slice that was written to the file just now. */
  async put(file: number, bytes: Uint8Array): Promise<void> {
    this.drop(file);
    const slot = await this.takeSlot();
    this.slotBytes(slot).set(bytes);
    this.add(file, { slot, dirty: false });
  }

  markDirty(file: number): void {
    const slice = this.slices.get(file);
    assert(slice, 'the slice is not loaded');
    slice.dirty = true;
  }

  get hasDirty(): boolean {
    for (const { dirty } of this.slices.values()) if (dirty) return true;
    return false;
  }

  /** Forgets the slices in a range without writing them: their clusters were freed. */
  drop(file: number, length = this.sliceBytes): void {
    // Whichever are fewer: slices that the range may have, or slices that are here.
    if (length / this.sliceBytes > this.slices.size) {
      for (const at of [...this.slices.keys()]) {
        if (at >= file && at < file + length) this.dropOne(at);
      }
      return;
    }
    for (let at = file; at < file + length; at += this.sliceBytes) this.dropOne(at);
  }

  private dropOne(file: number): void {
    const slice = this.slices.get(file);
    if (!slice) return;
    this.slices.delete(file);
    this.free.push(slice.slot);
  }

  /** Forgets all slices, which are clean. */
  forget(): void {
    assert(!this.hasDirty, 'dirty slices cannot be forgotten');
    for (const { slot } of this.slices.values()) this.free.push(slot);
    this.slices.clear();
  }

  /** Writes all dirty slices, in file order. Does not flush the storage. */
  async writeDirty(): Promise<void> {
    const dirty = [...this.slices].filter(([, slice]) => slice.dirty).sort(([a], [b]) => a - b);
    if (dirty.length === 0) return;
    await this.before();
    for (const [file, slice] of dirty) await this.writeSlice(file, slice);
  }

  private async writeSlice(file: number, slice: Slice): Promise<void> {
    this.checkWrite(file, this.sliceBytes);
    const { storage, events } = this;
    if (events && storage.announce) await storage.announce(events.write);
    const written = storage.write(file, this.slotBytes(slice.slot));
    if (!settled(written)) await written;
    slice.dirty = false;
  }

  private touch(file: number): Slice | undefined {
    const slice = this.slices.get(file);
    // Who goes through a slice asks for it entry by entry.
    if (slice && file !== this.youngest) {
      this.slices.delete(file);
      this.add(file, slice);
    }
    return slice;
  }

  private add(file: number, slice: Slice): void {
    this.slices.set(file, slice);
    this.youngest = file;
  }
  /** The slice that was used last, where it is still here. */
  private youngest = -1;

  private slotBytes(slot: number): Uint8Array {
    return this.region.bytes.subarray(slot * this.sliceBytes, (slot + 1) * this.sliceBytes);
  }

  /** A free slot; the slice used longest ago gives way, a clean one where one is near. */
  private async takeSlot(): Promise<number> {
    const free = this.free.pop();
    if (free !== undefined) return free;
    const oldest = this.slices.entries().next();
    assert(!oldest.done, 'a cache without slices');
    const [file, slice] = oldest.value;
    if (slice.dirty) {
      await this.before();
      await this.writeSlice(file, slice);
    }
    this.slices.delete(file);
    return slice.slot;
  }
}
