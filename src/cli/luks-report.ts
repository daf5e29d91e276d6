/** What `info` says of a LUKS header. */
import { Qcow2Error } from '../base/errors.ts';
import type { LuksHeader, LuksKeySlot } from '../format/luks-header.ts';
import type { JsonObject } from './json.ts';

/** Key sizes of each cipher that QEMU has a name for, in bits. */
const CIPHER_BITS: Readonly<Record<string, readonly number[]>> = {
  aes: [128, 192, 256],
  cast5: [128],
  serpent: [128, 192, 256],
  twofish: [128, 192, 256],
};

const MODES = ['cbc', 'ctr', 'ecb', 'xts'];
const GENERATORS = ['plain', 'plain64', 'essiv'];
const HASHES = ['md5', 'sha1', 'sha224', 'sha256', 'sha384', 'sha512', 'ripemd160'];

/**
 * Members in the order that they are printed in.
 * @throws Qcow2Error UNSUPPORTED for an algorithm that QEMU has no name for
 */
export function luksReport(header: LuksHeader): JsonObject {
  const { mode, generator, hash } = parseCipherMode(header.cipherMode);
  if (hash !== undefined) need(HASHES, hash, 'Hash algorithm');
  need(MODES, mode, 'Cipher mode');
  const cipher = cipherAlgorithm(header, mode);
  need(HASHES, header.hash, 'Hash algorithm');
  need(GENERATORS, generator, 'IV generator');
  if (generator === 'essiv' && hash === undefined) {
    throw new Qcow2Error('UNSUPPORTED', 'Missing IV generator hash specification');
  }
  return {
    'ivgen-alg': generator,
    'hash-alg': header.hash,
    'cipher-alg': cipher,
    uuid: header.uuid,
    // Only this generator has a hash; what others carry along means nothing.
    'ivgen-hash-alg': generator === 'essiv' ? hash : undefined,
    format: 'luks',
    'cipher-mode': mode,
    slots: header.slots.map(slotMembers),
    'payload-offset': header.payloadOffset,
    'master-key-iters': header.digestIterations,
  };
}

function need(known: readonly string[], name: string, what: string): void {
  if (!known.includes(name)) {
    throw new Qcow2Error('UNSUPPORTED', `${what} '${name}' not supported`);
  }
}

/** `cbc-essiv:sha256`: block mode, generator of initialisation vectors, its hash. */
function parseCipherMode(text: string): { mode: string; generator: string; hash?: string } {
  const [, mode, generator, hash] = /^([^-]*)-([^:]*)(?::(.*))?$/s.exec(text) ?? [];
  if (mode === undefined || generator === undefined) {
    throw new Qcow2Error('UNSUPPORTED', `Unexpected cipher mode string format '${text}'`);
  }
  return hash === undefined ? { mode, generator } : { mode, generator, hash };
}

/** `aes-256`: XTS has two keys, each half of what is stored. */
function cipherAlgorithm({ cipherName, keyBytes }: LuksHeader, mode: string): string {
  const bytes = mode === 'xts' ? Math.floor(keyBytes / 2) : keyBytes;
  const known = Object.hasOwn(CIPHER_BITS, cipherName) ? CIPHER_BITS[cipherName] : undefined;
  if (!known?.includes(bytes * 8)) {
    const message = `Algorithm '${cipherName}' with key size ${bytes} bytes not supported`;
    throw new Qcow2Error('UNSUPPORTED', message);
  }
  return `${cipherName}-${bytes * 8}`;
}

function slotMembers({ active, iterations, keyOffset, stripes }: LuksKeySlot): JsonObject {
  if (!active) return { active, 'key-offset': keyOffset };
  return { active, iters: iterations, 'key-offset': keyOffset, stripes };
}
