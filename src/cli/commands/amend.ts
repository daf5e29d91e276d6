/** `amend`: changes what an image was made with. */
import { isQcow2Error } from '../../base/errors.ts';
import { VIRTUAL_BYTES_MAX } from '../../base/limits.ts';
import type { KeySlotChange } from '../../crypto/luks-slots.ts';
import { type Format, isFormat } from '../../image/formats.ts';
import { LuksImage } from '../../image/luks/luks-image.ts';
import { type AmendOptions, EXPANDING_FAILED } from '../../image/qcow2/amend.ts';
import { Qcow2Image } from '../../image/qcow2/qcow2-image.ts';
import { NodeFileStorage } from '../../storage/node-file.ts';
import { checkCacheMode, hostInMode } from '../cache-mode.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { creationOptions, optionLines } from '../creation-options.ts';
import { errnoOf } from '../errno.ts';
import { parseCommandLine } from '../getopt.ts';
import { KEY_SLOTS } from '../image-claims.ts';
import { openWritableNode } from '../open-image.ts';
import {
  asksForHelp,
  checkOptionList,
  HintedError,
  type ListOption,
  type ListValues,
  parseOptionList,
} from '../option-list.ts';
import { given, type OptionSpec, type ParsedOptions, valueGiven, valuesGiven } from '../options.ts';
import { percentPrinter } from '../progress.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true, own: true },
  { name: 'options', short: 'o', value: true, own: true, check: checkOptionList },
  { name: 'cache', short: 't', value: true, own: true },
  { name: 'progress', short: 'p', value: false, own: true },
  { name: 'quiet', short: 'q', value: false, own: true },
  { name: 'force', value: false },
  { name: 'untrusted', value: false, own: true },
];

const text = (name: string, help: string): ListOption => ({ name, type: 'str', help });

const AMENDABLE: readonly ListOption[] = [
  text('state', 'Select new state of affected keyslots (active/inactive)'),
  text('new-secret', 'New secret to set in the matching keyslots. Empty string to erase'),
  text('old-secret', 'Select all keyslots that match this password'),
  { name: 'keyslot', type: 'num', help: 'Select a single keyslot to modify explicitly' },
  { name: 'iter-time', type: 'num', help: 'Time to spend in PBKDF in milliseconds' },
];

/** Options of a new qcow2 image that can change, too. */
const QCOW2: readonly string[] = [
  'backing_file',
  'backing_fmt',
  'compat',
  'data_file',
  'data_file_raw',
  'lazy_refcounts',
  'refcount_bits',
  'size',
];

/** The subcommand. */
export const amend: Command = {
  name: 'amend',
  options: OPTIONS,

  async run(args, host) {
    const parsed = parseCommandLine(args, OPTIONS);
    const lists = valuesGiven(parsed, 'options');
    if (lists.length === 0) throw new UsageError('Must specify options (-o)', true);
    const shows = given(parsed, 'progress') && !given(parsed, 'quiet');
    try {
      return await openAndAmend(host, parsed, { list: lists.join(','), shows });
    } finally {
      // Behind what there is to say of a failure, as with qemu-img.
      const end = () => host.tell('\n');
      if (shows && host.atEnd) host.atEnd(end);
      else if (shows) end();
    }
  },
};

async function openAndAmend(
  host: Host,
  parsed: ParsedOptions,
  { list, shows }: { readonly list: string; readonly shows: boolean },
): Promise<number> {
  const format = valueGiven(parsed, 'format');
  if (format !== undefined && asksForHelp(list)) return printHelp(host, format);
  const [filename, ...rest] = parsed.operands;
  if (filename === undefined || rest.length > 0) {
    throw new UsageError('Expecting one image file name');
  }
  const cache = valueGiven(parsed, 'cache');
  checkCacheMode(cache, 'cache');
  const untrusted = given(parsed, 'untrusted');
  const options = { format, untrusted, warns: true } as const;
  const { disk: image, driver } = await openWritableNode(
    hostInMode(host, cache),
    filename,
    options,
  );
  try {
    if (driver !== image.format) throw notAmendable(driver);
    if (asksForHelp(list) && image.format !== 'raw') return printHelp(host, image.format);
    if (!(image instanceof Qcow2Image) && !(image instanceof LuksImage)) {
      throw notAmendable(driver);
    }
    const prefix = image instanceof LuksImage ? '' : 'encrypt.';
    const values = parseAmendments(list, { format: image.format, prefix });
    const show = percentPrinter(host.out);
    if (shows) show(0);
    try {
      await change(host, image, values, {
        prefix,
        force: given(parsed, 'force'),
        onProgress: shows ? (done, total) => show(percentOf(done, total)) : undefined,
      });
    } finally {
      if (shows) show(100);
    }
  } catch (cause) {
    if (cause instanceof HintedError) {
      host.error(cause.message);
      host.note(cause.hintText);
      return 1;
    }
    if (!isQcow2Error(cause)) throw cause;
    throw new UsageError(cause.message);
  } finally {
    await image.close();
  }
  return 0;
}

/** In the steps of C's `float`. */
function percentOf(done: number, total: number): number {
  return Math.fround(100 * Math.fround(done)) / Math.fround(total);
}

function notAmendable(format: string): UsageError {
  return new UsageError(`Format driver '${format}' does not support option amendment`);
}

/** What the options of a format are that can change. */
function amendable(format: Format, prefix: string): readonly ListOption[] {
  const slots = AMENDABLE.map((one) => ({ ...one, name: `${prefix}${one.name}` }));
  if (format !== 'qcow2') return slots;
  return [...slots, ...creationOptions('qcow2').filter(({ name }) => QCOW2.includes(name))];
}

function printHelp(host: Host, format: string): number {
  if (!isFormat(format)) throw new UsageError(`Unknown file format '${format}'`);
  if (format === 'raw') throw notAmendable(format);
  const options = [...amendable(format, format === 'luks' ? '' : 'encrypt.')];
  options.sort((a, b) => (a.name < b.name ? -1 : 1));
  host.out(`Amend options for '${format}':\n${optionLines(options)}`);
  return 0;
}

/** Changes of key slots first, then those of a qcow2 image. */
async function change(
  host: Host,
  image: Qcow2Image | LuksImage,
  values: ListValues,
  options: {
    readonly prefix: string;
    readonly force: boolean;
    readonly onProgress: AmendOptions['onProgress'];
  },
): Promise<void> {
  const slots = AMENDABLE.some(({ name }) => values.has(`${options.prefix}${name}`));
  // Whether there are any comes before what is to become of them.
  if (slots && image instanceof Qcow2Image) image.needKeySlots();
  const amended = image instanceof Qcow2Image ? imageChanges(values) : undefined;
  if (amended && image instanceof Qcow2Image) {
    await image.refuseAmendment({ ...amended, lazyRefcounts: undefined });
  }
  if (slots || !amended) {
    const wanted = slotChange(host, values, options);
    if (image instanceof LuksImage) claimKeySlots(image);
    await image.changeKeySlots(wanted);
  }
  if (!(image instanceof Qcow2Image) || !amended) return;
  refuseOtherBacking(image, values);
  // A size is the last thing that is judged, and with QEMU the others have been carried out then.
  await image.refuseAmendment(amended);
  const size = newSize(values);
  try {
    await image.amend({ ...amended, size, onProgress: options.onProgress });
  } catch (cause) {
    if (!isQcow2Error(cause) || cause.message !== EXPANDING_FAILED) throw cause;
    const reason = cause.cause;
    // QEMU tells of tables that it refuses before it says what came of it.
    if (isQcow2Error(reason) && /L1 table/.test(reason.message)) host.error(reason.message);
    throw new UsageError(`${cause.message}: ${errnoOf(reason).text}`);
  }
}

/** Keeps others from a container whose keys change. @throws Qcow2Error BUSY */
function claimKeySlots({ container }: LuksImage): void {
  if (container instanceof NodeFileStorage) container.claim(KEY_SLOTS);
}

function newSize(values: ListValues): number | undefined {
  const size = values.get('size')?.number;
  // QEMU takes 0 for a size that nobody has given.
  if (size === undefined || size === 0n) return undefined;
  if (size >= 2n ** 63n) throw new UsageError('Image size cannot be negative');
  const most = BigInt(VIRTUAL_BYTES_MAX);
  if (size > most) throw new UsageError(`offset(${size}) exceeds maximum(${most})`);
  if (size % 512n !== 0n) throw new UsageError('The new size must be a multiple of 512');
  return Number(size);
}

const VERSIONS: Readonly<Record<string, 2 | 3>> = { v2: 2, '0.10': 2, v3: 3, '1.1': 3 };

function imageChanges(values: ListValues): AmendOptions {
  const compat = values.get('compat')?.text;
  const version = compat === undefined ? undefined : VERSIONS[compat];
  if (compat !== undefined && version === undefined) {
    throw new UsageError(`Unknown compatibility level ${compat}`);
  }
  const flag = (option: string) => {
    const given = values.get(option);
    return given && given.number === 1n;
  };
  const bits = values.get('refcount_bits');
  return {
    version,
    refcountBits: bits && Number(bits.number),
    lazyRefcounts: flag('lazy_refcounts'),
    dataFile: values.get('data_file')?.text,
    dataFileRaw: flag('data_file_raw'),
  };
}

/** @throws HintedError where another backing file is asked for, or half of what is there */
function refuseOtherBacking(image: Qcow2Image, values: ListValues): void {
  const file = values.get('backing_file')?.text;
  const format = values.get('backing_fmt')?.text;
  if (file === undefined && format === undefined) return;
  const own = image.backingName;
  if (file === own.name && format === own.format) return;
  const hint = "You can use 'qemu-img rebase' instead.\n";
  throw new HintedError('Cannot amend the backing file', hint);
}

/** @throws UsageError for what cannot be changed afterwards */
function parseAmendments(
  list: string,
  { format, prefix }: { readonly format: Format; readonly prefix: string },
): ListValues {
  const options = amendable(format, prefix);
  const isAmendable = (name: string) => options.some((one) => one.name === name);
  const others = creationOptions(format).filter(({ name }) => !isAmendable(name));
  try {
    return parseOptionList(list, options);
  } catch (cause) {
    if (!(cause instanceof UsageError) || !parses(list, [...options, ...others])) throw cause;
    throw new HintedError(cause.message, 'This option is only supported for image creation\n');
  }
}

function parses(list: string, options: readonly ListOption[]): boolean {
  try {
    parseOptionList(list, options);
    return true;
  } catch (cause) {
    if (cause instanceof UsageError) return false;
    throw cause;
  }
}

function slotChange(
  host: Host,
  values: ListValues,
  { prefix, force }: { readonly prefix: string; readonly force: boolean },
): KeySlotChange {
  const state = values.get(`${prefix}state`)?.text;
  if (state === undefined) throw new UsageError("Parameter 'state' is missing");
  if (state !== 'active' && state !== 'inactive') {
    throw new UsageError(`Parameter 'state' does not accept value '${state}'`);
  }
  const secret = (name: string) => {
    const id = values.get(`${prefix}${name}`)?.text;
    return id === undefined ? undefined : host.secrets.passphrase(id);
  };
  const number = (name: string) => {
    const value = values.get(`${prefix}${name}`)?.number;
    return value === undefined ? undefined : Number(BigInt.asIntN(64, value));
  };
  return {
    state,
    newPassphrase: secret('new-secret'),
    oldPassphrase: secret('old-secret'),
    slot: number('keyslot'),
    iterTime: number('iter-time'),
    force,
  };
}
