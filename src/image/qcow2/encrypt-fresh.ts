/**
 * Encrypting an image that is being made: the LUKS header gets clusters of its own, then the first
 * cluster says so. Nothing has been written for the guest by then.
 */
import { alignUp } from '../../base/bits.ts';
import { legacyKeys } from '../../crypto/legacy-aes.ts';
import { payloadKeys } from '../../crypto/luks.ts';
import { formatLuks, type LuksFormatOptions } from '../../crypto/luks-format.ts';
import type { CryptoHeaderPointer } from '../../format/crypto-header-pointer.ts';
import { CryptMethod } from '../../format/header.ts';
import { serializeHeaderCluster } from '../../format/header-cluster.ts';
import { type Passphrase, passphraseBytes } from '../secret.ts';
import { Encryption } from './encryption.ts';
import type { Metadata } from './open.ts';
import type { WriteParts } from './write-parts.ts';

/** How a new image is encrypted, and its passphrase. */
export type EncryptionChoice = { readonly passphrase: Passphrase } & (
  | { readonly format: 'aes' }
  | ({ readonly format: 'luks' } & LuksFormatOptions)
);

/** @throws Qcow2Error UNSUPPORTED for algorithms that there are not */
export async function encryptFresh(
  parts: WriteParts,
  metadata: Metadata,
  choice: EncryptionChoice,
): Promise<Encryption> {
  const passphrase = passphraseBytes(choice.passphrase);
  try {
    if (choice.format === 'aes') {
      await declareEncryption(parts, metadata, CryptMethod.aes);
      return new Encryption('aes', legacyKeys(passphrase));
    }
    const { area, header, masterKey } = await formatLuks(passphrase, choice);
    const place = await placeArea(parts, area);
    await declareEncryption(parts, metadata, CryptMethod.luks, place);
    const volume = { storage: parts.store.storage, at: place.offset, header };
    return new Encryption('luks', await payloadKeys(header, masterKey), volume);
  } finally {
    passphrase.fill(0);
  }
}

/** Writes the header's area into clusters of its own, which are zeros behind it. */
async function placeArea(parts: WriteParts, area: Uint8Array): Promise<CryptoHeaderPointer> {
  const { store, allocator } = parts;
  const whole = new Uint8Array(alignUp(area.length, store.geometry.clusterSize));
  whole.set(area);
  return store.lock.run(async () => {
    const offset = await allocator.clusters(whole.length);
    store.overlap.check(offset, whole.length, 'data');
    await store.storage.write(offset, whole);
    await store.order.flush();
    return { offset, length: area.length };
  });
}

/** Writes the first cluster anew, with what it did not say before. */
async function declareEncryption(
  { store }: WriteParts,
  { extensions, backingName }: Metadata,
  cryptMethod: Metadata['header']['cryptMethod'],
  cryptoHeader?: CryptoHeaderPointer,
): Promise<void> {
  await store.lock.run(async () => {
    const { bytes, header } = serializeHeaderCluster({
      header: { ...store.header, cryptMethod },
      extensions: { ...extensions, ...(cryptoHeader ? { cryptoHeader } : {}) },
      backingName,
    });
    await store.writeHeader(0, bytes);
    store.header = header;
  });
}
