/**
 * What a host offers of cryptography, behind one face: Node's own, WebCrypto and the kernels
 * elsewhere. Nothing is imported for it: a host that has Node's modules says so itself, and the
 * same bundle runs in both.
 */
import type { Awaitable } from '../base/awaitable.ts';
import type { HashName } from '../format/luks-algorithms.ts';
import type { Region } from '../kernels/arena.ts';
import { nodeCrypto, nodePlatform } from './platform-node.ts';
import { webPlatform } from './platform-web.ts';

/** One AES key, over blocks of 16 bytes each by itself, in place in kernel memory. */
export interface BlockCipher {
  encrypt(at: number, bytes: number): void;
  decrypt(at: number, bytes: number): void;
  /** Overwrites what it keeps of the key, where that can be reached. */
  wipe(): void;
}

/** What PBKDF2 derives a key from. */
export interface DerivationRequest {
  readonly hash: HashName;
  readonly passphrase: Uint8Array;
  readonly salt: Uint8Array;
  readonly iterations: number;
  /** Bytes of the key. */
  readonly length: number;
}

/** CBC decryption with an IV of zeros: takes blocks of which the last is valid padding. */
export type ChainedDecryption = (blocks: Uint8Array) => Promise<Uint8Array>;

/** A host's cryptography. */
export interface Platform {
  /** @throws Qcow2Error UNSUPPORTED for a hash that the host does not have */
  hash(name: HashName, bytes: Uint8Array): Awaitable<Uint8Array>;
  /** @throws Qcow2Error UNSUPPORTED for a hash that the host does not have */
  pbkdf2(request: DerivationRequest): Promise<Uint8Array>;
  /** @param schedule `AES_SCHEDULE_BYTES` of the memory that the blocks will lie in */
  aes(key: Uint8Array, schedule: Region): BlockCipher;
  /** Faster than a `BlockCipher` for many blocks; absent where nothing is. */
  chainedDecryption?(key: Uint8Array): ChainedDecryption | undefined;
}

/** The host's best. */
export function hostPlatform(): Platform {
  const node = nodeCrypto();
  return node ? nodePlatform(node) : webPlatform;
}

/** Bytes that nobody can guess. */
export function randomBytes(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  // The host's limit for one call.
  for (let at = 0; at < length; at += 65536) {
    globalThis.crypto.getRandomValues(bytes.subarray(at, at + 65536));
  }
  return bytes;
}

/** A random UUID in text form. */
export function randomUuid(): string {
  const bytes = randomBytes(16);
  // Version 4, variant 1.
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const text = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return text.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
