/** Opening the bytes that an image lies in: a file, and what settings put in front of it. */
import { alignUp } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import type { WritableDisk } from '../image/disk.ts';
import { type Format, probeFormat } from '../image/formats.ts';
import type { NodeFileStorage } from '../storage/node-file.ts';
import type { Storage } from '../storage/storage.ts';
import type { Host } from './command.ts';
import { type ClaimOptions, claimImageFile, type ImagePart } from './image-claims.ts';
import type { FileNode } from './image-node.ts';
import { takeNodeName } from './node-names.ts';
import { switchOf, textOf } from './settings.ts';

/** An open node, and the files below it that may be claimed. */
interface OpenedNode {
  readonly storage: Storage;
  readonly files: readonly NodeFileStorage[];
}

const SECTOR_BYTES = 512;

/** How a node is opened. */
interface OpenNodeOptions {
  readonly writable: boolean;
  readonly claim: ClaimOptions | undefined;
  readonly untrusted?: boolean | undefined;
}

/** Opens a node without claiming anything but its name. */
async function openNode(host: Host, node: FileNode, options: OpenNodeOptions): Promise<OpenedNode> {
  const opened = await openUnnamed(host, node, options);
  // An image has its own.
  if (node.driver === 'image') return opened;
  return wrapped(opened, async (storage) => {
    takeNodeName(host, node.settings, storage);
    return storage;
  });
}

async function openUnnamed(
  host: Host,
  node: FileNode,
  options: OpenNodeOptions,
): Promise<OpenedNode> {
  const { writable, untrusted = false } = options;
  switch (node.driver) {
    case 'file': {
      const direct = switchOf(node.settings, 'cache.direct');
      const file = host.openFile(node.path, { writable, driver: node.kind, direct });
      return { storage: file, files: textOf(node.settings, 'locking') === 'off' ? [] : [file] };
    }
    case 'null-co':
    case 'null-aio': {
      const { nullStorage } = await import('../storage/null.ts');
      const readZeroes = switchOf(node.settings, 'read-zeroes') ?? false;
      const storage = nullStorage({ name: `${node.driver}://`, size: node.size, readZeroes });
      return { storage, files: [] };
    }
    case 'raw':
      return wrapped(await openNode(host, node.below, options), async (storage) => {
        const { WindowStorage } = await import('../storage/window.ts');
        checkWindow(node, alignUp(await storage.size(), SECTOR_BYTES));
        const { fileNodeName } = await import('./node-name.ts');
        return new WindowStorage(storage, node.offset, node.size, fileNodeName(node));
      });
    case 'blkdebug':
      return wrapped(await openNode(host, node.below, options), async (storage) => {
        const { debugLimits, debugRules } = await import('./debug-settings.ts');
        const { DebugStorage } = await import('../storage/debug-storage.ts');
        const rules = debugRules(host, node.config, node.settings);
        const limits = debugLimits(node.settings);
        const { fileNodeName } = await import('./node-name.ts');
        return new DebugStorage(storage, rules, { label: fileNodeName(node), limits });
      });
    case 'image': {
      const { claim = { use: 'inspect' } } = options;
      const inner = { writable, untrusted, claim: { ...claim, part: undefined } };
      // With images come the engine and its writer, which few commands need for a plain name.
      const { openImageNode } = await import('./open-node.ts');
      const { disk } = await openImageNode(host, node.image, inner);
      const { DiskStorage } = await import('../image/disk-storage.ts');
      const target = writable && 'write' in disk ? (disk as WritableDisk) : undefined;
      return { storage: new DiskStorage(disk, target), files: [] };
    }
  }
}

async function wrapped(
  { storage, files }: OpenedNode,
  wrap: (storage: Storage) => Promise<Storage>,
): Promise<OpenedNode> {
  try {
    return { storage: await wrap(storage), files };
  } catch (cause) {
    await storage.close();
    throw cause;
  }
}

/** @param actual bytes in whole sectors, as QEMU counts what a file has */
function checkWindow(node: FileNode & { readonly driver: 'raw' }, actual: number): void {
  const { offset, size } = node;
  const of = `size of the containing file (${actual})`;
  if (offset > actual) {
    throw new Qcow2Error('OUT_OF_RANGE', `Offset (${offset}) cannot be greater than ${of}`);
  }
  if (size !== undefined && offset + size > actual) {
    const sum = `The sum of offset (${offset}) and size (${size})`;
    const what = `${sum} has to be smaller or equal to the  actual ${of}`;
    throw new Qcow2Error('OUT_OF_RANGE', what);
  }
}

/** A node's storage, and what it is. */
export interface OpenedFile {
  readonly storage: Storage;
  readonly format: Format;
}

/**
 * Opens a node, finds out what it is, and claims its files.
 * @throws Qcow2Error as opening and claiming do
 */
export async function openFileNode(
  host: Host,
  node: FileNode,
  options: {
    readonly writable: boolean;
    readonly format: Format | undefined;
    readonly claim: ClaimOptions | undefined;
    /** Names within an image that lies in between stay within its folder. */
    readonly untrusted?: boolean | undefined;
    /** What of an image the file is, where it is not the image itself. */
    readonly part?: ImagePart;
  },
): Promise<OpenedFile> {
  const { storage, files } = await openNode(host, node, options);
  try {
    const format = options.format ?? (await probeFormat(storage));
    for (const file of files) {
      if (options.claim) claimImageFile(file, options.part ?? format, options.claim);
    }
    return { storage, format };
  } catch (cause) {
    await storage.close();
    throw cause;
  }
}
