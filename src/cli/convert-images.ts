/** One conversion of the command line: sources opened, target written, all closed again. */
import { alignUp } from '../base/bits.ts';
import type { ConvertResult } from '../convert/options.ts';
import type { LostRange } from '../convert/runner.ts';
import type { Disk } from '../image/disk.ts';
import { checkCacheMode, hostInMode } from './cache-mode.ts';
import { type Host, UsageError } from './command.ts';
import { bitmapParts, type ConvertRequest, usesBitmaps } from './convert-request.ts';
import { type Course, convertInto, explainFailure, isStream } from './convert-target.ts';
import { type OpenImageOptions, openImage } from './open-image.ts';
import type { Progress } from './progress.ts';

const SECTOR_BYTES = 512;

/** What of a message tells that the snapshot is to blame, and not the image. */
const SNAPSHOT_FAILURE =
  /(Can't find snapshot|Snapshot L1 table (?:too large|offset invalid)|Block format 'raw' .*)$/;

/** Opens a source; a snapshot that is not there has a message of its own. @throws UsageError */
export async function openSource(
  host: Host,
  source: string,
  options: OpenImageOptions,
): Promise<Disk> {
  try {
    return await openImage(host, source, options);
  } catch (cause) {
    const why = cause instanceof UsageError && SNAPSHOT_FAILURE.exec(cause.message)?.[0];
    if (!why) throw cause;
    // What else is wrong with the image and those behind it is told first.
    if (source !== '-') {
      await (await openImage(host, source, { ...options, snapshot: undefined })).close();
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
 * Says of a disk that was salvaged what could not be asked about, and what is missing, sector by
 * sector. As qemu-img it goes through the disks twice, first to see how much there is to copy.
 * @param unit target bytes that are copied as a whole, and are asked about where they begin
 */
function warnOfLost(
  { program, note }: Host,
  disks: readonly Disk[],
  { result, unit }: { readonly result: ConvertResult; readonly unit: number },
): void {
  const warn = (what: string, at: number, why: string) =>
    note(`${program}: warning: error while reading ${what} ${placeIn(disks, at)}: ${why}\n`);
  const unmapped = () => sectors(result.unmapped, 'block status at offset', unit);
  for (const { what, at, why } of unmapped()) warn(what, at, why);
  const [asked, read] = [unmapped(), sectors(result.lost, 'offset')];
  let [first, second] = [asked.next(), read.next()];
  while (!first.done || !second.done) {
    const isAsked = !first.done && (second.done || first.value.at <= second.value.at);
    const { what, at, why } = (isAsked ? first : second).value as LostSector;
    warn(what, at, why);
    if (isAsked) first = asked.next();
    else second = read.next();
  }
}

/** What is told of one sector. */
interface LostSector {
  readonly what: string;
  readonly at: number;
  readonly why: string;
}

function* sectors(
  ranges: readonly LostRange[],
  what: string,
  unit = SECTOR_BYTES,
): Generator<LostSector, undefined> {
  for (const { guest, length, why } of ranges) {
    for (let at = alignUp(guest, unit); at < guest + length; at += unit) yield { what, at, why };
  }
}

/** A place in the disk that several make, one after another, as that one counts it. */
function placeIn(disks: readonly Disk[], at: number): number {
  let start = 0;
  for (const { size } of disks) {
    if (at < start + size) break;
    start += size;
  }
  return at - start;
}

async function carryOut(
  host: Host,
  request: ConvertRequest,
  disks: readonly Disk[],
  progress: Progress,
): Promise<ConvertResult> {
  const { threads, targetIsZero, bytesPerSecond, salvage, copyRange } = request;
  const follows = progress.follow && request.bitmap === undefined;
  let unit = SECTOR_BYTES;
  const onTarget: Course['onTarget'] = async (target) => {
    unit = target.compressedBytes ?? SECTOR_BYTES;
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
    if (!request.quiet) warnOfLost(host, disks, { result, unit });
    return result;
  } catch (cause) {
    throw explainFailure(cause);
  }
}
