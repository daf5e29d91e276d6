/** Where the bytes of a disk are: what `qemu-img map` lists. */
import { settled } from '../base/awaitable.ts';
import type { Disk } from '../image/disk.ts';
import type { Storage } from '../storage/storage.ts';
import { type BlockStatus, ChainStatus, StatusFlag } from './block-status.ts';

/** A guest range, as long as it is alike, its bytes one after another. */
export interface MapEntry {
  readonly start: number;
  readonly length: number;
  /** How many images down the chain the answer was found. */
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  /** Where in `storage` its bytes are. */
  readonly offset: number | undefined;
  readonly storage: Storage | undefined;
  /** What that is called: by an image as what it is, by a raw disk as the file below it all. */
  readonly file: string | undefined;
}

const OPTIONS = { bounded: false, wantsZero: true } as const;
const NOWHERE = { offset: undefined, storage: undefined, file: undefined } as const;

/**
 * Lists [from, to) of a disk, in order and without gaps, holes of the host's files told apart.
 * @throws Qcow2Error CORRUPT or IO, as it is iterated
 */
export async function* mapDisk(
  disk: Disk,
  from = 0,
  to = disk.size,
): AsyncGenerator<MapEntry, void, undefined> {
  const chain = await ChainStatus.of(disk);
  let last: MapEntry | undefined;
  for (let at = from; at < to; ) {
    let depth = 0;
    let length = to - at;
    let status: BlockStatus;
    while (true) {
      const asked = chain.at(depth, at, length, OPTIONS);
      status = settled(asked) ? asked : await asked;
      ({ length } = status);
      if (says(status) || depth + 1 === chain.length) break;
      depth++;
    }
    const next = entry(at, depth, status);
    if (last && continues(last, next)) last = { ...last, length: last.length + length };
    else {
      if (last) yield last;
      last = next;
    }
    at += length;
  }
  if (last) yield last;
}

/** The image says what the range reads as. */
const says = ({ flags }: BlockStatus) => (flags & (StatusFlag.data | StatusFlag.zero)) !== 0;

function entry(start: number, depth: number, status: BlockStatus): MapEntry {
  const { flags, length, offset, storage, file } = status;
  return {
    start,
    length,
    depth,
    present: (flags & StatusFlag.allocated) !== 0,
    zero: (flags & StatusFlag.zero) !== 0,
    data: (flags & StatusFlag.data) !== 0,
    ...(says(status) ? { offset, storage, file } : NOWHERE),
  };
}

function continues(last: MapEntry, next: MapEntry): boolean {
  if (last.depth !== next.depth || last.present !== next.present) return false;
  if (last.zero !== next.zero || last.data !== next.data) return false;
  if (last.storage !== next.storage) return false;
  if (last.offset === undefined) return next.offset === undefined;
  return last.offset + last.length === next.offset;
}
