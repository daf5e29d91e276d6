/** `compare`: whether two disks hold the same bytes. */
import { isQcow2Error, type Qcow2Error } from '../../base/errors.ts';
import { type Comparison, DiskComparison } from '../../convert/compare.ts';
import type { Disk } from '../../image/disk.ts';
import { checkCacheMode, hostInMode } from '../cache-mode.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { errnoOf } from '../errno.ts';
import { parseCommandLine } from '../getopt.ts';
import { formatJson } from '../json.ts';
import { openImage } from '../open-image.ts';
import { given, type OptionSpec, valueGiven } from '../options.ts';
import { startProgress } from '../progress.ts';
import { sameFileBy } from '../same-file.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true, own: true },
  { name: 'second-format', short: 'F', value: true, own: true },
  { name: 'source-cache', short: 'T', value: true, own: true },
  { name: 'progress', short: 'p', value: false, own: true },
  { name: 'quiet', short: 'q', value: false, own: true },
  { name: 'strict', short: 's', value: false, own: true },
  { name: 'force-share', short: 'U', value: false },
  { name: 'output', value: true, own: true },
  { name: 'untrusted', value: false, own: true },
];

/** Exit codes. */
const DIFFERENT = 1;
const NOT_OPENED = 2;
const NOT_MAPPED = 3;
const NOT_READ = 4;

/** What was asked for, checked. */
interface Request {
  readonly filenames: readonly [string, string];
  readonly formats: readonly [string | undefined, string | undefined];
  readonly strict: boolean;
  readonly progress: boolean;
  readonly quiet: boolean;
  readonly json: boolean;
  readonly forceShare: boolean;
  readonly untrusted: boolean;
}

/** The subcommand. */
export const compare: Command = {
  name: 'compare',
  options: OPTIONS,

  async run(args, host) {
    const parsed = parseCommandLine(args, OPTIONS);
    const [first, second, ...rest] = parsed.operands;
    if (first === undefined || second === undefined || rest.length > 0) {
      throw new UsageError('Expecting two image file names', true);
    }
    const output = valueGiven(parsed, 'output') ?? 'human';
    if (output !== 'human' && output !== 'json') {
      throw new UsageError('--output must be used with human or json as argument.');
    }
    const json = output === 'json';
    const quiet = given(parsed, 'quiet');
    const request: Request = {
      filenames: [first, second],
      formats: [valueGiven(parsed, 'format'), valueGiven(parsed, 'second-format')],
      strict: given(parsed, 'strict'),
      progress: given(parsed, 'progress') && !quiet && !json,
      quiet,
      json,
      forceShare: given(parsed, 'force-share'),
      untrusted: given(parsed, 'untrusted'),
    };
    const disks: Disk[] = [];
    try {
      try {
        const cache = valueGiven(parsed, 'source-cache');
        checkCacheMode(cache, 'source cache');
        const inMode = hostInMode(host, cache);
        for (const side of [0, 1] as const) disks.push(await open(inMode, request, side));
      } catch (cause) {
        if (!(cause instanceof UsageError)) throw cause;
        host.error(cause.message);
        // Where progress would have been.
        if (request.progress) host.tell('\n');
        return NOT_OPENED;
      }
      return await compareOpen(host, request, disks as [Disk, Disk]);
    } finally {
      for (const disk of disks.reverse()) await disk.close();
    }
  },
};

function open(host: Host, request: Request, side: 0 | 1): Promise<Disk> {
  const { forceShare, untrusted } = request;
  const format = request.formats[side];
  return openImage(host, request.filenames[side], {
    format,
    forceShare,
    untrusted,
    debugged: true,
  });
}

/** Percent that are too little for a line of their own. */
const STEP_PERCENT = 2;

async function compareOpen(
  host: Host,
  request: Request,
  disks: readonly [Disk, Disk],
): Promise<number> {
  const [a, b] = disks;
  const { strict, quiet, json } = request;
  const progress = startProgress(host, {
    enabled: request.progress,
    total: () => Math.max(a.size, b.size),
    stream: false,
    stepPercent: STEP_PERCENT,
  });
  if (progress.follow) {
    const { followMarks } = await import('../progress-marks.ts');
    const { compareMarks } = await import('../../convert/progress-marks.ts');
    await followMarks(progress, STEP_PERCENT, (isTold) => compareMarks(disks, isTold));
  }
  const comparison = new DiskComparison(a, b, {
    strict,
    sameFile: sameFileBy(host),
    signal: host.interrupted,
    onProgress: (done) => update(done),
  });
  const say = (text: string) => {
    if (!quiet) host.out(text);
  };
  const [common, all] = [commonBytes(disks), Math.max(a.size, b.size)];
  let isWarned = json || strict || common === all;
  const update = (done: number) => {
    progress.update(Math.min(done, common), all);
    if (done < common) return;
    if (!isWarned) say(LONGER);
    isWarned = true;
    progress.update(done, all);
  };
  try {
    const result = await comparison.run();
    if (result.identical) update(all);
    else if (result.what !== 'size') update(result.guest);
    if (json) say(`${formatJson(members(result, disks))}\n`);
    else sayResult(result, say);
    return result.identical ? 0 : DIFFERENT;
  } catch (cause) {
    if (!isQcow2Error(cause) || isQcow2Error(cause, 'ABORTED')) throw cause;
    return reportFailure(host, cause, { request, comparison, update });
  } finally {
    progress.stop();
  }
}

/** The bytes that both disks have; behind them one is compared with zeros. */
function commonBytes(disks: readonly [Disk, Disk]): number {
  return Math.min(disks[0].size, disks[1].size);
}

const LONGER = 'Warning: Image size mismatch!\n';

function sayResult(result: Comparison, say: (text: string) => void): void {
  if (result.identical) {
    say('Images are identical.\n');
    return;
  }
  const { what, guest } = result;
  if (what === 'size') say('Strict mode: Image size mismatch!\n');
  else if (what === 'status') say(`Strict mode: Offset ${guest} block status mismatch!\n`);
  else say(`Content mismatch at offset ${guest}!\n`);
}

function members(result: Comparison, disks: readonly [Disk, Disk]) {
  return {
    identical: result.identical,
    'virtual-sizes': disks.map(({ size }) => size),
    difference: result.identical ? undefined : result.what,
    offset: result.identical || result.what === 'size' ? undefined : result.guest,
  };
}

function reportFailure(
  host: Host,
  cause: Qcow2Error,
  parts: {
    readonly request: Request;
    readonly comparison: DiskComparison;
    /** Tells how far it came. */
    readonly update: (done: number) => void;
  },
): number {
  const { request, comparison, update } = parts;
  const { step, side, guest } = comparison.place;
  const filename = request.filenames[side];
  const isMapped = step !== 'extents';
  const what = isMapped
    ? `Error while reading offset ${guest} of ${filename}: ${errnoOf(cause).text}`
    : `Sector allocation test failed for ${filename}`;
  host.error(what);
  update(guest);
  return isMapped ? NOT_READ : NOT_MAPPED;
}
