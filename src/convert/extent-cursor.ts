/** Going through a disk's extents front to back, a window of them in memory. */
import { type Awaitable, settled } from '../base/awaitable.ts';
import { alignDown } from '../base/bits.ts';
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
    list.clear();
    this.record = 0;
    const end = Math.min(disk.size, alignDown(at, this.window) + this.window);
    const collected = disk.collectExtents(at, end, list);
    if (settled(collected)) {
      this.windowEnd = end;
      return;
    }
    return collected.then(() => {
      this.windowEnd = end;
    });
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
