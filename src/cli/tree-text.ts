/**
 * A tree of values as QEMU's tools show it to people: the same members as in the JSON, one a line.
 *
 *   refcount bits: 16
 *   bitmaps:
 *       [0]:
 *           flags:
 *           name: b1
 */
import { isList, type JsonObject, type JsonValue, scalarText } from './json.ts';

const INDENT = '    ';

/** Lines for the members of an object, `depth` levels in. Dashes of their names become spaces. */
export function treeText(object: JsonObject, depth: number): string {
  return Object.entries(object)
    .map(([name, value]) => memberText(name.replaceAll('-', ' '), value, depth))
    .join('');
}

function memberText(name: string, value: JsonValue | undefined, depth: number): string {
  if (value === undefined) return '';
  const start = `${INDENT.repeat(depth)}${name}:`;
  if (typeof value === 'string') return `${start} ${value}\n`;
  if (typeof value !== 'object') return `${start} ${scalarText(value)}\n`;
  if (!isList(value)) return `${start}\n${treeText(value, depth + 1)}`;
  const items = value.map((item, index) => memberText(`[${index}]`, item, depth + 1));
  return `${start}\n${items.join('')}`;
}
