/**
 * The percentages that qemu-img counts its work in, and where in the disk each is reached: it goes
 * by ranges of one status, and takes at most one buffer of data at a time.
 */
import type { Disk } from '../image/disk.ts';
import type { Qcow2Image } from '../image/qcow2/qcow2-image.ts';
import { comparisonSteps } from './compare-steps.ts';
import { type CopyStepOptions, CopySteps } from './copy-steps.ts';
import { type RebaseStepOptions, rebaseSteps, STEP_BYTES } from './rebase-steps.ts';

export type { CopyStepOptions } from './copy-steps.ts';
export type { RebaseStepOptions } from './rebase-steps.ts';

/** A percentage, and the guest byte that has to be done before it is told. */
export interface ProgressMark {
  readonly at: number;
  readonly percent: number;
}

/** Whether a percentage is of interest; asked once of each, in order. */
export type IsTold = (percent: number) => boolean;

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
  await (await CopySteps.of(disks, options)).each((_, length) => {
    total += length;
  });
  const marks: ProgressMark[] = [];
  let done = 0;
  await (await CopySteps.of(disks, options)).each((at, length) => {
    done += length;
    const percent = Math.fround((100 * done) / total);
    if (isTold(percent)) marks.push({ at, percent });
  });
  return marks;
}

/**
 * Of a comparison: all counts, once it is compared.
 * @throws Qcow2Error CORRUPT or IO
 */
export async function compareMarks(
  disks: readonly [Disk, Disk],
  isTold: IsTold,
): Promise<ProgressMark[]> {
  const total = Math.fround(Math.max(disks[0].size, disks[1].size));
  const sum = new FloatSum(isTold);
  for await (const { at, end } of comparisonSteps(disks)) {
    sum.add(end - 1, Math.fround(Math.fround(Math.fround(end - at) / total) * 100));
  }
  return sum.marks;
}

/**
 * Of a rebase: each piece that is compared counts as much, however long it is.
 * @throws Qcow2Error CORRUPT or IO
 */
export async function rebaseMarks(
  image: Qcow2Image,
  options: RebaseStepOptions,
  isTold: IsTold,
): Promise<ProgressMark[]> {
  const { size } = image;
  const sum = new FloatSum(isTold);
  const part = size === 0 ? 0 : 100 / Math.floor(size / Math.min(size, STEP_BYTES));
  for await (const at of rebaseSteps(image, options)) sum.add(at, part);
  return sum.marks;
}
