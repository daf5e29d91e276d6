/** What all conversions share, whatever their targets are. */
import { isQcow2Error } from '../base/errors.ts';
import type { ConvertOptions } from '../convert/options.ts';
import type { CopyStepOptions } from '../convert/progress-marks.ts';
import { UsageError } from './command.ts';
import { bitmapParts, type ConvertRequest, usesBitmaps } from './convert-request.ts';

/** How a conversion goes, apart from its target. */
export type Course = ConvertOptions & {
  readonly onLength?: (bytes: number) => void;
  /** Told of the target before the first byte: what decides how qemu-img counts progress. */
  readonly onTarget?: ((target: Omit<CopyStepOptions, 'sparseBytes'>) => Promise<void>) | undefined;
};

/** What the target's format was called. */
export const nameOf = ({ targetDriver, outputFormat }: ConvertRequest) =>
  targetDriver ?? outputFormat;

/** @throws UsageError for bitmaps that a new target could not have */
export async function checkNewBitmaps(request: ConvertRequest, version = 0): Promise<void> {
  if (!usesBitmaps(request)) return;
  const { checkTargetBitmaps } = await bitmapParts();
  const { outputFormat: format } = request;
  checkTargetBitmaps(request, { format, version });
  if (format === 'luks') throw new UsageError('Bitmaps are of no use with this target');
}

/** What is wrong with the options of a new image is said with the image's name in front. */
export async function explainCreation<T>(
  { target, outputFormat }: ConvertRequest,
  parse: () => T | Promise<T>,
): Promise<T> {
  try {
    return await parse();
  } catch (cause) {
    if (!isQcow2Error(cause) && !(cause instanceof UsageError)) throw cause;
    throw new UsageError(`${target}: error while converting ${outputFormat}: ${cause.message}`);
  }
}
