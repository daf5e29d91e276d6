/**
 * The name that QEMU's tools show for a node: a path or a name that can be given again, else
 * `json:` with what makes it what it is. Tuning and the like is left out.
 */
import type { FileNode, ImageNode } from './image-node.ts';
import type { Settings } from './settings.ts';

/** A JSON object to be printed. */
type Members = { readonly [name: string]: string | Members };

/** Settings that change what is read, by driver; all others are left out of names. */
const STRONG: Record<string, RegExp> = {
  qcow2: /^encrypt\.key-secret$/,
  luks: /^key-secret$/,
  raw: /^(offset|size)$/,
  'null-co': /^(size|latency-ns|read-zeroes)$/,
  'null-aio': /^(size|latency-ns|read-zeroes)$/,
  blkdebug: /^(config|align|max-|opt-|inject-error\.|set-state\.)/,
};

/** The name of an image. */
export function nodeName(node: ImageNode, format: string): string {
  if (node.bare) return fileName(node.file) ?? jsonName(fileMembers(node.file));
  // A raw part of a file is a node of its own, and stands for the format.
  if (format === 'raw' && node.file.driver === 'raw') return jsonName(fileMembers(node.file));
  const strong = strongOf(format, node.settings);
  const name = fileName(node.file);
  if (name !== undefined && Object.keys(strong).length === 0) return name;
  return jsonName({ driver: format, ...strong, file: fileMembers(node.file) });
}

function strongOf(driver: string, settings: Settings): Members {
  const pattern = STRONG[driver];
  return Object.fromEntries([...settings].filter(([name]) => pattern?.test(name)));
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
      const below = fileName(node.below);
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
    const format = image.format ?? 'raw';
    return { driver: format, ...strongOf(format, image.settings), file: fileMembers(image.file) };
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
  const parts = Object.entries(members)
    .map(([name, value], index) => ({ name, value, index, bucket: bucketOf(name) }))
    // Who comes later stands before the others of its bucket.
    .sort((a, b) => a.bucket - b.bucket || b.index - a.index)
    .map(({ name, value }) => {
      const text = typeof value === 'string' ? JSON.stringify(value) : jsonText(value);
      return `${JSON.stringify(name)}: ${text}`;
    });
  return `{${parts.join(', ')}}`;
}

/** Members come in the order of QEMU's hash table (qobject/qdict.c): its bucket for a name. */
function bucketOf(name: string): number {
  const bytes = new TextEncoder().encode(name);
  let value = Math.imul(0x238f13af, bytes.length);
  for (const [index, byte] of bytes.entries()) value += byte << ((index * 5) % 24);
  const hash = (Math.imul(1103515243, value) + 12345) >>> 0;
  return hash % BUCKETS;
}

const BUCKETS = 512;
