/**
 * A file whose large reads and writes are done by threads that Node has anyway, while this one goes
 * on. They start at once and share no lock with V8, so a conversion that only moves bytes needs no
 * worker. Small pieces are read and written here: handing them over would take longer.
 *
 * Where Node has one such thread it writes, and this one reads: the kernel lets one writer into a
 * file, so that writing is what takes time, and the queue before that thread is never empty.
 */
import { read as readLater, write as writeLater } from 'node:fs';
import { ioError, needReachable } from './node-error.ts';
import { standIn } from './stand-in.ts';
import type { Storage } from './storage.ts';

/** Pieces from this length on are handed over. */
const LATER_BYTES = 128 * 1024;
/** And ranges that are copied, which are nowhere in memory. */
const COPIED_LATER_BYTES = 16 * 1024;

/** A file that has such calls. */
interface LaterFile extends Storage {
  readonly fd: number;
  copyFromLater(source: LaterFile, from: number, at: number, length: number): Promise<number>;
}

const isLaterFile = (storage: Storage): storage is LaterFile => 'copyFromLater' in storage;

/**
 * Whether Node's pool has a single thread, as `UV_THREADPOOL_SIZE` says before it is first used.
 * Copies go one after another then, without anybody in between; of several threads all but one
 * would stand at the file's lock, and keep a processor from those that have something to do.
 */
export function hasOnePoolThread(): boolean {
  return process.env.UV_THREADPOOL_SIZE === '1';
}

type Call = (
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
  position: number,
  done: (cause: Error | null, bytes: number) => void,
) => void;

/** One call that the host carries out later; resolves with the bytes that it moved. */
function later(call: Call, fd: number, bytes: Uint8Array, done: number, at: number) {
  return new Promise<number>((resolve, reject) => {
    call(fd, bytes, done, bytes.length - done, at + done, (cause, count) => {
      if (cause) reject(cause);
      else resolve(count);
    });
  });
}

/**
 * The same file by calls that answer later. It is to stay open until all of them have: whoever
 * closes it sooner has them work on whatever file is given its number next.
 */
export function inBackground(file: LaterFile): Storage {
  const { fd, name } = file;
  const readsAtOnce = hasOnePoolThread();
  /**
   * Of several threads one is given a write at a time: the kernel lets no second one into a file,
   * and one that stands at its door keeps a processor from those that read.
   */
  let last: Promise<unknown> = Promise.resolve();
  /** Writes that the one thread has not done. */
  let writing = 0;

  async function readAll(at: number, into: Uint8Array): Promise<number> {
    if (at + into.length > Number.MAX_SAFE_INTEGER) return file.read(at, into);
    let done = 0;
    try {
      while (done < into.length) {
        const got = await later(readLater, fd, into, done, at);
        if (got === 0) break;
        done += got;
      }
    } catch (cause) {
      throw ioError(cause, `error while reading '${name}'`, at + done);
    }
    return done;
  }

  async function writeAll(at: number, from: Uint8Array): Promise<void> {
    let done = 0;
    try {
      needReachable('pwrite', at + from.length);
      while (done < from.length) done += await later(writeLater, fd, from, done, at);
    } catch (cause) {
      throw ioError(cause, `error while writing '${name}'`, at + done);
    }
  }

  return standIn<Storage>(file, {
    copyFrom(source, from, at, length) {
      const isLater = length >= COPIED_LATER_BYTES && file.copiesInBackground === true;
      if (isLater && isLaterFile(source)) return file.copyFromLater(source, from, at, length);
      return file.copyFrom?.(source, from, at, length) ?? 0;
    },
    readsAtOnce,
    read: (at, into) =>
      readsAtOnce || into.length < LATER_BYTES ? file.read(at, into) : readAll(at, into),
    write(at, from) {
      if (!file.writable) return file.write(at, from);
      if (!readsAtOnce) {
        if (from.length < LATER_BYTES) return file.write(at, from);
        const written = last.then(() => writeAll(at, from));
        last = written.catch(() => {});
        return written;
      }
      // What is small would wait here for what that thread is writing.
      if (from.length < LATER_BYTES && writing === 0) return file.write(at, from);
      writing++;
      return writeAll(at, from).finally(() => {
        writing--;
      });
    },
  });
}
