/** One conversion of the command line: sources opened, target written, all closed again. */
import type { ConvertResult } from '../convert/options.ts';
import type { Disk } from '../image/disk.ts';
import { RawImage } from '../image/raw/raw-image.ts';
import { checkCacheMode, hostInMode } from './cache-mode.ts';
import { chainOf } from './chain.ts';
import { type Host, silent, UsageError } from './command.ts';
import type { Course } from './convert-course.ts';
import { bitmapParts, type ConvertRequest, usesBitmaps } from './convert-request.ts';
import { convertInto, isStream } from './convert-target.ts';
import { type OpenImageOptions, openImage } from './open-image.ts';
import type { Progress } from './progress.ts';

/** What of a message tells that the snapshot is to blame, and not the image. */
const SNAPSHOT_FAILURE =
  /(Can't find snapshot|Snapshot L1 table (?:too large|offset invalid)|Block format .* used .*)$/;

/** Opens a source; a snapshot that is not there has a message of its own. @throws UsageError */
export async function openSource(
  host: Host,
  source: string,
  options: OpenImageOptions,
): Promise<Disk> {
  try {
    return await openImage(host, source, options);
  } catch (cause) {
    const isAsked = options.snapshot !== undefined && cause instanceof UsageError;
    const why = isAsked && SNAPSHOT_FAILURE.exec(cause.message)?.[0];
    if (!why) throw cause;
    // What else is wrong with the image and those behind it is told first.
    if (source !== '-') {
      const whole = { ...options, snapshot: undefined };
      await (await openImage(silent(host), source, whole)).close();
    }
    throw new UsageError(`Failed to load snapshot: ${why}`);
  }
}

/**
 * Carries out a request.
 * @param startProgress the display; of sources that are opened while it stands already
 * @throws UsageError, Qcow2Error
 */
export async function convertImages(
  host: Host,
  request: ConvertRequest,
  startProgress: (disks: readonly Disk[]) => Progress,
): Promise<ConvertResult> {
  const disks: Disk[] = [];
  const progress = startProgress(disks);
  try {
    const { format, untrusted, snapshot, forceShare } = request;
    const options = { format, untrusted, forceShare, use: 'convert', debugged: true } as const;
    const sourceHost = hostInMode(host, request.sourceCache);
    for (const source of request.sources) {
      // Of several sources it is the first one's, as with qemu-img.
      const of = disks.length === 0 ? { snapshot } : {};
      disks.push(await openSource(sourceHost, source, { ...options, ...of }));
    }
    // A source that cannot be opened is told first.
    if (request.refusal) throw request.refusal;
    if (usesBitmaps(request)) (await bitmapParts()).checkSourceBitmaps(host, request, disks);
    // Of a new target its options are judged first.
    if (!request.create || isStream(request)) checkCacheMode(request.cache, 'cache');
    return await carryOut(host, request, disks, progress);
  } catch (cause) {
    progress.stop();
    throw cause;
  } finally {
    for (const disk of disks) await disk.close();
  }
}

/**
 * What a hole has at least. Zeros that are too short to count as such are written, but holes of a
 * source's file are none: who looks for zeros finds these holes again only where they all count.
 */
const HOLE_BYTES = 4096;

async function carryOut(
  host: Host,
  request: ConvertRequest,
  disks: readonly Disk[],
  progress: Progress,
): Promise<ConvertResult> {
  const { threads, targetIsZero, bytesPerSecond, salvage, copyRange } = request;
  if (request.sparseBytes > HOLE_BYTES) {
    for (const image of disks.flatMap(chainOf)) {
      if (image instanceof RawImage) image.exactHoles = true;
    }
  }
  const follows = progress.follow && request.bitmap === undefined;
  let unit: number | undefined;
  const onTarget: Course['onTarget'] = async (target) => {
    unit = target.compressedBytes;
    if (!follows) return;
    const { followMarks } = await import('./progress-marks.ts');
    const { copyMarks } = await import('../convert/progress-marks.ts');
    const options = { ...target, sparseBytes: request.sparseBytes };
    await followMarks(progress, 1, (isTold) => copyMarks(disks, options, isTold));
  };
  const course: Course = {
    sparseBytes: request.sparseBytes,
    targetIsZero,
    bytesPerSecond,
    salvage,
    copyRange,
    signal: host.interrupted,
    onProgress: progress.update,
    workers: Math.min(threads ?? host.threads, host.threads) - 1,
    startWorkers: host.startWorkers,
    onTarget,
    ...(request.progress
      ? { onLength: (bytes) => host.note(`The image will have ${bytes} bytes.\n`) }
      : {}),
  };
  try {
    const result = await convertInto(host, request, disks, course);
    progress.end();
    if (!request.quiet && result.lost.length + result.unmapped.length > 0) {
      const { warnOfLost } = await import('./salvage-warnings.ts');
      warnOfLost(host, disks, { result, unit });
    }
    return result;
  } catch (cause) {
    const { explainFailure } = await import('./convert-failure.ts');
    throw explainFailure(request, cause);
  }
}
