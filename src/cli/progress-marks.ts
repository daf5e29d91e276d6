/** Has a display follow qemu-img's count of what there is to do. */
import { isQcow2Error } from '../base/errors.ts';
import type { IsTold, ProgressMark } from '../convert/progress-marks.ts';
import { PercentSteps, type Progress } from './progress.ts';

/**
 * Counts, and hands what came of it to the display.
 * @param step percent that are too little for a line of their own
 */
export async function followMarks(
  { follow }: Progress,
  step: number,
  count: (isTold: IsTold) => Promise<readonly ProgressMark[]>,
): Promise<void> {
  const steps = new PercentSteps(step);
  let marks: readonly ProgressMark[] = [];
  try {
    marks = await count((percent) => steps.next(percent));
  } catch (cause) {
    // The work itself will meet what is wrong with an image, and say so.
    if (!isQcow2Error(cause)) throw cause;
  }
  follow?.(marks);
}
