/**
 * Bytes of a file in pages that copies share until one of them writes: a copy of an image of some
 * MiB costs a few thousand references, so a test can afford thousands of them.
 */
import { Qcow2Error } from '../../src/base/errors.ts';
import { rangeCursor, type Storage } from '../../src/storage/storage.ts';

const PAGE = 4096;

/** A file's bytes. A page that is absent reads as zeros. */
export class PagedBytes {
  private pages: (Uint8Array | undefined)[] = [];
  /** Whether a page is this object's alone; shared ones are copied before a write. */
  private own: boolean[] = [];
  private length = 0;

  static from(bytes: Uint8Array): PagedBytes {
    const result = new PagedBytes();
    result.write(0, bytes);
    return result;
  }

  get size(): number {
    return this.length;
  }

  /** Another file with the same bytes. */
  copy(): PagedBytes {
    const result = new PagedBytes();
    result.pages = this.pages.slice();
    result.length = this.length;
    this.own = [];
    return result;
  }

  read(at: number, into: Uint8Array): number {
    const got = Math.max(0, Math.min(into.length, this.length - at));
    for (let done = 0; done < got; ) {
      const inPage = (at + done) % PAGE;
      const step = Math.min(got - done, PAGE - inPage);
      const page = this.pages[(at + done - inPage) / PAGE];
      if (page) into.set(page.subarray(inPage, inPage + step), done);
      else into.fill(0, done, done + step);
      done += step;
    }
    return got;
  }

  write(at: number, from: Uint8Array): void {
    for (let done = 0; done < from.length; ) {
      const inPage = (at + done) % PAGE;
      const step = Math.min(from.length - done, PAGE - inPage);
      const page = this.ownPage((at + done - inPage) / PAGE);
      page.set(from.subarray(done, done + step), inPage);
      done += step;
    }
    if (from.length > 0) this.length = Math.max(this.length, at + from.length);
  }

  zero(at: number, length: number): void {
    for (let done = 0; done < length; ) {
      const inPage = (at + done) % PAGE;
      const step = Math.min(length - done, PAGE - inPage);
      const index = (at + done - inPage) / PAGE;
      if (step === PAGE) this.pages[index] = undefined;
      else if (this.pages[index]) this.ownPage(index).fill(0, inPage, inPage + step);
      done += step;
    }
    if (length > 0) this.length = Math.max(this.length, at + length);
  }

  truncate(size: number): void {
    if (size < this.length) {
      // What is cut off must read as zeros if the file grows again.
      const end = this.length;
      this.zero(size, end - size);
      this.pages.length = Math.min(this.pages.length, Math.ceil(size / PAGE));
    }
    this.length = size;
  }

  /** All bytes as one array. */
  toBytes(): Uint8Array {
    const bytes = new Uint8Array(this.length);
    this.read(0, bytes);
    return bytes;
  }

  private ownPage(index: number): Uint8Array {
    const page = this.pages[index];
    if (page && this.own[index]) return page;
    const fresh = page ? page.slice() : new Uint8Array(PAGE);
    this.pages[index] = fresh;
    this.own[index] = true;
    return fresh;
  }
}

/** What a test's storage does with a change or a flush, once the handle has let it through. */
export interface StorageSink {
  write(at: number, from: Uint8Array): void;
  zero(at: number, length: number): void;
  truncate(size: number): void;
  /** Starts a flush; what is called then ends it. Only what came before the start is covered. */
  startFlush(): () => void;
}

/** Storage of which a flush can be taken apart, so that it can take time as real ones do. */
export interface SplitFlushStorage extends Storage {
  startFlush(): () => void;
}

/** An open file of a test. Refuses everything once it is closed. */
export function openPaged(
  bytes: PagedBytes,
  name: string,
  sink: StorageSink = {
    write: (at, from) => bytes.write(at, from),
    zero: (at, length) => bytes.zero(at, length),
    truncate: (size) => bytes.truncate(size),
    startFlush: () => () => {},
  },
): SplitFlushStorage {
  let open = true;
  const use = () => {
    if (!open) throw new Error(`${name} is used after it was closed`);
  };
  const place = (...numbers: number[]) => {
    use();
    for (const number of numbers) {
      // A test's image never comes near that, so it can only be a mistake.
      if (!Number.isSafeInteger(number) || number < 0 || number > 2 ** 40) {
        throw new Error(`${name} is used at ${numbers.join(' ')}`);
      }
    }
  };
  const startFlush = () => {
    use();
    return sink.startFlush();
  };
  const storage: SplitFlushStorage = {
    name,
    writable: true,
    size: () => {
      use();
      return bytes.size;
    },
    read: (at, into) => {
      place(at, into.length);
      return bytes.read(at, into);
    },
    cursor: (from, to) => rangeCursor(storage, from, to),
    write: (at, from) => {
      place(at, from.length);
      if (from.length > 0) sink.write(at, from);
    },
    zero: (at, length) => {
      place(at, length);
      if (length > 0) sink.zero(at, length);
    },
    // What is given back reads as zeros, and the file stays as long as it is.
    discard: (at, length) => {
      place(at, length);
      const end = Math.min(at + length, bytes.size);
      if (end > at) sink.zero(at, end - at);
    },
    truncate: (size) => {
      place(size);
      sink.truncate(size);
    },
    flush: () => startFlush()(),
    startFlush,
    close: () => {
      use();
      open = false;
    },
  };
  return storage;
}

/** The files of one image: its own, its data file, its backing file. */
export interface FileOpener {
  /** Opens a file anew. @throws Qcow2Error IO where there is none of that name */
  open(name: string): Storage;
}

/** Files that a test can make misbehave. */
export interface Files extends FileOpener {
  open(name: string): SplitFlushStorage;
}

/** Files in memory. */
export class MemoryFiles implements Files {
  constructor(readonly all: ReadonlyMap<string, PagedBytes>) {}

  static empty(...names: string[]): MemoryFiles {
    return new MemoryFiles(new Map(names.map((name) => [name, new PagedBytes()])));
  }

  open(name: string): SplitFlushStorage {
    return openPaged(this.bytes(name), name);
  }

  bytes(name: string): PagedBytes {
    const bytes = this.all.get(name);
    if (!bytes) throw new Qcow2Error('IO', `there is no file ${name}`);
    return bytes;
  }
}
