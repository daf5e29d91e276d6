/**
 * An encrypted image's clusters as plain bytes: what those who copy disks read from, instead of
 * the file.
 */
import { CipherStorage } from '../../crypto/cipher-storage.ts';
import { GuestCipherStorage } from '../../crypto/guest-cipher-storage.ts';
import type { Storage } from '../../storage/storage.ts';
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
  const { format, keys } = encryption;
  if (format === 'luks') return new CipherStorage(inner, { keys, start: 0, borrowed: true });
  const read = (guest: number, into: Uint8Array) => reader.read(guest, into);
  return new GuestCipherStorage(inner, keys, { size: diskSize, read });
}
