/**
 * Settings of a disk as QEMU's tools take them: a list of `name=value` (`open -o`, `--image-opts`)
 * or a JSON object behind `json:`. Dots lead into what a disk is made of: `file.filename`.
 */
import { isQcow2Error, Qcow2Error } from '../base/errors.ts';
import type { Host } from './command.ts';
import { type ParsedJson, parseJson } from './json-parse.ts';
import { parseSizeParameter } from './option-list.ts';

/** Values by full names: texts, or what JSON has else, as `textOf` tells. */
export type Settings = ReadonlyMap<string, string>;

/** What a value of JSON that is no text begins with: no text that a list could have. */
const LITERAL = '\0';
/** The value of what is `null` in JSON. */
export const NULL = `${LITERAL}null`;
/** The value of an object or a list in JSON that has nothing in it. */
const EMPTY = `${LITERAL}{}`;

/**
 * A comma in a value is written twice; a name alone is `on`, or `off` with `no` in front.
 * @param first the setting that the list's first value is for, where it has no name
 */
export function parseSettings(host: Host, text: string, first?: string): Settings {
  const settings = new Map<string, string>();
  if (text === '') return settings;
  for (const [index, part] of splitList(text).entries()) {
    const equals = part.indexOf('=');
    if (equals < 0 && index === 0 && first !== undefined) {
      settings.set(first, part);
      continue;
    }
    if (equals >= 0) {
      settings.set(part.slice(0, equals), part.slice(equals + 1));
      continue;
    }
    const { name, value } = shortForm(part);
    warnOfShortForm(host, part);
    settings.set(name, value);
  }
  return settings;
}

/** What a name alone stands for. */
export function shortForm(part: string): { name: string; value: 'on' | 'off' } {
  const off = part.startsWith('no');
  return { name: off ? part.slice(2) : part, value: off ? 'off' : 'on' };
}

/** Tells of a name alone, where a value is to be given. */
export function warnOfShortForm(host: Host, part: string): void {
  const { name, value } = shortForm(part);
  host.error(`warning: short-form boolean option '${part}' deprecated`);
  host.note(`Please use ${name}=${value} instead\n`);
}

/** The parts of a list: two commas are one of a part's own. */
export function splitList(text: string): string[] {
  const parts = text.match(/(?:[^,]|,,)+/g) ?? [];
  return parts.map((part) => part.replaceAll(',,', ','));
}

const JSON_PREFIX = 'json:';
/**
 * The settings that a file name stands for; undefined where it is a file's name.
 * @throws Qcow2Error OUT_OF_RANGE where it promises JSON and has none
 */
export function settingsOfName(filename: string): Settings | undefined {
  if (!filename.startsWith(JSON_PREFIX)) return undefined;
  let value: ParsedJson;
  try {
    value = parseJson(filename.slice(JSON_PREFIX.length));
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    throw new Qcow2Error('OUT_OF_RANGE', `Could not parse the JSON options: ${cause.message}`);
  }
  if (!(value instanceof Map)) throw new Qcow2Error('OUT_OF_RANGE', 'Invalid JSON object given');
  const settings = new Map<string, string>();
  flatten(value, '', settings);
  return settings;
}

/** Lists become settings as well, by their indexes. What holds nothing stays, as nothing. */
function flatten(
  members: Iterable<readonly [string | number, ParsedJson]>,
  prefix: string,
  into: Map<string, string>,
): void {
  for (const [name, value] of members) {
    const key = `${prefix}${name}`;
    const inner = Array.isArray(value) ? [...value.entries()] : value;
    if (inner instanceof Map ? inner.size > 0 : Array.isArray(inner) && inner.length > 0) {
      flatten(inner as Iterable<[string, ParsedJson]>, `${key}.`, into);
    } else if (typeof inner === 'string') into.set(key, inner);
    else into.set(key, inner !== null && typeof inner === 'object' ? EMPTY : LITERAL + inner);
  }
}

/**
 * The text of a setting, which is `on` for JSON's `true`, and `1` for 1; undefined where it is not
 * there, or holds nothing.
 */
export function textOf(settings: Settings, name: string): string | undefined {
  const value = settings.get(name);
  if (!value?.startsWith(LITERAL)) return value;
  if (value === NULL || value === EMPTY) return undefined;
  const literal = value.slice(LITERAL.length);
  return literal === 'true' ? 'on' : literal === 'false' ? 'off' : literal;
}

/** A value as JSON has it. */
export function jsonOf(value: string): string {
  return value.startsWith(LITERAL) ? value.slice(LITERAL.length) : JSON.stringify(value);
}

/** What stands behind `name.`. */
export function settingsUnder(settings: Settings, name: string): Settings {
  const prefix = `${name}.`;
  const own = [...settings].filter(([key]) => key.startsWith(prefix));
  return new Map(own.map(([key, value]) => [key.slice(prefix.length), value]));
}

/**
 * A setting that is on or off.
 * @throws Qcow2Error OUT_OF_RANGE for any other value
 */
export function switchOf(settings: Settings, name: string): boolean | undefined {
  const value = textOf(settings, name);
  if (value === undefined) return undefined;
  if (['on', 'yes', 'true', 'y'].includes(value)) return true;
  if (['off', 'no', 'false', 'n'].includes(value)) return false;
  throw new Qcow2Error('OUT_OF_RANGE', `Parameter '${name}' expects 'on' or 'off'`);
}

/**
 * A setting that is a number of bytes, with or without a suffix.
 * @throws Qcow2Error or HintedError in QEMU's words
 */
export function numberOf(settings: Settings, name: string): number | undefined {
  const text = textOf(settings, name);
  if (text === undefined) return undefined;
  const bytes = Number(parseSizeParameter(name, text));
  if (Number.isSafeInteger(bytes)) return bytes;
  throw new Qcow2Error('OUT_OF_RANGE', `Parameter '${name}' is larger than any file`);
}
