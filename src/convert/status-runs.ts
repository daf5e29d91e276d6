/**
 * The status of a disk's ranges, from front to back, in the pieces in which QEMU has it: they end
 * with an L2 slice at the latest.
 */
import { settled } from '../base/awaitable.ts';
import { alignDown } from '../base/bits.ts';
import type { Disk } from '../image/disk.ts';
import { type BlockStatus, type Layer, layersOf, statusAt } from './block-status.ts';
import { ExtentCursor } from './extent-cursor.ts';

/** What is at a place, and where that ends. */
export interface StatusRun {
  readonly status: BlockStatus;
  readonly end: number;
}

/** Going through one disk. */
export class StatusRuns {
  private readonly cursor: ExtentCursor;
  private layers: readonly Layer[] = [];
  private last: StatusRun | undefined;

  constructor(readonly disk: Disk) {
    this.cursor = new ExtentCursor(disk);
  }

  /** Looks at the images. @throws Qcow2Error CORRUPT or IO */
  async prepare(): Promise<void> {
    this.layers = await layersOf(this.disk);
  }

  /**
   * What is at a place at or behind the last one, and inside of the disk.
   * @throws Qcow2Error CORRUPT or IO
   */
  async at(place: number): Promise<StatusRun> {
    // Its offset is that of where it began: who asks wants to know what it is.
    if (this.last && place < this.last.end) return this.last;
    const { cursor, disk } = this;
    const sought = cursor.seek(place);
    if (!settled(sought)) await sought;
    const status = this.status(place);
    let end = place + status.length;
    let last = status;
    // Records end with the cursor's windows, which mean nothing.
    while (end < disk.size && cursor.endsWindow(end) && !this.endsSlice(end, status.depth)) {
      // Compressed clusters come one by one.
      if (status.data && status.offset === undefined) break;
      const more = cursor.seek(end);
      if (!settled(more)) await more;
      const next = this.status(end);
      if (!continues(last, next)) break;
      last = next;
      end += next.length;
    }
    this.last = { status, end };
    return this.last;
  }

  /** Of the last image of the chain. */
  get depthMax(): number {
    return this.layers.length - 1;
  }

  /** Slices of L2 tables end here, of this image or one that stands in front of it. */
  endsSlice(at: number, depth: number): boolean {
    return this.layers.slice(0, depth + 1).some(({ sliceSpan }) => at % sliceSpan === 0);
  }

  private status(at: number): BlockStatus {
    const { list, record } = this.cursor;
    const status = statusAt(list, record, at, { sources: this.disk.sources, layers: this.layers });
    let { length } = status;
    for (const { sliceSpan } of this.layers.slice(0, status.depth + 1)) {
      if (sliceSpan === Number.POSITIVE_INFINITY) continue;
      length = Math.min(length, alignDown(at, sliceSpan) + sliceSpan - at);
    }
    return { ...status, length };
  }
}

function continues(last: BlockStatus, next: BlockStatus): boolean {
  if (last.depth !== next.depth || last.zero !== next.zero || last.data !== next.data) return false;
  if (last.present !== next.present || last.storage !== next.storage) return false;
  if (last.offset === undefined) return next.offset === undefined;
  return last.offset + last.length === next.offset;
}
