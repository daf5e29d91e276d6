/**
 * Settings of a disk as QEMU's tools take them: a list of `name=value` (`open -o`, `--image-opts`)
 * or a JSON object behind `json:`. Dots lead into what a disk is made of: `file.filename`.
 */
import { Qcow2Error } from '../base/errors.ts';
import type { Host } from './command.ts';
import { parseSizeParameter } from './option-list.ts';

/** Texts by full names; what JSON says as `true` or 1 is `on` or `1`. */
export type Settings = ReadonlyMap<string, string>;

/** The value of what is `null` in JSON: no text that a list could have. */
export const NOTHING = '\0';

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
    const off = part.startsWith('no');
    const name = off ? part.slice(2) : part;
    const value = off ? 'off' : 'on';
    host.error(`warning: short-form boolean option '${part}' deprecated`);
    host.note(`Please use ${name}=${value} instead\n`);
    settings.set(name, value);
  }
  return settings;
}

function splitList(text: string): string[] {
  const parts = text.match(/(?:[^,]|,,)+/g) ?? [];
  return parts.map((part) => part.replaceAll(',,', ','));
}

const JSON_PREFIX = 'json:';
/** A string in either kind of quotes: QEMU takes both. */
const STRING = /'((?:[^'\\]|\\.)*)'|"(?:[^"\\]|\\.)*"/g;

/**
 * The settings that a file name stands for; undefined where it is a file's name.
 * @throws Qcow2Error OUT_OF_RANGE where it promises JSON and has none
 */
export function settingsOfName(filename: string): Settings | undefined {
  if (!filename.startsWith(JSON_PREFIX)) return undefined;
  const text = filename.slice(JSON_PREFIX.length).replace(STRING, (whole, inner?: string) => {
    return inner === undefined ? whole : `"${inner.replaceAll("\\'", "'").replace(/"/g, '\\"')}"`;
  });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const { message } = cause as Error;
    // Something is missing where the text ends.
    const place = Number(/at position (\d+)/.exec(message)?.[1] ?? 0);
    const ended = /end of JSON/.test(message) || place >= text.trimEnd().length;
    const error = `JSON parse error${ended ? ', premature EOI' : ''}`;
    const why = text.trim() === '' ? 'Expecting a JSON value' : error;
    throw new Qcow2Error('OUT_OF_RANGE', `Could not parse the JSON options: ${why}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Qcow2Error('OUT_OF_RANGE', 'Invalid JSON object given');
  }
  const settings = new Map<string, string>();
  flatten(value, '', settings);
  return settings;
}

function flatten(object: object, prefix: string, into: Map<string, string>): void {
  for (const [name, value] of Object.entries(object)) {
    const key = `${prefix}${name}`;
    if (typeof value === 'object' && value !== null) flatten(value, `${key}.`, into);
    else if (typeof value === 'boolean') into.set(key, value ? 'on' : 'off');
    else into.set(key, value === null ? NOTHING : String(value));
  }
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
  const value = settings.get(name);
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
  const text = settings.get(name);
  if (text === undefined) return undefined;
  const bytes = Number(parseSizeParameter(name, text));
  if (Number.isSafeInteger(bytes)) return bytes;
  throw new Qcow2Error('OUT_OF_RANGE', `Parameter '${name}' is larger than any file`);
}
