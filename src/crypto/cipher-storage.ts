/**
 * Storage whose sectors are encrypted: who reads gets plain bytes, who writes leaves encrypted
 * ones. Sectors are numbered from where the encrypted bytes start.
 */
import { type Awaitable, settled } from '../base/awaitable.ts';
import { alignDown, alignUp } from '../base/bits.ts';
import { rangeCursor, type Storage, type StorageCursor } from '../storage/storage.ts';
import { SECTOR_BYTES } from './sector-batch.ts';
import type { SectorCipher } from './sector-cipher.ts';

/** Bytes that are encrypted, or zeroed, at a time. */
const CHUNK_BYTES = 1024 * 1024;

/** What a view of encrypted storage is made of. */
export interface CipherStorageParts {
  readonly inner: Storage;
  readonly cipher: SectorCipher;
  /** Byte of the inner storage that sector 0 starts at. */
  readonly start: number;
  /** Whether closing this closes the inner storage, too. */
  readonly owns: boolean;
}

/** Plain bytes over encrypted ones. Writes of less than a sector read what is around them. */
export class CipherStorage implements Storage {
  constructor(private readonly parts: CipherStorageParts) {}

  get name(): string {
    return this.parts.inner.name;
  }

  get writable(): boolean {
    return this.parts.inner.writable;
  }

  size(): Awaitable<number> {
    const size = this.parts.inner.size();
    const rest = (bytes: number) => Math.max(0, bytes - this.parts.start);
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

  async write(at: number, from: Uint8Array): Promise<void> {
    const { inner, cipher, start } = this.parts;
    for (let done = 0; done < from.length; ) {
      const first = alignDown(at + done, SECTOR_BYTES);
      const head = at + done - first;
      const length = Math.min(from.length - done, CHUNK_BYTES - head);
      const chunk = new Uint8Array(alignUp(head + length, SECTOR_BYTES));
      await this.readEdges(first, chunk, { from: head, to: head + length });
      chunk.set(from.subarray(done, done + length), head);
      cipher.encrypt(chunk, first / SECTOR_BYTES);
      const written = inner.write(start + first, chunk);
      if (!settled(written)) await written;
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
    return this.parts.inner.truncate(this.parts.start + size);
  }

  flush(): Awaitable<void> {
    return this.parts.inner.flush();
  }

  close(): Awaitable<void> {
    if (!this.parts.owns) return;
    this.parts.cipher.wipe();
    return this.parts.inner.close();
  }

  private readSectors(at: number, into: Uint8Array): Awaitable<number> {
    const { inner, cipher, start } = this.parts;
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
