/** The steps that qemu-img compares two disks in, and what it knows of both sides at each. */
import type { Disk } from '../image/disk.ts';
import { ChainStatus, StatusFlag } from './block-status.ts';

/** A range that is compared at once. */
export interface ComparisonStep {
  readonly at: number;
  readonly end: number;
  /** Both sides say the same of it, flag by flag. */
  readonly isAlike: boolean;
}

/** QEMU's buffer. */
const STEP_BYTES = 2 * 2 ** 20;
const QUESTION = { bounded: true, wantsZero: true } as const;
const { allocated, zero } = StatusFlag;

/**
 * Goes through two disks: what both have first, then the rest of the longer one.
 * @throws Qcow2Error CORRUPT or IO, as it is iterated
 */
export async function* comparisonSteps(
  disks: readonly [Disk, Disk],
): AsyncGenerator<ComparisonStep, void, undefined> {
  const [a, b] = [await ChainStatus.of(disks[0]), await ChainStatus.of(disks[1])];
  const common = Math.min(disks[0].size, disks[1].size);
  let at = 0;
  while (at < common) {
    const one = await a.above(at, disks[0].size - at, QUESTION);
    const other = await b.above(at, disks[1].size - at, QUESTION);
    let length = Math.min(one.length, other.length);
    const isRead = ((one.flags | other.flags) & allocated) !== 0;
    if (isRead && (one.flags & other.flags & zero) === 0) length = Math.min(length, STEP_BYTES);
    yield { at, end: at + length, isAlike: one.flags === other.flags };
    at += length;
  }
  const [longer, size] = disks[0].size > common ? [a, disks[0].size] : [b, disks[1].size];
  while (at < size) {
    let { length, flags } = await longer.above(at, size - at, QUESTION);
    if (flags & allocated && (flags & zero) === 0) length = Math.min(length, STEP_BYTES);
    yield { at, end: at + length, isAlike: true };
    at += length;
  }
}
