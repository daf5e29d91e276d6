/**
 * Making a new image: header, refcount table, first refcount block, L1 table, in QEMU's order and
 * at QEMU's places, so that the same options give the same bytes.
 */
import { alignUp } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import {
  BACKING_NAME_BYTES_MAX,
  CLUSTER_BITS_MAX,
  CLUSTER_BITS_MIN,
  CLUSTER_BITS_MIN_EXTENDED,
  L1_BYTES_MAX,
  VIRTUAL_BYTES_MAX,
} from '../../base/limits.ts';
import type { ClusterCodec } from '../../codec/codec.ts';
import { Autoclear, Compatible, Incompatible } from '../../format/feature-bits.ts';
import { l1EntriesFor } from '../../format/geometry.ts';
import {
  CryptMethod,
  HEADER_BYTES_V2,
  HEADER_BYTES_V3,
  type Header,
  headerGeometry,
} from '../../format/header.ts';
import { FEATURE_NAMES, serializeHeaderCluster } from '../../format/header-cluster.ts';
import { putRefcount } from '../../format/refcount-block.ts';
import { serializeRefcountTableEntry } from '../../format/refcount-table.ts';
import type { Storage } from '../../storage/storage.ts';
import { viewOf } from './metadata-store.ts';

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
}

/** The options with their defaults, checked against each other. */
function checkOptions(options: Qcow2CreateOptions) {
  const {
    version = 3,
    clusterSize = 65536,
    refcountBits = 16,
    lazyRefcounts = false,
    extendedL2 = false,
    compression = 'deflate',
    backing,
    dataFile,
  } = options;
  const size = alignUp(options.size, 512);
  const refuse = (message: string): never => {
    throw new Qcow2Error('OUT_OF_RANGE', message);
  };
  const clusterBits = Math.log2(clusterSize);
  if (
    !Number.isInteger(clusterBits) ||
    clusterBits < CLUSTER_BITS_MIN ||
    clusterBits > CLUSTER_BITS_MAX
  ) {
    refuse('Cluster size must be a power of two between 512 and 2048k');
  }
  if (!(size >= 0 && size <= VIRTUAL_BYTES_MAX)) refuse('Image size must be below 8 EiB');
  if (version === 2) {
    if (refcountBits !== 16) {
      refuse('Different refcount widths than 16 bits require compatibility level 1.1 or above');
    }
    if (lazyRefcounts)
      refuse('Lazy refcounts only supported with compatibility level 1.1 and above');
    if (extendedL2) refuse('Extended L2 entries are only supported with compatibility level 1.1');
    if (dataFile) refuse('External data files are only supported with compatibility level 1.1');
    if (compression === 'zstd') {
      refuse('Non-zlib compression type is only supported with compatibility level 1.1 and above');
    }
  }
  const refcountOrder = Math.log2(refcountBits);
  if (!Number.isInteger(refcountOrder) || refcountOrder < 0 || refcountOrder > 6) {
    refuse('Refcount width must be a power of two and may not exceed 64 bits');
  }
  if (extendedL2 && clusterBits < CLUSTER_BITS_MIN_EXTENDED) {
    refuse('Extended L2 entries are only supported with cluster sizes of at least 16384 bytes');
  }
  if (dataFile?.raw && backing) {
    refuse('Backing file and data-file-raw cannot be used at the same time');
  }
  if (backing && new TextEncoder().encode(backing.name).length > BACKING_NAME_BYTES_MAX) {
    refuse('Backing file name too long');
  }
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
  };
}

/**
 * Writes the first three clusters of a new image into empty storage: header, refcount table, and a
 * block that counts the three. The disk has no bytes yet; growing it makes the L1 table.
 * @returns the virtual size that the image is to have
 */
export async function writeFreshImage(
  storage: Storage,
  options: Qcow2CreateOptions,
): Promise<number> {
  const checked = checkOptions(options);
  const { clusterBits, refcountOrder, version, backing, dataFile, compression } = checked;
  const clusterSize = 2 ** clusterBits;
  const incompatible =
    (dataFile ? 1 << Incompatible.dataFile : 0) |
    (compression === 'zstd' ? 1 << Incompatible.compressionType : 0) |
    (checked.extendedL2 ? 1 << Incompatible.extendedL2 : 0);
  const header: Header = {
    version,
    backingNameOffset: 0,
    backingNameLength: 0,
    clusterBits,
    size: 0,
    sizeTail: 0,
    cryptMethod: CryptMethod.none,
    l1Entries: 0,
    l1Offset: 0,
    refcountTableOffset: clusterSize,
    refcountTableClusters: 1,
    snapshotCount: 0,
    snapshotsOffset: 0,
    incompatible: { high: 0, low: incompatible },
    compatible: { high: 0, low: checked.lazyRefcounts ? 1 << Compatible.lazyRefcounts : 0 },
    autoclear: { high: 0, low: dataFile?.raw ? 1 << Autoclear.rawDataFile : 0 },
    refcountOrder,
    headerLength: version === 2 ? HEADER_BYTES_V2 : HEADER_BYTES_V3,
    compression,
    unknownFields: new Uint8Array(version === 2 ? 0 : HEADER_BYTES_V3 - 105),
  };
  if (l1EntriesFor(checked.size, headerGeometry(header)) * 8 > L1_BYTES_MAX) {
    throw new Qcow2Error(
      'OUT_OF_RANGE',
      'The image size is too large (try using a larger cluster size)',
    );
  }
  const { bytes } = serializeHeaderCluster({
    header,
    backingName: backing?.name,
    extensions: {
      ...(backing?.format === undefined ? {} : { backingFormat: backing.format }),
      ...(dataFile ? { dataFileName: dataFile.name } : {}),
      // As QEMU: the names would fill most of a small first cluster.
      featureNames: version === 2 || clusterSize < FEATURE_NAMES_FROM ? [] : FEATURE_NAMES,
      bitmapsInconsistent: false,
      unknown: [],
    },
  });
  const tables = new Uint8Array(2 * clusterSize);
  const view = viewOf(tables);
  serializeRefcountTableEntry(view, 0, 2 * clusterSize);
  for (let cluster = 0; cluster < 3; cluster++) {
    putRefcount(view, clusterSize, cluster, refcountOrder, 1);
  }
  await storage.truncate(0);
  // The header last: what was cut off is no image.
  await storage.write(clusterSize, tables);
  await storage.write(0, bytes);
  return checked.size;
}
