/**
 * Cryptography where only WebCrypto is at hand: key derivation and hashes are its own, AES is the
 * kernels', and decryption of many blocks is WebCrypto's again.
 *
 * WebCrypto cannot encrypt many blocks each by itself, and what it decrypts it wants chained (CBC)
 * and padded: `D(C[i]) = P[i] ⊕ C[i − 1]` gives single blocks back.
 */
import { assert, Qcow2Error } from '../base/errors.ts';
import type { HashName } from '../format/luks-algorithms.ts';
import type { Region } from '../kernels/arena.ts';
import type { BlockCipher, ChainedDecryption, Platform } from './platform.ts';

/** The hashes that WebCrypto has. */
const HASHES: Partial<Record<HashName, string>> = {
  sha1: 'SHA-1',
  sha256: 'SHA-256',
  sha384: 'SHA-384',
  sha512: 'SHA-512',
};

/** WebCrypto takes nothing that may be shared memory; what is given here never is. */
type Plain = Uint8Array<ArrayBuffer>;

function subtleCrypto(): SubtleCrypto {
  const { subtle } = globalThis.crypto ?? {};
  if (!subtle) {
    const message = 'encrypted images need WebCrypto, which this page does not have (no https?)';
    throw new Qcow2Error('UNSUPPORTED', message);
  }
  return subtle;
}

function hashName(name: HashName): string {
  const known = HASHES[name];
  if (known === undefined) {
    throw new Qcow2Error('UNSUPPORTED', `Hash algorithm '${name}' not supported`);
  }
  return known;
}

/** The kernels' AES. */
class KernelBlocks implements BlockCipher {
  private readonly rounds: number;

  constructor(
    key: Uint8Array,
    private readonly schedule: Region,
  ) {
    const { kernels, at, bytes } = schedule;
    // The key's bytes go where its schedule will be: the kernel reads them first.
    bytes.set(key);
    this.rounds = kernels.aesExpandKey(at, key.length, at);
    assert(this.rounds > 0, 'not an AES key');
  }

  encrypt(at: number, bytes: number): void {
    const { schedule, rounds } = this;
    const result = schedule.kernels.aesEncrypt(schedule.at, rounds, at, bytes / 16);
    assert(result === 0, 'blocks outside of the memory');
  }

  decrypt(at: number, bytes: number): void {
    const { schedule, rounds } = this;
    const result = schedule.kernels.aesDecrypt(schedule.at, rounds, at, bytes / 16);
    assert(result === 0, 'blocks outside of the memory');
  }

  wipe(): void {
    this.schedule.bytes.fill(0);
  }
}

function chainedDecryption(key: Uint8Array): ChainedDecryption | undefined {
  const { subtle } = globalThis.crypto ?? {};
  // Chromium has no 192-bit keys.
  if (!subtle || key.length === 24) return undefined;
  const imported = subtle.importKey('raw', key as Plain, 'AES-CBC', false, ['decrypt']);
  // Looked at when it is used.
  imported.catch(() => {});
  const algorithm = { name: 'AES-CBC', iv: new Uint8Array(16) };
  return async (blocks) =>
    new Uint8Array(await subtle.decrypt(algorithm, await imported, blocks as Plain));
}

/** WebCrypto and the kernels. */
export const webPlatform: Platform = {
  async hash(name, bytes) {
    return new Uint8Array(await subtleCrypto().digest(hashName(name), bytes as Plain));
  },
  async pbkdf2({ hash, passphrase, salt, iterations, length }) {
    const subtle = subtleCrypto();
    const name = hashName(hash);
    const key = await subtle.importKey('raw', passphrase as Plain, 'PBKDF2', false, ['deriveBits']);
    const algorithm = { name: 'PBKDF2', hash: name, salt: salt as Plain, iterations };
    return new Uint8Array(await subtle.deriveBits(algorithm, key, length * 8));
  },
  aes: (key, schedule) => new KernelBlocks(key, schedule),
  chainedDecryption,
};
