/** What a new image can be told with `-o`, format by format, and how QEMU's tools print it. */
import type { Format } from '../image/formats.ts';
import type { ListOption, ListValues } from './option-list.ts';

const text = (name: string, help: string): ListOption => ({ name, type: 'str', help });

/** Options of a qcow2 image, in the order in which they are printed when one is made. */
const QCOW2: readonly ListOption[] = [
  {
    name: 'encryption',
    type: 'bool (on/off)',
    help: "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
  },
  text('encrypt.format', "Encrypt the image, format choices: 'aes', 'luks'"),
  text('encrypt.key-secret', 'ID of secret providing qcow AES key or LUKS passphrase'),
  text('encrypt.cipher-alg', 'Name of encryption cipher algorithm'),
  text('encrypt.cipher-mode', 'Name of encryption cipher mode'),
  text('encrypt.ivgen-alg', 'Name of IV generator algorithm'),
  text('encrypt.ivgen-hash-alg', 'Name of IV generator hash algorithm'),
  text('encrypt.hash-alg', 'Name of encryption hash algorithm'),
  { name: 'encrypt.iter-time', type: 'num', help: 'Time to spend in PBKDF in milliseconds' },
  { name: 'cluster_size', type: 'size', help: 'qcow2 cluster size', preset: '65536' },
  { name: 'extended_l2', type: 'bool (on/off)', help: 'Extended L2 tables', preset: 'off' },
  text('preallocation', 'Preallocation mode (allowed values: off, metadata, falloc, full)'),
  {
    name: 'compression_type',
    type: 'str',
    help: 'Compression method used for image cluster compression',
    preset: 'zlib',
  },
  { name: 'size', type: 'size', help: 'Virtual disk size' },
  text('compat', 'Compatibility level (v2 [0.10] or v3 [1.1])'),
  text('backing_file', 'File name of a base image'),
  text('backing_fmt', 'Image format of the base image'),
  text('data_file', 'File name of an external data file'),
  {
    name: 'data_file_raw',
    type: 'bool (on/off)',
    help: 'The external data file must stay valid as a raw image',
  },
  {
    name: 'lazy_refcounts',
    type: 'bool (on/off)',
    help: 'Postpone refcount updates',
    preset: 'off',
  },
  {
    name: 'refcount_bits',
    type: 'num',
    help: 'Width of a reference count entry in bits',
    preset: '16',
  },
];

const RAW: readonly ListOption[] = [{ name: 'size', type: 'size', help: 'Virtual disk size' }];

/** What the file under any image takes. Hints to file systems: they have no effect here. */
const FILE: readonly ListOption[] = [
  {
    name: 'nocow',
    type: 'bool (on/off)',
    help: 'Turn off copy-on-write (valid only on btrfs)',
  },
  {
    name: 'extent_size_hint',
    type: 'size',
    help: 'Extent size hint for the image file, 0 to disable',
  },
];

const RAW_FILE = text('preallocation', 'Preallocation mode (allowed values: off, falloc, full)');

/** Options of a LUKS container. */
const LUKS: readonly ListOption[] = [
  { name: 'size', type: 'size', help: 'Virtual disk size' },
  text('key-secret', 'ID of the secret that provides the keyslot passphrase'),
  text('cipher-alg', 'Name of encryption cipher algorithm'),
  text('cipher-mode', 'Name of encryption cipher mode'),
  text('ivgen-alg', 'Name of IV generator algorithm'),
  text('ivgen-hash-alg', 'Name of IV generator hash algorithm'),
  text('hash-alg', 'Name of encryption hash algorithm'),
  { name: 'iter-time', type: 'num', help: 'Time to spend in PBKDF in milliseconds' },
];

const OWN: Record<Format, readonly ListOption[]> = { qcow2: QCOW2, raw: RAW, luks: LUKS };

/** The options of a format over a file, in the order in which they are printed. */
export function creationOptions(format: Format): readonly ListOption[] {
  // Where both levels have an option, it is the format's.
  if (format === 'qcow2') return [...QCOW2, ...FILE];
  return [...OWN[format], RAW_FILE, ...FILE];
}

/** What `-o help` prints: the format's options, with those of the file where one is named. */
export function creationHelp(format: Format, hasFile: boolean): string {
  const options = [...(hasFile ? creationOptions(format) : OWN[format])];
  options.sort((a, b) => (a.name < b.name ? -1 : 1));
  const head = hasFile ? 'Supported options:\n' : `Supported ${format} options:\n`;
  const tail = `
The protocol level may support further options.
Specify the target filename to include those options.
`;
  return head + optionLines(options) + (hasFile ? '' : tail);
}

/** A line for each option. */
export function optionLines(options: readonly ListOption[]): string {
  const lines = options.map(
    ({ name, type, help }) => `  ${`${name}=<${type}>`.padEnd(22)} - ${help}\n`,
  );
  return lines.join('');
}

/** The line that says what is being made. */
export function formattingLine(filename: string, format: Format, values: ListValues): string {
  const words = creationOptions(format).flatMap(({ name, type, preset }) => {
    const value = values.get(name);
    const shown = value?.text ?? preset;
    if (shown === undefined) return [];
    if (type === 'str') return [`${name}=${shown.replaceAll(',', ',,')}`];
    // The tool prints signed numbers.
    const isNumber = value !== undefined && (type === 'size' || type === 'num');
    return [`${name}=${isNumber ? BigInt.asIntN(64, value.number) : shown}`];
  });
  return `Formatting '${filename}', fmt=${[format, ...words].join(' ')}\n`;
}
