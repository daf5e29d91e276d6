/** Opening what a name on the command line stands for: `image-node.ts` says what that may be. */
import { isQcow2Error, Qcow2Error } from '../base/errors.ts';
import { hasFeature, Incompatible } from '../format/feature-bits.ts';
import type { Disk } from '../image/disk.ts';
import { type Format, probeFormat } from '../image/formats.ts';
import type { Gate } from '../image/gate.ts';
import { type BackingChoice, type OpenDiskOptions, openDisk } from '../image/open.ts';
import type { CorruptionListener } from '../image/qcow2/corruption.ts';
import type { Storage } from '../storage/storage.ts';
import { warnOfBitmaps } from './bitmaps-warning.ts';
import { hostWithSettings } from './cache-mode.ts';
import { type Host, UsageError } from './command.ts';
import { errnoOf } from './errno.ts';
import { type ClaimOptions, useBehind } from './image-claims.ts';
import { secretIdAt, secretSource } from './image-name.ts';
import {
  type Backing,
  type BackingNode,
  checkSharing,
  type DataFile,
  type FileNode,
  type ImageNode,
  isOwnNode,
  pathOf,
  unopened,
} from './image-node.ts';
import { takeNodeName } from './node-names.ts';
import {
  checkFormatSettings,
  checkQcow2Settings,
  type OpenedParts,
  refuseUnknownSettings,
} from './node-settings.ts';
import { openFileNode } from './open-file-node.ts';
import { pathGate } from './path-gate.ts';
import { checkTuning, openTuning, type TunedImage } from './qcow2-settings.ts';
import { switchOf, textOf } from './settings.ts';

/** How a node is opened as a disk. */
export interface OpenImageNodeOptions
  extends Pick<OpenDiskOptions, 'snapshot' | 'cacheBytes' | 'discard' | 'onRepair'> {
  readonly writable: boolean;
  readonly untrusted: boolean;
  /** What files are claimed for: the image's own as it says, those behind it to be read. */
  readonly claim: ClaimOptions;
  /** The image so many steps down the chain is written, too. */
  readonly writableDepth?: number | undefined;
  /** What of the image is opened, as far as its settings are about it. Default: all. */
  readonly opens?: OpenedParts;
  /** Runs where a file is found to be raw that nobody says is, before anything else. */
  readonly onGuess?: () => void;
  /** Runs once the format is known, before anything of it is read. */
  readonly check?: (format: Format) => void;
  /** The image's own storage, where it is open already, instead of the node's. */
  readonly storage?: Storage;
}

/** An open disk. */
export interface OpenedImage {
  readonly disk: Disk;
  /** Raw, and nobody but its first bytes says so. */
  readonly guessedRaw: boolean;
}

/**
 * Opens an image and what lies behind it.
 * @throws Qcow2Error as `openDisk` does; in QEMU's words for settings that make no sense
 */
export async function openImageNode(
  outer: Host,
  node: ImageNode,
  options: OpenImageNodeOptions,
): Promise<OpenedImage> {
  const { writable, untrusted, claim, check, snapshot, cacheBytes } = options;
  const { settings } = node;
  const host = hostWithSettings(outer, settings);
  if (writable && switchOf(settings, 'read-only')) {
    const { writableDepth: _, onGuess: _guess, ...others } = options;
    const toRead = { ...others, writable: false, claim: { ...claim, use: useBehind(claim.use) } };
    const { disk } = await openImageNode(outer, node, toRead);
    await disk.close();
    throw new Qcow2Error('READ_ONLY', 'Block node is read-only');
  }
  const forceShare = switchOf(settings, 'force-share') ?? claim.forceShare;
  checkSharing(settings, { writable, forceShare });
  const shared = { ...claim, forceShare };
  const opened = options.storage
    ? { storage: options.storage, format: node.format ?? (await probeFormat(options.storage)) }
    : await openFileNode(host, node.file, {
        writable,
        untrusted,
        format: node.format,
        claim: shared,
      });
  const { storage, format } = opened;
  if (node.format === undefined && format === 'raw') options.onGuess?.();
  try {
    const { discard, opens } = options;
    checkFormatSettings(node, format, {
      discard: discard === 'unmap',
      ...(opens ? { opens } : {}),
    });
    if (isOwnNode(node)) takeNodeName(host, settings, storage);
    check?.(format);
  } catch (cause) {
    await storage.close();
    throw cause;
  }
  const path = pathOf(node.file) ?? '';
  const behind: ClaimOptions = { ...shared, use: useBehind(claim.use), part: undefined };
  const paths = pathGate(host, path, { untrusted, claim: behind });
  const gate = options.writableDepth === undefined ? paths : readFirst(paths);
  const discarding = textOf(settings, 'discard');
  const disk = await openDisk(storage, {
    format,
    snapshot,
    writable,
    writableDepth: options.writableDepth,
    gate,
    ...dataFileChoice(host, node.dataFile, shared),
    discard: discarding === undefined ? (options.discard ?? 'unmap') : unmaps(discarding),
    secret: secretSource(host, (depth) => secretIdAt(settings, depth)),
    ...openTuning(settings),
    onMetadata: async (metadata) => {
      const { opens } = options;
      await tryNeedless(host, node, { metadata, claim: shared, opens });
      checkQcow2Settings(settings, metadata, { opens });
    },
    ...(cacheBytes === undefined ? {} : { cacheBytes }),
    ...backingChoice(host, node.backing, { first: path, untrusted, claim: behind }),
    onRepair: options.onRepair,
    onCorruption: sayCorruption(host),
    onStaleBitmaps: (version) => warnOfBitmaps(host, version),
  });
  try {
    if (format === 'qcow2') refuseUnknownSettings(settings, { opens: options.opens });
    if (node.filters) {
      const { takeFilters } = await import('./filter-nodes.ts');
      await takeFilters(host, node, { format, storage, writable });
    }
  } catch (cause) {
    await disk.close();
    throw cause;
  }
  return { disk, guessedRaw: node.format === undefined && format === 'raw' };
}

/** As QEMU has it, another image that is written is one to be read at first. */
function readFirst(outer: Gate): Gate {
  return async (request) => {
    try {
      return await outer(request);
    } catch (cause) {
      if (!isQcow2Error(cause) || !request.writable || request.kind !== 'backing') throw cause;
      await (await outer({ ...request, writable: false })).close();
      throw new UsageError(cause.message);
    }
  };
}

/** Tells what is wrong with an image, as QEMU does. */
function sayCorruption(host: Host): CorruptionListener {
  return ({ message, fatal, leak }) => {
    if (leak) return host.note(`qcow2_free_clusters failed: ${errnoOf(leak).text}\n`);
    const what = fatal ? 'Marking image as corrupt' : 'Image is corrupt';
    const others = fatal ? 'corruption events' : 'non-fatal corruption events';
    host.note(`qcow2: ${what}: ${message}; further ${others} will be suppressed\n`);
  };
}

function unmaps(text: string): 'unmap' | 'ignore' {
  return text === 'unmap' || text === 'on' ? 'unmap' : 'ignore';
}

/** How images behind another are opened. */
interface BehindOptions {
  /** Path of the image that the person named. */
  readonly first: string;
  readonly untrusted: boolean;
  readonly claim: ClaimOptions;
}

/** Settings about the backing file as the engine takes them. */
export function backingChoice(
  host: Host,
  backing: Backing,
  options: BehindOptions,
): Pick<OpenDiskOptions, 'backing'> {
  if (backing === undefined) return {};
  if (backing === 'none') return { backing };
  const { first, untrusted, claim } = options;
  const choice = (name: string): BackingChoice => {
    const node = backing(name);
    const { file, kind, format, dataFile, settings } = node;
    const named = kind && pathGate(host, first, { untrusted, claim, driver: kind });
    return {
      format,
      ...backingChoice(host, node.backing, options),
      storage: file ? ({ writable }) => openOther(host, node, { file, claim, writable }) : named,
      ...dataFileChoice(host, dataFile, claim),
      onFormat: (found, storage) =>
        checkBehind(() => {
          checkFormatSettings(node, found);
          if (isOwnNode(node)) takeNodeName(host, settings, storage);
        }),
      onMetadata: async (metadata) => {
        await tryNeedless(host, node, { metadata, claim, opens: 'all' }).catch((cause) => {
          throw unopened(cause);
        });
        checkBehind(() => {
          checkQcow2Settings(settings, metadata);
          refuseUnknownSettings(settings);
        });
      },
    };
  };
  return { backing: choice };
}

/** Checks what is said of an image behind another. */
function checkBehind(check: () => void): void {
  try {
    check();
  } catch (cause) {
    throw unopened(cause);
  }
}

async function openOther(
  host: Host,
  node: BackingNode,
  {
    file,
    claim,
    writable,
  }: { readonly file: FileNode; readonly claim: ClaimOptions; readonly writable: boolean },
): Promise<Storage> {
  const { format } = node;
  const own = writable ? ({ ...claim, use: 'write' } as const) : claim;
  try {
    return (await openFileNode(host, file, { writable, format, claim: own })).storage;
  } catch (cause) {
    throw unopened(cause);
  }
}

/** The data file that settings put in the place of the one that an image names, or of none. */
export function dataFileChoice(
  host: Host,
  node: DataFile,
  claim: ClaimOptions,
): Pick<OpenDiskOptions, 'dataFile'> {
  if (!node) return {};
  return { dataFile: (writable) => openPart(host, node(), { claim, writable }) };
}

/**
 * As QEMU has it a data file is opened first, and then there may be no need for it.
 * @throws Qcow2Error as opening it does
 */
export async function tryNeedless(
  host: Host,
  { dataFile, settings }: Pick<ImageNode, 'dataFile' | 'settings'>,
  {
    metadata,
    claim,
    opens,
  }: {
    readonly metadata: TunedImage;
    readonly claim: ClaimOptions;
    readonly opens: OpenedParts | undefined;
  },
): Promise<void> {
  const isNeeded = hasFeature(metadata.header.incompatible, Incompatible.dataFile);
  if (!dataFile || isNeeded || opens === 'nothing') return;
  checkTuning(settings, metadata);
  await (await openPart(host, dataFile(), { claim, writable: false })).close();
}

async function openPart(
  host: Host,
  node: FileNode,
  { claim, writable }: { readonly claim: ClaimOptions; readonly writable: boolean },
): Promise<Storage> {
  const own = { ...claim, use: writable ? 'write' : claim.use } as const;
  const options = { writable, format: 'raw', part: 'data-file', claim: own } as const;
  return (await openFileNode(host, node, options)).storage;
}
