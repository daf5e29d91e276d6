/**
 * Images named by their options (`--image-opts`): `driver=qcow2,file.filename=disk,encrypt.…`. A
 * node of the tree has settings of its own and, behind a dot, those of the nodes below it.
 *
 *   driver=…                     the format
 *   file.filename=…  filename=…  the path;  file.driver=file is what there is
 *   encrypt.key-secret=…         the secret of an encrypted qcow2 image;  key-secret=… of luks
 *   backing.…                    the same for the backing file that the image names
 */
import { UsageError } from './command.ts';
import { parseKeyValues } from './secrets.ts';

/** One image of a chain, as its options name it. */
export interface ImageNode {
  readonly driver: string | undefined;
  /** Absent for a backing file that the image itself names. */
  readonly filename: string | undefined;
  /** Name of the secret that opens it. */
  readonly secretId: string | undefined;
  readonly backing: ImageNode | undefined;
}

/** Settings of drivers in QEMU that change no byte that anybody sees here. */
const TUNING = [
  ...['node-name', 'cache.direct', 'cache.no-flush', 'discard', 'detect-zeroes', 'read-only'],
  ...['auto-read-only', 'aio', 'locking', 'lazy-refcounts', 'overlap-check', 'cache-size'],
  ...['l2-cache-size', 'l2-cache-entry-size', 'refcount-cache-size', 'cache-clean-interval'],
  ...['pass-discard-request', 'pass-discard-snapshot', 'pass-discard-other'],
];
const FILE_DRIVERS = ['file', 'host_device'];

/** @throws UsageError for what is no list of options, or one that is not known */
export function parseImageOpts(text: string): ImageNode {
  let values: Map<string, string>;
  try {
    values = parseKeyValues(text, '');
  } catch {
    // A name alone is that of a device in QEMU.
    const words = `Cannot find device='${text}' nor node-name='${text}'`;
    throw new UsageError(`Could not open '${text}': ${words}`);
  }
  const node = nodeOf(values, (message) => new UsageError(`Could not open '${text}': ${message}`));
  if (node.filename === undefined) {
    throw new UsageError(`Could not open '${text}': A block device must be specified for "file"`);
  }
  return node;
}

function nodeOf(
  values: ReadonlyMap<string, string>,
  fail: (message: string) => UsageError,
): ImageNode {
  const driver = values.get('driver');
  const backing = new Map<string, string>();
  let filename: string | undefined;
  let secretId: string | undefined;
  for (const [name, value] of values) {
    if (name === 'driver' || TUNING.includes(name.replace(/^file\./, ''))) continue;
    if (name === 'file.filename' || name === 'filename') filename = value;
    else if (name === 'file.driver') {
      if (!FILE_DRIVERS.includes(value)) throw fail(`Unknown driver '${value}'`);
    } else if (name === 'encrypt.key-secret' || name === 'key-secret') secretId = value;
    else if (name === 'encrypt.format') {
      if (value !== 'luks' && value !== 'aes') throw fail(`Invalid encrypt.format '${value}'`);
    } else if (name.startsWith('backing.')) backing.set(name.slice('backing.'.length), value);
    else {
      throw fail(`Block format '${driver ?? 'raw'}' does not support the option '${name}'`);
    }
  }
  return {
    driver,
    filename,
    secretId,
    backing: backing.size > 0 ? nodeOf(backing, fail) : undefined,
  };
}
