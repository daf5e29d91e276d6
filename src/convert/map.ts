/** Where the bytes of a disk are: what `qemu-img map` lists. */
import { settled } from '../base/awaitable.ts';
import type { Disk } from '../image/disk.ts';
import { type BlockStatus, layersOf, statusAt } from './block-status.ts';
import { ExtentCursor } from './extent-cursor.ts';

/** A guest range, as long as it is alike, its bytes one after another. */
export interface MapEntry extends BlockStatus {
  readonly start: number;
}

/**
 * Lists [from, to) of a disk, in order and without gaps, holes of the host's files told apart.
 * @throws Qcow2Error CORRUPT or IO, as it is iterated
 */
export async function* mapDisk(
  disk: Disk,
  from = 0,
  to = disk.size,
): AsyncGenerator<MapEntry, void, undefined> {
  const { sources } = disk;
  const layers = await layersOf(disk);
  const cursor = new ExtentCursor(disk);
  let last: MapEntry | undefined;
  for (let at = from; at < to; ) {
    const sought = cursor.seek(at);
    if (!settled(sought)) await sought;
    const status = statusAt(cursor.list, cursor.record, at, { sources, layers });
    const length = Math.min(status.length, to - at);
    if (last && continues(last, status, at)) last = { ...last, length: last.length + length };
    else {
      if (last) yield last;
      last = { ...status, start: at, length };
    }
    at += length;
  }
  if (last) yield last;
}

function continues(last: MapEntry, next: BlockStatus, at: number): boolean {
  if (last.start + last.length !== at || last.depth !== next.depth) return false;
  if (last.zero !== next.zero || last.data !== next.data) return false;
  if (last.present !== next.present || last.storage !== next.storage) return false;
  if (last.offset === undefined) return next.offset === undefined;
  return last.offset + last.length === next.offset;
}
