/** Passphrases: who is asked for the one of an image, and what is asked. */

import type { Awaitable } from '../base/awaitable.ts';
import { Qcow2Error } from '../base/errors.ts';
import { encodeText } from '../base/text.ts';

/** An encrypted image that asks for its passphrase. */
export interface SecretRequest {
  /** Name of the storage that holds the image. */
  readonly name: string;
  /** How many images stand in front of this one in its chain. */
  readonly depth: number;
  /** How the image is encrypted. */
  readonly format: 'luks' | 'aes';
  /** What QEMU calls the option that names the secret. Default `encrypt.key-secret`. */
  readonly parameter?: 'encrypt.key-secret' | 'key-secret';
}

/** A passphrase: text counts as UTF-8. */
export type Passphrase = string | Uint8Array;

/**
 * A passphrase for every encrypted image of a chain, or a function that gives each one its own;
 * undefined where it has none, and the image is refused.
 */
export type Secret = Passphrase | ((request: SecretRequest) => Awaitable<Passphrase | undefined>);

/** The passphrase as bytes, a copy of its own. */
export function passphraseBytes(passphrase: Passphrase): Uint8Array {
  return typeof passphrase === 'string' ? encodeText(passphrase) : passphrase.slice();
}

/**
 * Asks for a passphrase. What comes back is the caller's to overwrite.
 * @throws Qcow2Error UNSUPPORTED where there is none, in QEMU's words
 */
export async function askSecret(
  secret: Secret | undefined,
  request: SecretRequest,
  at?: number,
): Promise<Uint8Array> {
  const given = typeof secret === 'function' ? await secret(request) : secret;
  if (given === undefined) {
    const { parameter = 'encrypt.key-secret' } = request;
    const message = `Parameter '${parameter}' is required for cipher`;
    throw new Qcow2Error('UNSUPPORTED', message, at);
  }
  return passphraseBytes(given);
}
