/**
 * Header extensions: what follows the header fields, up to the backing file name or the end of
 * cluster 0.
 *
 *   each:  0 type u32 · 4 length u32 · 8 data · padding to a multiple of 8
 *
 *   00000000 end · e2792aca backing format · 6803f857 feature name table · 23852875 bitmaps
 *   0537be77 full disk encryption header · 44415441 external data file name · others are kept
 */

import { BigEndianReader } from '../base/be.ts';
import { alignUp } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import { BACKING_FORMAT_BYTES_MAX } from '../base/limits.ts';
import { decodeField } from '../base/text.ts';
import { type BitmapExtension, parseBitmapExtension } from './bitmap-directory.ts';
import { type CryptoHeaderPointer, parseCryptoHeaderPointer } from './crypto-header-pointer.ts';
import { Autoclear, hasFeature } from './feature-bits.ts';
import { type FeatureName, parseFeatureNameTable } from './feature-name-table.ts';
import { CryptMethod, extensionsEnd, type Header } from './header.ts';

/** Extension types; each is the first word of its extension. */
export const ExtensionType = {
  end: 0x00000000,
  backingFormat: 0xe2792aca,
  featureNames: 0x6803f857,
  bitmaps: 0x23852875,
  cryptoHeader: 0x0537be77,
  dataFileName: 0x44415441,
} as const;

/** One extension as stored. `at` is the file offset of its data. */
export interface RawExtension {
  readonly type: number;
  readonly at: number;
  readonly data: Uint8Array;
}

/** What the extensions of an image say. */
export interface HeaderExtensions {
  readonly backingFormat?: string;
  readonly dataFileName?: string;
  readonly featureNames: readonly FeatureName[];
  readonly bitmaps?: BitmapExtension;
  /** A bitmaps extension stands in the file, but autoclear bit 0 says that it is out of date. */
  readonly bitmapsInconsistent: boolean;
  readonly cryptoHeader?: CryptoHeaderPointer;
  /** Types not known here, in file order: kept on every rewrite. */
  readonly unknown: readonly RawExtension[];
}

/**
 * Splits the extension area, one extension at a time: what is wrong with one is found before what
 * is wrong with the next.
 * @param bytes the first cluster of the file
 * @throws Qcow2Error CORRUPT where an extension reaches past the area
 */
export function* parseRawExtensions(
  bytes: Uint8Array,
  header: Header,
): Generator<RawExtension, void, undefined> {
  const end = extensionsEnd(header);
  const reader = new BigEndianReader(bytes);
  let at = header.headerLength;
  while (at < end) {
    if (at + 8 > end) throw new Qcow2Error('CORRUPT', 'Header extension too large', at);
    // Past the end of a short file there are only zeros: the end marker.
    if (at + 8 > bytes.length) break;
    const type = reader.u32(at, 'header extension');
    const length = reader.u32(at + 4, 'header extension');
    if (length > end - at - 8) {
      throw new Qcow2Error('CORRUPT', 'Header extension too large', at);
    }
    if (type === ExtensionType.end) break;
    yield { type, at: at + 8, data: reader.slice(at + 8, length, 'header extension') };
    at += 8 + alignUp(length, 8);
  }
}

/**
 * Parses the extension area. The last of several extensions of one type wins, as in QEMU.
 * @throws Qcow2Error CORRUPT or UNSUPPORTED, `at` = offset of the extension
 */
export function parseHeaderExtensions(bytes: Uint8Array, header: Header): HeaderExtensions {
  const result: { -readonly [K in keyof HeaderExtensions]: HeaderExtensions[K] } & {
    unknown: RawExtension[];
  } = { featureNames: [], bitmapsInconsistent: false, unknown: [] };
  for (const extension of parseRawExtensions(bytes, header)) {
    const { type, at, data } = extension;
    switch (type) {
      case ExtensionType.backingFormat:
        if (data.length > BACKING_FORMAT_BYTES_MAX) {
          const message = `ERROR: ext_backing_format: len=${data.length} too large (>=16)`;
          throw new Qcow2Error('CORRUPT', message, at - 8);
        }
        result.backingFormat = decodeField(data);
        break;
      case ExtensionType.featureNames:
        result.featureNames = parseFeatureNameTable(data);
        break;
      case ExtensionType.dataFileName:
        result.dataFileName = decodeField(data);
        break;
      case ExtensionType.cryptoHeader:
        if (header.cryptMethod !== CryptMethod.luks) {
          const message = 'CRYPTO header extension only expected with LUKS encryption method';
          throw new Qcow2Error('CORRUPT', message, at - 8);
        }
        result.cryptoHeader = parseCryptoHeaderPointer(data, at, 2 ** header.clusterBits);
        break;
      case ExtensionType.bitmaps:
        if (data.length !== 24) {
          const message = 'bitmaps_ext: Invalid extension length';
          throw new Qcow2Error('CORRUPT', message, at - 8);
        }
        if (hasFeature(header.autoclear, Autoclear.bitmaps)) {
          result.bitmaps = parseBitmapExtension(data, at, 2 ** header.clusterBits);
        } else {
          result.bitmapsInconsistent = true;
        }
        break;
      default:
        result.unknown.push(extension);
    }
  }
  return result;
}

/** One extension as bytes, padding included. */
export function serializeExtension(type: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(8 + alignUp(data.length, 8));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type);
  view.setUint32(4, data.length);
  bytes.set(data, 8);
  return bytes;
}
