/**
 * Persistent dirty bitmaps: the header extension that points at the directory, and its entries.
 *
 *   extension  0 bitmaps u32 · 4 reserved · 8 directory bytes u64 · 16 directory offset u64
 *   entry      0 table offset u64 · 8 table entries u32 · 12 flags u32 · 16 type u8 (1)
 *              17 granularity_bits u8 · 18 name bytes u16 · 20 extra data bytes u32
 *              24 extra data · name · zeros to a multiple of 8
 *   flags      0 in_use · 1 auto (enabled) · 2 extra data is compatible
 *
 * Specification: QEMU docs/interop/qcow2, "Bitmaps extension" and "Bitmap directory".
 */

import { BigEndianReader, putU64 } from '../base/be.ts';
import { alignUp, divCeil, HIGH } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import {
  BITMAP_BYTES_MAX,
  BITMAP_DIRECTORY_BYTES_MAX,
  BITMAP_GRANULARITY_BITS_MAX,
  BITMAP_GRANULARITY_BITS_MIN,
  BITMAP_NAME_BYTES_MAX,
  BITMAPS_MAX,
} from '../base/limits.ts';
import { decodeField, encodeText } from '../base/text.ts';

/** Where the bitmap directory is. */
export interface BitmapExtension {
  readonly count: number;
  readonly directoryBytes: number;
  readonly directoryOffset: number;
}

/** Flags of a directory entry. */
export const BitmapFlag = { inUse: 1, auto: 2, extraDataCompatible: 4 } as const;

/** One bitmap of the image. */
export interface BitmapDirectoryEntry {
  readonly tableOffset: number;
  readonly tableEntries: number;
  readonly flags: number;
  /** log2 of the guest bytes that one bit stands for. */
  readonly granularityBits: number;
  readonly extraData: Uint8Array;
  readonly name: string;
  /** The name as it is in the file, where the text, which ends at a NUL, gives other bytes. */
  readonly rawName?: Uint8Array;
}

/** What the entries are checked against. */
interface DirectoryLimits {
  readonly clusterSize: number;
  readonly diskSize: number;
}

const EXTENSION_BYTES = 24;
const ENTRY_BYTES = 24;
const TYPE_DIRTY_TRACKING = 1;

/** @param at file offset of the extension's data */
export function parseBitmapExtension(
  data: Uint8Array,
  at: number,
  clusterSize: number,
): BitmapExtension {
  const reader = new BigEndianReader(data, at);
  const fail = (code: 'CORRUPT' | 'UNSUPPORTED', message: string, field: number): never => {
    throw new Qcow2Error(code, message, at + field);
  };
  if (reader.u32(4, 'bitmaps_ext') !== 0) {
    fail('CORRUPT', 'bitmaps_ext: Reserved field is not zero', 4);
  }
  const count = reader.u32(0, 'bitmaps_ext');
  if (count > BITMAPS_MAX) {
    const message =
      `bitmaps_ext: Image has ${count} bitmaps, ` +
      `exceeding the QEMU supported maximum of ${BITMAPS_MAX}`;
    fail('UNSUPPORTED', message, 0);
  }
  if (count === 0) fail('CORRUPT', 'found bitmaps extension with zero bitmaps', 0);
  const { high, low } = reader.u64(16, 'bitmaps_ext');
  if (low % clusterSize !== 0) {
    fail('CORRUPT', 'bitmaps_ext: invalid bitmap directory offset', 16);
  }
  // Not exact above 2^62: nothing is read there.
  const directoryOffset = high * HIGH + low;
  const size = reader.u64(8, 'bitmaps_ext');
  if (size.high !== 0 || size.low > BITMAP_DIRECTORY_BYTES_MAX) {
    const bytes = (BigInt(size.high) << 32n) + BigInt(size.low);
    const message =
      `bitmaps_ext: bitmap directory size (${bytes}) exceeds ` +
      `the maximum supported size (${BITMAP_DIRECTORY_BYTES_MAX})`;
    fail('UNSUPPORTED', message, 8);
  }
  return { count, directoryBytes: size.low, directoryOffset };
}

/** The opposite of `parseBitmapExtension`. */
export function serializeBitmapExtension(extension: BitmapExtension): Uint8Array {
  const data = new Uint8Array(EXTENSION_BYTES);
  const view = new DataView(data.buffer);
  view.setUint32(0, extension.count);
  putU64(view, 8, extension.directoryBytes);
  putU64(view, 16, extension.directoryOffset);
  return data;
}

/**
 * Parses the whole directory.
 * @param at file offset of `bytes`
 * @throws Qcow2Error CORRUPT where an entry breaks the format or their number is not `count`
 */
export function parseBitmapDirectory(
  bytes: Uint8Array,
  at: number,
  options: DirectoryLimits & { readonly count: number },
): BitmapDirectoryEntry[] {
  if (bytes.length === 0) {
    throw new Qcow2Error('CORRUPT', 'Requested bitmap directory size is zero', at);
  }
  const reader = new BigEndianReader(bytes, at);
  const entries: BitmapDirectoryEntry[] = [];
  let pos = 0;
  while (pos < bytes.length) {
    // What is too short for an entry is none too many.
    if (entries.length === options.count && pos + ENTRY_BYTES <= bytes.length) {
      throw new Qcow2Error(
        'CORRUPT',
        'More bitmaps found than specified in header extension',
        at + pos,
      );
    }
    const { entry, length } = parseEntry(reader, pos, options);
    entries.push(entry);
    pos += length;
  }
  if (entries.length !== options.count) {
    throw new Qcow2Error('CORRUPT', 'Less bitmaps found than specified in header extension', at);
  }
  return entries;
}

function parseEntry(
  reader: BigEndianReader,
  pos: number,
  limits: DirectoryLimits,
): { entry: BitmapDirectoryEntry; length: number } {
  const what = 'bitmap directory entry';
  const fail = (message: string, field: number): never => {
    throw new Qcow2Error('CORRUPT', message, reader.base + pos + field);
  };
  if (pos + ENTRY_BYTES > reader.length) fail('Broken bitmap directory', 0);
  const nameBytes = reader.u16(pos + 18, what);
  const extraBytes = reader.u32(pos + 20, what);
  // In 32 bits, so that what is far too long is told as what it is: extra data.
  const length = alignUp(ENTRY_BYTES + extraBytes + nameBytes, 8) | 0;
  if (pos + length > reader.length) fail('Broken bitmap directory', 18);
  if (extraBytes !== 0) fail('Bitmap extra data is not supported', 20);
  const rawName = reader.slice(pos + ENTRY_BYTES, nameBytes, what).slice();
  const name = decodeField(rawName);
  const entry: BitmapDirectoryEntry = {
    tableOffset: reader.number(pos, what),
    tableEntries: reader.u32(pos + 8, what),
    flags: reader.u32(pos + 12, what),
    granularityBits: reader.u8(pos + 17, what),
    extraData: new Uint8Array(),
    name,
    ...(sameBytes(rawName, encodeText(name)) ? {} : { rawName }),
  };
  const wrong =
    reader.u8(pos + 16, what) !== TYPE_DIRTY_TRACKING ? 16 : wrongField(entry, nameBytes, limits);
  if (wrong !== undefined) fail(`Bitmap '${name}' doesn't satisfy the constraints`, wrong);
  return { entry, length };
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** Offset, within the entry, of a field that breaks the format or QEMU's limits. */
function wrongField(
  entry: BitmapDirectoryEntry,
  nameBytes: number,
  limits: DirectoryLimits,
): number | undefined {
  const { tableOffset, tableEntries, flags, granularityBits } = entry;
  if (tableOffset === 0 || tableOffset % limits.clusterSize !== 0) return 0;
  if (tableEntries === 0 || tableEntries * limits.clusterSize > BITMAP_BYTES_MAX) return 8;
  if (flags & ~(BitmapFlag.inUse | BitmapFlag.auto | BitmapFlag.extraDataCompatible)) return 12;
  if (granularityBits < BITMAP_GRANULARITY_BITS_MIN) return 17;
  if (granularityBits > BITMAP_GRANULARITY_BITS_MAX) return 17;
  if (nameBytes === 0 || nameBytes > BITMAP_NAME_BYTES_MAX) return 18;
  // A bitmap in use may belong to the size that the disk had before.
  const covered = tableEntries * limits.clusterSize * 8 * 2 ** granularityBits;
  return !(flags & BitmapFlag.inUse) && limits.diskSize > covered ? 8 : undefined;
}

/**
 * What is known of a bitmap that somebody loads, once its table was found good: that the table is
 * as long as the disk is. Nobody loads one that is in use.
 * @throws Qcow2Error CORRUPT, `at` = file offset of the table
 */
export function checkTableLength(entry: BitmapDirectoryEntry, limits: DirectoryLimits): void {
  const { flags, name, tableEntries, tableOffset } = entry;
  if (flags & BitmapFlag.inUse || tableEntries === tableEntriesFor(entry, limits)) return;
  const message = `Could not read bitmap '${name}' from image: Invalid argument`;
  throw new Qcow2Error('CORRUPT', message, tableOffset);
}

/** Table entries of a bitmap that covers the disk exactly. */
function tableEntriesFor({ granularityBits }: BitmapDirectoryEntry, limits: DirectoryLimits) {
  const bytes = divCeil(divCeil(limits.diskSize, 2 ** granularityBits), 8);
  return divCeil(bytes, limits.clusterSize);
}

/** One directory entry as bytes, padding included. */
export function serializeBitmapDirectoryEntry(entry: BitmapDirectoryEntry): Uint8Array {
  const name = entry.rawName ?? encodeText(entry.name);
  const bytes = new Uint8Array(alignUp(ENTRY_BYTES + entry.extraData.length + name.length, 8));
  const view = new DataView(bytes.buffer);
  putU64(view, 0, entry.tableOffset);
  view.setUint32(8, entry.tableEntries);
  view.setUint32(12, entry.flags);
  view.setUint8(16, TYPE_DIRTY_TRACKING);
  view.setUint8(17, entry.granularityBits);
  view.setUint16(18, name.length);
  view.setUint32(20, entry.extraData.length);
  bytes.set(entry.extraData, ENTRY_BYTES);
  bytes.set(name, ENTRY_BYTES + entry.extraData.length);
  return bytes;
}
