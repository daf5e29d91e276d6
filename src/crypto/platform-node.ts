/** Node's own cryptography: OpenSSL, with the processor's AES instructions, in one call a batch. */
import { Qcow2Error } from '../base/errors.ts';
import type { HashName } from '../format/luks-algorithms.ts';
import type { Region } from '../kernels/arena.ts';
import type { BlockCipher, DerivationRequest, Platform } from './platform.ts';

/** Node's module. */
export type NodeCrypto = typeof import('node:crypto');

/** Node's module where this runs in Node (20.16 or newer), without importing it. */
export function nodeCrypto(): NodeCrypto | undefined {
  const { process } = globalThis as {
    readonly process?: { getBuiltinModule?(name: string): unknown };
  };
  return process?.getBuiltinModule?.('node:crypto') as NodeCrypto | undefined;
}

/** AES in ECB mode: what each call gives back is put where the blocks were. */
class NativeBlocks implements BlockCipher {
  private readonly encryptor;
  private readonly decryptor;

  constructor(
    node: NodeCrypto,
    key: Uint8Array,
    private readonly room: Region,
  ) {
    const name = `aes-${key.length * 8}-ecb`;
    this.encryptor = node.createCipheriv(name, key, null).setAutoPadding(false);
    this.decryptor = node.createDecipheriv(name, key, null).setAutoPadding(false);
  }

  encrypt(at: number, bytes: number): void {
    const view = new Uint8Array(this.room.kernels.memory.buffer, at, bytes);
    view.set(this.encryptor.update(view));
  }

  decrypt(at: number, bytes: number): void {
    const view = new Uint8Array(this.room.kernels.memory.buffer, at, bytes);
    view.set(this.decryptor.update(view));
  }

  /** OpenSSL wipes its own copy when it goes. */
  wipe(): void {}
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
