/**
 * A secret that another secret is the key of: AES-256 in CBC mode, filled up to whole blocks by
 * bytes that each say how many they are (PKCS#7). (qemu(1), `-object secret,…,keyid=…,iv=…`)
 */
import { createRequire } from 'node:module';
import { UsageError } from './command.ts';

const KEY_BYTES = 32;
const BLOCK_BYTES = 16;

/** @throws UsageError in QEMU's words */
export function decryptSecret(
  bytes: Uint8Array,
  { key, vector }: { readonly key: Uint8Array; readonly vector: Uint8Array | undefined },
): Uint8Array {
  if (key.length !== KEY_BYTES) {
    throw new UsageError(`Key should be ${KEY_BYTES} bytes in length`);
  }
  if (!vector) throw new UsageError('IV is required to decrypt secret');
  if (vector.length !== BLOCK_BYTES) {
    throw new UsageError(`IV should be ${BLOCK_BYTES} bytes in length not ${vector.length}`);
  }
  if (bytes.length % BLOCK_BYTES !== 0) {
    const message = `Length ${bytes.length} must be a multiple of block size ${BLOCK_BYTES}`;
    throw new UsageError(message);
  }
  if (bytes.length === 0) return bytes;
  // Loaded here: most command lines have no such secret.
  const crypto = createRequire('/')('node:crypto') as typeof import('node:crypto');
  const cipher = crypto.createDecipheriv('aes-256-cbc', key, vector).setAutoPadding(false);
  const plain = Uint8Array.from([...cipher.update(bytes), ...cipher.final()]);
  const padding = plain.at(-1)!;
  if (padding === 0 || padding > BLOCK_BYTES) {
    const what = `Incorrect number of padding bytes (${padding}) found on decrypted data`;
    throw new UsageError(what);
  }
  return plain.subarray(0, plain.length - padding);
}
