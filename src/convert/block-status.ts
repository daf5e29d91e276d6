/**
 * What a guest range is, and how far that goes, as QEMU's block layer answers (`block_status`): for
 * one image of a chain, or for several of them. `map` lists the answers, `convert`, `compare` and
 * `rebase` go from one to the next.
 *
 *   in one image          zero  data  placed  allocated
 *   unallocated           (a)   –     (b)     –
 *   zero                  yes   –     (b)     yes
 *   data                  (c)   yes   yes     yes        in an encrypted image it has no place
 *   compressed            –     yes   –       yes
 *   raw file, data        –     yes   yes     yes
 *   raw file, a hole      yes   –     yes     yes
 *   LUKS container        –     yes   –       yes
 *   no bytes              –     –     yes     –
 *
 * (a) where no backing file reaches so far, (b) where the cluster has a place, (c) where it lies in
 * a hole of the file, which is asked for of preallocated images.
 */
import { type Awaitable, settled } from '../base/awaitable.ts';
import { alignDown, alignUp } from '../base/bits.ts';
import type { Disk } from '../image/disk.ts';
import { NO_PLACE } from '../image/qcow2/mapping.ts';
import { Qcow2Image } from '../image/qcow2/qcow2-image.ts';
import { RunKind } from '../kernels/kernels.ts';
import type { Storage } from '../storage/storage.ts';
import { ImageRuns } from './image-runs.ts';

/** What an answer says, OR-ed. */
export const StatusFlag = {
  data: 1,
  zero: 2,
  /** There is a place in a file for it. */
  placed: 4,
  /** The image that answers holds it, and does not show what is behind it. */
  allocated: 8,
  /** The range ends where the disk does. */
  end: 16,
} as const;

/** An answer. */
export interface BlockStatus {
  /** Nothing, behind the disk's end. */
  readonly length: number;
  /** `StatusFlag`s. */
  readonly flags: number;
  /** Where in `storage` it is. */
  readonly offset: number | undefined;
  readonly storage: Storage | undefined;
  /** What that is called: by an image as what it is, by a raw disk as the file below it all. */
  readonly file: string | undefined;
}

/** How questions are asked. */
export interface StatusOptions {
  /**
   * Ranges end where QEMU looks no further: with a slice of an L2 table, and short of 2 GiB. It
   * makes a difference only for those who count answers.
   */
  readonly bounded: boolean;
  /** Whether what is allocated reads as zeros is wanted, too. */
  readonly wantsZero: boolean;
}

const { data, zero, placed, allocated, end: atEnd } = StatusFlag;

/** The longest range that a qcow2 image is asked about. */
const IMAGE_BYTES_MAX = 2 ** 31 - 1;
const SECTOR = 512;

const NOWHERE = { offset: undefined, storage: undefined, file: undefined } as const;
const BEHIND_END: BlockStatus = { length: 0, flags: atEnd, ...NOWHERE };

/** A file, as a disk: in sectors, the last of which may be cut short. */
interface FileBytes {
  readonly storage: Storage;
  readonly size: number;
}

async function fileBytes(storage: Storage): Promise<FileBytes> {
  return { storage, size: alignUp(await storage.size(), SECTOR) };
}

/** Of a file's range, the first part that is a hole or is none; flags but for `placed`. */
function fileStatus({ storage, size }: FileBytes, from: number, most: number, wantsZero: boolean) {
  const length = Math.min(most, size - from);
  if (length <= 0) return { flags: atEnd, length: 0 };
  const end = from + length === size ? atEnd : 0;
  if (storage.holdsNothing) return { flags: end, length };
  const answer = (flags: number, until: number) => {
    const found = Math.min(until, from + length);
    return { flags: flags | allocated | (found === size ? atEnd : 0), length: found - from };
  };
  const ranges = wantsZero ? storage.dataRanges?.(from, from + length, true) : undefined;
  if (!ranges) return answer(data, from + length);
  for (const [start, stop] of ranges) {
    if (start > from) return answer(zero, start);
    if (stop > from) return answer(data, stop);
  }
  return answer(zero, from + length);
}

/** One image of a chain. */
abstract class StatusNode {
  constructor(
    readonly size: number,
    readonly backing: StatusNode | undefined,
  ) {}

  /** Goes to a place at or behind the last one. @throws Qcow2Error CORRUPT or IO */
  seek(_at: number): Awaitable<void> {}

  /** About a place that was sought. */
  status(at: number, most: number, options: StatusOptions): BlockStatus {
    if (at >= this.size) return BEHIND_END;
    const status = this.own(at, Math.min(most, this.size - at), options);
    if (at + status.length !== this.size) return status;
    return { ...status, flags: status.flags | atEnd };
  }

  protected abstract own(at: number, most: number, options: StatusOptions): BlockStatus;
}

/** A raw disk: what its file says of itself. */
class RawNode extends StatusNode {
  constructor(
    size: number,
    private readonly file: FileBytes,
  ) {
    super(size, undefined);
  }

  protected own(at: number, most: number, { wantsZero }: StatusOptions): BlockStatus {
    const { storage } = this.file;
    const { flags, length } = fileStatus(this.file, at, most, wantsZero);
    const offset = at + (storage.placedAt ?? 0);
    return { length, flags: flags | placed, offset, storage, file: storage.name };
  }
}

/** Of a disk like this nobody knows more than that it is there. */
class OpaqueNode extends StatusNode {
  protected own(_at: number, length: number): BlockStatus {
    return { length, flags: data | allocated, ...NOWHERE };
  }
}

/** A qcow2 image. */
class ImageNode extends StatusNode {
  private readonly runs: ImageRuns;
  private readonly sliceSpan: number;
  private readonly isEncrypted: boolean;

  constructor(
    image: Qcow2Image,
    backing: StatusNode | undefined,
    private readonly file: FileBytes,
    /** Data may lie in holes of the file. */
    private readonly isPreallocated: boolean,
  ) {
    super(image.size, backing);
    this.runs = new ImageRuns(image);
    this.sliceSpan = image.sliceSpan;
    this.isEncrypted = image.isEncrypted;
  }

  override seek(at: number): Awaitable<void> {
    if (at < this.size) return this.runs.seek(at);
  }

  protected own(at: number, most: number, options: StatusOptions): BlockStatus {
    const { runs, isEncrypted } = this;
    const length = this.reach(at, most, options);
    const hasPlace = runs.host !== NO_PLACE && runs.kind !== RunKind.compressed && !isEncrypted;
    const flags = this.flagsAt(at, options) | (hasPlace ? placed : 0);
    if (!hasPlace) return { length, flags, ...NOWHERE };
    const { storage } = this.file;
    const offset = runs.host + at - runs.start;
    const place = { offset, storage, file: storage.label ?? storage.name };
    const asksFile = this.isPreallocated && options.wantsZero && (flags & data) !== 0;
    return { ...(asksFile ? this.inFile(offset, length, flags) : { length, flags }), ...place };
  }

  private reach(at: number, most: number, { bounded }: StatusOptions): number {
    const length = Math.min(most, this.runs.end - at);
    if (!bounded) return length;
    const slice = alignDown(at, this.sliceSpan) + this.sliceSpan - at;
    return Math.min(length, slice, IMAGE_BYTES_MAX);
  }

  private flagsAt(at: number, { wantsZero }: StatusOptions): number {
    const { kind } = this.runs;
    if (kind === RunKind.zero) return zero | allocated;
    if (kind !== RunKind.unallocated) return data | allocated;
    const { backing } = this;
    return !backing || (wantsZero && at >= backing.size) ? zero : 0;
  }

  private inFile(offset: number, most: number, flags: number) {
    const found = fileStatus(this.file, offset, most, true);
    // Behind the file's end there are zeros, as far as anybody asks.
    if (found.flags & atEnd && (found.length === 0 || found.flags & zero)) {
      return { flags: flags | zero, length: most };
    }
    return { flags: flags | (found.flags & zero), length: found.length };
  }
}

/** A disk that hears of questions about the one that it passes to. */
class WatchedNode extends StatusNode {
  constructor(
    private readonly inner: StatusNode,
    private readonly watcher: Disk,
  ) {
    super(inner.size, inner.backing);
  }

  override seek(at: number): Awaitable<void> {
    return this.inner.seek(at);
  }

  protected own(at: number, most: number, options: StatusOptions): BlockStatus {
    this.watcher.meetStatus?.(at, most);
    return this.inner.status(at, most, options);
  }
}

async function nodeOf(disk: Disk): Promise<StatusNode> {
  if (disk.passesTo) return new WatchedNode(await nodeOf(disk.passesTo), disk);
  if (disk instanceof Qcow2Image) {
    const backing = disk.backing && (await nodeOf(disk.backing));
    const file = await fileBytes(disk.dataStorage);
    return new ImageNode(disk, backing, file, await disk.isPreallocated());
  }
  const storage = disk.format === 'raw' ? disk.sources[0]?.storage : undefined;
  if (!storage) return new OpaqueNode(disk.size, undefined);
  return new RawNode(disk.size, await fileBytes(storage));
}

/** A chain of images, gone through from front to back. */
export class ChainStatus {
  private constructor(private readonly nodes: readonly StatusNode[]) {}

  /** Looks at the images. @throws Qcow2Error CORRUPT or IO */
  static async of(disk: Disk): Promise<ChainStatus> {
    const nodes: StatusNode[] = [];
    for (let node: StatusNode | undefined = await nodeOf(disk); node; node = node.backing) {
      nodes.push(node);
    }
    return new ChainStatus(nodes);
  }

  /** How many images there are. */
  get length(): number {
    return this.nodes.length;
  }

  /**
   * One image's answer, about a place at or behind the last one.
   * @param index 0 for the disk itself, 1 for its backing file, and so on
   * @throws Qcow2Error CORRUPT or IO
   */
  at(index: number, at: number, most: number, options: StatusOptions): Awaitable<BlockStatus> {
    const node = this.nodes[index] as StatusNode;
    const sought = node.seek(at);
    if (settled(sought)) return node.status(at, most, options);
    return sought.then(() => node.status(at, most, options));
  }

  /**
   * The answer of the first of some images that has the range; of none, where none has it. What
   * lies behind the end of one that another shows is that one's, as zeros.
   * @param range of images, [first, end): default all
   * @throws Qcow2Error CORRUPT or IO
   */
  async above(
    at: number,
    most: number,
    options: StatusOptions,
    { first = 0, end = this.nodes.length } = {},
  ): Promise<BlockStatus> {
    if (first >= end) return { length: most, flags: 0, ...NOWHERE };
    let asked = this.at(first, at, most, options);
    let status = settled(asked) ? asked : await asked;
    if (status.length === 0 || status.flags & allocated) return status;
    const diskEnd = status.flags & atEnd ? at + status.length : -1;
    for (let index = first + 1; index < end; index++) {
      const { length } = status;
      asked = this.at(index, at, length, options);
      status = settled(asked) ? asked : await asked;
      if (status.length === 0) {
        status = { length, flags: zero | allocated, ...NOWHERE };
        break;
      }
      if (status.flags & allocated) {
        status = { ...status, flags: status.flags & ~atEnd };
        break;
      }
    }
    if (at + status.length !== diskEnd) return status;
    return { ...status, flags: status.flags | atEnd };
  }
}
