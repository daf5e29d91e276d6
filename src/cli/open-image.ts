/** Opening the images that a command is given, with the messages of QEMU's tools. */
import { isQcow2Error } from '../base/errors.ts';
import type { Disk, WritableDisk } from '../image/disk.ts';
import type { Gate } from '../image/gate.ts';
import { isFormat, type OpenDiskOptions, openDisk } from '../image/open.ts';
import type { CheckListener } from '../image/qcow2/check-findings.ts';
import { type Host, UsageError } from './command.ts';
import { claimImageFile, type ImageUse } from './image-claims.ts';
import { type NameRole, nameImage } from './image-name.ts';
import { pathGate } from './path-gate.ts';

/** How an image of the command line is opened. */
export interface OpenImageOptions {
  readonly format: string | undefined;
  readonly untrusted: boolean;
  /** Where the name comes from. Default: a source of the command line. */
  readonly role?: NameRole;
  readonly snapshot?: OpenDiskOptions['snapshot'];
  /** What its files are claimed for, among those who lock images. Default: to be read. */
  readonly use?: ImageUse;
  /** `-U`: others may write it meanwhile. */
  readonly forceShare?: boolean;
}

/**
 * L2 tables that each image of a chain keeps in memory. Commands go through a disk once, front to
 * back: a few slices serve, and long chains of large disks stay small.
 */
const CACHE_BYTES = 2 ** 20;
/** And where tables change while it goes. */
const WRITE_CACHE_BYTES = 2 ** 22;

/** Runs `open`, and turns what goes wrong into one line: `Could not open 'FILE': why`. */
export async function explainOpen<T>(filename: string, open: () => Promise<T>): Promise<T> {
  try {
    return await open();
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    throw new UsageError(`Could not open '${filename}': ${cause.message}`);
  }
}

/** @throws UsageError where the image cannot be opened */
export function openImage(host: Host, filename: string, options: OpenImageOptions): Promise<Disk> {
  return explainOpen(filename, async () => {
    const { untrusted, snapshot, use = 'read', forceShare } = options;
    const { path, format, secret } = nameImage(host, filename, options.format, options.role);
    if (format !== undefined && !isFormat(format)) {
      throw new UsageError(`Could not open '${filename}': Unknown driver '${format}'`);
    }
    const isInput = path === '-' && use === 'convert';
    const file = isInput ? host.openInput() : host.openFile(path);
    try {
      if (!isInput) claimImageFile(file, format, { use, forceShare });
    } catch (cause) {
      file.close();
      throw cause;
    }
    // Whatever becomes of the image, those behind it are only read.
    const claim = { use: use === 'write' ? 'read' : use, forceShare } as const;
    return openDisk(file, {
      format,
      snapshot,
      secret,
      cacheBytes: CACHE_BYTES,
      gate: pathGate(host, path, { untrusted, claim }),
    });
  });
}

/**
 * The same, to be written; what it is backed by is only read.
 * @throws UsageError where the image cannot be opened
 */
export function openWritableImage(
  host: Host,
  filename: string,
  options: Pick<OpenImageOptions, 'format' | 'untrusted' | 'role'> & {
    /** The image so many steps down its chain is to be written, too. */
    readonly writableDepth?: number;
    /** The backing file that the image names is left alone. */
    readonly backing?: 'none' | undefined;
  },
): Promise<WritableDisk> {
  return explainOpen(filename, async () => {
    const { path, format, secret } = nameImage(host, filename, options.format, options.role);
    const { untrusted, writableDepth, backing } = options;
    if (format !== undefined && !isFormat(format)) {
      throw new UsageError(`Could not open '${filename}': Unknown driver '${format}'`);
    }
    const file = host.openFile(path, { writable: true });
    try {
      claimImageFile(file, format, { use: 'write' });
    } catch (cause) {
      file.close();
      throw cause;
    }
    const outer = pathGate(host, path, { untrusted, claim: { use: 'read' } });
    // As QEMU has it, the other image that is written is one to be read at first.
    const gate: Gate = async (request) => {
      try {
        return await outer(request);
      } catch (cause) {
        if (!isQcow2Error(cause) || !request.writable || request.kind !== 'backing') throw cause;
        await (await outer({ ...request, writable: false })).close();
        throw new UsageError(cause.message);
      }
    };
    return openDisk(file, {
      format,
      gate,
      secret,
      writable: true,
      writableDepth,
      ...(backing ? { backing } : {}),
      cacheBytes: WRITE_CACHE_BYTES,
      onRepair: sayRepairs(host),
    });
  });
}

/** Tells what is repaired of an image that was left dirty, as QEMU's tools do. */
export function sayRepairs(host: Host): CheckListener {
  return (line, from) => (from === 'tool' ? host.error(line) : host.note(`${line}\n`));
}
