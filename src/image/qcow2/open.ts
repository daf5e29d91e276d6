/**
 * Opening a qcow2 image: the header, its extensions and the tables that are kept in memory, each
 * checked before anything is allocated for it.
 */

import { BigEndianReader } from '../../base/be.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { formatBytes } from '../../base/sizes.ts';
import { type BitmapDirectoryEntry, checkTableLength } from '../../format/bitmap-directory.ts';
import {
  Autoclear,
  FeatureType,
  hasFeature,
  Incompatible,
  unknownIncompatible,
} from '../../format/feature-bits.ts';
import { featureName } from '../../format/feature-name-table.ts';
import type { Geometry } from '../../format/geometry.ts';
import {
  CryptMethod,
  type Header,
  type HeaderOptions,
  headerGeometry,
  parseBackingName,
  parseClusterBits,
  parseHeader,
} from '../../format/header.ts';
import { type HeaderExtensions, parseHeaderExtensions } from '../../format/header-extensions.ts';
import type { Snapshot } from '../../format/snapshot-table.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { Storage } from '../../storage/storage.ts';
import { readBitmapDirectory } from './bitmaps.ts';
import { readSnapshots } from './snapshots.ts';

/** All that an image says about itself, short of its L1, L2 and refcount tables. */
export interface Metadata {
  readonly header: Header;
  readonly extensions: HeaderExtensions;
  readonly geometry: Geometry;
  readonly backingName: string | undefined;
  readonly snapshots: readonly Snapshot[];
  readonly bitmaps: readonly BitmapDirectoryEntry[];
  readonly dirty: boolean;
  readonly corrupt: boolean;
  readonly dataFile: boolean;
}

/** Reads at least this much of a file at once: the whole first cluster of most images. */
const HEAD_BYTES = 65536;

async function readHead(storage: Storage, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const got = await readFully(storage, 0, bytes);
  return bytes.subarray(0, got);
}

/**
 * Reads and checks everything but the guest data's tables.
 * @param options `lenient`: what a repair can do without may be missing or broken, the snapshot
 * table is not read, and of bitmaps only what their directory says by itself is looked at
 * @throws Qcow2Error NOT_QCOW2, UNSUPPORTED, CORRUPT or IO; `at` = file offset of what is wrong
 */
export async function readMetadata(
  storage: Storage,
  options: HeaderOptions = {},
): Promise<Metadata> {
  let head = await readHead(storage, HEAD_BYTES);
  if (head.length < 24) head = padded(head);
  const clusterSize = 2 ** parseClusterBits(new BigEndianReader(head));
  if (clusterSize > HEAD_BYTES) head = await readHead(storage, clusterSize);
  else head = head.subarray(0, clusterSize);

  const header = parseHeader(head, options);
  refuseUnknownFeatures(head, header);
  if (header.cryptMethod > CryptMethod.luks) {
    const message = `Unsupported encryption method ${header.cryptMethod | 0}`;
    throw new Qcow2Error('UNSUPPORTED', message, 32);
  }
  const extensions = parseHeaderExtensions(head, header);
  if (header.cryptMethod === CryptMethod.luks && extensions.cryptoHeader === undefined) {
    throw new Qcow2Error('CORRUPT', 'Missing CRYPTO header for crypt method 2', 32);
  }
  const backingName = parseBackingName(head, header);
  const geometry = headerGeometry(header);
  const snapshots = options.lenient ? [] : await readSnapshots(storage, header, header.size);
  const limits = { clusterSize, diskSize: header.size };
  const bitmaps = extensions.bitmaps
    ? await readBitmapDirectory(storage, extensions.bitmaps, limits)
    : [];
  if (!options.lenient) for (const one of bitmaps) checkTableLength(one, limits);
  if (header.size >= 2 ** 63) {
    const message = 'Could not refresh total sector count: File too large';
    throw new Qcow2Error('UNSUPPORTED', message, 24);
  }
  return {
    header,
    extensions,
    geometry,
    backingName,
    snapshots,
    bitmaps,
    dirty: hasFeature(header.incompatible, Incompatible.dirty),
    corrupt: hasFeature(header.incompatible, Incompatible.corrupt),
    dataFile: hasFeature(header.incompatible, Incompatible.dataFile),
  };
}

/**
 * What only matters to whoever opens the data file, or would.
 * @throws Qcow2Error CORRUPT where the data file is said to be raw, and there is none
 */
export function checkRawDataFile({ header, dataFile }: Metadata): void {
  if (!dataFile && hasFeature(header.autoclear, Autoclear.rawDataFile)) {
    throw new Qcow2Error('CORRUPT', 'data-file-raw requires a data file', 88);
  }
}

function padded(bytes: Uint8Array): Uint8Array {
  const result = new Uint8Array(HEAD_BYTES);
  result.set(bytes);
  return result;
}

/** Names the bits that this library lacks, from the image's own table where it has them. */
function refuseUnknownFeatures(head: Uint8Array, header: Header): void {
  const unknown = unknownIncompatible(header.incompatible);
  if (unknown.length === 0) return;
  let names: HeaderExtensions['featureNames'] = [];
  try {
    names = parseHeaderExtensions(head, header).featureNames;
  } catch {
    // Broken extensions of an image that is refused anyway: the bits' numbers will do.
  }
  const named: string[] = [];
  let rest = 0n;
  for (const bit of unknown) {
    const name = featureName(names, FeatureType.incompatible, bit);
    if (name) named.push(name);
    else rest |= 1n << BigInt(bit);
  }
  if (rest !== 0n) named.push(`Unknown incompatible feature: ${rest.toString(16)}`);
  throw new Qcow2Error('UNSUPPORTED', `Unsupported qcow2 feature(s): ${named.join(', ')}`, 72);
}

/**
 * Reads an L1 table, active or a snapshot's. Entries that a short file cuts off read as zeros.
 * @throws Qcow2Error CORRUPT where the whole table lies past the end of the file
 */
export async function readL1(
  storage: Storage,
  place: { readonly offset: number; readonly entries: number },
): Promise<Uint8Array> {
  const { offset, entries } = place;
  if (entries === 0) return new Uint8Array();
  if (offset >= (await storage.size())) {
    const message = `L1 table at ${formatBytes(offset)} lies past the end of the file`;
    throw new Qcow2Error('CORRUPT', message, offset);
  }
  const bytes = new Uint8Array(entries * 8);
  await readFully(storage, offset, bytes);
  return bytes;
}
