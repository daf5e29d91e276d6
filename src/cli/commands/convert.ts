/** `convert`: disks, one after another, into a raw or qcow2 file, a block device or a pipe. */
import { concatenatedSize } from '../../convert/options.ts';
import type { Disk } from '../../image/disk.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { type ConvertRequest, parseConvert } from '../convert-request.ts';
import { type Course, convertInto, explainFailure, isStream } from '../convert-target.ts';
import { openImage } from '../open-image.ts';
import { startProgress } from '../progress.ts';

/** The subcommand. */
export const convert: Command = {
  name: 'convert',
  usage:
    'convert [-f FMT] [-O FMT] [-c] [-o OPTIONS] [-B BACKING_FILE -F FMT] [-p] [-q]\n' +
    '          [-S SIZE] [-n [--target-is-zero]] [-l SNAPSHOT] [-m N] [-W] [-r RATE] [-t CACHE]\n' +
    '          [-T CACHE] [-C] [--salvage] [-U] SRC… DST',

  async run(args, host) {
    const request = parseConvert(args);
    if ('help' in request) {
      host.out(request.help);
      return 0;
    }
    const disks: Disk[] = [];
    try {
      for (const source of request.sources) disks.push(await openSource(host, source, request));
      await carryOut(host, request, disks);
    } finally {
      for (const disk of disks) await disk.close();
    }
    return 0;
  },
};

/** What of a message tells that the snapshot is to blame, and not the image. */
const SNAPSHOT_FAILURE = /(Can't find snapshot|Block format 'raw' .*)$/;

/** A snapshot that is not there has a message of its own. */
async function openSource(host: Host, source: string, request: ConvertRequest): Promise<Disk> {
  const { format, untrusted, snapshot, forceShare } = request;
  try {
    return await openImage(host, source, {
      format,
      untrusted,
      snapshot,
      forceShare,
      use: 'convert',
    });
  } catch (cause) {
    const why = cause instanceof UsageError && SNAPSHOT_FAILURE.exec(cause.message)?.[0];
    if (!why) throw cause;
    throw new UsageError(`Failed to load snapshot: ${why}`);
  }
}

async function carryOut(
  host: Host,
  request: ConvertRequest,
  disks: readonly Disk[],
): Promise<void> {
  const progress = startProgress(host, {
    enabled: request.progress,
    total: concatenatedSize(disks),
    stream: isStream(request),
  });
  const { threads, targetIsZero, bytesPerSecond, salvage } = request;
  const course: Course = {
    sparseBytes: request.sparseBytes,
    targetIsZero,
    bytesPerSecond,
    salvage,
    signal: host.interrupted,
    onProgress: progress.update,
    workers: Math.min(threads ?? host.threads, host.threads) - 1,
    startWorkers: host.startWorkers,
    ...(request.progress
      ? { onLength: (bytes) => host.note(`The image will have ${bytes} bytes.\n`) }
      : {}),
  };
  try {
    await convertInto(host, request, disks, course);
    progress.end();
  } catch (cause) {
    progress.stop();
    throw explainFailure(cause);
  }
}
