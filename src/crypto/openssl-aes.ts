/**
 * AES where the bytes are: OpenSSL's own functions, which Node's program shows to addons, called
 * through koffi. What `node:crypto` returns lies in memory of its own that was never touched
 * before, and is copied twice on the way: 2.6 GB/s of what AES does at 7.
 */
import { assert } from '../base/errors.ts';
import { type KoffiSearch, loadKoffi, type NativeCall } from '../storage/native-koffi.ts';

/** One key in one direction, over blocks of 16 bytes each by itself. */
export interface InPlaceAes {
  /** Encrypts, or decrypts, whole blocks where they are. */
  update(bytes: Uint8Array): void;
  /** Overwrites the key, and lets go of it. */
  free(): void;
}

/** Makes `InPlaceAes` of a key of 16, 24 or 32 bytes. */
export type MakeInPlaceAes = (key: Uint8Array, direction: 'encrypt' | 'decrypt') => InPlaceAes;

/** The functions of <openssl/evp.h>. A cipher context is what the first of them returns. */
interface Evp {
  readonly make: NativeCall;
  readonly init: NativeCall;
  readonly setPadding: NativeCall;
  readonly update: NativeCall;
  readonly free: NativeCall;
  /** By the length of the key. */
  readonly algorithms: ReadonlyMap<number, unknown>;
}

/** A bound of what one call takes: its length is an `int`. */
const CALL_BYTES_MAX = 2 ** 30;

let found: { readonly make: MakeInPlaceAes | undefined } | undefined;

/** OpenSSL's AES, or undefined where it cannot be reached. Looked for the first time only. */
export function opensslAes(): MakeInPlaceAes | undefined {
  found ??= { make: find() };
  return found.make;
}

function find(): MakeInPlaceAes | undefined {
  const search = koffiSearch();
  const koffi = search && loadKoffi(search);
  if (!koffi) return undefined;
  try {
    const evp = bind(koffi.load(null));
    const make: MakeInPlaceAes = (key, direction) => new EvpCipher(evp, key, direction);
    return knowsAes(make) ? make : undefined;
  } catch {
    // A program without these functions.
    return undefined;
  }
}

/** Node's modules without importing them: this file is also part of what browsers load. */
function koffiSearch(): KoffiSearch | undefined {
  const { process } = globalThis as {
    readonly process?: { getBuiltinModule?(name: string): unknown };
  };
  if (!process?.getBuiltinModule) return undefined;
  const { createRequire } = process.getBuiltinModule('node:module') as KoffiSearch;
  const { existsSync } = process.getBuiltinModule('node:fs') as KoffiSearch;
  const { endianness } = process.getBuiltinModule('node:os') as KoffiSearch;
  return { createRequire, existsSync, endianness };
}

function bind(library: { func(definition: string): NativeCall }): Evp {
  const algorithm = (bits: number) => library.func(`void *EVP_aes_${bits}_ecb()`)();
  return {
    make: library.func('void *EVP_CIPHER_CTX_new()'),
    init: library.func(
      'int EVP_CipherInit_ex(void *context, void *algorithm, void *engine, const uint8_t *key, ' +
        'const uint8_t *iv, int encrypts)',
    ),
    setPadding: library.func('int EVP_CIPHER_CTX_set_padding(void *context, int padding)'),
    update: library.func(
      'int EVP_CipherUpdate(void *context, uint8_t *to, int *length, const uint8_t *from, ' +
        'int bytes)',
    ),
    free: library.func('void EVP_CIPHER_CTX_free(void *context)'),
    algorithms: new Map([128, 192, 256].map((bits) => [bits / 8, algorithm(bits)])),
  };
}

/** Contexts of ciphers that nobody freed, and nobody has any more. */
const forgotten = new FinalizationRegistry<() => void>((free) => free());

class EvpCipher implements InPlaceAes {
  private readonly context: unknown;
  private readonly length = new Int32Array(1);
  private isFree = false;

  constructor(
    private readonly evp: Evp,
    key: Uint8Array,
    direction: 'encrypt' | 'decrypt',
  ) {
    const { make, init, setPadding, free, algorithms } = evp;
    const context = make();
    assert(context, 'OpenSSL has no memory for a cipher');
    this.context = context;
    forgotten.register(this, () => free(context), this);
    const encrypts = direction === 'encrypt' ? 1 : 0;
    const ready = init(context, algorithms.get(key.length), null, key, null, encrypts);
    assert(ready === 1, 'OpenSSL has no such cipher');
    setPadding(context, 0);
  }

  update(bytes: Uint8Array): void {
    assert(!this.isFree && bytes.length % 16 === 0, 'whole blocks, and a key that is there');
    const { evp, context, length } = this;
    for (let at = 0; at < bytes.length; at += CALL_BYTES_MAX) {
      const part = bytes.length <= CALL_BYTES_MAX ? bytes : bytes.subarray(at, at + CALL_BYTES_MAX);
      const done = evp.update(context, part, length, part, part.length);
      assert(done === 1 && length[0] === part.length, 'OpenSSL failed');
    }
  }

  free(): void {
    if (this.isFree) return;
    this.isFree = true;
    forgotten.unregister(this);
    this.evp.free(this.context);
  }
}

/** FIPS 197, appendix C.3: whatever answers to these names has to know it, both ways. */
function knowsAes(make: MakeInPlaceAes): boolean {
  const key = Uint8Array.from({ length: 32 }, (_, i) => i);
  const plain = Uint8Array.from({ length: 16 }, (_, i) => i * 0x11);
  const encrypted = '8ea2b7ca516745bfeafc49904b496089';
  const block = plain.slice();
  const there = make(key, 'encrypt');
  const back = make(key, 'decrypt');
  there.update(block);
  const text = Array.from(block, (byte) => byte.toString(16).padStart(2, '0')).join('');
  back.update(block);
  there.free();
  back.free();
  return text === encrypted && block.every((byte, i) => byte === plain[i]);
}
