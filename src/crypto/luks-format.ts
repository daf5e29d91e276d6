/** Making a LUKS header: a random master key, its digest, and one slot for the passphrase. */
import { Qcow2Error } from '../base/errors.ts';
import type { CipherMode, HashName, IvGenerator } from '../format/luks-algorithms.ts';
import {
  LUKS_DIGEST_BYTES,
  LUKS_SALT_BYTES,
  LUKS_STRIPES,
  type LuksHeader,
  luksLayout,
  serializeLuksHeader,
} from '../format/luks-header.ts';
import { essivKey } from './iv-generator.ts';
import { boundedIterations, makeSlot } from './luks.ts';
import { supportedAlgorithms } from './luks-cipher.ts';
import { calibrate } from './pbkdf2.ts';
import { hostPlatform, type Platform, randomBytes, randomUuid } from './platform.ts';

/** What a volume is to be. Defaults are QEMU's. */
export interface LuksFormatOptions {
  /** `aes-128`, `aes-192` or `aes-256`, which is the default. */
  readonly cipher?: string;
  /** Default `xts`. */
  readonly mode?: CipherMode;
  /** Default `plain64`. */
  readonly generator?: IvGenerator;
  /** For `essiv`, where the default is sha256; other generators carry it along. */
  readonly generatorHash?: HashName;
  /** Default `sha256`. */
  readonly hash?: HashName;
  /** Milliseconds that trying a passphrase is to take. Default 2000. */
  readonly iterTime?: number;
}

/** A new volume's header area, up to the payload, and its master key. */
export interface FormattedLuks {
  readonly header: LuksHeader;
  /** The header and the key slots; nothing else is in them. */
  readonly area: Uint8Array;
  readonly masterKey: Uint8Array;
}

/** QEMU's default for `iter-time`. */
export const ITER_TIME_DEFAULT = 2000;

/**
 * The fields of a header that follow from the options, checked.
 * @throws Qcow2Error UNSUPPORTED for what this library, or QEMU, cannot open
 */
export function luksNames(
  options: LuksFormatOptions,
): Pick<LuksHeader, 'cipherName' | 'cipherMode' | 'hash' | 'keyBytes'> {
  const { cipher = 'aes-256', mode = 'xts', generator = 'plain64', hash = 'sha256' } = options;
  const [, cipherName = cipher, bits = '0'] = /^(.*)-(\d+)$/.exec(cipher) ?? [];
  const generatorHash = options.generatorHash ?? (generator === 'essiv' ? 'sha256' : undefined);
  const keyBytes = (Number(bits) / 8) * (mode === 'xts' ? 2 : 1);
  const suffix = generatorHash === undefined ? '' : `:${generatorHash}`;
  const names = { cipherName, cipherMode: `${mode}-${generator}${suffix}`, hash, keyBytes };
  supportedAlgorithms(names);
  if ((keyBytes * LUKS_STRIPES) % 512 !== 0) {
    const message = `${cipher} in ${mode} mode makes key slots that QEMU cannot open`;
    throw new Qcow2Error('UNSUPPORTED', message);
  }
  return names;
}

/** Makes a volume in memory. */
export async function formatLuks(
  passphrase: Uint8Array,
  options: LuksFormatOptions & { readonly platform?: Platform } = {},
): Promise<FormattedLuks> {
  const { platform = hostPlatform(), iterTime = ITER_TIME_DEFAULT } = options;
  const names = luksNames(options);
  const { hash, generator, generatorHash } = supportedAlgorithms(names);
  const masterKey = randomBytes(names.keyBytes);
  // Fails now where the hash makes no key.
  if (generator === 'essiv' && generatorHash) await essivKey(platform, generatorHash, masterKey);
  const perSecond = await calibrate(platform, {
    hash,
    length: LUKS_DIGEST_BYTES,
    budgetMs: iterTime,
  });
  // An eighth of the slot's time, as QEMU and cryptsetup have it.
  const digestIterations = boundedIterations((perSecond * iterTime) / 8000);
  const digestSalt = randomBytes(LUKS_SALT_BYTES);
  const digest = await platform.pbkdf2({
    hash,
    passphrase: masterKey,
    salt: digestSalt,
    iterations: digestIterations,
    length: LUKS_DIGEST_BYTES,
  });
  const { slotOffsets, payloadOffset } = luksLayout(names.keyBytes);
  const empty: LuksHeader = {
    ...names,
    payloadOffset,
    digest,
    digestSalt,
    digestIterations,
    uuid: randomUuid(),
    slots: slotOffsets.map((keyOffset) => ({
      active: false,
      iterations: 0,
      salt: new Uint8Array(LUKS_SALT_BYTES),
      keyOffset,
      stripes: LUKS_STRIPES,
    })),
  };
  const made = await makeSlot(empty, masterKey, { slot: 0, passphrase, iterTime, platform });
  const area = new Uint8Array(payloadOffset);
  area.set(serializeLuksHeader(made.header));
  area.set(made.material, made.at);
  return { header: made.header, area, masterKey };
}
