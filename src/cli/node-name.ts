/**
 * The name that QEMU's tools show for a node: a path or a name that can be given again, else
 * `json:` with what makes it what it is. Tuning and the like is left out.
 */
import type { FileNode, ImageNode } from './image-node.ts';
import { jsonOf, NULL, type Settings } from './settings.ts';
import { inTableOrder } from './table-order.ts';

/** A JSON object to be printed. */
type Members = { readonly [name: string]: string | Members };

/** Settings that change what is read, by driver; all others are left out of names. */
const STRONG: Record<string, RegExp> = {
  qcow2: /^encrypt\.key-secret$/,
  luks: /^key-secret$/,
  raw: /^(offset|size)$/,
  'null-co': /^(size|read-zeroes)$/,
  'null-aio': /^(size|read-zeroes)$/,
  blkdebug: /^(config|align|max-|opt-|inject-error\.|set-state\.)/,
};

/** What an image names itself, as far as settings may put others in its place. */
export interface OwnNames {
  /** The full name of the backing file. */
  readonly backing?: string | undefined;
}

/** @param own what of it is opened besides; absent: nothing, so that settings of it do not count */
export function nodeName(node: ImageNode, format: string, own?: OwnNames): string {
  if (node.filters) return filteredName(node, format);
  if (node.bare) return fileNodeName(node.file);
  // A raw part of a file is a node of its own, and stands for the format.
  if (node.file.settings === node.settings) return jsonName(fileMembers(node.file));
  const strong = { ...backingMembers(node, own), ...strongOf(format, node.settings) };
  const name = fileName(node.file);
  if (name !== undefined && Object.keys(strong).length === 0) return name;
  return jsonName({ driver: format, ...strong, file: fileMembers(node.file) });
}

/** The name of a disk with filters above it: only blkdebug has one that is no JSON. */
function filteredName(node: ImageNode, format: string): string {
  const { filters, ...disk } = node;
  let name: string | undefined = nodeName(disk, format);
  if (name.startsWith('json:')) name = undefined;
  for (const { driver, settings, debug } of filters?.nodes ?? []) {
    const { config: _, ...others } = strongOf(driver, settings);
    const isPlain = debug !== undefined && Object.keys(others).length === 0;
    name = isPlain && name !== undefined ? `blkdebug:${debug.config ?? ''}:${name}` : undefined;
  }
  return name ?? jsonName(diskMembers(node, format));
}

/** All that makes a disk what it is. */
function diskMembers({ bare, file, settings, filters }: ImageNode, format: string): Members {
  const strong = strongOf(format, settings);
  let members = bare ? fileMembers(file) : { driver: format, ...strong, file: fileMembers(file) };
  for (const { driver, settings, debug } of filters?.nodes ?? []) {
    const child = debug ? 'image' : 'file';
    members = { driver, ...strongOf(driver, settings), [child]: members };
  }
  return members;
}

/** Another backing file than the image's own, or none in its place. */
function backingMembers({ backing }: ImageNode, own: OwnNames | undefined): Members {
  if (!own || backing === undefined) return {};
  if (backing === 'none') return own.backing === undefined ? {} : { backing: NULL };
  const { file, format = 'raw', settings } = backing('');
  const strong = strongOf(format, settings);
  if (!file || (fileName(file) === own.backing && Object.keys(strong).length === 0)) return {};
  return { backing: { driver: format, ...strong, file: fileMembers(file) } };
}

function strongOf(driver: string, settings: Settings): Members {
  const pattern = STRONG[driver];
  return Object.fromEntries([...settings].filter(([name]) => pattern?.test(name)));
}

/** The name of a node below a format. */
export function fileNodeName(node: FileNode): string {
  return ownName(node) ?? jsonName(fileMembers(node));
}

/** The same without JSON: what stands above a file may be called as it is. */
function ownName(node: FileNode): string | undefined {
  const isRaw = node.driver === 'raw' && Object.keys(strongOf('raw', node.settings)).length === 0;
  return fileName(isRaw ? node.below : node);
}

/** A name that can be given without JSON. */
function fileName(node: FileNode): string | undefined {
  switch (node.driver) {
    case 'file':
      return node.path;
    case 'raw':
    case 'image':
      return undefined;
    case 'blkdebug': {
      const { config: _, ...others } = strongOf('blkdebug', node.settings);
      const below = ownName(node.below);
      if (below === undefined || Object.keys(others).length > 0) return undefined;
      return `blkdebug:${node.config ?? ''}:${below}`;
    }
    default:
      return Object.keys(strongOf(node.driver, node.settings)).length > 0
        ? undefined
        : `${node.driver}://`;
  }
}

function fileMembers(node: FileNode): Members {
  const { driver } = node;
  if (driver === 'file') return { driver: node.kind ?? driver, filename: node.path };
  if (driver === 'image') {
    const { image } = node;
    return diskMembers(image, image.format ?? 'raw');
  }
  const own = { driver, ...strongOf(driver, node.settings) };
  if (driver === 'blkdebug') {
    const { config } = node;
    return { ...own, ...(config === undefined ? {} : { config }), image: fileMembers(node.below) };
  }
  return driver === 'raw' ? { ...own, file: fileMembers(node.below) } : own;
}

function jsonName(members: Members): string {
  return `json:${jsonText(members)}`;
}

function jsonText(members: Members): string {
  const parts = inTableOrder(Object.keys(members)).map((name) => {
    const value = members[name] as string | Members;
    const text = typeof value === 'string' ? jsonOf(value) : jsonText(value);
    return `${JSON.stringify(name)}: ${text}`;
  });
  return `{${parts.join(', ')}}`;
}
