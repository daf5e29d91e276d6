/**
 * What the names in a LUKS header mean: `aes`, `xts-plain64`, `cbc-essiv:sha256`, `sha256`.
 *
 *   cipher mode   block mode, a dash, the generator of initialisation vectors; with a colon the
 *                 generator's hash
 *
 * Names, order of the checks and their words are QEMU's.
 */
import { Qcow2Error } from '../base/errors.ts';
import type { LuksHeader } from './luks-header.ts';

/** Key sizes of each cipher that QEMU has a name for, in bits. */
const CIPHER_BITS: Readonly<Record<string, readonly number[]>> = {
  aes: [128, 192, 256],
  cast5: [128],
  serpent: [128, 192, 256],
  twofish: [128, 192, 256],
};

/** Block modes. */
export const CIPHER_MODES = ['cbc', 'ctr', 'ecb', 'xts'] as const;
export type CipherMode = (typeof CIPHER_MODES)[number];

/** Generators of initialisation vectors. */
export const IV_GENERATORS = ['plain', 'plain64', 'essiv'] as const;
export type IvGenerator = (typeof IV_GENERATORS)[number];

/** Hashes that key derivation and generators may use. */
export const HASH_NAMES = [
  'md5',
  'sha1',
  'sha224',
  'sha256',
  'sha384',
  'sha512',
  'ripemd160',
] as const;
/** One of them. */
export type HashName = (typeof HASH_NAMES)[number];

/** Bytes that each hash gives. */
export const HASH_BYTES: Readonly<Record<HashName, number>> = {
  md5: 16,
  sha1: 20,
  sha224: 28,
  sha256: 32,
  sha384: 48,
  sha512: 64,
  ripemd160: 20,
};

/** The algorithms of one header. */
export interface LuksAlgorithms {
  /** `aes`, `serpent`, … */
  readonly cipher: string;
  /** Bits of the cipher's own key: half of what is stored in XTS mode, which has two. */
  readonly keyBits: number;
  readonly mode: CipherMode;
  readonly generator: IvGenerator;
  /** Present where the name has one, whether or not the generator needs it. */
  readonly generatorHash: HashName | undefined;
  readonly hash: HashName;
}

/** @throws Qcow2Error UNSUPPORTED for an algorithm that QEMU has no name for */
export function luksAlgorithms(
  header: Pick<LuksHeader, 'cipherName' | 'cipherMode' | 'hash' | 'keyBytes'>,
): LuksAlgorithms {
  const names = splitCipherMode(header.cipherMode);
  const generatorHash =
    names.hash === undefined ? undefined : oneOf(HASH_NAMES, names.hash, 'Hash algorithm');
  const mode = oneOf(CIPHER_MODES, names.mode, 'Cipher mode');
  const keyBits = cipherKeyBits(header, mode);
  const hash = oneOf(HASH_NAMES, header.hash, 'Hash algorithm');
  const generator = oneOf(IV_GENERATORS, names.generator, 'IV generator');
  if (generator === 'essiv' && generatorHash === undefined) {
    throw new Qcow2Error('UNSUPPORTED', 'Missing IV generator hash specification');
  }
  return { cipher: header.cipherName, keyBits, mode, generator, generatorHash, hash };
}

function oneOf<T extends string>(known: readonly T[], name: string, what: string): T {
  const found = known.find((one) => one === name);
  if (found === undefined) throw new Qcow2Error('UNSUPPORTED', `${what} '${name}' not supported`);
  return found;
}

function splitCipherMode(text: string): { mode: string; generator: string; hash?: string } {
  const [, mode, generator, hash] = /^([^-]*)-([^:]*)(?::(.*))?$/s.exec(text) ?? [];
  if (mode === undefined || generator === undefined) {
    throw new Qcow2Error('UNSUPPORTED', `Unexpected cipher mode string format '${text}'`);
  }
  return hash === undefined ? { mode, generator } : { mode, generator, hash };
}

function cipherKeyBits(
  { cipherName, keyBytes }: Pick<LuksHeader, 'cipherName' | 'keyBytes'>,
  mode: CipherMode,
): number {
  const bytes = mode === 'xts' ? Math.floor(keyBytes / 2) : keyBytes;
  const known = Object.hasOwn(CIPHER_BITS, cipherName) ? CIPHER_BITS[cipherName] : undefined;
  if (!known?.includes(bytes * 8)) {
    const message = `Algorithm '${cipherName}' with key size ${bytes} bytes not supported`;
    throw new Qcow2Error('UNSUPPORTED', message);
  }
  return bytes * 8;
}
