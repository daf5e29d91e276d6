/**
 * JSON as QEMU's pretty printer writes it: four spaces a level, a line for each member, and nothing
 * but ASCII. Scripts compare this text, so an empty list is two lines here as it is there.
 */
import { encodeText } from '../base/text.ts';

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

/** What QEMU takes for no characters: bytes that are none, and code points that never are. */
const NONE = /[\u{dc80}-\u{dcff}]|\p{Noncharacter_Code_Point}/u;

function quote(name: string): string {
  const text = NONE.test(name) ? withReplacements(encodeText(name)) : name;
  // Unit by unit: what lies beyond the basic plane comes out as its two surrogates.
  const escaped = text.replace(/["\\]|[^ -~]/g, (unit) => {
    const code = unit.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0');
    return ESCAPES[unit] ?? `\\u${code}`;
  });
  return `"${escaped}"`;
}

/** Text as QEMU prints it (util/unicode.c): U+FFFD for each sequence that is no character. */
function withReplacements(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const { code, length } = characterAt(bytes, at);
    text += String.fromCodePoint(code ?? 0xfffd);
    at += length;
  }
  return text;
}

/** The smallest code points that take two bytes, three, and so on. */
const SMALLEST = [0x80, 0x800, 0x1_0000, 0x20_0000, 0x400_0000];

function characterAt(
  bytes: Uint8Array,
  at: number,
): { readonly code: number | undefined; readonly length: number } {
  const first = bytes[at] as number;
  if (first < 0x80) return { code: first, length: 1 };
  if (first < 0xc0 || first >= 0xfe) return { code: undefined, length: 1 };
  const wanted = Math.clz32(~(first << 24));
  let code = first & (0x7f >> wanted);
  let length = 1;
  for (; length < wanted; length++) {
    const next = bytes[at + length];
    if (next === undefined || (next & 0xc0) !== 0x80) return { code: undefined, length };
    code = code * 64 + (next & 0x3f);
  }
  const isZero = code === 0 && length === 2;
  const isShorter = code < (SMALLEST[length - 2] as number) && !isZero;
  return { code: isShorter || isNone(code) ? undefined : code, length };
}

function isNone(code: number): boolean {
  if (code > 0x10_ffff || (code >= 0xd800 && code < 0xe000)) return true;
  return (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffe) === 0xfffe;
}
