/** How a new image is to be encrypted, as `-o encrypt.…` says it. */
import { Qcow2Error } from '../base/errors.ts';
import { ITER_TIME_DEFAULT, type LuksFormatOptions } from '../crypto/luks-format.ts';
import { CIPHER_MODES, HASH_NAMES, IV_GENERATORS } from '../format/luks-algorithms.ts';
import type { EncryptionChoice } from '../image/qcow2/encrypt-fresh.ts';
import { type Host, UsageError } from './command.ts';
import type { ListValues } from './option-list.ts';
import { encryptionFormat, leadingOptions } from './qcow2-options.ts';

/** Ciphers that QEMU has names for. */
const CIPHERS = [
  'aes-128',
  'aes-192',
  'aes-256',
  'des',
  '3des',
  'cast5-128',
  'serpent-128',
  'serpent-192',
  'serpent-256',
  'twofish-128',
  'twofish-192',
  'twofish-256',
] as const;

/** Options of LUKS, which the old AES knows nothing of. */
const LUKS_ONLY = ['cipher-alg', 'cipher-mode', 'ivgen-alg', 'ivgen-hash-alg', 'hash-alg'];

/**
 * The choice with its passphrase; undefined where the image is not to be encrypted.
 * @throws UsageError, Qcow2Error in QEMU's words
 */
export async function encryptionChoice(
  host: Host,
  values: ListValues,
  path: string,
): Promise<EncryptionChoice | undefined> {
  leadingOptions(values);
  const format = encryptionFormat(values);
  if (format === undefined) return undefined;
  const luks = format === 'luks' ? luksFormat(values, 'encrypt.') : undefined;
  const stray = [...LUKS_ONLY, 'iter-time'].find((name) => values.has(`encrypt.${name}`));
  if (!luks && stray !== undefined) {
    throw new UsageError(`Parameter 'encrypt.${stray}' is unexpected`);
  }
  const passphrase = await givenPassphrase(host, values, { name: 'encrypt.key-secret', path });
  return luks ? { format: 'luks', passphrase, ...luks } : { format: 'aes', passphrase };
}

/** The passphrase of a new image. @throws where it has none, in QEMU's words */
export async function givenPassphrase(
  host: Host,
  values: ListValues,
  { name, path }: { readonly name: string; readonly path: string },
): Promise<Uint8Array | string> {
  const id = values.get(name)?.text;
  if (id !== undefined) return host.secrets.passphrase(id);
  const typed = await host.askPassphrase?.(`Passphrase for '${path}': `);
  if (typed === undefined) {
    throw new Qcow2Error('UNSUPPORTED', `Parameter '${name}' is required for cipher`);
  }
  return typed;
}

/** @param prefix what stands before the names: `encrypt.` in qcow2, nothing in luks */
export function luksFormat(values: ListValues, prefix: string): LuksFormatOptions {
  const choice = <T extends string>(name: string, known: readonly T[]): T | undefined => {
    const text = values.get(`${prefix}${name}`)?.text;
    const found = known.find((one) => one === text);
    if (text !== undefined && found === undefined) {
      throw new UsageError(`Parameter '${name}' does not accept value '${text}'`);
    }
    return found;
  };
  const cipher = choice('cipher-alg', CIPHERS);
  const mode = choice('cipher-mode', CIPHER_MODES);
  const generator = choice('ivgen-alg', IV_GENERATORS);
  const generatorHash = choice('ivgen-hash-alg', HASH_NAMES);
  const hash = choice('hash-alg', HASH_NAMES);
  const iterTime = Number(values.get(`${prefix}iter-time`)?.number ?? ITER_TIME_DEFAULT);
  if (cipher === 'des' || cipher === '3des') {
    throw new Qcow2Error('UNSUPPORTED', `Algorithm '${cipher}' not supported`);
  }
  return {
    iterTime,
    ...(cipher === undefined ? {} : { cipher }),
    ...(mode === undefined ? {} : { mode }),
    ...(generator === undefined ? {} : { generator }),
    ...(generatorHash === undefined ? {} : { generatorHash }),
    ...(hash === undefined ? {} : { hash }),
  };
}
