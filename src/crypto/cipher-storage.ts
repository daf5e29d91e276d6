/**
 * Storage whose sectors are encrypted: who reads gets plain bytes, who writes leaves encrypted
 * ones. Sectors are numbered from where the encrypted bytes start.
 */
import { type Awaitable, settled } from '../base/awaitable.ts';
import { alignDown, alignUp } from '../base/bits.ts';
import type { Workspace } from '../kernels/arena.ts';
import {
  rangeCursor,
  type SectorKeys,
  type Storage,
  type StorageCursor,
  type StorageHandle,
} from '../storage/storage.ts';
import { SECTOR_BYTES } from './sector-batch.ts';
import { BATCH_BYTES, SectorCipher } from './sector-cipher.ts';

/** Bytes that are encrypted, or zeroed, at a time. */
const CHUNK_BYTES = 1024 * 1024;

/** How a storage's sectors are encrypted. */
export interface CipherPlace {
  readonly keys: SectorKeys;
  /** Byte of the storage that sector 0 starts at. */
  readonly start: number;
  /** Closing this leaves the storage open: it is another's. */
  readonly borrowed?: boolean;
}

/** Plain bytes over encrypted ones. Writes of less than a sector read what is around them. */
export class CipherStorage implements Storage {
  private cipher: SectorCipher;
  private readonly start: number;
  /** Bytes in the cipher's memory may be encrypted where they are, for nobody needs them again. */
  private writesOver = false;
  /** A write that has not taken its bytes yet: those of the next would go over them. */
  private writing: Promise<void> | undefined;

  /** Absent where the storage itself cannot be shared. */
  readonly share?: () => StorageHandle;

  constructor(
    private readonly inner: Storage,
    private readonly place: CipherPlace,
  ) {
    const { keys, start } = place;
    this.start = start;
    this.cipher = new SectorCipher(keys);
    const shared = inner.share?.bind(inner);
    if (shared) {
      this.share = () => ({ kind: 'cipher', inner: shared(), keys, start, name: inner.name });
    }
  }

  /**
   * Bytes in this memory are from now on worked on where they are. It is not in use yet.
   * @param options.writesOver what is written from there is encrypted there, too
   */
  workIn(workspace: Workspace, { writesOver = false } = {}): void {
    this.cipher = new SectorCipher(this.place.keys, { workspace });
    this.writesOver = writesOver;
  }

  get name(): string {
    return this.inner.name;
  }

  get writable(): boolean {
    return this.inner.writable;
  }

  size(): Awaitable<number> {
    const size = this.inner.size();
    const rest = (bytes: number) => Math.max(0, bytes - this.start);
    return settled(size) ? rest(size) : size.then(rest);
  }

  read(at: number, into: Uint8Array): Awaitable<number> {
    if (at % SECTOR_BYTES === 0 && into.length % SECTOR_BYTES === 0) {
      return this.readSectors(at, into);
    }
    const from = alignDown(at, SECTOR_BYTES);
    const whole = new Uint8Array(alignUp(at + into.length, SECTOR_BYTES) - from);
    const take = (got: number) => {
      const count = Math.max(0, Math.min(into.length, got - (at - from)));
      into.set(whole.subarray(at - from, at - from + count));
      return count;
    };
    const read = this.readSectors(from, whole);
    return settled(read) ? take(read) : read.then(take);
  }

  cursor(from: number, to: number): StorageCursor {
    return rangeCursor(this, from, to);
  }

  write(at: number, from: Uint8Array): Awaitable<void> {
    if (this.writing) return this.writing.then(() => this.write(at, from));
    const whole = at % SECTOR_BYTES === 0 && from.length % SECTOR_BYTES === 0;
    const done = whole ? this.writeSectors(at, from) : this.writePieces(at, from);
    if (settled(done)) return;
    const over = () => {
      this.writing = undefined;
    };
    this.writing = done.then(over, over);
    return done;
  }

  /** Encrypts batch by batch, in the cipher's memory, and writes from there. */
  private writeSectors(at: number, from: Uint8Array): Awaitable<void> {
    for (let done = 0; done < from.length; done += BATCH_BYTES) {
      const part = from.subarray(done, done + BATCH_BYTES);
      const encrypted = this.encrypted(part, (at + done) / SECTOR_BYTES);
      const written = this.inner.write(this.start + at + done, encrypted);
      if (settled(written)) continue;
      const next = done + BATCH_BYTES;
      return written.then(() => this.writeSectors(at + next, from.subarray(next)));
    }
  }

  private encrypted(part: Uint8Array, sector: number): Uint8Array {
    const { cipher } = this;
    if (!this.writesOver || !cipher.hasInPlace(part)) return cipher.encrypted(part, sector);
    cipher.encrypt(part, sector);
    return part;
  }

  private async writePieces(at: number, from: Uint8Array): Promise<void> {
    for (let done = 0; done < from.length; ) {
      const first = alignDown(at + done, SECTOR_BYTES);
      const head = at + done - first;
      const length = Math.min(from.length - done, CHUNK_BYTES - head);
      const chunk = new Uint8Array(alignUp(head + length, SECTOR_BYTES));
      await this.readEdges(first, chunk, { from: head, to: head + length });
      chunk.set(from.subarray(done, done + length), head);
      await this.writeSectors(first, chunk);
      done += length;
    }
  }

  /** Zeros are written: a hole would read as something else. */
  async zero(at: number, length: number): Promise<void> {
    const zeros = new Uint8Array(Math.min(CHUNK_BYTES, length));
    for (let done = 0; done < length; done += zeros.length) {
      await this.write(at + done, zeros.subarray(0, Math.min(zeros.length, length - done)));
    }
  }

  truncate(size: number): Awaitable<void> {
    return this.inner.truncate(this.start + size);
  }

  flush(): Awaitable<void> {
    return this.inner.flush();
  }

  close(): Awaitable<void> {
    if (this.place.borrowed) return;
    this.cipher.wipe();
    return this.inner.close();
  }

  private readSectors(at: number, into: Uint8Array): Awaitable<number> {
    const { inner, cipher, start } = this;
    const finish = (got: number): Awaitable<number> => {
      // A sector that the storage cuts off is one of zeros behind the cut, as encrypted.
      const sectors = alignUp(got, SECTOR_BYTES);
      into.fill(0, got, sectors);
      const decrypted = cipher.decrypt(into.subarray(0, sectors), at / SECTOR_BYTES);
      return settled(decrypted) ? sectors : decrypted.then(() => sectors);
    };
    const read = inner.read(start + at, into);
    return settled(read) ? finish(read) : read.then(finish);
  }

  /** Fills the first and the last sector of a chunk where a write covers them in part. */
  private async readEdges(
    first: number,
    chunk: Uint8Array,
    covered: { readonly from: number; readonly to: number },
  ): Promise<void> {
    const last = chunk.length - SECTOR_BYTES;
    if (covered.from > 0) await this.readSectors(first, chunk.subarray(0, SECTOR_BYTES));
    if (covered.to < chunk.length && (last > 0 || covered.from === 0)) {
      await this.readSectors(first + last, chunk.subarray(last));
    }
  }
}
