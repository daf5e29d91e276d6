/** Bytes that a write sends and a read looks for. */
import { isQcow2Error } from '../../base/errors.ts';
import { errnoText } from '../../storage/node-error.ts';
import { parseInteger } from '../options.ts';
import { CommandFailure } from './io-command.ts';
import type { IoHost } from './io-host.ts';

/** What is written where nothing else was asked for. */
export const DEFAULT_PATTERN = 0xcd;

/** @throws CommandFailure where the text is not a number from 0 to 255 */
export function parsePattern(text: string): number {
  const byte = parseInteger(text);
  if (byte === undefined || byte < 0 || byte > 255) {
    throw new CommandFailure(`${text} is not a valid pattern byte`);
  }
  return byte;
}

/** Gives the bytes of a range that starts `done` bytes into the request. */
export type PatternSource = (done: number, length: number) => Uint8Array;

/** One byte all over. The pieces of a request share their memory. */
export function bytePattern(byte: number): PatternSource {
  let bytes = new Uint8Array();
  return (_, length) => {
    if (bytes.length < length) bytes = new Uint8Array(length).fill(byte);
    return bytes.subarray(0, length);
  };
}

/**
 * The content of a file, again and again.
 * @param length bytes of the request: no more of the file is read
 * @throws CommandFailure where the file cannot be read or is empty
 */
export async function filePattern(
  host: IoHost,
  path: string,
  length: number,
): Promise<PatternSource> {
  const content = await readStart(host, path, length);
  if (content.length === 0) throw new CommandFailure(`${path}: file is empty`, 'error');
  return (done, wanted) => {
    const bytes = new Uint8Array(wanted);
    let from = done % content.length;
    for (let at = 0; at < wanted; ) {
      const part = content.subarray(from, from + wanted - at);
      bytes.set(part, at);
      at += part.length;
      from = 0;
    }
    return bytes;
  };
}

async function readStart(host: IoHost, path: string, length: number): Promise<Uint8Array> {
  try {
    const file = host.openFile(path);
    try {
      const bytes = new Uint8Array(Math.min(length, file.size()));
      return bytes.subarray(0, file.read(0, bytes));
    } finally {
      file.close();
    }
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    throw new CommandFailure(`${path}: ${errnoText(cause.cause ?? cause)}`, 'error');
  }
}

/** True when all bytes are the one that is expected. */
export function matches(bytes: Uint8Array, expected: number): boolean {
  return bytes.every((byte) => byte === expected);
}
