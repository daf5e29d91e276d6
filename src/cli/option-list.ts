/**
 * Lists of options as QEMU's tools take them with `-o`: `name=value,name,noname`. A comma in a
 * value is doubled; a name alone says `on`, one with `no` in front `off`.
 */
import { UsageError } from './command.ts';
import { scanSize } from './options.ts';

/** What values an option takes: text, bytes with a suffix, a whole number, on or off. */
export type ListOptionType = 'str' | 'size' | 'num' | 'bool (on/off)';

/** An option that a list may have. */
export interface ListOption {
  readonly name: string;
  readonly type: ListOptionType;
  /** What the list of options says about it. */
  readonly help: string;
  /** What it is where it is not given; absent: nothing. */
  readonly preset?: string;
}

/** What an option was given: the text, and for sizes and numbers what it means (64 bits). */
export interface ListValue {
  readonly text: string;
  readonly number: bigint;
}

/** Given options by their names; the last one counts where it was given several times. */
export type ListValues = Map<string, ListValue>;

/** A message whose further lines stand by themselves, without the tool's name. */
export class HintedError extends UsageError {
  constructor(
    message: string,
    readonly hintText: string,
  ) {
    super(message);
  }
}

const NUMBER = /^\s*([+-]?)(0x[0-9a-f]+|\d+)$/i;
const WORD = 2n ** 64n;

const SIZE_HINT = `Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-
and exabytes, respectively.
`;

/** The size that a parameter has; the same words wherever a tool of QEMU's reads one so. */
export function parseSizeParameter(name: string, text: string): bigint {
  const bytes = scanSize(text);
  if (bytes === 'invalid') {
    const message = `Parameter '${name}' expects a non-negative number below 2^64`;
    throw new HintedError(message, SIZE_HINT);
  }
  if (bytes === 'range') {
    throw new UsageError(`Value '${text}' is out of range for parameter '${name}'`);
  }
  return bytes;
}

/** A list that neither starts nor ends with a comma that separates nothing. */
export function isOptionList(text: string): boolean {
  const commas = /,*$/.exec(text)?.[0].length ?? 0;
  return text !== '' && !text.startsWith(',') && commas % 2 === 0;
}

/** @throws UsageError for what is no list */
export function checkOptionList(text: string): void {
  if (!isOptionList(text)) throw new UsageError(`Invalid option list: ${text}`);
}

/** True where the list has the word `help`, or `?`. */
export function asksForHelp(text: string): boolean {
  for (let at = 0; at < text.length; ) {
    const { value, end } = valueAt(text, at);
    if (value === 'help' || value === '?') return true;
    at = end + 1;
  }
  return false;
}

/**
 * Reads a list.
 * @throws UsageError for names that are not known, and values that they do not take
 */
export function parseOptionList(text: string, known: readonly ListOption[]): ListValues {
  const values: ListValues = new Map();
  for (let at = 0; at < text.length; ) {
    const length = text.slice(at).search(/[=,]/);
    const stop = length < 0 ? text.length : at + length;
    let name = text.slice(at, stop);
    let value: string;
    if (text[stop] === '=') {
      ({ value, end: at } = valueAt(text, stop + 1));
    } else {
      value = name.startsWith('no') ? 'off' : 'on';
      if (value === 'off') name = name.slice(2);
      at = stop;
    }
    at++;
    const option = known.find((one) => one.name === name);
    if (!option) throw new UsageError(`Invalid parameter '${name}'`);
    values.set(name, { text: value, number: parseValue(option, value) });
  }
  return values;
}

/** The text from `at` to the next comma that stands alone, and where that is. */
function valueAt(text: string, at: number): { readonly value: string; readonly end: number } {
  let value = '';
  let end = at;
  for (; end < text.length; end++) {
    if (text[end] === ',' && text[++end] !== ',') return { value, end: end - 1 };
    value += text[end];
  }
  return { value, end };
}

function parseValue({ name, type }: ListOption, text: string): bigint {
  switch (type) {
    case 'size':
      return parseSizeParameter(name, text);
    case 'num':
      return parseNumber(name, text);
    case 'str':
      return 0n;
    default:
      if (['on', 'yes', 'true', 'y'].includes(text)) return 1n;
      if (['off', 'no', 'false', 'n'].includes(text)) return 0n;
      throw new UsageError(`Parameter '${name}' expects 'on' or 'off'`);
  }
}

/** As C reads numbers: octal with a leading zero, and a negative one from the top down. */
function parseNumber(name: string, text: string): bigint {
  const [, sign, digits = ''] = NUMBER.exec(text) ?? [];
  const octal = /^0\d/.test(digits);
  if (digits === '' || (octal && /[89]/.test(digits))) {
    throw new UsageError(`Parameter '${name}' expects a number`);
  }
  const value = BigInt(octal ? `0o${digits}` : digits);
  if (value >= WORD) throw new UsageError(`Value '${text}' is too large for parameter '${name}'`);
  return BigInt.asUintN(64, sign === '-' ? -value : value);
}
