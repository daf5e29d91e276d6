/**
 * JSON as QEMU's pretty printer writes it: four spaces a level, a line for each member, and nothing
 * but ASCII. Scripts compare this text, so an empty list is two lines here as it is there.
 */

/** What can be printed. A bigint, and a number above 2^53, keep all their digits. */
export type JsonValue = string | number | bigint | boolean | JsonObject | readonly JsonValue[];

/** Members in the order they are printed in; those that are undefined are left out. */
export interface JsonObject {
  readonly [name: string]: JsonValue | undefined;
}

const INDENT = '    ';

/** The text of a value, without a newline at its end. */
export function formatJson(value: JsonValue): string {
  return nested(value, '\n');
}

/** @param line a newline and the indentation of the line that the value begins on */
function nested(value: JsonValue, line: string): string {
  if (typeof value === 'string') return quote(value);
  if (typeof value !== 'object') return scalarText(value);
  const inner = line + INDENT;
  if (isList(value)) {
    const items = value.map((item) => inner + nested(item, inner));
    return `[${items.join(',')}${line}]`;
  }
  const members = Object.entries(value).flatMap(([name, member]) =>
    member === undefined ? [] : [`${inner}${quote(name)}: ${nested(member, inner)}`],
  );
  return `{${members.join(',')}${line}}`;
}

/** True for a list; unlike `Array.isArray` this also tells that the rest is none. */
export function isList(value: JsonValue): value is readonly JsonValue[] {
  return Array.isArray(value);
}

/** A number or a truth value, all digits of it. */
export function scalarText(value: number | bigint | boolean): string {
  // String() would round what lies above 2^53 to the shortest digits that tell it apart.
  return typeof value === 'number' ? BigInt(value).toString() : String(value);
}

const ESCAPES: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
};

function quote(text: string): string {
  // Unit by unit: what lies beyond the basic plane comes out as its two surrogates.
  const escaped = text.replace(/["\\]|[^ -~]/g, (unit) => {
    const code = unit.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0');
    return ESCAPES[unit] ?? `\\u${code}`;
  });
  return `"${escaped}"`;
}
