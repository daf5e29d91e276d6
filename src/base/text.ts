/**
 * Names as text, and as the bytes that files, systems and formats have for them. Nobody asks names
 * to be UTF-8: a byte that is not part of any character becomes a lone low surrogate, U+DC00 and
 * the byte, so that each name comes out as it came in (as in Python, PEP 383).
 */

/** Lone surrogates that stand for bytes. */
const STRAY = /[\u{dc80}-\u{dcff}]/u;
const STRAY_BASE = 0xdc00;
const REPLACEMENT = '\ufffd';

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
const encoder = new TextEncoder();

/** The text of bytes, of which `encodeText` makes the same bytes. */
export function decodeText(bytes: Uint8Array): string {
  const text = decoder.decode(bytes);
  return text.includes(REPLACEMENT) ? decodeStray(bytes) : text;
}

/** The bytes of a text, those among them that are no characters. */
export function encodeText(text: string): Uint8Array<ArrayBuffer> {
  return STRAY.test(text) ? encodeStray(text) : encoder.encode(text);
}

/** Bytes that a text takes. */
export function byteLength(text: string): number {
  return encodeText(text).length;
}

/** Whether a text has bytes that are no characters. */
export function hasStrayBytes(text: string): boolean {
  return STRAY.test(text);
}

/** Text of a field up to its first NUL. */
export function decodeField(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return decodeText(end < 0 ? bytes : bytes.subarray(0, end));
}

function decodeStray(bytes: Uint8Array): string {
  const parts: string[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = characterLength(bytes, at);
    if (length === 0) {
      parts.push(String.fromCharCode(STRAY_BASE + bytes[at]!));
      at++;
      continue;
    }
    parts.push(decoder.decode(bytes.subarray(at, at + length)));
    at += length;
  }
  return parts.join('');
}

/** Bytes of the character there; 0 where there is none. */
function characterLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at]!;
  if (first < 0x80) return 1;
  const length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  const character = bytes.subarray(at, at + length);
  const text = decoder.decode(character);
  const isOne = character.length === length && [...text].length === 1;
  // The character itself may be the one that stands for errors.
  if (!isOne || (text === REPLACEMENT && !isReplacement(character))) return 0;
  return length;
}

function isReplacement(bytes: Uint8Array): boolean {
  return bytes[0] === 0xef && bytes[1] === 0xbf && bytes[2] === 0xbd;
}

function encodeStray(text: string): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  for (const character of text) {
    const code = character.codePointAt(0) as number;
    if (code >= 0xdc80 && code <= 0xdcff) bytes.push(code - STRAY_BASE);
    else bytes.push(...encoder.encode(character));
  }
  return Uint8Array.from(bytes);
}
