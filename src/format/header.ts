/**
 * The image header, at the start of cluster 0. All integers big-endian.
 *
 *   0 magic "QFI\xfb" · 4 version · 8 backing name offset u64 · 16 its length · 20 cluster_bits
 *   24 virtual size u64 · 32 crypt_method · 36 L1 entries · 40 L1 offset u64
 *   48 refcount table offset u64 · 56 its clusters · 60 snapshots · 64 snapshot table offset u64
 *   version 3 only:  72 incompatible u64 · 80 compatible u64 · 88 autoclear u64
 *   96 refcount_order · 100 header length · 104 compression type u8 · 105 … unknown, kept
 *
 * Specification: QEMU docs/interop/qcow2, "Header". Limits and the order of the checks are QEMU's,
 * so that an image which breaks several rules is refused for the same one.
 */
import { BigEndianReader, putU64, type U64 } from '../base/be.ts';
import { HIGH } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import {
  BACKING_NAME_BYTES_MAX,
  CLUSTER_BITS_MAX,
  CLUSTER_BITS_MIN,
  CLUSTER_BITS_MIN_EXTENDED,
  L1_BYTES_MAX,
  REFCOUNT_ORDER_MAX,
  REFCOUNT_TABLE_BYTES_MAX,
  SNAPSHOTS_MAX,
} from '../base/limits.ts';
import { hasFeature, Incompatible, unknownIncompatible } from './feature-bits.ts';
import { type Geometry, geometryOf, l1EntriesFor } from './geometry.ts';

/** `QFI\xfb`. */
export const MAGIC = 0x514649fb;

/** Bytes of a version 2 header, which has no length field. */
export const HEADER_BYTES_V2 = 72;
/** The least that a version 3 header may be long. */
export const HEADER_BYTES_V3_MIN = 104;
/** What this library knows of a version 3 header, and QEMU writes. */
export const HEADER_BYTES_V3 = 112;

/** How the clusters are encrypted. A number above 2 is a method not known here. */
export const CryptMethod = { none: 0, aes: 1, luks: 2 } as const;

/** How compressed clusters are compressed. QEMU calls deflate "zlib". */
export type CompressionType = 'deflate' | 'zstd';

/** A decoded header. Offsets are bytes in the image file. */
export interface Header {
  readonly version: 2 | 3;
  /** 0: no backing file. The name lies in the first cluster. */
  readonly backingNameOffset: number;
  readonly backingNameLength: number;
  readonly clusterBits: number;
  /**
   * Virtual bytes, rounded down to a multiple of 512 as QEMU does: a partial last sector cannot
   * be addressed. `sizeTail` keeps what was cut off.
   */
  readonly size: number;
  readonly sizeTail: number;
  readonly cryptMethod: number;
  readonly l1Entries: number;
  readonly l1Offset: number;
  readonly refcountTableOffset: number;
  readonly refcountTableClusters: number;
  readonly snapshotCount: number;
  readonly snapshotsOffset: number;
  readonly incompatible: U64;
  readonly compatible: U64;
  readonly autoclear: U64;
  readonly refcountOrder: number;
  readonly headerLength: number;
  readonly compression: CompressionType;
  /** Header bytes from 105 (or 104) to `headerLength`: kept on every rewrite. */
  readonly unknownFields: Uint8Array;
}

const NO_BITS: U64 = { high: 0, low: 0 };

/** The first 8 bytes say qcow2, whatever the version: what format probing looks at. */
export function isQcow2(bytes: Uint8Array): boolean {
  if (bytes.length < 8) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return view.getUint32(0) === MAGIC && view.getUint32(4) >= 2;
}

/** The cluster size that a header declares, checked; how much a reader needs for the rest. */
export function parseClusterBits(reader: BigEndianReader): number {
  if (reader.u32(0, 'header') !== MAGIC) {
    throw new Qcow2Error('NOT_QCOW2', 'Image is not in qcow2 format', 0);
  }
  const version = reader.u32(4, 'header');
  if (version < 2 || version > 3) {
    throw new Qcow2Error('UNSUPPORTED', `Unsupported qcow2 version ${version}`, 4);
  }
  const clusterBits = reader.u32(20, 'header');
  if (clusterBits < CLUSTER_BITS_MIN || clusterBits > CLUSTER_BITS_MAX) {
    throw new Qcow2Error('UNSUPPORTED', `Unsupported cluster size: 2^${clusterBits}`, 20);
  }
  return clusterBits;
}

/** What `parseHeader` is to let pass: the ways of opening that look for damage, not data. */
export interface HeaderOptions {
  /** Repair: a missing refcount table and a broken snapshot table are for later. */
  readonly lenient?: boolean;
}

/**
 * Parses and checks a header.
 * @param bytes the first cluster of the file, or what there is of it; zeros stand in for the rest
 * @throws Qcow2Error NOT_QCOW2, UNSUPPORTED or CORRUPT, `at` = offset of the field. Unknown
 * incompatible bits are not refused here: the caller has their names (header-extensions.ts).
 */
export function parseHeader(bytes: Uint8Array, options: HeaderOptions = {}): Header {
  const padded = bytes.length >= HEADER_BYTES_V3 ? bytes : padTo(bytes, HEADER_BYTES_V3);
  const reader = new BigEndianReader(padded);
  const clusterBits = parseClusterBits(reader);
  const clusterSize = 2 ** clusterBits;
  const version = reader.u32(4, 'header') as 2 | 3;
  const v3 = version === 3;
  const headerLength = v3 ? reader.u32(100, 'header') : HEADER_BYTES_V2;
  if (v3 && headerLength < HEADER_BYTES_V3_MIN) {
    throw new Qcow2Error('CORRUPT', 'qcow2 header too short', 100);
  }
  if (headerLength > clusterSize) {
    throw new Qcow2Error('CORRUPT', 'qcow2 header exceeds cluster size', 100);
  }
  const backingNameOffset = reader.u64(8, 'header');
  if (backingNameOffset.high !== 0 || backingNameOffset.low > clusterSize) {
    throw new Qcow2Error('CORRUPT', 'Invalid backing file offset', 8);
  }
  const incompatible = v3 ? reader.u64(72, 'header') : NO_BITS;
  const compression = compressionOf(
    v3 && headerLength > 104 ? reader.u8(104, 'header') : 0,
    hasFeature(incompatible, Incompatible.compressionType),
  );
  const refcountOrder = v3 ? reader.u32(96, 'header') : 4;
  const size = reader.u64(24, 'header');
  const known = v3 ? Math.min(headerLength, 105) : HEADER_BYTES_V2;
  const header: Header = {
    version,
    backingNameOffset: backingNameOffset.low,
    backingNameLength: reader.u32(16, 'header'),
    clusterBits,
    size: size.high * HIGH + size.low - (size.low % 512),
    sizeTail: size.low % 512,
    cryptMethod: reader.u32(32, 'header'),
    l1Entries: reader.u32(36, 'header'),
    l1Offset: tableOffset(reader.u64(40, 'header')),
    refcountTableOffset: tableOffset(reader.u64(48, 'header')),
    refcountTableClusters: reader.u32(56, 'header'),
    snapshotCount: reader.u32(60, 'header'),
    snapshotsOffset: snapshotsOffset(reader.u64(64, 'header'), options),
    incompatible,
    compatible: v3 ? reader.u64(80, 'header') : NO_BITS,
    autoclear: v3 ? reader.u64(88, 'header') : NO_BITS,
    refcountOrder,
    headerLength,
    compression,
    unknownFields: padTo(bytes, headerLength).slice(known, headerLength),
  };
  // An image with feature bits that are not known is refused for these, by name.
  if (unknownIncompatible(incompatible).length === 0) checkLimits(header, options);
  return header;
}

/** The sizes that follow from a header. */
export function headerGeometry(header: Header): Geometry {
  return geometryOf({
    clusterBits: header.clusterBits,
    extendedL2: hasFeature(header.incompatible, Incompatible.extendedL2),
    refcountOrder: header.refcountOrder,
  });
}

/** Where the header extensions end: at the backing file name, or with the first cluster. */
export function extensionsEnd(header: Header): number {
  return header.backingNameOffset || 2 ** header.clusterBits;
}

/**
 * The backing file's name as stored, or undefined.
 * @param bytes the first cluster of the file
 */
export function parseBackingName(bytes: Uint8Array, header: Header): string | undefined {
  const { backingNameOffset: at, backingNameLength: length } = header;
  if (at === 0) return undefined;
  if (length > Math.min(BACKING_NAME_BYTES_MAX, 2 ** header.clusterBits - at)) {
    throw new Qcow2Error('CORRUPT', 'Backing file name too long', 16);
  }
  return new BigEndianReader(padTo(bytes, at + length)).text(at, length, 'backing file name');
}

/** The header's bytes, `headerLength` of them; the extensions are the caller's to add. */
export function serializeHeader(header: Header): Uint8Array {
  const bytes = new Uint8Array(header.headerLength);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC);
  view.setUint32(4, header.version);
  putU64(view, 8, header.backingNameOffset);
  view.setUint32(16, header.backingNameLength);
  view.setUint32(20, header.clusterBits);
  putU64(view, 24, header.size);
  view.setUint32(28, view.getUint32(28) + header.sizeTail);
  view.setUint32(32, header.cryptMethod);
  view.setUint32(36, header.l1Entries);
  putU64(view, 40, header.l1Offset);
  putU64(view, 48, header.refcountTableOffset);
  view.setUint32(56, header.refcountTableClusters);
  view.setUint32(60, header.snapshotCount);
  putU64(view, 64, header.snapshotsOffset);
  if (header.version === 2) return bytes;
  for (const [at, word] of [
    [72, header.incompatible],
    [80, header.compatible],
    [88, header.autoclear],
  ] as const) {
    view.setUint32(at, word.high);
    view.setUint32(at + 4, word.low);
  }
  view.setUint32(96, header.refcountOrder);
  view.setUint32(100, header.headerLength);
  if (header.headerLength > 104) bytes[104] = header.compression === 'zstd' ? 1 : 0;
  bytes.set(header.unknownFields, Math.min(105, header.headerLength));
  return bytes;
}

function padTo(bytes: Uint8Array, length: number): Uint8Array {
  if (bytes.length >= length) return bytes;
  const padded = new Uint8Array(length);
  padded.set(bytes);
  return padded;
}

/** The type byte and feature bit 3 must agree: both say deflate, or neither does. */
function compressionOf(type: number, bit: boolean): CompressionType {
  if (type > 1) {
    throw new Qcow2Error('UNSUPPORTED', `qcow2: unknown compression type: ${type}`, 104);
  }
  if (bit !== (type !== 0)) {
    const must = bit ? 'must not be set' : 'must be set';
    throw new Qcow2Error(
      'CORRUPT',
      `qcow2: Compression type incompatible feature bit ${must}`,
      bit ? 72 : 104,
    );
  }
  return type === 1 ? 'zstd' : 'deflate';
}

/**
 * A table's offset as a number. What no table can have is NaN, or inexact: see `checkTable`. Below
 * 2^62 a sector's offset is exact.
 */
function tableOffset({ high, low }: U64): number {
  return high >= 0x4000_0000 || (high >= 0x20_0000 && low % 512 !== 0) ? NaN : high * HIGH + low;
}

/** Repair looks at it again: what no number holds reads as absent there. */
function snapshotsOffset(field: U64, { lenient = false }: HeaderOptions): number {
  return lenient && field.high >= 0x20_0000 ? 0 : tableOffset(field);
}

/** Refuses a table that is too long, or not on a cluster boundary; in this order, as QEMU does. */
function checkTable(
  what: string,
  { at, offset, clusterSize }: Record<'at' | 'offset' | 'clusterSize', number>,
  { countAt, tooLarge }: { readonly countAt: number; readonly tooLarge: boolean },
): void {
  if (tooLarge) throw new Qcow2Error('UNSUPPORTED', `${what} too large`, countAt);
  if (offset % clusterSize !== 0) throw new Qcow2Error('CORRUPT', `${what} offset invalid`, at);
}

function checkLimits(header: Header, { lenient = false }: HeaderOptions): void {
  const extended = hasFeature(header.incompatible, Incompatible.extendedL2);
  const clusterSize = 2 ** header.clusterBits;
  if (extended && header.clusterBits < CLUSTER_BITS_MIN_EXTENDED) {
    const message = `Unsupported subcluster size: ${clusterSize / 32}`;
    throw new Qcow2Error('UNSUPPORTED', message, 20);
  }
  if (header.refcountOrder > REFCOUNT_ORDER_MAX) {
    const message = 'Reference count entry width too large; may not exceed 64 bits';
    throw new Qcow2Error('UNSUPPORTED', message, 96);
  }
  if (header.refcountTableClusters === 0 && !lenient) {
    throw new Qcow2Error('CORRUPT', 'Image does not contain a reference count table', 56);
  }
  checkTable(
    'Reference count table',
    { at: 48, offset: header.refcountTableOffset, clusterSize },
    {
      countAt: 56,
      tooLarge: header.refcountTableClusters * clusterSize > REFCOUNT_TABLE_BYTES_MAX,
    },
  );
  if (!lenient) {
    const table = { at: 64, offset: header.snapshotsOffset, clusterSize };
    const tooLarge = header.snapshotCount > SNAPSHOTS_MAX;
    checkTable('Snapshot table', table, { countAt: 60, tooLarge });
  }
  checkTable(
    'Active L1 table',
    { at: 40, offset: header.l1Offset, clusterSize },
    { countAt: 36, tooLarge: header.l1Entries > L1_BYTES_MAX / 8 },
  );
  const geometry = headerGeometry(header);
  const size = header.size + header.sizeTail;
  // QEMU rounds up in 64 bits: what passes them needs no entries, and is refused in the end.
  const needed = size > 2 ** 64 - geometry.l2Span ? 0 : l1EntriesFor(size, geometry);
  if (needed > 0x7fff_ffff) throw new Qcow2Error('UNSUPPORTED', 'Image is too big', 24);
  if (header.l1Entries < needed) throw new Qcow2Error('CORRUPT', 'L1 table is too small', 36);
}
