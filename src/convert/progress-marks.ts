/**
 * The percentages that qemu-img counts its work in, and where in the disk each is reached: it goes
 * by ranges of one status, and takes at most one buffer of data at a time.
 */
import { alignDown, alignUp, divFloor } from '../base/bits.ts';
import type { Disk } from '../image/disk.ts';
import type { BlockStatus } from './block-status.ts';
import { StatusRuns } from './status-runs.ts';

/** A percentage, and the guest byte that has to be done before it is told. */
export interface ProgressMark {
  readonly at: number;
  readonly percent: number;
}

/** Whether a percentage is of interest; asked once of each, in order. */
export type IsTold = (percent: number) => boolean;

const SECTOR = 512;
/** QEMU's buffer. */
const STEP_BYTES = 2 * 2 ** 20;

async function statusRuns(disk: Disk): Promise<StatusRuns> {
  const runs = new StatusRuns(disk);
  await runs.prepare();
  return runs;
}

/** The longest range that QEMU converts without asking what is there. */
const STATUS_BYTES_MAX = 2 ** 31 - SECTOR;

/** A sum of parts of C's `float`, as it grows. */
class FloatSum {
  private sum = 0;
  readonly marks: ProgressMark[] = [];

  constructor(private readonly isTold: IsTold) {}

  add(at: number, percent: number): void {
    const part = Math.fround(Math.fround(Math.fround(percent) / 100) * 100);
    this.sum = Math.min(100, Math.fround(this.sum + part));
    if (this.isTold(this.sum)) this.marks.push({ at, percent: this.sum });
  }
}

// ---- convert ---------------------------------------------------------------------------------

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

type Step = 'copied' | 'zero' | 'none';

function stepOf(
  at: number,
  { zero, data, depth }: BlockStatus,
  { backingBytes }: CopyStepOptions,
): Step {
  if (backingBytes === undefined) return zero ? 'zero' : 'copied';
  if (depth > 0) return 'none';
  if (zero) return at < backingBytes ? 'zero' : 'none';
  return data ? 'copied' : 'none';
}

/** Tells of each step that copies bytes, in order: where it begins, and how long it is. */
async function eachCopyStep(
  disks: readonly Disk[],
  options: CopyStepOptions,
  visit: (at: number, length: number) => void,
): Promise<void> {
  const { compressedBytes, sparseBytes, backingBytes = 0 } = options;
  const total = disks.reduce((sum, { size }) => sum + size, 0);
  const most = compressedBytes ?? STEP_BYTES;
  let begin = 0;
  let at = 0;
  for (const disk of disks) {
    const end = begin + disk.size;
    const runs = await statusRuns(disk);
    const clusterSize = Math.max(SECTOR, disk.sources[0]?.clusterSize ?? 1);
    while (at < end) {
      const run = await runs.at(at - begin);
      let until = alignUp(Math.min(run.end, at - begin + STATUS_BYTES_MAX), SECTOR);
      const tail = until % clusterSize;
      if (until - tail > at - begin) until -= tail;
      until += begin;
      if (at < backingBytes) until = Math.min(until, backingBytes);
      let step = stepOf(at, run.status, options);
      while (at < until) {
        let length = until - at;
        if (step === 'copied') length = Math.min(length, most);
        if (compressedBytes !== undefined) {
          // Only whole clusters are compressed: the rest of one goes along.
          if (length < compressedBytes) {
            length = Math.min(compressedBytes, total - at);
            step = 'copied';
          } else length = alignDown(length, compressedBytes);
        }
        const copiesZeros = step === 'zero' && sparseBytes === 0;
        if (copiesZeros) length = Math.min(length, most);
        if (step === 'copied' || copiesZeros) visit(at, length);
        at += length;
      }
    }
    begin = end;
  }
}

/**
 * Of a conversion: what is copied counts, as it begins to be.
 * @throws Qcow2Error CORRUPT or IO
 */
export async function copyMarks(
  disks: readonly Disk[],
  options: CopyStepOptions,
  isTold: IsTold,
): Promise<ProgressMark[]> {
  let total = 0;
  await eachCopyStep(disks, options, (_, length) => {
    total += length;
  });
  const marks: ProgressMark[] = [];
  let done = 0;
  await eachCopyStep(disks, options, (at, length) => {
    done += length;
    const percent = Math.fround((100 * done) / total);
    if (isTold(percent)) marks.push({ at, percent });
  });
  return marks;
}

// ---- compare ---------------------------------------------------------------------------------

/**
 * Of a comparison: all counts, once it is compared.
 * @throws Qcow2Error CORRUPT or IO
 */
export async function compareMarks(
  disks: readonly [Disk, Disk],
  isTold: IsTold,
): Promise<ProgressMark[]> {
  const [a, b] = [await statusRuns(disks[0]), await statusRuns(disks[1])];
  const common = Math.min(a.disk.size, b.disk.size);
  const total = Math.max(a.disk.size, b.disk.size);
  const sum = new FloatSum(isTold);
  for (let at = 0; at < total; ) {
    const runs = [a, b].filter(({ disk }) => at < disk.size);
    let end = at < common ? common : total;
    let zero = true;
    let allocated = false;
    for (const side of runs) {
      const { status, end: sideEnd } = await side.at(at);
      end = Math.min(end, sideEnd);
      zero &&= status.zero;
      allocated ||= status.present;
    }
    if (allocated && !zero) end = Math.min(end, at + STEP_BYTES);
    sum.add(end - 1, Math.fround(Math.fround(Math.fround(end - at) / Math.fround(total)) * 100));
    at = end;
  }
  return sum.marks;
}

// ---- rebase ----------------------------------------------------------------------------------

/** What of a rebase decides its steps. */
export interface RebaseStepOptions {
  /** Size of the old backing file. */
  readonly oldSize: number;
  /** And of the new one, 0 where there is none. */
  readonly newSize: number;
  /** How deep in the chain the new one stands already, if it does. */
  readonly depth?: number | undefined;
}

/** Where some of a chain's images have something, and where they have not. */
class AllocatedRuns {
  private end = 0;
  /** Which image of them has it. */
  private holder: number | undefined;

  /** @param deepest the last image of those that are asked */
  constructor(
    private readonly runs: StatusRuns,
    private readonly deepest: number,
  ) {}

  /** How it is at a place at or behind the last one, and how far that goes. */
  async at(place: number, most: number) {
    const { runs, deepest } = this;
    if (place >= this.end) {
      this.holder = await this.holderAt(place);
      this.end = (await runs.at(place)).end;
    }
    while (this.end < place + most && !runs.endsSlice(this.end, this.holder ?? deepest)) {
      if ((await this.holderAt(this.end)) !== this.holder) break;
      this.end = (await runs.at(this.end)).end;
    }
    return { holds: this.holder !== undefined, length: Math.min(this.end - place, most) };
  }

  private async holderAt(place: number): Promise<number | undefined> {
    const { runs } = this;
    const { present, depth } = (await runs.at(place)).status;
    // Behind the end of a shorter backing file that one's zeros count as being there.
    const holder = present ? depth : depth < runs.depthMax ? depth + 1 : undefined;
    return holder !== undefined && holder <= this.deepest ? holder : undefined;
  }
}

/**
 * Of a rebase: each piece that is compared counts as much, however long it is.
 * @throws Qcow2Error CORRUPT or IO
 */
export async function rebaseMarks(
  image: Disk,
  { oldSize, newSize, depth = 0 }: RebaseStepOptions,
  isTold: IsTold,
): Promise<ProgressMark[]> {
  const { size } = image;
  const sum = new FloatSum(isTold);
  const part = size === 0 ? 0 : 100 / divFloor(size, Math.min(size, STEP_BYTES));
  // In the image itself, or between it and its future backing file.
  const own = new AllocatedRuns(await statusRuns(image), 0);
  const above = new AllocatedRuns(await statusRuns(image), depth - 1);
  for (let at = 0; at < size; ) {
    const first = await own.at(at, Math.min(STEP_BYTES, size - at));
    let { length } = first;
    let counts = !first.holds;
    if (counts && depth > 0) {
      const between = await above.at(at, length);
      length = between.length;
      counts = between.holds;
    }
    if (counts) {
      for (const end of [oldSize, newSize]) {
        if (at < end) length = Math.min(length, end - at);
      }
      sum.add(at, part);
    }
    at += length;
  }
  return sum.marks;
}
