/**
 * The steps that qemu-img converts in: it asks what is at a place and how far that goes, cuts the
 * answer at the source's clusters and at its buffer, and counts what it copies.
 */
import { alignDown, alignUp } from '../base/bits.ts';
import type { Disk } from '../image/disk.ts';
import { Qcow2Image } from '../image/qcow2/qcow2-image.ts';
import { type BlockStatus, ChainStatus, StatusFlag } from './block-status.ts';

/** What of a conversion decides its steps. */
export interface CopyStepOptions {
  /** 0: zeros are copied, too. */
  readonly sparseBytes: number;
  /** Clusters of a compressed target: each is a step. */
  readonly compressedBytes?: number | undefined;
  /**
   * The target shows a backing file of this size where nothing is copied: only the topmost images
   * count. Undefined: it has none.
   */
  readonly backingBytes?: number | undefined;
}

const SECTOR = 512;
/** QEMU's buffer; of a compressed target it is a cluster. */
const STEP_BYTES = 2 * 2 ** 20;
/** The longest range that it asks about. */
const ASKED_BYTES_MAX = 2 ** 31 - SECTOR;
const QUESTION = { bounded: true, wantsZero: true } as const;

type Kind = 'data' | 'zero' | 'backing';

/** One of the disks that are converted one behind the other. */
interface Source {
  readonly status: ChainStatus;
  /** Where it begins in what is made of them. */
  readonly begin: number;
  readonly end: number;
  /** Answers are cut at multiples of this. */
  readonly alignment: number;
}

/** Goes through a conversion once. */
export class CopySteps {
  /** What is at the place, and where the next question is due. */
  private kind: Kind = 'data';
  private until = 0;

  private constructor(
    private readonly sources: readonly Source[],
    private readonly options: CopyStepOptions,
  ) {}

  /** Looks at the disks. @throws Qcow2Error CORRUPT or IO */
  static async of(disks: readonly Disk[], options: CopyStepOptions): Promise<CopySteps> {
    const sources: Source[] = [];
    let begin = 0;
    for (const disk of disks) {
      const end = begin + disk.size;
      const status = await ChainStatus.of(disk);
      sources.push({ status, begin, end, alignment: alignmentOf(disk) });
      begin = end;
    }
    return new CopySteps(sources, options);
  }

  /** Tells of each step that copies bytes, in order: where it begins, and how long it is. */
  async each(visit: (at: number, length: number) => void): Promise<void> {
    const total = this.sources.at(-1)?.end ?? 0;
    for (let at = 0; at < total; ) {
      let length = await this.next(at, total);
      const copiesZeros = this.kind === 'zero' && this.options.sparseBytes === 0;
      if (copiesZeros) length = Math.min(length, this.stepBytes);
      if (this.kind === 'data' || copiesZeros) visit(at, length);
      at += length;
    }
  }

  /** The length of the step at a place; of what kind it is, is known then. */
  private async next(at: number, total: number): Promise<number> {
    const { compressedBytes, backingBytes } = this.options;
    let most = Math.min(total - at, ASKED_BYTES_MAX);
    if (backingBytes !== undefined && at < backingBytes) {
      most = Math.min(most, alignUp(backingBytes, SECTOR) - at);
    }
    if (this.until <= at) this.until = at + (await this.ask(at, most));
    let length = Math.min(most, this.until - at);
    if (this.kind === 'data') length = Math.min(length, this.stepBytes);
    if (compressedBytes === undefined) return length;
    // Only whole clusters are compressed: the rest of one goes along.
    if (length >= compressedBytes) return alignDown(length, compressedBytes);
    this.kind = 'data';
    length = Math.min(compressedBytes, total - at);
    return length;
  }

  private get stepBytes(): number {
    return this.options.compressedBytes ?? STEP_BYTES;
  }

  private async ask(at: number, most: number): Promise<number> {
    const source = this.sources.find(({ end }) => at < end) as Source;
    const { backingBytes } = this.options;
    const end = backingBytes === undefined ? source.status.length : 1;
    const from = at - source.begin;
    const status = await source.status.above(from, most, QUESTION, { end });
    this.kind = this.kindOf(at, status);
    const length = alignUp(status.length, SECTOR);
    const tail = (from + length) % source.alignment;
    return length > tail ? length - tail : length;
  }

  private kindOf(at: number, { flags }: BlockStatus): Kind {
    const { backingBytes } = this.options;
    // Behind the end of the target's backing file zeros need not be made.
    const showsZeros = backingBytes !== undefined && at >= backingBytes;
    if (flags & StatusFlag.zero) return showsZeros ? 'backing' : 'zero';
    if (flags & StatusFlag.data) return 'data';
    return backingBytes === undefined ? 'data' : 'backing';
  }
}

function alignmentOf(disk: Disk): number {
  const whole = disk.passesTo ?? disk;
  return whole instanceof Qcow2Image ? Math.max(SECTOR, whole.clusterSize) : SECTOR;
}
