/**
 * Making a new image: header, refcount table, first refcount block, L1 table, in QEMU's order and
 * at QEMU's places, so that the same options give the same bytes.
 */

import { viewOf } from '../../base/be.ts';
import { alignUp, divCeil } from '../../base/bits.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import {
  BACKING_NAME_BYTES_MAX,
  CLUSTER_BITS_MAX,
  CLUSTER_BITS_MIN,
  CLUSTER_BITS_MIN_EXTENDED,
  L1_BYTES_MAX,
  REFCOUNT_ORDER_MAX,
  VIRTUAL_BYTES_MAX,
} from '../../base/limits.ts';
import { byteLength } from '../../base/text.ts';
import type { ClusterCodec } from '../../codec/codec.ts';
import type { CryptoHeaderPointer } from '../../format/crypto-header-pointer.ts';
import { Autoclear, Compatible, Incompatible } from '../../format/feature-bits.ts';
import { CryptMethod, HEADER_BYTES_V2, HEADER_BYTES_V3, type Header } from '../../format/header.ts';
import {
  FEATURE_NAMES,
  type HeaderClusterParts,
  serializeHeaderCluster,
} from '../../format/header-cluster.ts';
import { putRefcount } from '../../format/refcount-block.ts';
import { serializeRefcountTableEntry } from '../../format/refcount-table.ts';
import type { Storage } from '../../storage/storage.ts';
import type { Preallocation } from '../disk.ts';
import type { EncryptionChoice } from './encrypt-fresh.ts';
import { inStep } from './failed-step.ts';

/** Clusters from this size on have room for the names of feature bits. */
const FEATURE_NAMES_FROM = 8192;

/** What a new image is to be. Sizes are bytes. */
export interface Qcow2CreateOptions {
  /** Virtual size, rounded up to a multiple of 512. */
  readonly size: number;
  /** Default 3 (`compat=1.1`). */
  readonly version?: 2 | 3;
  /** A power of two, 512 B to 2 MiB. Default 64 KiB. */
  readonly clusterSize?: number;
  /** 1, 2, 4, … 64. Default 16. */
  readonly refcountBits?: number;
  readonly lazyRefcounts?: boolean;
  readonly extendedL2?: boolean;
  readonly compression?: ClusterCodec;
  /** The backing file, by the name that the image is to have for it. */
  readonly backing?: { readonly name: string; readonly format?: string };
  /** An external data file: its name, and whether it is kept a raw image of the disk. */
  readonly dataFile?: { readonly name: string; readonly raw?: boolean };
  readonly encryption?: EncryptionChoice;
  /** Default `off`. With a backing file only where L2 entries are extended. */
  readonly preallocation?: Preallocation;
}

/** What compatibility level 1.1 is needed for, as QEMU says it. */
const NEEDS_V3 = 'compatibility level 1.1 and above (use version=v3 or greater)';

/** Settings of something that was not asked for: `Qcow2CreateOptions` has no place for them. */
export interface StraySettings {
  /** A backing format without a backing file. */
  readonly backingFormat?: boolean;
  /** A data file that is a raw image, without a data file. */
  readonly dataFileRaw?: boolean;
}

/**
 * The options with their defaults, checked against each other, in QEMU's order and words.
 * @throws Qcow2Error OUT_OF_RANGE
 */
export function checkCreateOptions(options: Qcow2CreateOptions, stray: StraySettings = {}) {
  const {
    version = 3,
    clusterSize = 65536,
    refcountBits = 16,
    lazyRefcounts = false,
    extendedL2 = false,
    compression = 'deflate',
    backing,
    dataFile,
    preallocation = 'off',
  } = options;
  const size = alignUp(options.size, 512);
  const clusterBits = Math.log2(clusterSize);
  const refcountOrder = Math.log2(refcountBits);
  const inRange = (value: number, min: number, max: number) =>
    Number.isInteger(value) && value >= min && value <= max;
  const extendedMin = 2 ** CLUSTER_BITS_MIN_EXTENDED;
  const old = version === 2;

  refuseIf(old && extendedL2, `Extended L2 entries are only supported with ${NEEDS_V3}`);
  refuseIf(
    !inRange(clusterBits, CLUSTER_BITS_MIN, CLUSTER_BITS_MAX),
    'Cluster size must be a power of two between 512 and 2048k',
  );
  refuseIf(
    extendedL2 && clusterSize < extendedMin,
    `Extended L2 entries are only supported with cluster sizes of at least ${extendedMin} bytes`,
  );
  refuseIf(stray.backingFormat === true, 'Backing format cannot be used without backing file');
  refuseIf(
    preallocation !== 'off' && backing !== undefined && !extendedL2,
    'Backing file and preallocation can only be used at the same time if extended_l2 is on',
  );
  refuseIf(old && lazyRefcounts, `Lazy refcounts only supported with ${NEEDS_V3}`);
  refuseIf(
    !inRange(refcountOrder, 0, REFCOUNT_ORDER_MAX),
    'Refcount width must be a power of two and may not exceed 64 bits',
  );
  refuseIf(
    old && refcountBits !== 16,
    'Different refcount widths than 16 bits require compatibility level 1.1 or above ' +
      '(use version=v3 or greater)',
  );
  refuseIf(stray.dataFileRaw === true, 'data-file-raw requires data-file');
  refuseIf(
    old && dataFile !== undefined,
    `External data files are only supported with ${NEEDS_V3}`,
  );
  refuseIf(
    dataFile?.raw === true && backing !== undefined,
    'Backing file and data-file-raw cannot be used at the same time',
  );
  refuseIf(
    old && compression === 'zstd',
    `Non-zlib compression type is only supported with ${NEEDS_V3}`,
  );
  refuseIf(!(size >= 0 && size <= VIRTUAL_BYTES_MAX), 'Image size must be below 8 EiB');
  const l2Span = (clusterSize / (extendedL2 ? 16 : 8)) * clusterSize;
  refuseIf(
    divCeil(size, l2Span) * 8 > L1_BYTES_MAX,
    "The image size is too large for file format 'qcow2' (try using a larger cluster size)",
  );
  return {
    size,
    version,
    clusterBits,
    refcountOrder,
    lazyRefcounts,
    extendedL2,
    compression,
    backing,
    dataFile,
    // A data file that is to be a raw image has every cluster at its place from the start.
    preallocation: dataFile?.raw && preallocation === 'off' ? 'metadata' : preallocation,
  } as const;
}

function refuseIf(wrong: boolean, message: string): void {
  if (wrong) throw new Qcow2Error('OUT_OF_RANGE', message);
}

/**
 * Writes the first three clusters of a new image into empty storage: header, refcount table, and a
 * block that counts the three. The disk has no bytes yet; growing it makes the L1 table. Who wants
 * what is cut off to be no image keeps the first bytes back.
 * @returns the virtual size that the image is to have, and what of it is allocated
 */
export async function writeFreshImage(
  storage: Storage,
  options: Qcow2CreateOptions,
): Promise<{ readonly size: number; readonly preallocation: Preallocation }> {
  const checked = checkCreateOptions(options);
  const { clusterBits, refcountOrder } = checked;
  const clusterSize = 2 ** clusterBits;
  const bytes = freshHeader(checked, {
    size: 0,
    l1Entries: 0,
    l1Offset: 0,
    refcountTableOffset: clusterSize,
    refcountTableClusters: 1,
  });
  const tables = new Uint8Array(2 * clusterSize);
  const view = viewOf(tables);
  serializeRefcountTableEntry(view, 0, 2 * clusterSize);
  for (let cluster = 0; cluster < 3; cluster++) {
    putRefcount(view, clusterSize, cluster, refcountOrder, 1);
  }
  await storage.truncate(0);
  await inStep('Could not write qcow2 header', async () => storage.write(0, bytes));
  await inStep('Could not write refcount table', async () => storage.write(clusterSize, tables));
  return { size: checked.size, preallocation: checked.preallocation };
}

/** What a new image's header says beside its options. */
type FreshPlaces = Pick<
  Header,
  'size' | 'l1Entries' | 'l1Offset' | 'refcountTableOffset' | 'refcountTableClusters'
> & {
  readonly cryptoHeader?: CryptoHeaderPointer | undefined;
  /** Clusters are encrypted the old way. */
  readonly isLegacyAes?: boolean;
};

/**
 * The first cluster of a new image.
 * @throws Qcow2Error OUT_OF_RANGE where names and extensions do not fit
 */
export function freshHeader(
  checked: ReturnType<typeof checkCreateOptions>,
  { cryptoHeader, isLegacyAes = false, ...places }: FreshPlaces,
): Uint8Array<ArrayBuffer> {
  const { clusterBits, refcountOrder, version, backing, dataFile, compression } = checked;
  const incompatible =
    (dataFile ? 1 << Incompatible.dataFile : 0) |
    (compression === 'zstd' ? 1 << Incompatible.compressionType : 0) |
    (checked.extendedL2 ? 1 << Incompatible.extendedL2 : 0);
  const header: Header = {
    version,
    backingNameOffset: 0,
    backingNameLength: 0,
    clusterBits,
    sizeTail: 0,
    cryptMethod: cryptoHeader ? CryptMethod.luks : isLegacyAes ? CryptMethod.aes : CryptMethod.none,
    snapshotCount: 0,
    snapshotsOffset: 0,
    incompatible: { high: 0, low: incompatible },
    compatible: { high: 0, low: checked.lazyRefcounts ? 1 << Compatible.lazyRefcounts : 0 },
    autoclear: { high: 0, low: dataFile?.raw ? 1 << Autoclear.rawDataFile : 0 },
    refcountOrder,
    headerLength: version === 2 ? HEADER_BYTES_V2 : HEADER_BYTES_V3,
    compression,
    unknownFields: new Uint8Array(version === 2 ? 0 : HEADER_BYTES_V3 - 105),
    ...places,
  };
  return serializeFresh({
    header,
    backingName: backing?.name,
    extensions: {
      ...(backing?.format === undefined ? {} : { backingFormat: backing.format }),
      ...(dataFile ? { dataFileName: dataFile.name } : {}),
      ...(cryptoHeader ? { cryptoHeader } : {}),
      // As QEMU: the names would fill most of a small first cluster.
      featureNames: version === 2 || 2 ** clusterBits < FEATURE_NAMES_FROM ? [] : FEATURE_NAMES,
      bitmapsInconsistent: false,
      unknown: [],
    },
  });
}

/** The first cluster; what does not fit there is named as QEMU does. */
function serializeFresh(parts: HeaderClusterParts): Uint8Array<ArrayBuffer> {
  const { backingName, extensions } = parts;
  const { backingFormat } = extensions;
  const format = backingFormat === undefined ? '' : ` with format '${backingFormat}'`;
  const refuse = (why: string, cause?: unknown): never => {
    const what =
      backingName === undefined
        ? 'Could not update qcow2 header'
        : `Could not assign backing file '${backingName}'${format}`;
    throw new Qcow2Error('OUT_OF_RANGE', `${what}: ${why}`, undefined, cause);
  };
  if (backingName && byteLength(backingName) > BACKING_NAME_BYTES_MAX) {
    refuse('Invalid argument');
  }
  try {
    return serializeHeaderCluster(parts).bytes;
  } catch (cause) {
    if (!isQcow2Error(cause, 'OUT_OF_RANGE')) throw cause;
    return refuse('No space left on device', cause);
  }
}
