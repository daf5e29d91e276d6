/** Going through a disk's extents front to back, a window of them in memory. */
import { type Awaitable, settled } from '../base/awaitable.ts';
import { alignDown } from '../base/bits.ts';
import { isQcow2Error } from '../base/errors.ts';
import { type DataSource, type Disk, ExtentKind, ExtentList, extentWindow } from '../image/disk.ts';

/** A place in a disk's extents. Behind the disk's end there is one hole without an end. */
export class ExtentCursor {
  readonly list = new ExtentList();
  /** The record that covers the place. */
  record = 0;
  private readonly window: number;
  private windowEnd = 0;

  constructor(readonly disk: Disk) {
    this.window = extentWindow(disk);
  }

  /** A place needs no look at the disk. */
  isAt(at: number): boolean {
    return at < this.windowEnd || at >= this.disk.size;
  }

  /** Goes to a place at or behind the last one. */
  seek(at: number): Awaitable<void> {
    const { list, disk } = this;
    if (at >= disk.size) return;
    if (at < this.windowEnd) {
      while (list.guest(this.record) + list.length(this.record) <= at) this.record++;
      return;
    }
    const end = Math.min(disk.size, alignDown(at, this.window) + this.window);
    // What lies before a broken entry can be had: who gets there, meets it again.
    const upTo = (cause: unknown): Awaitable<void> => {
      const guest = isQcow2Error(cause) ? (cause.guest ?? 0) : 0;
      if (guest <= at || guest >= end) throw cause;
      return this.collect(at, guest);
    };
    try {
      const collected = this.collect(at, end);
      return settled(collected) ? undefined : collected.catch(upTo);
    } catch (cause) {
      return upTo(cause);
    }
  }

  private collect(from: number, to: number): Awaitable<void> {
    this.list.clear();
    this.record = 0;
    const finish = () => {
      this.windowEnd = to;
    };
    const collected = this.disk.collectExtents(from, to, this.list);
    return settled(collected) ? finish() : collected.then(finish);
  }

  /** A record may have been cut off here: what goes on behind it was not looked at yet. */
  endsWindow(at: number): boolean {
    return at === this.windowEnd && at < this.disk.size;
  }

  /** What is at a place that was sought. */
  kindAt(at: number): ExtentKind {
    return at < this.disk.size ? this.list.kind(this.record) : ExtentKind.hole;
  }

  /** There are bytes in a file for it. */
  hasBytes(at: number): boolean {
    const kind = this.kindAt(at);
    return kind === ExtentKind.data || kind === ExtentKind.compressed;
  }

  /** How far the record goes, in guest bytes, or the window. */
  endAt(at: number): number {
    if (at >= this.disk.size) return Number.POSITIVE_INFINITY;
    return this.list.guest(this.record) + this.list.length(this.record);
  }

  /** The file that the record's bytes lie in. */
  get source(): DataSource {
    return this.disk.sources[this.list.source(this.record)] as DataSource;
  }
}
