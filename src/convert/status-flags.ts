/**
 * Strict comparison: what QEMU's block layer says of two places, flag by flag. It says so of ranges
 * that end with an L2 slice at the latest, and whether such a range reaches the disk's end counts.
 */
import { alignDown } from '../base/bits.ts';
import type { Disk } from '../image/disk.ts';
import { type Layer, layersOf, statusAt } from './block-status.ts';
import type { ExtentCursor } from './extent-cursor.ts';

const DATA = 1;
const ZERO = 2;
const PLACED = 4;
const ALLOCATED = 8;
const END = 16;

/** Whether two disks are alike at a place, and how far that goes for both. */
export interface Likeness {
  readonly same: boolean;
  readonly end: number;
}

/** Tells of two disks whether they are allocated alike. */
export class StatusOracle {
  private layers: Layer[][] = [];

  constructor(private readonly disks: readonly Disk[]) {}

  /** Looks at the images. @throws Qcow2Error CORRUPT or IO */
  async prepare(): Promise<void> {
    for (const disk of this.disks) this.layers.push(await layersOf(disk));
  }

  /** @param cursors of the disks, both at `at`, which is inside of both */
  compare(cursors: readonly ExtentCursor[], at: number): Likeness {
    const [a, b] = cursors.map((cursor, side) => this.flags(cursor, this.layers[side]!, at));
    return { same: a!.flags === b!.flags, end: Math.min(a!.end, b!.end) };
  }

  private flags(cursor: ExtentCursor, layers: readonly Layer[], at: number) {
    const { disk, list, record } = cursor;
    const { sources } = disk;
    const status = statusAt(list, record, at, { sources, layers });
    const { present, data, zero, offset, depth } = status;
    let end = at + status.length;
    for (const { sliceSpan } of layers.slice(0, depth + 1)) {
      if (sliceSpan < Number.POSITIVE_INFINITY) {
        end = Math.min(end, alignDown(at, sliceSpan) + sliceSpan);
      }
    }
    // Behind the end of a shorter backing file zeros count as that file's, which has no place for
    // them, whatever place the image above keeps.
    const isBehind = !present && depth < layers.length - 1;
    const flags =
      (data ? DATA : 0) |
      (zero ? ZERO : 0) |
      (offset !== undefined && !isBehind ? PLACED : 0) |
      (present || isBehind ? ALLOCATED : 0) |
      (end >= disk.size ? END : 0);
    return { flags, end };
  }
}
