/**
 * Snapshot table: variable-length entries, one after another.
 *
 *   0 L1 offset u64 · 8 L1 entries u32 · 12 id bytes u16 · 14 name bytes u16 · 16 date s u32
 *   20 date ns u32 · 24 guest clock ns u64 · 32 VM state bytes u32 · 36 extra data bytes u32
 *   40 extra data:  0 VM state bytes u64 · 8 virtual size u64 · 16 icount u64 · rest unknown, kept
 *   …  id · name · zeros to a multiple of 8
 *
 * Specification: QEMU docs/interop/qcow2, "Snapshots".
 */

import { BigEndianReader, putU64, type U64 } from '../base/be.ts';
import { alignUp, HIGH } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import {
  L1_BYTES_MAX,
  SNAPSHOT_EXTRA_BYTES_MAX,
  SNAPSHOT_TABLE_BYTES_MAX,
} from '../base/limits.ts';
import { encodeText } from '../base/text.ts';

/** One internal snapshot. */
export interface Snapshot {
  readonly id: string;
  readonly name: string;
  /** File offset of its L1 table. NaN where it is none and the table was read leniently. */
  readonly l1Offset: number;
  readonly l1Entries: number;
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
  /** Guest time since boot, nanoseconds. */
  readonly clock: U64;
  readonly vmStateBytes: number;
  /** Virtual bytes of the disk when it was taken. */
  readonly virtualSize: number;
  /** Instructions executed, where icount was on: all ones says that it was off. */
  readonly icount: U64 | undefined;
  /** How much extra data the entry has, and what of it is not known here (kept on rewrite). */
  readonly extraBytes: number;
  readonly unknownExtra: Uint8Array;
  /** Id and name as they are in the file, where the texts above would not give the same bytes. */
  readonly raw?: { readonly id: Uint8Array; readonly name: Uint8Array };
}

/** The fixed part of an entry. */
export const SNAPSHOT_ENTRY_BYTES = 40;
/** The longest that is read: with all of the extra data, id and name that there can be. */
export const SNAPSHOT_ENTRY_BYTES_MAX =
  SNAPSHOT_ENTRY_BYTES + SNAPSHOT_EXTRA_BYTES_MAX + 2 * 0xffff + 7;
/** Extra data that is known: VM state size, disk size, icount. */
export const SNAPSHOT_EXTRA_BYTES = 24;

/** What of it version 3 asks for: VM state size and disk size. */
export const SNAPSHOT_EXTRA_BYTES_V3 = 16;

/** What the entries are checked against. */
export interface SnapshotContext {
  readonly count: number;
  /** Stands in where an entry has no virtual size of its own, as in version 2. */
  readonly diskSize: number;
  /**
   * Numbers that no number here holds become NaN rather than an error: for reading alone, where a
   * snapshot that nobody asks for is no reason to refuse the disk. Such a table is not for writing.
   */
  readonly lenient?: boolean;
}

/**
 * Parses a snapshot table.
 * @param bytes from the table's start: as much as the file has, up to the limit
 * @param at file offset of the table
 * @throws Qcow2Error CORRUPT or UNSUPPORTED
 */
export function parseSnapshotTable(
  bytes: Uint8Array,
  at: number,
  context: SnapshotContext,
): Snapshot[] {
  const reader = new BigEndianReader(bytes, at);
  const snapshots: Snapshot[] = [];
  const most = SNAPSHOT_TABLE_BYTES_MAX;
  let pos = 0;
  for (let index = 0; index < context.count; index++) {
    const fixedEnd = pos + SNAPSHOT_ENTRY_BYTES;
    if (fixedEnd > most || (fixedEnd <= bytes.length && pos + entryBytes(reader, pos) > most)) {
      const overhanging = context.count - index;
      throw new Qcow2Error('UNSUPPORTED', 'Snapshot table is too big', at + pos, { overhanging });
    }
    const { snapshot, length } = parseSnapshot(reader, pos, { index, ...context });
    snapshots.push(snapshot);
    pos += length;
  }
  return snapshots;
}

/** Bytes of the entry at `pos`, without its padding and what it has too much of. */
function entryBytes(reader: BigEndianReader, pos: number): number {
  const what = 'snapshot table entry';
  const extraBytes = Math.min(reader.u32(pos + 36, what), SNAPSHOT_EXTRA_BYTES_MAX);
  const [idBytes, nameBytes] = [reader.u16(pos + 12, what), reader.u16(pos + 14, what)];
  return SNAPSHOT_ENTRY_BYTES + extraBytes + idBytes + nameBytes;
}

function parseSnapshot(
  reader: BigEndianReader,
  pos: number,
  context: SnapshotContext & { readonly index: number },
): { snapshot: Snapshot; length: number } {
  const what = 'snapshot table entry';
  const number = (at: number, name: string) =>
    context.lenient ? reader.numberOrNaN(at, name) : reader.number(at, name);
  const idBytes = reader.u16(pos + 12, what);
  const nameBytes = reader.u16(pos + 14, what);
  const extraBytes = reader.u32(pos + 36, what);
  if (extraBytes > SNAPSHOT_EXTRA_BYTES_MAX) {
    const message = `Too much extra metadata in snapshot table entry ${context.index}`;
    throw new Qcow2Error('UNSUPPORTED', message, reader.base + pos + 36);
  }
  const extra = pos + SNAPSHOT_ENTRY_BYTES;
  const idAt = extra + extraBytes;
  const end = idAt + idBytes + nameBytes;
  const id = reader.text(idAt, idBytes, what);
  const name = reader.text(idAt + idBytes, nameBytes, what);
  const raw = {
    id: reader.slice(idAt, idBytes, what).slice(),
    name: reader.slice(idAt + idBytes, nameBytes, what).slice(),
  };
  const exact = isText(raw.id, id) && isText(raw.name, name);
  const snapshot: Snapshot = {
    id,
    name,
    ...(exact ? {} : { raw }),
    l1Offset: number(pos, 'snapshot L1 table offset'),
    l1Entries: reader.u32(pos + 8, what),
    dateSeconds: reader.u32(pos + 16, what),
    dateNanoseconds: reader.u32(pos + 20, what),
    clock: reader.u64(pos + 24, what),
    vmStateBytes: extraBytes >= 8 ? number(extra, 'VM state size') : reader.u32(pos + 32, what),
    virtualSize:
      extraBytes >= 16
        ? sizeOf(reader.u64(extra + 8, what), context.lenient ? undefined : reader.base + extra + 8)
        : context.diskSize,
    icount: extraBytes >= 24 ? reader.u64(extra + 16, what) : undefined,
    extraBytes,
    unknownExtra: reader
      .slice(
        Math.min(idAt, extra + SNAPSHOT_EXTRA_BYTES),
        Math.max(0, extraBytes - SNAPSHOT_EXTRA_BYTES),
        what,
      )
      .slice(),
  };
  return { snapshot, length: alignUp(end, 8) - pos };
}

function isText(bytes: Uint8Array, text: string): boolean {
  const encoded = encodeText(text);
  return encoded.length === bytes.length && encoded.every((byte, i) => byte === bytes[i]);
}

/** Sizes are whole sectors, as the header's is. NaN where no offset tells that one must be. */
function sizeOf({ high, low }: U64, at: number | undefined): number {
  if (high >= 0x4000_0000) {
    if (at === undefined) return Number.NaN;
    throw new Qcow2Error('CORRUPT', 'snapshot disk size', at);
  }
  return high * HIGH + low - (low % 512);
}

/**
 * Checks where a snapshot says its L1 table is, before that is read.
 * @param at file offset of the snapshot table, for the error
 */
export function checkSnapshotL1(snapshot: Snapshot, clusterSize: number, at: number): void {
  if (snapshot.l1Entries > L1_BYTES_MAX / 8) {
    const cause = { code: 'EFBIG' };
    throw new Qcow2Error('UNSUPPORTED', 'Snapshot L1 table too large', at, cause);
  }
  if (snapshot.l1Offset % clusterSize !== 0) {
    const cause = { code: 'EINVAL' };
    throw new Qcow2Error('CORRUPT', 'Snapshot L1 table offset invalid', at, cause);
  }
}

/** One entry as bytes, without the padding that another entry needs in front of it. */
export function serializeSnapshot(snapshot: Snapshot): Uint8Array {
  const id = snapshot.raw?.id ?? encodeText(snapshot.id);
  const name = snapshot.raw?.name ?? encodeText(snapshot.name);
  const { extraBytes } = snapshot;
  const bytes = new Uint8Array(SNAPSHOT_ENTRY_BYTES + extraBytes + id.length + name.length);
  const view = new DataView(bytes.buffer);
  putU64(view, 0, snapshot.l1Offset);
  view.setUint32(8, snapshot.l1Entries);
  view.setUint16(12, id.length);
  view.setUint16(14, name.length);
  view.setUint32(16, snapshot.dateSeconds);
  view.setUint32(20, snapshot.dateNanoseconds);
  view.setUint32(24, snapshot.clock.high);
  view.setUint32(28, snapshot.clock.low);
  // A state above 4 GiB is told by the extra data alone.
  view.setUint32(32, snapshot.vmStateBytes < HIGH ? snapshot.vmStateBytes : 0);
  view.setUint32(36, extraBytes);
  if (extraBytes >= 8) putU64(view, SNAPSHOT_ENTRY_BYTES, snapshot.vmStateBytes);
  if (extraBytes >= 16) putU64(view, SNAPSHOT_ENTRY_BYTES + 8, snapshot.virtualSize);
  if (extraBytes >= 24 && snapshot.icount) {
    view.setUint32(SNAPSHOT_ENTRY_BYTES + 16, snapshot.icount.high);
    view.setUint32(SNAPSHOT_ENTRY_BYTES + 20, snapshot.icount.low);
  }
  bytes.set(
    snapshot.unknownExtra,
    SNAPSHOT_ENTRY_BYTES + Math.min(extraBytes, SNAPSHOT_EXTRA_BYTES),
  );
  bytes.set(id, SNAPSHOT_ENTRY_BYTES + extraBytes);
  bytes.set(name, SNAPSHOT_ENTRY_BYTES + extraBytes + id.length);
  return bytes;
}

/** A table as bytes: each entry starts at a multiple of 8, the last one is not padded. */
export function serializeSnapshotTable(snapshots: readonly Snapshot[]): Uint8Array {
  const entries = snapshots.map(serializeSnapshot);
  let end = 0;
  const starts = entries.map(({ length }) => {
    const at = alignUp(end, 8);
    end = at + length;
    return at;
  });
  const bytes = new Uint8Array(end);
  entries.forEach((entry, i) => void bytes.set(entry, starts[i]));
  return bytes;
}
