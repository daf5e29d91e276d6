/**
 * Storage over a file of a browser's origin-private file system. A worker has handles that answer
 * at once, at a file's speed; a page does not, so there a worker of its own does the work.
 */
import { Qcow2Error } from '../base/errors.ts';
import { remoteStorage } from './remote.ts';
import { rangeCursor, type Storage, type StorageCursor, type StorageHandle } from './storage.ts';

/** Bytes of zeros that are written at a time. */
const ZEROS_BYTES = 1024 * 1024;

/** What of the File System standard's sync access handle is used here. */
interface SyncHandle {
  read(into: Uint8Array, options: { readonly at: number }): number;
  write(from: Uint8Array, options: { readonly at: number }): number;
  truncate(size: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}

/** A file's handle as workers know it: pages lack the method. */
interface SyncFile {
  createSyncAccessHandle?(options: { readonly mode: string }): Promise<SyncHandle>;
}

/** How an OPFS file is opened. */
export interface OpfsOptions {
  /** Default false: the storage refuses writes. */
  readonly writable?: boolean;
}

/**
 * Opens a file of the origin-private file system. It may be open several times: the workers of a
 * conversion open it, too. The file is there already (`getFileHandle(name, { create: true })`).
 * @throws Qcow2Error IO where the browser refuses, or someone has it for himself
 */
export function openOpfsFile(
  file: FileSystemFileHandle,
  { writable = false }: OpfsOptions = {},
): Promise<Storage> {
  if ('createSyncAccessHandle' in file) return openOpfsHere(file, writable);
  return remoteStorage({ kind: 'opfs', file, name: file.name }, writable);
}

/** The same where it is known that this is a worker. */
export async function openOpfsHere(
  file: FileSystemFileHandle,
  writable: boolean,
): Promise<Storage> {
  const open = (file as SyncFile).createSyncAccessHandle;
  if (!open) {
    const message = 'only workers have handles of the origin-private file system';
    throw new Qcow2Error('UNSUPPORTED', message);
  }
  // Handles of another kind, read-only ones included, would keep each other out.
  const handle = await open.call(file, { mode: 'readwrite-unsafe' }).catch((cause: unknown) => {
    throw failure(cause, `could not open ${file.name}`);
  });
  return new OpfsStorage(handle, file, writable);
}

class OpfsStorage implements Storage {
  private zeros: Uint8Array | undefined;

  constructor(
    private readonly handle: SyncHandle,
    private readonly file: FileSystemFileHandle,
    readonly writable: boolean,
  ) {}

  get name(): string {
    return this.file.name;
  }

  size(): number {
    return this.attempt('could not ask for the size of', () => this.handle.getSize());
  }

  read(at: number, into: Uint8Array): number {
    return this.attempt('could not read', () => this.handle.read(into, { at }), at);
  }

  cursor(from: number, to: number): StorageCursor {
    return rangeCursor(this, from, to);
  }

  write(at: number, from: Uint8Array): void {
    this.needWritable();
    for (let done = 0; done < from.length; ) {
      const part = done === 0 ? from : from.subarray(done);
      const written = this.attempt(
        'could not write',
        () => this.handle.write(part, { at: at + done }),
        at + done,
      );
      // Fewer bytes than asked for without an error: the quota, as far as anybody says.
      if (written <= 0) {
        throw new Qcow2Error('NO_SPACE', `${this.name} takes no more bytes`, at + done);
      }
      done += written;
    }
  }

  zero(at: number, length: number): void {
    this.needWritable();
    if (length === 0) return;
    const size = this.size();
    const end = at + length;
    const stop = Math.min(end, size);
    for (let done = at; done < stop; done += ZEROS_BYTES) {
      this.zeros ??= new Uint8Array(ZEROS_BYTES);
      this.write(done, this.zeros.subarray(0, Math.min(ZEROS_BYTES, stop - done)));
    }
    // What is new reads as zeros by itself, and takes no room.
    if (end > size) this.truncate(end);
  }

  truncate(size: number): void {
    this.needWritable();
    this.attempt('could not resize', () => this.handle.truncate(size));
  }

  flush(): void {
    if (this.writable) this.attempt('could not flush', () => this.handle.flush());
  }

  close(): void {
    this.handle.close();
  }

  share(): StorageHandle {
    return { kind: 'opfs', file: this.file, name: this.name };
  }

  private attempt<T>(what: string, work: () => T, at?: number): T {
    try {
      return work();
    } catch (cause) {
      throw failure(cause, `${what} ${this.name}`, at);
    }
  }

  private needWritable(): void {
    if (!this.writable) throw new Qcow2Error('READ_ONLY', `${this.name} is read-only`);
  }
}

function failure(cause: unknown, what: string, at?: number): Qcow2Error {
  const full = cause instanceof DOMException && cause.name === 'QuotaExceededError';
  const text = cause instanceof Error ? cause.message : String(cause);
  return new Qcow2Error(full ? 'NO_SPACE' : 'IO', `${what}: ${text}`, at, cause);
}
