/**
 * Storage whose sectors are encrypted by where they are in the guest, as the old AES has it: who
 * reads says both where bytes are in the guest and where in the file.
 */
import { type Awaitable, settled } from '../base/awaitable.ts';
import { alignDown, alignUp } from '../base/bits.ts';
import { assert, Qcow2Error } from '../base/errors.ts';
import type { Workspace } from '../kernels/arena.ts';
import {
  rangeCursor,
  type SectorKeys,
  type Storage,
  type StorageCursor,
  type StorageHandle,
} from '../storage/storage.ts';
import { SECTOR_BYTES } from './sector-batch.ts';
import { SectorCipher } from './sector-cipher.ts';

/** The guest as those see it who know its tables. */
export interface GuestBytes {
  size(): number;
  read(guest: number, into: Uint8Array): Promise<void>;
}

/** Plain bytes of a disk, by guest offset. For reading only. */
export class GuestCipherStorage implements Storage {
  readonly writable = false;
  private cipher: SectorCipher;

  /** Absent where the file itself cannot be shared. */
  readonly share?: () => StorageHandle;

  /** @param guest for reads that do not say where in the file bytes are; without it all have to */
  constructor(
    private readonly inner: Storage,
    private readonly keys: SectorKeys,
    private readonly guest?: GuestBytes,
  ) {
    this.cipher = new SectorCipher(keys);
    const shared = inner.share?.bind(inner);
    if (shared) {
      this.share = () => ({ kind: 'guest-cipher', inner: shared(), keys, name: inner.name });
    }
  }

  /** Bytes in this memory are from now on worked on where they are. It is not in use yet. */
  workIn(workspace: Workspace): void {
    this.cipher = new SectorCipher(this.keys, { workspace });
  }

  get name(): string {
    return this.inner.name;
  }

  size(): Awaitable<number> {
    return this.guest ? this.guest.size() : this.inner.size();
  }

  async read(guest: number, into: Uint8Array): Promise<number> {
    assert(this.guest, 'whoever has no tables says where in the file bytes are');
    const length = Math.max(0, Math.min(into.length, this.guest.size() - guest));
    await this.guest.read(guest, into.subarray(0, length));
    return length;
  }

  /**
   * Reads bytes of which both places are known; past the file's end it has zeros, as encrypted.
   * @returns how many there were, as `Storage.read`
   */
  readPlaced(guest: number, file: number, into: Uint8Array): Awaitable<number> {
    const head = guest % SECTOR_BYTES;
    if (head === 0 && into.length % SECTOR_BYTES === 0) return this.readSectors(guest, file, into);
    const whole = new Uint8Array(alignUp(head + into.length, SECTOR_BYTES));
    const take = (got: number) => {
      const count = Math.max(0, Math.min(into.length, got - head));
      into.set(whole.subarray(head, head + count));
      return count;
    };
    const read = this.readSectors(alignDown(guest, SECTOR_BYTES), file - head, whole);
    return settled(read) ? take(read) : read.then(take);
  }

  private readSectors(guest: number, file: number, into: Uint8Array): Awaitable<number> {
    const finish = (got: number): Awaitable<number> => {
      const bytes = alignUp(got, SECTOR_BYTES);
      into.fill(0, got, bytes);
      const decrypted = this.cipher.decrypt(into.subarray(0, bytes), guest / SECTOR_BYTES);
      return settled(decrypted) ? bytes : decrypted.then(() => bytes);
    };
    const read = this.inner.read(file, into);
    return settled(read) ? finish(read) : read.then(finish);
  }

  cursor(from: number, to: number): StorageCursor {
    return rangeCursor(this, from, to);
  }

  write(): Awaitable<void> {
    throw this.readOnly();
  }

  zero(): Awaitable<void> {
    throw this.readOnly();
  }

  truncate(): Awaitable<void> {
    throw this.readOnly();
  }

  flush(): void {}

  /** In a worker the file is this one's own; beside an open image it is the image's. */
  close(): Awaitable<void> {
    if (this.guest) return;
    this.cipher.wipe();
    return this.inner.close();
  }

  private readOnly(): Qcow2Error {
    return new Qcow2Error('READ_ONLY', `${this.name} is read-only`);
  }
}
