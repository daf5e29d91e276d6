/**
 * Bytes for people to look at:
 *
 *   00000200:  63 6f 6e 76 65 72 74 00 00 00 00 00 00 00 00 00  convert.........
 */

const COLUMNS = 16;

/** Lines of one call to the host: a dump may be long. */
const LINES_AT_ONCE = 4096;

/** Writes the lines; `guest` is where the first byte stands. */
export function dump(bytes: Uint8Array, guest: number, write: (text: string) => void): void {
  let lines: string[] = [];
  for (let at = 0; at < bytes.length; at += COLUMNS) {
    lines.push(dumpLine(bytes.subarray(at, at + COLUMNS), guest + at));
    if (lines.length === LINES_AT_ONCE) {
      write(lines.join(''));
      lines = [];
    }
  }
  if (lines.length > 0) write(lines.join(''));
}

function dumpLine(bytes: Uint8Array, guest: number): string {
  let hex = '';
  let text = '';
  for (const byte of bytes) {
    hex += `${byte.toString(16).padStart(2, '0')} `;
    const character = String.fromCharCode(byte);
    text += /[0-9A-Za-z]/.test(character) ? character : '.';
  }
  return `${guest.toString(16).padStart(8, '0')}:  ${hex} ${text}\n`;
}
