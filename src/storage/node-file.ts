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
  type Stats,
  writeSync,
} from 'node:fs';
import { alignUp } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import { isLibcLoaded, type Libc, libc } from './native-libc.ts';
import { type Claim, CREATING, claimFile, releaseClaim } from './native-lock.ts';
import { hasOnePoolThread, inBackground } from './node-background.ts';
import { beyondNode, ioError, needReachable } from './node-error.ts';
import { hostPath } from './node-path.ts';
import { rangeCursor, type Storage, type StorageCursor, type StorageHandle } from './storage.ts';

/** What kind of thing a path is, as far as storage cares. */
export type FileKind = 'regular' | 'block' | 'other';

const ZEROS_BYTES = 1024 * 1024;
let zeros: Uint8Array | undefined;

/** Zeros up to this are written: a hole costs as much as that, and breaks the file up. */
const HOLE_BYTES_MIN = 64 * 1024;
/** Bytes of zeros, written or read, that take as long as loading the C library's calls. */
const LOAD_BYTES = 8 * 1024 * 1024;
/** Holes that a sparse file must have in all before it pays to ask where they are. */
const HOLES_BYTES_MIN = 1024 * 1024;
/** Ranges of one look at a file, a bound on what callers keep; what lies behind counts as data. */
const RANGES_MAX = 2 ** 18;

/** Bytes of zeros that this thread has written where it could have asked for holes. */
let zeroedBytes = 0;

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
  readonly isFixed: boolean;
  /** Cleared when the file system turns out to have no holes. */
  private mayPunch: boolean;
  /** Cleared when it turns out not to have room that reads as zeros. */
  private mayReserve = true;
  /** Cleared when the host turns out not to copy for us. */
  private mayCopy = true;

  constructor(
    readonly fd: number,
    readonly name: string,
    readonly writable: boolean,
    private readonly owned: boolean,
    /** Past the host's cache, in whole sectors: so it is told what is there, too. */
    private readonly direct = false,
  ) {
    const stat = fstatSync(fd);
    this.kind = stat.isFile() ? 'regular' : stat.isBlockDevice() ? 'block' : 'other';
    this.isFixed = this.kind !== 'regular';
    this.mayPunch = this.kind !== 'other';
  }

  size(): number {
    return this.kind === 'block' ? blockDeviceSize(this.fd, this.name) : fstatSync(this.fd).size;
  }

  read(at: number, into: Uint8Array): number {
    let done = 0;
    try {
      if (at + into.length > Number.MAX_SAFE_INTEGER) into = this.reachable(at, into);
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

  /** What of a read the file has, where Node cannot ask for all of it. */
  private reachable(at: number, into: Uint8Array): Uint8Array {
    const size = this.size();
    if (at + into.length > size) into = into.subarray(0, Math.max(0, size - at));
    if (into.length > 0) needReachable('pread', at + into.length);
    return into;
  }

  cursor(from: number, to: number): StorageCursor {
    return rangeCursor(this, from, to);
  }

  write(at: number, from: Uint8Array): void {
    this.needWritable();
    let done = 0;
    try {
      needReachable('pwrite', at + from.length);
      while (done < from.length) {
        done += writeSync(this.fd, from, done, from.length - done, at + done);
      }
    } catch (cause) {
      throw ioError(cause, `error while writing '${this.name}'`, at + done);
    }
  }

  /** Past the end the file grows, within it a hole is made; where that can't be, zeros are
   * written. */
  zero(at: number, length: number): void {
    this.needWritable();
    if (length === 0) return;
    const end = at + length;
    if (this.kind === 'regular') {
      const size = this.size();
      if (end > size) this.truncate(end);
      length = Math.min(end, size) - at;
    }
    if (length <= 0) return;
    if (length >= HOLE_BYTES_MIN) {
      zeroedBytes += length;
      if ((isLibcLoaded() || zeroedBytes > LOAD_BYTES) && this.tryZero(at, length)) return;
    }
    zeros ??= new Uint8Array(ZEROS_BYTES);
    for (let done = 0; done < length; done += ZEROS_BYTES) {
      this.write(at + done, zeros.subarray(0, Math.min(ZEROS_BYTES, length - done)));
    }
  }

  /**
   * Makes a range within the file read as zeros where that takes no writing: as a hole, or else
   * with room kept for it.
   * @returns false where the host cannot; the range may then be zeros in part
   */
  tryZero(at: number, length: number): boolean {
    this.needWritable();
    const native = this.mayPunch ? libc() : undefined;
    if (!native) return false;
    if (length === 0) return true;
    const punched =
      this.attempt(() => native.punchHole(this.fd, at, length)) ||
      this.attempt(() => native.zeroRange(this.fd, at, length, { keepSize: true }));
    // A block device may refuse this range and take the next, which is aligned.
    if (!punched && this.kind === 'regular') this.mayPunch = false;
    return punched;
  }

  zeroUnwritten(at: number, length: number): boolean {
    this.needWritable();
    const native = this.kind === 'regular' && this.mayReserve ? libc() : undefined;
    if (!native) return false;
    if (length === 0) return true;
    const keepSize = false;
    // tmpfs has holes, and room to give them, but not both in one call.
    this.mayReserve =
      this.attempt(() => native.zeroRange(this.fd, at, length, { keepSize })) ||
      (this.attempt(() => native.punchHole(this.fd, at, length)) &&
        this.attempt(() => native.allocate(this.fd, at, length, { keepSize })));
    return this.mayReserve;
  }

  discard(at: number, length: number): void {
    this.needWritable();
    const native = this.mayPunch && length > 0 ? libc() : undefined;
    if (native && !this.attempt(() => native.punchHole(this.fd, at, length))) {
      if (this.kind === 'regular') this.mayPunch = false;
    }
  }

  allocate(at: number, length: number): void {
    this.needWritable();
    if (length === 0 || this.tryAllocate(at, length, { keepSize: false })) return;
    if (this.kind !== 'regular') return;
    // What can't be reserved is written: what is there as it is, and zeros behind it.
    const bytes = new Uint8Array(Math.min(ZEROS_BYTES, length));
    for (let done = 0; done < length; done += bytes.length) {
      const piece = bytes.subarray(0, Math.min(bytes.length, length - done));
      piece.fill(0, this.read(at + done, piece));
      this.write(at + done, piece);
    }
  }

  /**
   * Reserves room for a range, leaving what is in it as it is.
   * @param options.keepSize reserve past the file's end, too, without moving it
   * @returns false where the host has no such call
   * @throws Qcow2Error NO_SPACE or IO
   */
  tryAllocate(at: number, length: number, options: { readonly keepSize: boolean }): boolean {
    this.needWritable();
    const native = this.kind === 'regular' ? libc() : undefined;
    if (!native) return false;
    if (length === 0) return true;
    try {
      native.allocate(this.fd, at, length, options);
      return true;
    } catch (cause) {
      const { code } = cause as { code?: string };
      if (code === 'ENOTSUP' || code === 'ENOSYS') return false;
      throw ioError(cause, 'Could not preallocate new data');
    }
  }

  dataRanges(
    from: number,
    to: number,
    exact = false,
  ): Iterable<readonly [number, number]> | undefined {
    if (this.kind !== 'regular') return undefined;
    const { size, blocks } = fstatSync(this.fd);
    const holes = size - blocks * 512;
    if (!exact && holes < (isLibcLoaded() ? HOLES_BYTES_MIN : LOAD_BYTES)) return undefined;
    const native = libc();
    if (!native) return undefined;
    const ranges = walkData(native, this.fd, { from, to: Math.min(to, size), exact });
    return this.direct ? inSectors(ranges, size) : ranges;
  }

  /**
   * Claims the file among those who lock images, until it is closed: see `claimFile`.
   * @throws Qcow2Error BUSY
   */
  claim(claim: Claim): void {
    claimFile(this, claim);
  }

  truncate(size: number): void {
    this.needWritable();
    if (this.isFixed) {
      if (size > this.size()) {
        const cause = { code: 'EINVAL' };
        throw new Qcow2Error('NO_SPACE', 'Cannot grow device files', undefined, cause);
      }
      return;
    }
    try {
      if (size <= Number.MAX_SAFE_INTEGER) ftruncateSync(this.fd, size);
      else truncateBeyondNode(this.fd, size);
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

  copyFrom(source: Storage, from: number, at: number, length: number): number {
    this.needWritable();
    const native = this.mayCopy && source instanceof NodeFileStorage ? libc() : undefined;
    if (!native || !(source instanceof NodeFileStorage)) return 0;
    let done = 0;
    try {
      while (done < length) {
        const got = native.copyRange(source.fd, from + done, this.fd, at + done, length - done);
        if (got === 0) break;
        done += got;
      }
    } catch (cause) {
      const { code } = cause as { code?: string };
      if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EIO') {
        throw ioError(cause, `error while writing '${this.name}'`, at + done);
      }
      // Other file systems, other kernels: the bytes are read and written, then.
      this.mayCopy = false;
    }
    return done;
  }

  allocatedBytes(): number {
    return this.kind === 'regular' ? fstatSync(this.fd).blocks * 512 : this.size();
  }

  /** Past the host's cache it takes several threads to have several requests under way. */
  background(): Storage | undefined {
    return this.direct ? undefined : inBackground(this);
  }

  get copiesInBackground(): boolean {
    return this.mayCopy && !this.direct && hasOnePoolThread() && libc() !== undefined;
  }

  /** Has a thread of Node's pool copy; what that does not, is copied here as far as it can be. */
  async copyFromLater(
    source: NodeFileStorage,
    from: number,
    at: number,
    length: number,
  ): Promise<number> {
    const native = this.mayCopy ? libc() : undefined;
    if (!native) return 0;
    const got = Math.max(0, await native.copyRangeLater(source.fd, from, this.fd, at, length));
    if (got === length) return got;
    return got + this.copyFrom(source, from + got, at + got, length - got);
  }

  share(): StorageHandle {
    return { kind: 'fd', fd: this.fd, name: this.name };
  }

  /** Runs a call that has a fallback; false where the host refuses it. */
  private attempt(call: () => void): boolean {
    try {
      call();
      return true;
    } catch (cause) {
      const { code } = cause as { code?: string };
      if (code === 'ENOSPC' || code === 'EIO') throw ioError(cause, `error while zeroing`);
      return false;
    }
  }

  private needWritable(): void {
    if (!this.writable) throw new Qcow2Error('READ_ONLY', `${this.name} is read-only`);
  }
}

/** Ranges of a file; one that ends with it ends with its sector. */
function* inSectors(
  ranges: Iterable<readonly [number, number]>,
  size: number,
): Generator<readonly [number, number], void, undefined> {
  for (const [start, end] of ranges) yield [start, end === size ? alignUp(end, 512) : end];
}

/** The ranges that a file has data for; short holes count as data where it need not be exact. */
function* walkData(
  native: Libc,
  fd: number,
  range: { readonly from: number; readonly to: number; readonly exact: boolean },
): Generator<readonly [number, number], void, undefined> {
  const { from, to, exact } = range;
  const rangesMax = exact ? Number.POSITIVE_INFINITY : RANGES_MAX;
  const holeMin = exact ? 1 : HOLE_BYTES_MIN;
  let start = -1;
  let end = from;
  for (let count = 0; count < rangesMax; ) {
    let next: number | undefined;
    let hole = to;
    try {
      next = end < to ? native.seekData(fd, end) : undefined;
      if (next !== undefined && next < to) hole = Math.min(to, native.seekHole(fd, next));
    } catch {
      // No such call after all: everything is data.
      next = end;
    }
    if (next === undefined || next >= to) {
      if (start >= 0) yield [start, end];
      return;
    }
    if (start >= 0 && next - end >= holeMin) {
      yield [start, end];
      count++;
      start = next;
    } else if (start < 0) start = next;
    end = hole;
  }
  yield [start, to];
}

/** How `openNodeFile` opens. */
export interface NodeFileOptions {
  readonly writable?: boolean;
  /** Make the file; one that is there is emptied first. */
  readonly create?: boolean;
  /** Claimed among those who lock images, before anything is changed, until it is closed. */
  readonly claim?: Claim | undefined;
  /** Only where reads and writes could go past the host's cache, though they do not. */
  readonly direct?: boolean | undefined;
  /** QEMU's driver for the only kind of file that is wanted. Default: any that is no folder. */
  readonly driver?: FileDriver | undefined;
}

/** What QEMU calls regular files and devices. */
export type FileDriver = 'file' | 'host_device' | 'host_cdrom';

/** @throws Qcow2Error IO where a file is of another kind than the driver is for */
function checkKind(stat: Stats, path: string, driver: FileDriver | undefined): void {
  const isDevice = stat.isBlockDevice() || stat.isCharacterDevice();
  if (driver === 'host_device' || driver === 'host_cdrom') {
    if (isDevice) return;
    const what = 'to be either a character or block device';
    throw new Qcow2Error('IO', `'${driver}' driver requires '${path}' ${what}`);
  }
  if (stat.isFile() || (isDevice && driver === undefined)) return;
  throw new Qcow2Error('IO', `'file' driver requires '${path}' to be a regular file`);
}

/**
 * Opens a file or block device.
 * @throws Qcow2Error IO with the C library's text; BUSY where another's claim excludes ours;
 * directories, pipes and sockets are refused
 */
export function openNodeFile(path: string, options: NodeFileOptions = {}): NodeFileStorage {
  const { writable = false, create = false, claim } = options;
  const access = writable || create ? constants.O_RDWR : constants.O_RDONLY;
  // Without O_NONBLOCK opening a FIFO would wait for its other end.
  const flags = access | constants.O_NONBLOCK | (create ? constants.O_CREAT : 0);
  if (path === '' && !create) {
    const { driver = 'file' } = options;
    throw new Qcow2Error('IO', `The '${driver}' block driver requires a file name`);
  }
  let fd: number;
  try {
    fd = openSync(hostPath(path), flags, 0o644);
  } catch (cause) {
    throw ioError(cause, `Could not open '${path}'`);
  }
  try {
    if (options.direct) needDirect(path, access | constants.O_NONBLOCK);
    const stat = fstatSync(fd);
    checkKind(stat, path, options.driver);
    const made = { fd, name: path };
    if (create && claim) claimFile(made, CREATING);
    if (create && stat.isFile() && stat.size > 0) {
      // Cutting and writing through one open makes ext4 write all back on close: cut, close, open.
      ftruncateSync(fd, 0);
      closeSync(fd);
      fd = openSync(hostPath(path), access | constants.O_NONBLOCK);
    } else if (create && claim) releaseClaim(made, CREATING);
    if (claim) claimFile({ fd, name: path }, claim);
    return new NodeFileStorage(fd, path, writable || create, true, options.direct);
  } catch (cause) {
    closeSync(fd);
    throw cause;
  }
}

/** @throws Qcow2Error IO where the file cannot be read or written past the host's cache */
function needDirect(path: string, flags: number): void {
  try {
    closeSync(openSync(hostPath(path), flags | constants.O_DIRECT));
  } catch (cause) {
    // Any other reason comes up without it, too.
    if ((cause as { code?: string }).code !== 'EINVAL') return;
    throw new Qcow2Error('IO', `Could not open '${path}': filesystem does not support O_DIRECT`);
  }
}

/** Node's own call takes sizes below 2^53 only. */
function truncateBeyondNode(fd: number, size: number): void {
  const native = libc();
  if (!native) throw beyondNode('ftruncate');
  native.truncate(fd, size);
}
