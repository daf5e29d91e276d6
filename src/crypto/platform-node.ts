/** Node's own cryptography: OpenSSL, with the processor's AES instructions, in one call a batch. */
import { Qcow2Error } from '../base/errors.ts';
import type { HashName } from '../format/luks-algorithms.ts';
import type { Region } from '../kernels/arena.ts';
import { type InPlaceAes, opensslAes } from './openssl-aes.ts';
import type { BlockCipher, DerivationRequest, Platform } from './platform.ts';

type Cipher = import('node:crypto').Cipher;
type Decipher = import('node:crypto').Decipher;

/** Node's module. */
export type NodeCrypto = typeof import('node:crypto');

/** Node's module where this runs in Node (20.16 or newer), without importing it. */
export function nodeCrypto(): NodeCrypto | undefined {
  const { process } = globalThis as {
    readonly process?: { getBuiltinModule?(name: string): unknown };
  };
  return process?.getBuiltinModule?.('node:crypto') as NodeCrypto | undefined;
}

/** Bytes of one key's work from which on OpenSSL is called itself: finding it takes some 3 ms. */
const IN_PLACE_FROM_BYTES = 2 * 2 ** 20;

/** AES in ECB mode: what each call gives back is put where the blocks were. */
class NativeBlocks implements BlockCipher {
  private readonly encryptor: Direction;
  private readonly decryptor: Direction;

  constructor(
    node: NodeCrypto,
    key: Uint8Array,
    private readonly room: Region,
  ) {
    const name = `aes-${key.length * 8}-ecb`;
    // A copy: whoever wipes the key may do so before it is used again.
    this.encryptor = new Direction(node.createCipheriv(name, key, null), key.slice(), 'encrypt');
    this.decryptor = new Direction(node.createDecipheriv(name, key, null), key.slice(), 'decrypt');
  }

  encrypt(at: number, bytes: number): void {
    this.encryptor.update(new Uint8Array(this.room.kernels.memory.buffer, at, bytes));
  }

  decrypt(at: number, bytes: number): void {
    this.decryptor.update(new Uint8Array(this.room.kernels.memory.buffer, at, bytes));
  }

  wipe(): void {
    this.encryptor.wipe();
    this.decryptor.wipe();
  }
}

/** One way of a key: through Node's module, and where there is much to do in place. */
class Direction {
  private inPlace: InPlaceAes | undefined;
  private before = IN_PLACE_FROM_BYTES;

  constructor(
    private readonly cipher: Cipher | Decipher,
    private readonly key: Uint8Array,
    private readonly name: 'encrypt' | 'decrypt',
  ) {
    cipher.setAutoPadding(false);
  }

  update(blocks: Uint8Array): void {
    if (this.inPlace) this.inPlace.update(blocks);
    else if (this.before > 0) this.updateThroughNode(blocks);
    else {
      this.before = Number.POSITIVE_INFINITY;
      this.inPlace = opensslAes()?.(this.key, this.name);
      this.update(blocks);
    }
  }

  private updateThroughNode(blocks: Uint8Array): void {
    this.before -= blocks.length;
    blocks.set(this.cipher.update(blocks));
  }

  /** OpenSSL wipes its own copies: this one now, that of Node's module when it goes. */
  wipe(): void {
    this.key.fill(0);
    this.inPlace?.free();
  }
}

function refuseUnknown(node: NodeCrypto, name: HashName): void {
  if (node.getHashes().includes(name)) return;
  throw new Qcow2Error('UNSUPPORTED', `Hash algorithm '${name}' not supported`);
}

/** @param node Node's module */
export function nodePlatform(node: NodeCrypto): Platform {
  return {
    hash(name, bytes) {
      refuseUnknown(node, name);
      return node.createHash(name).update(bytes).digest();
    },
    pbkdf2({ hash, passphrase, salt, iterations, length }: DerivationRequest) {
      refuseUnknown(node, hash);
      return new Promise((resolve, reject) => {
        node.pbkdf2(passphrase, salt, iterations, length, hash, (cause, key) => {
          if (cause) reject(cause);
          else resolve(key);
        });
      });
    },
    aes: (key, schedule) => new NativeBlocks(node, key, schedule),
  };
}
