/** `check`: is an image sound, and where not, repairs it. */
import { formatFixed } from '../../base/decimals.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { isFormat } from '../../image/formats.ts';
import type { GateRequest } from '../../image/gate.ts';
import { type OpenDiskOptions, openDisk } from '../../image/open.ts';
import { checkImage } from '../../image/qcow2/check.ts';
import type { CheckResult, Repair } from '../../image/qcow2/check-findings.ts';
import { CheckedImage } from '../../image/qcow2/check-image.ts';
import { readCheckMetadata } from '../../image/qcow2/check-open.ts';
import { openEncryption } from '../../image/qcow2/encryption.ts';
import { checkRawDataFile, type Metadata } from '../../image/qcow2/open.ts';
import type { Secret } from '../../image/secret.ts';
import { errnoText } from '../../storage/node-error.ts';
import type { Storage } from '../../storage/storage.ts';
import { warnOfBitmaps } from '../bitmaps-warning.ts';
import { hostInMode, hostWithSettings } from '../cache-mode.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { explainOpen } from '../explain-open.ts';
import { parseCommandLine } from '../getopt.ts';
import { warnOfGuess } from '../guessed-format.ts';
import { nameImage } from '../image-name.ts';
import { driverAbove, isOwnNode } from '../image-node.ts';
import { formatJson } from '../json.ts';
import { takeNodeName } from '../node-names.ts';
import {
  checkFormatSettings,
  checkQcow2Settings,
  refuseUnknownSettings,
} from '../node-settings.ts';
import { openFileNode } from '../open-file-node.ts';
import { backingChoice, dataFileChoice, tryNeedless } from '../open-node.ts';
import { given, type OptionSpec, valueGiven } from '../options.ts';
import { pathGate } from '../path-gate.ts';
import { startProgress } from '../progress.ts';
import { switchOf } from '../settings.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true },
  { name: 'repair', short: 'r', value: true, check: checkRepair },
  { name: 'output', value: true },
  { name: 'quiet', short: 'q', value: false, own: true },
  { name: 'progress', short: 'p', value: false, own: true },
  { name: 'cache', short: 'T', value: true, own: true },
  { name: 'force-share', short: 'U', value: false },
  { name: 'untrusted', value: false, own: true },
];

const CACHE_MODES = ['none', 'off', 'directsync', 'writeback', 'unsafe', 'writethrough'];

/** Exit codes beside 0 (sound) and 1 (the check could not be made). */
const ExitCode = { corrupt: 2, leaks: 3, unsupported: 63 } as const;

/** What the command line asks for. */
interface Request {
  readonly filename: string;
  readonly format: string | undefined;
  readonly cache: string | undefined;
  readonly repair: Repair | undefined;
  readonly json: boolean;
  readonly quiet: boolean;
  readonly progress: boolean;
  readonly forceShare: boolean;
  readonly untrusted: boolean;
}

/** The subcommand. */
export const check: Command = {
  name: 'check',
  options: OPTIONS,

  async run(args, host) {
    const request = parseRequest(args);
    const image = await openForCheck(hostInMode(host, request.cache), request);
    try {
      if (!image.metadata) {
        host.error('This image format does not support checks');
        return ExitCode.unsupported;
      }
      return await checkAndReport(host, request, image.storage, image.metadata);
    } finally {
      for (const file of image.files.reverse()) await file.close();
    }
  },
};

function checkRepair(text: string): void {
  if (text === 'leaks' || text === 'all') return;
  const what = `Unknown option value for -r (expecting 'leaks' or 'all'): ${text}`;
  throw new UsageError(what, true);
}

function parseRequest(args: readonly string[]): Request {
  const parsed = parseCommandLine(args, OPTIONS);
  const [filename, ...more] = parsed.operands;
  if (filename === undefined || more.length > 0) {
    throw new UsageError('Expecting one image file name', true);
  }
  const output = valueGiven(parsed, 'output') ?? 'human';
  if (output !== 'human' && output !== 'json') {
    throw new UsageError('--output must be used with human or json as argument.');
  }
  const cache = valueGiven(parsed, 'cache');
  if (cache !== undefined && !CACHE_MODES.includes(cache)) {
    throw new UsageError(`Invalid source cache option: ${cache}`);
  }
  return {
    filename,
    format: valueGiven(parsed, 'format'),
    cache,
    repair: valueGiven(parsed, 'repair') as Repair | undefined,
    json: output === 'json',
    quiet: given(parsed, 'quiet'),
    progress: given(parsed, 'progress'),
    forceShare: given(parsed, 'force-share'),
    untrusted: given(parsed, 'untrusted'),
  };
}

/** An image to check, and the files that go with it. */
interface OpenedImage {
  readonly storage: Storage;
  /** Of qcow2 images. */
  readonly metadata: Metadata | undefined;
  /** What is to be closed, the last one first. */
  readonly files: { close(): Promise<void> | void }[];
}

/** Opens the image, and looks whether what it names is there. */
function openForCheck(host: Host, request: Request): Promise<OpenedImage> {
  const { repair, forceShare, untrusted } = request;
  return explainOpen(request.filename, async () => {
    const use = { writable: repair !== undefined, forceShare };
    const named = nameImage(host, request.filename, request.format, { use });
    const { node, path: filename, secret } = named;
    const isKept = repair !== undefined && (switchOf(node.settings, 'read-only') ?? false);
    const writable = repair !== undefined && !isKept;
    const claim = { use: writable ? 'write' : 'read', forceShare } as const;
    const { storage, format } = await openFileNode(
      hostWithSettings(host, node.settings),
      node.file,
      {
        format: node.format,
        writable,
        untrusted,
        claim,
      },
    );
    const files: OpenedImage['files'] = [storage];
    const above = driverAbove(node);
    const done = async (image: OpenedImage) => {
      if (node.filters) {
        const { takeFilters } = await import('../filter-nodes.ts');
        await takeFilters(host, node, { format, storage, writable });
      }
      if (!isKept) return above === undefined ? image : { ...image, metadata: undefined };
      throw new Qcow2Error('READ_ONLY', 'Block node is read-only');
    };
    try {
      checkFormatSettings(node, format);
      if (isOwnNode(node)) takeNodeName(host, node.settings, storage);
      if (format === 'raw') {
        if (writable && node.format === undefined) warnOfGuess(host, filename);
        return await done({ storage, metadata: undefined, files });
      }
      if (format === 'luks') {
        const { LuksImage } = await import('../../image/luks/luks-image.ts');
        files.splice(0, 1);
        files.push(await LuksImage.open(storage, { secret }));
        return await done({ storage, metadata: undefined, files });
      }
      const metadata = await readCheckMetadata(storage);
      await tryNeedless(host, node, { metadata, claim, opens: 'all' });
      checkQcow2Settings(node.settings, metadata);
      checkRawDataFile(metadata);
      // A check needs no key, but QEMU's asks for one.
      (await openEncryption(storage, metadata, { secret }))?.close();
      const { dataFileName, backingFormat, bitmapsInconsistent } = metadata.extensions;
      const behind = { use: 'read', forceShare } as const;
      const gate = pathGate(host, filename, { untrusted, claim: behind });
      const { dataFile } = dataFileChoice(host, node.dataFile, claim);
      const { backing } = backingChoice(host, node.backing, {
        first: filename,
        untrusted,
        claim: behind,
      });
      const behindIt = { from: filename, writable: false };
      if (metadata.dataFile && dataFileName === undefined && !dataFile) {
        throw new UsageError(
          `Could not open '${filename}': 'data-file' is required for this image`,
        );
      }
      if (metadata.dataFile) {
        const name = dataFileName ?? '';
        const own = () => gate({ ...behindIt, kind: 'data-file', name, writable });
        files.push(await (dataFile ? dataFile(writable) : own()));
      }
      if (bitmapsInconsistent) warnOfBitmaps(host, metadata.header.version);
      const { backingName: name } = metadata;
      if (name && backing !== 'none') {
        const request = { ...behindIt, kind: 'backing', name } as const;
        const open = { request, backing, format: backingFormat };
        const onStaleBitmaps = (version: 2 | 3) => warnOfBitmaps(host, version);
        const options = { gate, secret, cacheBytes: 2 ** 20, onStaleBitmaps };
        files.push(await openBacking(open, options));
      }
      refuseUnknownSettings(node.settings);
      return await done({ storage, metadata, files });
    } catch (cause) {
      for (const file of files.reverse()) await file.close();
      throw cause;
    }
  });
}

/** The passphrases of a chain as its second image sees them. */
function oneDown(secret: Secret): Secret {
  if (typeof secret !== 'function') return secret;
  return (request) => secret({ ...request, depth: request.depth + 1 });
}

/** Opens a backing file as QEMU does: only to see that it is there. */
async function openBacking(
  {
    backing,
    request,
    ...named
  }: {
    readonly backing: Exclude<OpenDiskOptions['backing'], 'none'>;
    readonly format: string | undefined;
    readonly request: GateRequest;
  },
  options: Required<Pick<OpenDiskOptions, 'gate' | 'cacheBytes' | 'onStaleBitmaps'>> & {
    readonly secret: Secret;
  },
): Promise<{ close(): Promise<void> }> {
  try {
    const choice = backing?.(request.name);
    const format = choice?.format ?? named.format;
    if (format !== undefined && !isFormat(format)) {
      throw new Qcow2Error('UNSUPPORTED', `Unknown driver '${format}'`);
    }
    const { backing: behind, dataFile, onFormat, onMetadata } = choice ?? {};
    const chosen = { format, backing: behind, dataFile, onFormat, onMetadata };
    const storage = await (choice?.storage ?? options.gate)(request);
    return await openDisk(storage, { ...options, ...chosen, secret: oneDown(options.secret) });
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    const message = `Could not open backing file: ${cause.message}`;
    throw new Qcow2Error('UNSUPPORTED', message, undefined, cause);
  }
}

async function checkAndReport(
  host: Host,
  request: Request,
  storage: Storage,
  metadata: Metadata,
): Promise<number> {
  const { json, quiet, repair } = request;
  let result: CheckResult;
  try {
    const image = await CheckedImage.open(storage, metadata);
    result = await checkOnce(host, request, image, repair);
    const { leaksFixed, corruptionsFixed } = result;
    if (leaksFixed + corruptionsFixed > 0) {
      if (!json && !quiet) host.out(repairedText(result));
      const clean = await checkOnce(host, request, image, undefined);
      result = { ...clean, leaksFixed, corruptionsFixed };
    }
  } catch (cause) {
    if (!isQcow2Error(cause) || cause.code === 'ABORTED') throw cause;
    const why = cause.cause === undefined ? cause.message : errnoText(cause.cause);
    host.error(`Check failed: ${isQcow2Error(cause.cause) ? cause.message : why}`);
    return 1;
  }
  if (!quiet) host.out(json ? jsonText(result, request) : humanText(result));
  if (result.checkErrors > 0) {
    host.error('Check failed');
    return 1;
  }
  if (result.corruptions > 0) return ExitCode.corrupt;
  return result.leaks > 0 ? ExitCode.leaks : 0;
}

/** Text for standard error is collected up to so many characters. */
const NOTE_CHARACTERS = 16384;

async function checkOnce(
  host: Host,
  request: Request,
  image: CheckedImage,
  repair: Repair | undefined,
): Promise<CheckResult> {
  const enabled = request.progress && !request.quiet;
  const progress = startProgress(host, { enabled, total: () => 1, stream: true });
  let notes = '';
  const flush = () => {
    if (notes !== '') host.note(notes);
    notes = '';
  };
  try {
    const result = await checkImage(image, {
      repair,
      signal: host.interrupted,
      onProgress: progress.update,
      onError(line, from) {
        if (from === 'check') notes += `${line}\n`;
        if (from === 'tool' || notes.length > NOTE_CHARACTERS) flush();
        if (from === 'tool') host.error(line);
      },
    });
    flush();
    progress.end();
    return result;
  } catch (cause) {
    flush();
    progress.stop();
    throw cause;
  }
}

function repairedText({ leaksFixed, corruptionsFixed }: CheckResult): string {
  return `The following inconsistencies were found and repaired:

    ${leaksFixed} leaked clusters
    ${corruptionsFixed} corruptions

Double checking the fixed image now...
`;
}

function humanText(result: CheckResult): string {
  const { corruptions, leaks, checkErrors } = result;
  let text = '';
  if (corruptions + leaks + checkErrors === 0) text += 'No errors were found on the image.\n';
  if (corruptions > 0) {
    text += `
${corruptions} errors were found on the image.
Data may be corrupted, or further writes to the image may corrupt it.
`;
  }
  if (leaks > 0) {
    text += `
${leaks} leaked clusters were found on the image.
This means waste of disk space, but no harm to data.
`;
  }
  if (checkErrors > 0) {
    text += `\n${checkErrors} internal errors have occurred during the check.\n`;
  }
  const { totalClusters: total, allocatedClusters: allocated } = result;
  if (total > 0 && allocated > 0) {
    text +=
      `${allocated}/${total} = ${percent(allocated, total)}% allocated, ` +
      `${percent(result.fragmentedClusters, allocated)}% fragmented, ` +
      `${percent(result.compressedClusters, allocated)}% compressed clusters\n`;
  }
  return `${text}Image end offset: ${result.imageEndOffset}\n`;
}

function percent(part: number, whole: number): string {
  return formatFixed((part * 100) / whole, 2);
}

/** Members in QEMU's order, which is that of its hash table; those that are 0 are left out. */
function jsonText(result: CheckResult, { filename, format = 'qcow2' }: Request): string {
  const some = (value: number) => (value > 0 ? value : undefined);
  return `${formatJson({
    'image-end-offset': some(result.imageEndOffset),
    'compressed-clusters': some(result.compressedClusters),
    'total-clusters': some(result.totalClusters),
    corruptions: some(result.corruptions),
    'corruptions-fixed': some(result.corruptionsFixed),
    'check-errors': result.checkErrors,
    leaks: some(result.leaks),
    'leaks-fixed': some(result.leaksFixed),
    'allocated-clusters': some(result.allocatedClusters),
    filename,
    format,
    'fragmented-clusters': some(result.fragmentedClusters),
  })}\n`;
}
