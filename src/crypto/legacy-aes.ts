/**
 * qcow2's own encryption of old: AES-128-CBC with the passphrase itself as the key, and the number
 * of the *guest* sector as the vector. Weak in every respect; for images that have it.
 *
 * The key is the passphrase's first 16 bytes, filled up with NULs: QEMU's images decide, the
 * specification's text says otherwise.
 */
import type { SectorKeys } from '../storage/storage.ts';

const KEY_BYTES = 16;

/** The keys of an image's sectors. Any passphrase will do: nothing tells whether it is right. */
export function legacyKeys(passphrase: Uint8Array): SectorKeys {
  const key = new Uint8Array(KEY_BYTES);
  key.set(passphrase.subarray(0, KEY_BYTES));
  return { mode: 'cbc', key, vectorBits: 64 };
}
