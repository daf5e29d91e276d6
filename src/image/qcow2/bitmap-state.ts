/** One bitmap of an open image: what its directory entry says, and its table while it is needed. */
import { viewOf } from '../../base/be.ts';
import { divCeil } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { type BitmapDirectoryEntry, BitmapFlag } from '../../format/bitmap-directory.ts';
import {
  type BitmapTableEntry,
  parseBitmapTableEntry,
  serializeBitmapTableEntry,
} from '../../format/bitmap-table.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { Storage } from '../../storage/storage.ts';

/** A bitmap as it is listed. */
export interface BitmapDescription {
  readonly name: string;
  /** Guest bytes that one bit stands for: a power of two. */
  readonly granularity: number;
  /** It follows what is written. */
  readonly enabled: boolean;
  /** It was in use when a writer stopped: its bits are not to be believed, and it can only go. */
  readonly inconsistent: boolean;
}

/** A bitmap of an open image. */
export class BitmapState {
  /** What the directory says, in memory. */
  entry: BitmapDirectoryEntry;
  /** In use on disk, because this writer changes it: cleared when its bits are stored. */
  held = false;
  /** Its bits are not to be believed: a writer left it in use, or this one had to give it up. */
  inconsistent: boolean;
  /** The table as it is to be in the file, where it was needed. */
  table: Uint8Array | undefined;
  tableDirty = false;

  constructor(entry: BitmapDirectoryEntry) {
    this.entry = entry;
    this.inconsistent = (entry.flags & BitmapFlag.inUse) !== 0;
  }

  get name(): string {
    return this.entry.name;
  }

  get enabled(): boolean {
    return (this.entry.flags & BitmapFlag.auto) !== 0;
  }

  /** Guest bytes of one bit. */
  get granularity(): number {
    return 2 ** this.entry.granularityBits;
  }

  describe(): BitmapDescription {
    const { name, granularity, enabled, inconsistent } = this;
    return { name, granularity, enabled, inconsistent };
  }

  setFlag(flag: number, on: boolean): void {
    const { flags } = this.entry;
    this.entry = { ...this.entry, flags: on ? flags | flag : flags & ~flag };
  }

  /** Bits that a disk of so many bytes has. */
  bitsFor(diskSize: number): number {
    return divCeil(diskSize, this.granularity);
  }

  /** Reads the table, where it is not at hand. */
  async loadTable(storage: Storage): Promise<Uint8Array> {
    if (this.table) return this.table;
    const { tableOffset, tableEntries } = this.entry;
    const table = new Uint8Array(tableEntries * 8);
    const got = await readFully(storage, tableOffset, table);
    if (got < table.length) {
      throw new Qcow2Error('CORRUPT', 'bitmap table lies past the end of the file', tableOffset);
    }
    this.table = table;
    return table;
  }

  /** @throws Qcow2Error CORRUPT for an entry that the format forbids */
  tableEntry(index: number, clusterSize: number): BitmapTableEntry {
    const table = this.table as Uint8Array;
    return parseBitmapTableEntry(viewOf(table), index * 8, clusterSize, this.entry.tableOffset);
  }

  setTableEntry(index: number, entry: BitmapTableEntry): void {
    serializeBitmapTableEntry(viewOf(this.table as Uint8Array), index * 8, entry);
    this.tableDirty = true;
  }
}

/** The clusters that bits [from, to) lie in: their index, and the bits of each, counted in it. */
export function* clustersOfBits(
  from: number,
  to: number,
  clusterSize: number,
): Generator<{ readonly index: number; readonly from: number; readonly to: number }> {
  const perCluster = clusterSize * 8;
  for (let bit = from; bit < to; ) {
    const first = bit % perCluster;
    const index = (bit - first) / perCluster;
    const end = Math.min(perCluster, first + to - bit);
    yield { index, from: first, to: end };
    bit += end - first;
  }
}

/** Bytes of bitmap data that are looked at, and kept, at a time. */
export function bitmapSliceBytes(clusterSize: number): number {
  return Math.min(clusterSize, 65536);
}
