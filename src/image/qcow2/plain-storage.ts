/**
 * An encrypted image's clusters as plain bytes: what those who copy disks read from, instead of
 * the file.
 */
import type { Awaitable } from '../../base/awaitable.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { CipherStorage } from '../../crypto/cipher-storage.ts';
import { rangeCursor, type Storage } from '../../storage/storage.ts';
import type { Encryption } from './encryption.ts';
import type { GuestReader } from './read.ts';

/** Reads plain bytes: at host offsets under LUKS, at guest offsets under the old AES. */
export function plainStorage(
  encryption: Encryption,
  parts: {
    readonly dataStorage: Storage;
    readonly reader: GuestReader;
  },
  diskSize: () => number,
): Storage {
  const { dataStorage: inner, reader } = parts;
  if (encryption.format === 'luks') {
    return new CipherStorage(inner, { keys: encryption.keys, start: 0, borrowed: true });
  }
  return new GuestStorage(inner.name, reader, diskSize);
}

/** Guest bytes of an image, as storage. */
class GuestStorage implements Storage {
  readonly writable = false;

  constructor(
    readonly name: string,
    private readonly reader: GuestReader,
    readonly size: () => number,
  ) {}

  async read(at: number, into: Uint8Array): Promise<number> {
    const length = Math.max(0, Math.min(into.length, this.size() - at));
    await this.reader.read(at, into.subarray(0, length));
    return length;
  }

  cursor(from: number, to: number) {
    return rangeCursor(this, from, to);
  }

  write(): Awaitable<void> {
    throw readOnly(this.name);
  }

  zero(): Awaitable<void> {
    throw readOnly(this.name);
  }

  truncate(): Awaitable<void> {
    throw readOnly(this.name);
  }

  flush(): void {}

  close(): void {}
}

function readOnly(name: string): Qcow2Error {
  return new Qcow2Error('READ_ONLY', `${name} is read-only`);
}
