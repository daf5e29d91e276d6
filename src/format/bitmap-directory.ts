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
import { alignUp } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import {
  BITMAP_DIRECTORY_BYTES_MAX,
  BITMAP_GRANULARITY_BITS_MAX,
  BITMAP_GRANULARITY_BITS_MIN,
  BITMAP_NAME_BYTES_MAX,
  BITMAPS_MAX,
} from '../base/limits.ts';

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
  const directoryOffset = reader.number(16, 'bitmap directory offset');
  if (directoryOffset % clusterSize !== 0) {
    fail('CORRUPT', 'bitmaps_ext: invalid bitmap directory offset', 16);
  }
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
  options: { readonly count: number; readonly clusterSize: number; readonly diskSize: number },
): BitmapDirectoryEntry[] {
  const reader = new BigEndianReader(bytes, at);
  const entries: BitmapDirectoryEntry[] = [];
  let pos = 0;
  while (pos < bytes.length) {
    if (entries.length === options.count) {
      throw new Qcow2Error('CORRUPT', 'More bitmaps found than specified in header', at + pos);
    }
    const { entry, length } = parseEntry(reader, pos, options);
    entries.push(entry);
    pos += length;
  }
  if (entries.length !== options.count) {
    throw new Qcow2Error('CORRUPT', 'Less bitmaps found than specified in header', at);
  }
  return entries;
}

function parseEntry(
  reader: BigEndianReader,
  pos: number,
  limits: { readonly clusterSize: number; readonly diskSize: number },
): { entry: BitmapDirectoryEntry; length: number } {
  const fail = (message: string, field: number): never => {
    throw new Qcow2Error('CORRUPT', message, reader.base + pos + field);
  };
  const what = 'bitmap directory entry';
  const tableOffset = reader.number(pos, what);
  const tableEntries = reader.u32(pos + 8, what);
  const flags = reader.u32(pos + 12, what);
  const granularityBits = reader.u8(pos + 17, what);
  const nameBytes = reader.u16(pos + 18, what);
  const extraBytes = reader.u32(pos + 20, what);
  const length = alignUp(ENTRY_BYTES + extraBytes + nameBytes, 8);
  if (pos + length > reader.length) fail('bitmap directory entry is cut short', 18);
  if (tableEntries === 0 || tableOffset === 0 || tableOffset % limits.clusterSize !== 0) {
    fail('bitmap table offset or size is invalid', 0);
  }
  if (flags & ~(BitmapFlag.inUse | BitmapFlag.auto | BitmapFlag.extraDataCompatible)) {
    fail('reserved flags set in a bitmap directory entry', 12);
  }
  if (reader.u8(pos + 16, what) !== TYPE_DIRTY_TRACKING) fail('unknown bitmap type', 16);
  if (
    granularityBits < BITMAP_GRANULARITY_BITS_MIN ||
    granularityBits > BITMAP_GRANULARITY_BITS_MAX
  ) {
    fail('bitmap granularity is out of range', 17);
  }
  if (nameBytes === 0 || nameBytes > BITMAP_NAME_BYTES_MAX) fail('bitmap name length', 18);
  if (extraBytes !== 0) fail('bitmap extra data is not supported', 20);
  // A consistent bitmap covers the disk exactly; one in use may belong to a size of before.
  const bytesNeeded = Math.ceil(limits.diskSize / 2 ** granularityBits / 8);
  if (!(flags & BitmapFlag.inUse) && tableEntries !== Math.ceil(bytesNeeded / limits.clusterSize)) {
    fail('bitmap table size does not fit the disk', 8);
  }
  const extraAt = pos + ENTRY_BYTES;
  const name = reader.slice(extraAt + extraBytes, nameBytes, what);
  const entry = {
    tableOffset,
    tableEntries,
    flags,
    granularityBits,
    extraData: reader.slice(extraAt, extraBytes, what).slice(),
    name: new TextDecoder().decode(name),
  };
  return { entry, length };
}

/** One directory entry as bytes, padding included. */
export function serializeBitmapDirectoryEntry(entry: BitmapDirectoryEntry): Uint8Array {
  const name = new TextEncoder().encode(entry.name);
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
