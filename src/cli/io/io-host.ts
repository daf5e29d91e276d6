/** What commands may touch, beyond what any tool's host has. */

import { readSync } from 'node:fs';
import { constants } from 'node:os';
import { decodeText } from '../../base/text.ts';
import type { Host } from '../command.ts';

/** The host of `qcow2-io`. */
export interface IoHost extends Host {
  /** The next line of standard input, undefined at its end. */
  readLine(): string | undefined;
  /** Sends this process a signal by its number. */
  raise(signal: number): void;
}

/** QEMU's tool reads lines into a buffer of 1 KiB: what is longer arrives in pieces. */
const LINE_BYTES_MAX = 1023;
const NEWLINE = 10;

/** @param host what the tool's process has otherwise */
export function ioHost(host: Host): IoHost {
  const lines = standardInputLines();
  return Object.assign(Object.create(host) as Host, {
    readLine: () => lines.next().value ?? undefined,
    raise: (signal: number) => {
      try {
        process.kill(process.pid, signal);
      } catch {
        // There is no such signal: then nothing happens, as in C.
      }
    },
  });
}

/** The number of SIGABRT, which differs between systems. */
export const ABORT_SIGNAL = constants.signals.SIGABRT;

/** Reads as it goes: a script may come from a program that waits for answers. */
function* standardInputLines(): Generator<string, undefined, undefined> {
  const chunk = Buffer.alloc(4096);
  let left: Buffer = Buffer.alloc(0);
  for (;;) {
    for (let length = lineLength(left); length > 0; length = lineLength(left)) {
      const end = left[length - 1] === NEWLINE ? length - 1 : length;
      const line = decodeText(left.subarray(0, end));
      left = left.subarray(length);
      yield line;
    }
    const got = readSome(chunk);
    if (got === 0) break;
    left = Buffer.concat([left, chunk.subarray(0, got)]);
  }
  if (left.length > 0) yield decodeText(left);
}

/** Bytes of the first line with its newline, 0 where it is not there as a whole. */
function lineLength(bytes: Buffer): number {
  const length = bytes.indexOf(NEWLINE) + 1;
  if (length === 0 || length > LINE_BYTES_MAX) {
    return bytes.length >= LINE_BYTES_MAX ? LINE_BYTES_MAX : 0;
  }
  return length;
}

function readSome(into: Buffer): number {
  for (;;) {
    try {
      return readSync(0, into);
    } catch (cause) {
      const { code } = cause as { code?: string };
      if (code === 'EOF') return 0;
      if (code !== 'EAGAIN') throw cause;
      // Another program left the terminal or pipe so that reads do not wait.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
}
