/**
 * The first cluster as a whole: header, extensions in QEMU's order, backing file name, zeros.
 */

import { Qcow2Error } from '../base/errors.ts';
import { encodeText } from '../base/text.ts';
import { serializeBitmapExtension } from './bitmap-directory.ts';
import { serializeCryptoHeaderPointer } from './crypto-header-pointer.ts';
import { Autoclear, Compatible, FeatureType, Incompatible } from './feature-bits.ts';
import { type FeatureName, serializeFeatureNameTable } from './feature-name-table.ts';
import { type Header, serializeHeader } from './header.ts';
import { ExtensionType, type HeaderExtensions, serializeExtension } from './header-extensions.ts';

/** The names that QEMU gives the feature bits, in its order. */
export const FEATURE_NAMES: readonly FeatureName[] = [
  { type: FeatureType.incompatible, bit: Incompatible.dirty, name: 'dirty bit' },
  { type: FeatureType.incompatible, bit: Incompatible.corrupt, name: 'corrupt bit' },
  { type: FeatureType.incompatible, bit: Incompatible.dataFile, name: 'external data file' },
  { type: FeatureType.incompatible, bit: Incompatible.compressionType, name: 'compression type' },
  { type: FeatureType.incompatible, bit: Incompatible.extendedL2, name: 'extended L2 entries' },
  { type: FeatureType.compatible, bit: Compatible.lazyRefcounts, name: 'lazy refcounts' },
  { type: FeatureType.autoclear, bit: Autoclear.bitmaps, name: 'bitmaps' },
  { type: FeatureType.autoclear, bit: Autoclear.rawDataFile, name: 'raw external data' },
];

/** What the first cluster holds beside the header's own fields. */
export interface HeaderClusterParts {
  readonly header: Header;
  readonly extensions: HeaderExtensions;
  readonly backingName: string | undefined;
}

/**
 * The first cluster, and the header as it stands there (the backing name has its place now).
 * @throws Qcow2Error OUT_OF_RANGE where all of it does not fit
 */
export function serializeHeaderCluster({ header, extensions, backingName }: HeaderClusterParts): {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly header: Header;
} {
  const parts: Uint8Array[] = [];
  const add = (type: number, data: Uint8Array) => parts.push(serializeExtension(type, data));
  if (extensions.backingFormat !== undefined) {
    add(ExtensionType.backingFormat, encodeText(extensions.backingFormat));
  }
  if (extensions.dataFileName !== undefined) {
    add(ExtensionType.dataFileName, encodeText(extensions.dataFileName));
  }
  if (extensions.cryptoHeader) {
    add(ExtensionType.cryptoHeader, serializeCryptoHeaderPointer(extensions.cryptoHeader));
  }
  if (extensions.featureNames.length > 0) {
    add(ExtensionType.featureNames, serializeFeatureNameTable(extensions.featureNames));
  }
  if (extensions.bitmaps) {
    add(ExtensionType.bitmaps, serializeBitmapExtension(extensions.bitmaps));
  }
  for (const { type, data } of extensions.unknown) add(type, data);
  add(ExtensionType.end, new Uint8Array());

  const name = backingName === undefined ? new Uint8Array() : encodeText(backingName);
  const extensionBytes = parts.reduce((sum, { length }) => sum + length, 0);
  const nameAt = header.headerLength + extensionBytes;
  const clusterSize = 2 ** header.clusterBits;
  if (nameAt + name.length > clusterSize) {
    throw new Qcow2Error('OUT_OF_RANGE', 'header, extensions and names exceed the first cluster');
  }
  const placed: Header = {
    ...header,
    backingNameOffset: backingName === undefined ? 0 : nameAt,
    backingNameLength: name.length,
  };
  const bytes = new Uint8Array(clusterSize);
  bytes.set(serializeHeader(placed));
  let at = header.headerLength;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  bytes.set(name, nameAt);
  return { bytes, header: placed };
}
