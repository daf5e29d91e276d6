/**
 * The encryption of one image's plain clusters: LUKS, whose sectors are numbered by where they lie
 * in their file, or the old AES, which counts guest sectors.
 */
import type { Awaitable } from '../../base/awaitable.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { legacyKeys } from '../../crypto/legacy-aes.ts';
import { type LuksVolume, payloadKeys, type UnlockOptions, unlockLuks } from '../../crypto/luks.ts';
import { changeKeySlots, type KeySlotChange } from '../../crypto/luks-slots.ts';
import { SECTOR_BYTES } from '../../crypto/sector-batch.ts';
import { SectorCipher } from '../../crypto/sector-cipher.ts';
import { CryptMethod } from '../../format/header.ts';
import type { SectorKeys, Storage } from '../../storage/storage.ts';
import { askSecret, type Secret } from '../secret.ts';
import { type LuksArea, readLuksArea } from './luks-area.ts';
import type { Metadata } from './open.ts';

/** Where sectors of a plain cluster are: in the guest, and in their file. */
export interface SectorPlace {
  readonly guest: number;
  readonly host: number;
}

/** Encrypts and decrypts plain clusters of one image. */
export class Encryption {
  private readonly cipher: SectorCipher;

  constructor(
    readonly format: 'luks' | 'aes',
    readonly keys: SectorKeys,
    /** LUKS: the header that the keys came from. */
    private volume?: LuksVolume,
  ) {
    this.cipher = new SectorCipher(keys);
  }

  /** Encrypts whole sectors in place. */
  encrypt(bytes: Uint8Array, place: SectorPlace): void {
    this.cipher.encrypt(bytes, this.sectorOf(place));
  }

  /** Decrypts whole sectors in place. */
  decrypt(bytes: Uint8Array, place: SectorPlace): Awaitable<void> {
    return this.cipher.decrypt(bytes, this.sectorOf(place));
  }

  /**
   * Adds or erases key slots.
   * @throws Qcow2Error OUT_OF_RANGE for what is not to be done; UNSUPPORTED where there are none
   */
  async changeKeySlots(change: KeySlotChange): Promise<void> {
    const volume = this.needKeySlots();
    const { keys } = this;
    this.volume = { ...volume, header: await changeKeySlots(volume, keys.key, change) };
  }

  /** @throws Qcow2Error UNSUPPORTED where there are none */
  needKeySlots(): LuksVolume {
    if (this.volume) return this.volume;
    throw new Qcow2Error('UNSUPPORTED', 'Only LUKS encryption options can be amended');
  }

  /** Overwrites the keys. */
  close(): void {
    this.cipher.wipe();
  }

  private sectorOf({ guest, host }: SectorPlace): number {
    return (this.format === 'luks' ? host : guest) / SECTOR_BYTES;
  }
}

/** How an encrypted image is opened. */
export interface EncryptionOptions {
  readonly secret?: Secret | undefined;
  readonly depth?: number | undefined;
  /** See `UnlockOptions`. */
  readonly iterationsMax?: number | undefined;
}

/**
 * Opens an image's encryption; undefined where it has none.
 * @throws Qcow2Error WRONG_KEY; UNSUPPORTED without a passphrase, or for a cipher that is not known
 */
export async function openEncryption(
  storage: Storage,
  metadata: Metadata,
  { secret, depth = 0, iterationsMax }: EncryptionOptions,
): Promise<Encryption | undefined> {
  const { header } = metadata;
  if (header.cryptMethod === CryptMethod.none) return undefined;
  const format = header.cryptMethod === CryptMethod.aes ? 'aes' : 'luks';
  const passphrase = await askSecret(secret, { name: storage.name, depth, format }, 32);
  try {
    if (format === 'aes') return new Encryption(format, legacyKeys(passphrase));
    const volume = { storage, ...((await readLuksArea(storage, metadata)) as LuksArea) };
    const limits: UnlockOptions = iterationsMax === undefined ? {} : { iterationsMax };
    const { masterKey } = await unlockLuks(volume, passphrase, limits);
    return new Encryption(format, await payloadKeys(volume.header, masterKey), volume);
  } finally {
    passphrase.fill(0);
  }
}

/** What keeps plain bytes out of an encrypted image: its clusters are never compressed. */
export function refuseCompressed(): never {
  const message = 'encrypted images hold no compressed clusters';
  throw new Qcow2Error('UNSUPPORTED', message);
}
