/** `amend`: changes options of an image. For now those of its key slots (`encrypt.…`). */
import { isQcow2Error } from '../../base/errors.ts';
import type { KeySlotChange } from '../../crypto/luks-slots.ts';
import { LuksImage } from '../../image/luks/luks-image.ts';
import type { Format } from '../../image/open.ts';
import { Qcow2Image } from '../../image/qcow2/qcow2-image.ts';
import { type Command, type Host, UsageError } from '../command.ts';
import { creationOptions } from '../creation-options.ts';
import { parseCommandLine } from '../getopt.ts';
import { openWritableImage } from '../open-image.ts';
import { isOptionList, type ListOption, type ListValues, parseOptionList } from '../option-list.ts';
import { given, type OptionSpec, valueGiven } from '../options.ts';

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', short: 'f', value: true },
  { name: 'options', short: 'o', value: true },
  { name: 'cache', short: 't', value: true },
  { name: 'progress', short: 'p', value: false },
  { name: 'quiet', short: 'q', value: false },
  { name: 'force', value: false },
  { name: 'untrusted', value: false },
];

const text = (name: string, help: string): ListOption => ({ name, type: 'str', help });

const AMENDABLE: readonly ListOption[] = [
  text('state', 'Select new state of affected keyslots (active/inactive)'),
  text('new-secret', 'New secret to set in the matching keyslots. Empty string to erase'),
  text('old-secret', 'Select all keyslots that match this password'),
  { name: 'keyslot', type: 'num', help: 'Select a single keyslot to modify explicitly' },
  { name: 'iter-time', type: 'num', help: 'Time to spend in PBKDF in milliseconds' },
];

/** The subcommand. */
export const amend: Command = {
  name: 'amend',
  usage: 'amend [-p] [-q] [-f FMT] [-t CACHE] [--force] -o OPTIONS FILENAME',

  async run(args, host) {
    const parsed = parseCommandLine(args, OPTIONS);
    const lists = parsed.options.filter(({ name }) => name === 'options').map(({ value }) => value);
    const wrong = lists.find((list) => !isOptionList(list));
    if (wrong !== undefined) throw new UsageError(`Invalid option list: ${wrong}`);
    if (lists.length === 0) throw new UsageError('Must specify options (-o)', true);
    const [filename, ...rest] = parsed.operands;
    if (filename === undefined || rest.length > 0) {
      throw new UsageError('Expecting one image file name', true);
    }
    const image = await openWritableImage(host, filename, {
      format: valueGiven(parsed, 'format'),
      untrusted: given(parsed, 'untrusted'),
    });
    try {
      if (!(image instanceof Qcow2Image) && !(image instanceof LuksImage)) {
        const what = `Format driver '${image.format}' does not support option amendment`;
        throw new UsageError(what);
      }
      const prefix = image instanceof LuksImage ? '' : 'encrypt.';
      const values = parseAmendments(host, lists.join(','), { format: image.format, prefix });
      const force = given(parsed, 'force');
      await image.changeKeySlots(slotChange(host, values, { prefix, force }));
    } catch (cause) {
      if (!isQcow2Error(cause)) throw cause;
      throw new UsageError(cause.message);
    } finally {
      await image.close();
    }
    return 0;
  },
};

/** @throws UsageError for what cannot be changed afterwards */
function parseAmendments(
  host: Host,
  list: string,
  { format, prefix }: { readonly format: Format; readonly prefix: string },
): ListValues {
  const amendable = AMENDABLE.map((one) => ({ ...one, name: `${prefix}${one.name}` }));
  const isAmendable = (name: string) => amendable.some((one) => one.name === name);
  const others = creationOptions(format).filter(({ name }) => !isAmendable(name));
  const values = parseOptionList(list, [...amendable, ...others]);
  for (const name of values.keys()) {
    if (isAmendable(name)) continue;
    host.error(`Invalid parameter '${name}'`);
    throw new UsageError('This option is only supported for image creation');
  }
  return values;
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
