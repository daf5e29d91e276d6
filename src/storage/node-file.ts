/**
 * Storage over a file or block device in Node. All calls are synchronous: in the page cache a
 * synchronous read is several times as fast as an asynchronous one, and it goes straight into and
 * out of WebAssembly memory.
 */
import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  writeSync,
} from 'node:fs';
import { Qcow2Error } from '../base/errors.ts';
import { rangeCursor, type Storage, type StorageCursor, type StorageHandle } from './storage.ts';

/** Text of the errors that people meet, as the C library says it. */
const ERRNO_TEXT: Record<string, string> = {
  ENOENT: 'No such file or directory',
  EACCES: 'Permission denied',
  EPERM: 'Operation not permitted',
  EISDIR: 'Is a directory',
  ENOTDIR: 'Not a directory',
  ELOOP: 'Too many levels of symbolic links',
  ENAMETOOLONG: 'File name too long',
  EROFS: 'Read-only file system',
  ENOSPC: 'No space left on device',
  EDQUOT: 'Disk quota exceeded',
  EFBIG: 'File too large',
  EIO: 'Input/output error',
  EINVAL: 'Invalid argument',
  EMFILE: 'Too many open files',
  ENFILE: 'Too many open files in system',
  ENODEV: 'No such device',
  ENXIO: 'No such device or address',
  ETXTBSY: 'Text file busy',
  EBUSY: 'Device or resource busy',
  EPIPE: 'Broken pipe',
  ESPIPE: 'Illegal seek',
};

/** What the C library's strerror says of a Node error; its own message where that is not known. */
export function errnoText(cause: unknown): string {
  const code = (cause as { code?: unknown } | null)?.code;
  if (typeof code === 'string' && code in ERRNO_TEXT) return ERRNO_TEXT[code] as string;
  return cause instanceof Error ? cause.message : String(cause);
}

/** A Node error as the library's, with the C library's text. */
export function ioError(cause: unknown, what: string, at?: number): Qcow2Error {
  const code = (cause as { code?: unknown } | null)?.code;
  const full = code === 'ENOSPC' || code === 'EDQUOT';
  return new Qcow2Error(full ? 'NO_SPACE' : 'IO', `${what}: ${errnoText(cause)}`, at, cause);
}

/** What kind of thing a path is, as far as storage cares. */
export type FileKind = 'regular' | 'block' | 'other';

const ZEROS_BYTES = 1024 * 1024;
let zeros: Uint8Array | undefined;

/** Bytes of a block device, which `fstat` does not tell: sysfs does, in 512-byte sectors. */
function blockDeviceSize(fd: number, name: string): number {
  const { rdev } = fstatSync(fd);
  // Linux's layout of a device number.
  const major = Math.floor(rdev / 256) % 4096;
  const minor = (rdev % 256) + (Math.floor(rdev / 2 ** 20) % 4096) * 256;
  try {
    return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * 512;
  } catch (cause) {
    throw ioError(cause, `Could not get the size of '${name}'`);
  }
}

/** A file in Node, answering every call at once. */
export class NodeFileStorage implements Storage {
  readonly kind: FileKind;

  constructor(
    readonly fd: number,
    readonly name: string,
    readonly writable: boolean,
    private readonly owned: boolean,
  ) {
    const stat = fstatSync(fd);
    this.kind = stat.isFile() ? 'regular' : stat.isBlockDevice() ? 'block' : 'other';
  }

  size(): number {
    return this.kind === 'block' ? blockDeviceSize(this.fd, this.name) : fstatSync(this.fd).size;
  }

  read(at: number, into: Uint8Array): number {
    let done = 0;
    try {
      while (done < into.length) {
        const got = readSync(this.fd, into, done, into.length - done, at + done);
        if (got === 0) break;
        done += got;
      }
    } catch (cause) {
      throw ioError(cause, `error while reading '${this.name}'`, at + done);
    }
    return done;
  }

  cursor(from: number, to: number): StorageCursor {
    return rangeCursor(this, from, to);
  }

  write(at: number, from: Uint8Array): void {
    this.needWritable();
    let done = 0;
    try {
      while (done < from.length) {
        done += writeSync(this.fd, from, done, from.length - done, at + done);
      }
    } catch (cause) {
      throw ioError(cause, `error while writing '${this.name}'`, at + done);
    }
  }

  /** Node has no way to punch holes: past the end the file grows, before it zeros are written. */
  zero(at: number, length: number): void {
    this.needWritable();
    if (length === 0) return;
    const end = at + length;
    if (this.kind === 'regular') {
      const size = this.size();
      if (end > size) this.truncate(end);
      length = Math.min(end, size) - at;
    }
    zeros ??= new Uint8Array(ZEROS_BYTES);
    for (let done = 0; done < length; done += ZEROS_BYTES) {
      this.write(at + done, zeros.subarray(0, Math.min(ZEROS_BYTES, length - done)));
    }
  }

  truncate(size: number): void {
    this.needWritable();
    try {
      ftruncateSync(this.fd, size);
    } catch (cause) {
      throw ioError(cause, `Could not resize '${this.name}'`);
    }
  }

  flush(): void {
    if (this.kind === 'other') return;
    try {
      fdatasyncSync(this.fd);
    } catch (cause) {
      throw ioError(cause, `Could not flush '${this.name}'`);
    }
  }

  close(): void {
    if (this.owned) closeSync(this.fd);
  }

  share(): StorageHandle {
    return { kind: 'fd', fd: this.fd, name: this.name };
  }

  private needWritable(): void {
    if (!this.writable) throw new Qcow2Error('READ_ONLY', `${this.name} is read-only`);
  }
}

/** How `openNodeFile` opens. */
export interface NodeFileOptions {
  readonly writable?: boolean;
  /** Make the file; one that is there is emptied first. */
  readonly create?: boolean;
}

/**
 * Opens a file or block device.
 * @throws Qcow2Error IO with the C library's text; directories, pipes and sockets are refused
 */
export function openNodeFile(path: string, options: NodeFileOptions = {}): NodeFileStorage {
  const { writable = false, create = false } = options;
  const access = writable || create ? constants.O_RDWR : constants.O_RDONLY;
  // Without O_NONBLOCK opening a FIFO would wait for its other end.
  const flags = access | constants.O_NONBLOCK | (create ? constants.O_CREAT : 0);
  if (path === '' && !create) {
    throw new Qcow2Error('IO', "The 'file' block driver requires a file name");
  }
  let fd: number;
  try {
    fd = openSync(path, flags, 0o644);
  } catch (cause) {
    throw ioError(cause, `Could not open '${path}'`);
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile() && !stat.isBlockDevice() && !stat.isCharacterDevice()) {
      throw new Qcow2Error('IO', `'file' driver requires '${path}' to be a regular file`);
    }
    if (create && stat.isFile() && stat.size > 0) {
      // Cutting and writing through one open makes ext4 write all back on close: cut, close, open.
      ftruncateSync(fd, 0);
      closeSync(fd);
      fd = openSync(path, access | constants.O_NONBLOCK);
    }
    return new NodeFileStorage(fd, path, writable || create, true);
  } catch (cause) {
    closeSync(fd);
    throw cause;
  }
}
