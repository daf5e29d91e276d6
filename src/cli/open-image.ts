/** Opening the images that a command is given, with the messages of QEMU's tools. */
import type { Disk, WritableDisk } from '../image/disk.ts';
import { type OpenDiskOptions, withoutSnapshots } from '../image/open.ts';
import type { CheckListener } from '../image/qcow2/check-findings.ts';
import type { Host } from './command.ts';
import { explainOpen } from './explain-open.ts';
import { warnOfGuess } from './guessed-format.ts';
import type { ImageUse } from './image-claims.ts';
import { type NameRole, nameImage } from './image-name.ts';
import { type DebugNode, driverAbove, type ImageNode, imageWithin, pathOf } from './image-node.ts';
import { type OpenedImage, type OpenImageNodeOptions, openImageNode } from './open-node.ts';

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
  /** The backing file that the image names is left alone, unless filters stand above the image. */
  readonly backing?: 'none' | undefined;
  /** Rules of blkdebug above the format are for what is read of the disk. */
  readonly debugged?: boolean;
  /** A raw disk within another image's stands for that image, which can more. */
  readonly innermost?: boolean;
}

/**
 * L2 tables that each image of a chain keeps in memory. Commands go through a disk once, front to
 * back: a few slices serve, and long chains of large disks stay small.
 */
const CACHE_BYTES = 2 ** 20;
/** And where tables change while it goes. */
const WRITE_CACHE_BYTES = 2 ** 22;

/** @throws UsageError where the image cannot be opened */
export function openImage(host: Host, filename: string, options: OpenImageOptions): Promise<Disk> {
  return explainOpen(filename, async () => {
    const { untrusted, snapshot, use = 'read', forceShare } = options;
    const named = nameImage(host, filename, options.format, {
      role: options.role,
      use: { writable: false, forceShare },
    });
    const alone = options.backing !== undefined && !named.node.filters;
    const node = alone ? { ...named.node, backing: options.backing } : named.node;
    const above = snapshot === undefined ? undefined : driverAbove(node);
    const isInput = use === 'convert' && pathOf(node.file) === '-';
    const opened = await openImageNodeOf(host, node, options.innermost, {
      snapshot: above === undefined ? snapshot : undefined,
      untrusted,
      writable: false,
      cacheBytes: CACHE_BYTES,
      claim: { use, forceShare },
      ...(isInput ? { storage: await host.openInput() } : {}),
      ...(alone ? { opens: 'data file' } : {}),
    });
    const { disk } = opened;
    if (above !== undefined) {
      await disk.close();
      throw withoutSnapshots(above);
    }
    const debug = options.debugged ? node.filters?.debug : undefined;
    return debug ? debuggedSource(host, debug, disk) : disk;
  });
}

/** The same as `openImageNode`, of the innermost image if that is meant. */
async function openImageNodeOf(
  host: Host,
  node: ImageNode,
  innermost: boolean | undefined,
  options: OpenImageNodeOptions,
): Promise<OpenedImage> {
  const opened = await openImageNode(host, node, options);
  const image = innermost && opened.disk.format === 'raw' ? imageWithin(node) : undefined;
  if (!image) return opened;
  await opened.disk.close();
  return openImageNode(host, image, options);
}

async function debuggedSource(host: Host, node: DebugNode, disk: Disk): Promise<Disk> {
  try {
    const { DebuggedSource } = await import('./debugged-source.ts');
    return new DebuggedSource(host, node, disk);
  } catch (cause) {
    await disk.close();
    throw cause;
  }
}

/**
 * The same, to be written; what it is backed by is only read.
 * @throws UsageError where the image cannot be opened
 */
export async function openWritableImage(
  host: Host,
  filename: string,
  options: OpenWritableImageOptions,
): Promise<WritableDisk> {
  return (await openWritableNode(host, filename, options)).disk;
}

/** How an image of the command line is opened to be written. */
type OpenWritableImageOptions = Pick<
  OpenImageOptions,
  'format' | 'untrusted' | 'role' | 'forceShare' | 'backing' | 'innermost'
> & {
  /** Warns of a raw image that nobody says is raw. */
  readonly warns?: boolean;
  /** The image so many steps down its chain is to be written, too. */
  readonly writableDepth?: number;
  /** Its size is to change. */
  readonly resizes?: boolean;
};

/** A disk to be written, and what the command line has it be. */
interface WritableNode {
  readonly disk: WritableDisk;
  /** What QEMU calls that which it is: a format, or the driver that stands in its place. */
  readonly driver: string;
  readonly node: ImageNode;
  /** The path of a raw image that nobody says is raw. */
  readonly guessed: string | undefined;
}

/**
 * The same, with what is known of it.
 * @throws UsageError where the image cannot be opened
 */
export function openWritableNode(
  host: Host,
  filename: string,
  options: OpenWritableImageOptions,
): Promise<WritableNode> {
  return explainOpen(filename, async () => {
    const { role } = options;
    const use = { writable: true, forceShare: options.forceShare };
    const named = nameImage(host, filename, options.format, { role, use });
    const { untrusted, forceShare, warns, writableDepth, backing, resizes } = options;
    const alone = backing !== undefined && !named.node.filters;
    const node = alone ? { ...named.node, backing } : named.node;
    let guessed: string | undefined;
    const { disk } = await openImageNodeOf(host, node, options.innermost, {
      untrusted,
      writable: true,
      writableDepth,
      cacheBytes: WRITE_CACHE_BYTES,
      claim: { use: resizes ? 'resize' : 'write', forceShare },
      onRepair: sayRepairs(host),
      onGuess: () => {
        guessed = pathOf(node.file) ?? filename;
        if (warns) warnOfGuess(host, guessed);
      },
      ...(alone ? { opens: 'data file' } : {}),
    });
    const driver = driverAbove(node) ?? disk.format;
    return { disk: disk as WritableDisk, driver, node, guessed };
  });
}

/** Tells what is repaired of an image that was left dirty, as QEMU's tools do. */
export function sayRepairs(host: Host): CheckListener {
  return (line, from) => (from === 'tool' ? host.error(line) : host.note(`${line}\n`));
}
