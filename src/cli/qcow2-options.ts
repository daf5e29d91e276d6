/** What a new qcow2 image is to be, as `-o` says it. */
import { Qcow2Error } from '../base/errors.ts';
import { VIRTUAL_BYTES_MAX } from '../base/limits.ts';
import type { Preallocation } from '../image/disk.ts';
import { checkCreateOptions, type Qcow2CreateOptions } from '../image/qcow2/create.ts';
import type { EncryptionChoice } from '../image/qcow2/encrypt-fresh.ts';
import { UsageError } from './command.ts';
import { isDriverName } from './driver-names.ts';
import type { ListValues } from './option-list.ts';

/** Sizes that are no size any more. */
export const SIZE_LIMIT = 2n ** 63n;

/** An option's text, or what it is where it was not given. */
export function textOf(values: ListValues, name: string, preset: string): string {
  return values.get(name)?.text ?? preset;
}

/** Whether a switch is on. */
export function isOn(values: ListValues, name: string): boolean {
  return values.get(name)?.number === 1n;
}

/** The value of an option that has few. */
function oneOf<T extends string>(
  values: ListValues,
  name: string,
  { choices, preset, label }: { choices: Record<string, T>; preset: T; label: string },
): T {
  const text = values.get(name)?.text;
  if (text === undefined) return preset;
  if (!Object.hasOwn(choices, text)) {
    throw new UsageError(`Parameter '${label}' does not accept value '${text}'`);
  }
  return choices[text] as T;
}

/** The options that QEMU looks at before those of the encryption. @throws UsageError */
export function leadingOptions(values: ListValues) {
  refuseEncryptionTwice(values);
  const version = oneOf(values, 'compat', {
    choices: { '0.10': '2', v2: '2', '1.1': '3', v3: '3' },
    preset: '3',
    label: 'version',
  });
  const backingName = values.get('backing_file')?.text;
  const backingFormat = values.get('backing_fmt')?.text;
  if (backingFormat !== undefined && !isDriverName(backingFormat)) {
    throw new UsageError(`Parameter 'backing-fmt' does not accept value '${backingFormat}'`);
  }
  return { version, backingName, backingFormat };
}

/**
 * The options of a new image.
 * @param dataPath the data file, by the name that the image is to have for it
 * @throws UsageError, Qcow2Error for what does not go together, in QEMU's order
 */
export function qcow2Options(
  values: ListValues,
  dataPath: string | undefined,
  encryption?: EncryptionChoice,
): Qcow2CreateOptions {
  const { version, backingName, backingFormat } = leadingOptions(values);
  const encrypted = encryptionFormat(values) !== undefined;
  const preallocation = oneOf<Preallocation>(values, 'preallocation', {
    choices: { off: 'off', metadata: 'metadata', falloc: 'falloc', full: 'full' },
    preset: 'off',
    label: 'preallocation',
  });
  const compression = oneOf(values, 'compression_type', {
    choices: { zlib: 'deflate', zstd: 'zstd' },
    preset: 'deflate',
    label: 'compression-type',
  });
  const raw = isOn(values, 'data_file_raw');
  const { number: clusterSize = 65536n } = values.get('cluster_size') ?? {};
  const { number: refcountBits = 16n } = values.get('refcount_bits') ?? {};
  const options: Qcow2CreateOptions = {
    size: 0,
    version: version === '2' ? 2 : 3,
    clusterSize: Number(clusterSize),
    refcountBits: Number(refcountBits),
    lazyRefcounts: isOn(values, 'lazy_refcounts'),
    extendedL2: isOn(values, 'extended_l2'),
    compression,
    preallocation,
    ...(backingName === undefined
      ? {}
      : { backing: { name: backingName, ...(backingFormat ? { format: backingFormat } : {}) } }),
    ...(dataPath === undefined ? {} : { dataFile: { name: dataPath, raw } }),
    ...(encryption ? { encryption } : {}),
  };
  // Sizes come last, and where they are too large for any disk, in other words.
  checkCreateOptions(options, {
    backingFormat: backingFormat !== undefined && backingName === undefined,
    dataFileRaw: raw && dataPath === undefined,
  });
  if (encrypted && !encryption) {
    throw new Qcow2Error('UNSUPPORTED', 'Encrypted images cannot be made here');
  }
  refuseSize(values);
  const sized = { ...options, size: Number(values.get('size')?.number) };
  checkCreateOptions(sized);
  return sized;
}

function refuseEncryptionTwice(values: ListValues): void {
  if (values.has('encryption') && values.has('encrypt.format')) {
    const names = "'encrypt.format' and its alias 'encryption'";
    throw new UsageError(`${names} can't be used at the same time`);
  }
}

/** How the image is to be encrypted; undefined: not at all. */
export function encryptionFormat(values: ListValues): 'aes' | 'luks' | undefined {
  const format = values.get('encrypt.format')?.text;
  if (format !== undefined && format !== 'aes' && format !== 'luks') {
    throw new UsageError(`Parameter 'format' does not accept value '${format}'`);
  }
  const encrypted = format !== undefined || isOn(values, 'encryption');
  if (!encrypted && [...values.keys()].some((name) => name.startsWith('encrypt.'))) {
    throw new UsageError("Parameter 'encrypt.format' is missing");
  }
  return encrypted ? (format ?? 'aes') : undefined;
}

/** Sizes that no disk can have, with all their digits. */
function refuseSize(values: ListValues): void {
  const bytes = ((values.get('size')?.number ?? 0n) + 511n) & ~511n;
  const most = BigInt(VIRTUAL_BYTES_MAX);
  if (bytes >= SIZE_LIMIT) {
    throw new UsageError('Could not resize image: Image size cannot be negative');
  }
  if (bytes > most) {
    throw new UsageError(`Could not resize image: offset(${bytes}) exceeds maximum(${most})`);
  }
}
