/**
 * Standard input as storage in Node. A file that was redirected is read where it is; what comes
 * through a pipe is put into a file without a name first, since images are read in any order.
 */

import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isQcow2Error } from '../base/errors.ts';
import { ioError } from './node-error.ts';
import { NodeFileStorage } from './node-file.ts';

const BLOCK_BYTES = 64 * 1024;
const READ_BYTES = 16 * BLOCK_BYTES;
const ZEROS = new Uint8Array(BLOCK_BYTES);
const NAME = 'standard input';

/** Waits a millisecond without letting events in: for a writer that is slower than we are. */
function nap(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
}

/** Fills a buffer as far as the input goes. */
function readFully(fd: number, into: Uint8Array): number {
  let done = 0;
  while (done < into.length) {
    try {
      const got = readSync(fd, into, done, into.length - done, null);
      if (got === 0) break;
      done += got;
    } catch (cause) {
      const { code } = cause as { code?: string };
      if (code === 'EOF') break;
      if (code !== 'EAGAIN') throw ioError(cause, `error while reading '${NAME}'`);
      nap();
    }
  }
  return done;
}

/** A file that nobody else can find, and that is gone when it is closed. */
function openNameless(): number {
  const path = join(tmpdir(), `qcow2-${randomBytes(8).toString('hex')}`);
  try {
    const fd = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    return fd;
  } catch (cause) {
    throw ioError(cause, `Could not create '${path}'`);
  }
}

/**
 * Opens standard input. Blocks until all of a pipe has come.
 * @throws Qcow2Error IO or NO_SPACE
 */
export function openStandardInput(fd = 0): NodeFileStorage {
  if (fstatSync(fd).isFile()) return new NodeFileStorage(fd, NAME, false, false);
  const copy = openNameless();
  try {
    const block = new Uint8Array(READ_BYTES);
    let at = 0;
    for (;;) {
      const got = readFully(fd, block);
      writeData(copy, block.subarray(0, got), at);
      at += got;
      if (got < block.length) break;
    }
    ftruncateSync(copy, at);
  } catch (cause) {
    closeSync(copy);
    throw isQcow2Error(cause) ? cause : ioError(cause, `error while keeping '${NAME}'`);
  }
  return new NodeFileStorage(copy, NAME, false, true);
}

/** Writes blocks that are not zeros; the others stay holes. */
function writeData(fd: number, bytes: Uint8Array, at: number): void {
  for (let start = 0; start < bytes.length; start += BLOCK_BYTES) {
    const end = Math.min(bytes.length, start + BLOCK_BYTES);
    const block = bytes.subarray(start, end);
    if (block.length === BLOCK_BYTES && Buffer.compare(block, ZEROS) === 0) continue;
    for (let done = start; done < end; ) {
      done += writeSync(fd, bytes, done, end - done, at + done);
    }
  }
}
