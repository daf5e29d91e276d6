/**
 * Every reference that an image makes to its clusters, counted: header, L1 and L2 tables of the
 * active disk and of the snapshots, what they map, snapshot table, refcount table and blocks,
 * encryption header, bitmaps.
 *
 * Tables come in as many at a time as lie side by side, and kernels count their entries; what an
 * entry is wrong in is told apart by `check-l2-entry.ts`.
 */

import { type Awaitable, settled } from '../../base/awaitable.ts';
import { viewOf } from '../../base/be.ts';
import { divFloor } from '../../base/bits.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { decodeField } from '../../base/text.ts';
import { tick } from '../../base/tick.ts';
import { readBitmapDirectory } from './bitmaps.ts';
import type { ReferenceCounts, Tallies } from './check-counts.ts';
import { type Findings, hex64 } from './check-findings.ts';
import { type CheckedImage, isBeyondReach, l1Host, l1Of, stopped } from './check-image.ts';
import { checkOddEntry } from './check-l2-entry.ts';
import { bitmapClusters } from './check-open.ts';

const COPIED = 0x8000_0000;
/** Tables remembered: those that many L1 entries share need not be gone through for each. */
const SHARED_TABLES_MAX = 65536;
/** How often a table is gone through before its further references are counted all at once. */
const VISITS_MAX = 20;

/** How often a table is gone through that there is something to say about: each time in vain. */
const ODD_VISITS_MAX = 65536;

/** A table that was gone through. */
interface SharedTable {
  visits: number;
  /** There was something to say about it: all its references are gone through, or none. */
  odd: boolean;
  /** References that are not counted yet. */
  waiting: number;
  /** What it adds to the tallies of the active disk. */
  readonly tallies: Tallies;
}

/** Between two looks at whether the walk is to end, milliseconds. */
const PAUSE_MS = 50;

/** What goes along with a walk. */
export interface WalkOptions {
  /** Bytes of the file: it may have grown since its tables were counted first. */
  readonly limitBytes: number;
  /** What is wrong is put right on the way. */
  readonly repairs: boolean;
  readonly signal?: AbortSignal | undefined;
  /** Called with the L1 entries done, and all there are. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** A range of an L1 table's owner. */
interface L1Walk {
  readonly table: Uint8Array;
  readonly active: boolean;
}

/** L2 tables that lie side by side, as L1 entries name them. */
interface SideBySide {
  /** Of the first one's L1 entry. */
  readonly index: number;
  /** Its host offset. */
  readonly first: number;
  readonly count: number;
}

/** How a table's entries count. */
interface TableUse {
  readonly active: boolean;
  readonly times: number;
}

/** Goes over all tables of an image. */
export class ReferenceWalk {
  private readonly shared = new Map<number, SharedTable>();
  /** Tables of the active disk whose flags were not all noted. */
  oddTables = 0;
  /** Bytes of the file, as far as references may go. */
  limitBytes: number;
  private done = 0;
  private total = 0;
  private nextPause = performance.now() + PAUSE_MS;

  constructor(
    readonly image: CheckedImage,
    readonly counts: ReferenceCounts,
    private readonly options: WalkOptions,
  ) {
    this.limitBytes = options.limitBytes;
  }

  get findings(): Findings {
    return this.image.findings;
  }

  /** What is wrong is put right on the way. */
  get repairs(): boolean {
    return this.options.repairs;
  }

  /**
   * Counts everything but refcount blocks.
   * @throws Qcow2Error where the tables make no sense at all
   */
  async countTables(): Promise<void> {
    const { image, findings } = this;
    const { header, geometry, metadata } = image;
    this.total = [header.l1Entries, ...image.snapshots.map((one) => l1Of(one).entries)].reduce(
      (sum, entries) => sum + entries,
    );
    this.add(0, geometry.clusterSize);
    await this.countL1(header.l1Offset, header.l1Entries, true);
    const tallies = this.counts.tallies();
    if (image.hasDataFile && image.snapshots.length > 0) {
      findings.corruption(`ERROR ${image.snapshots.length} snapshots in image with data file`);
    }
    for (const snapshot of image.snapshots) {
      const { offset, entries } = l1Of(snapshot);
      if (!this.isSoundL1(snapshot, offset, entries)) continue;
      await this.countL1(offset, entries, false);
    }
    await this.countShared();
    this.counts.setTallies(tallies);
    this.add(image.snapshotsOffset, image.snapshotsBytes);
    const tableBytes = header.refcountTableClusters * geometry.clusterSize;
    this.add(header.refcountTableOffset, tableBytes);
    const { cryptoHeader } = metadata.extensions;
    // From 2^63 on a length is negative to QEMU.
    if (cryptoHeader && !isBeyondReach(cryptoHeader.length)) {
      this.add(cryptoHeader.offset, cryptoHeader.length);
    }
    await this.countBitmaps();
  }

  /**
   * Counts a range of the file.
   * @param options how often, and how messages show the offset where it is not exact
   */
  add(
    host: number,
    bytes: number,
    { times = 1, shown = '' }: { readonly times?: number; readonly shown?: string } = {},
  ): void {
    const { image, findings, counts } = this;
    const { clusterSize } = image.geometry;
    if (bytes <= 0) return;
    if (host + bytes - this.limitBytes >= clusterSize) {
      const where = `offset ${shown || `0x${host.toString(16)}`} size 0x${bytes.toString(16)}`;
      findings.corruption(
        'ERROR: counting reference for region exceeding the end of the file by one cluster ' +
          `or more: ${where}`,
      );
      return;
    }
    const last = divFloor(host + bytes - 1, clusterSize);
    for (let cluster = divFloor(host, clusterSize); cluster <= last; cluster++) {
      if (cluster >= image.clusters) image.clusters = cluster + 1;
      const fits = Math.min(times, counts.room(cluster));
      counts.add(cluster, fits);
      if (fits === times) continue;
      findings.windowCorruption(
        `ERROR: overflow cluster offset=0x${(cluster * clusterSize).toString(16)}\n` +
          'Use qemu-img amend to increase the refcount entry width or qemu-img convert to ' +
          'create a clean copy if the image cannot be opened for writing',
      );
    }
  }

  private isSoundL1(
    { fixed, id, name }: (typeof this.image.snapshots)[number],
    offset: number,
    entries: number,
  ): boolean {
    const view = viewOf(fixed);
    const who = `ERROR snapshot ${decodeField(id)} (${decodeField(name)})`;
    if (view.getUint32(4) % this.image.geometry.clusterSize !== 0) {
      const at = hex64(view.getUint32(0), view.getUint32(4));
      this.findings.corruption(
        `${who} l1_offset=0x${at}: L1 table is not cluster aligned; ` +
          'snapshot table entry corrupted',
      );
      return false;
    }
    if (entries > 2 ** 22) {
      this.findings.corruption(
        `${who} l1_size=0x${entries.toString(16)}: L1 table is too large; ` +
          'snapshot table entry corrupted',
      );
      return false;
    }
    return entries > 0 && offset >= 0;
  }

  private async countL1(offset: number, entries: number, active: boolean): Promise<void> {
    if (entries === 0) return;
    const { image, findings } = this;
    const table = new Uint8Array(entries * 8);
    this.add(offset, table.length);
    try {
      await image.read(offset, table);
    } catch (cause) {
      findings.failed('ERROR: I/O error in check_refcounts_l1');
      throw cause;
    }
    // Flags are those of the table in memory, which a repair may have left alone in the file.
    if (active && !sameWords(table, image.l1)) this.oddTables++;
    const walk: L1Walk = { table, active };
    for (let index = 0; index < entries; ) {
      const count = this.tablesSideBySide(walk, index);
      if (count === 0) index++;
      else {
        const counted = this.countL2s(walk, index, count);
        if (!settled(counted)) await counted;
        index += count;
      }
      const paused = this.pause(index);
      if (!settled(paused)) await paused;
    }
    this.done += entries;
  }

  /** Lets others in now and then, and tells how far the walk is. */
  private pause(index: number): Awaitable<void> {
    if (this.options.signal?.aborted) throw new Qcow2Error('ABORTED', 'check was interrupted');
    const now = performance.now();
    if (now < this.nextPause) return;
    this.nextPause = now + PAUSE_MS;
    return tick().then(() => {
      if (this.findings.muted === 'nothing') {
        this.options.onProgress?.(this.done + index, this.total);
      }
    });
  }

  /** How many L2 tables, from an L1 entry on, can be read at once; 0: the entry is empty. */
  private tablesSideBySide({ table }: L1Walk, index: number): number {
    const { clusterSize } = this.image.geometry;
    const view = viewOf(table);
    const at = index * 8;
    if (view.getUint32(at) === 0 && view.getUint32(at + 4) === 0) return 0;
    const first = l1Host(view, at);
    const most = Math.min(this.counts.tables.length / clusterSize, table.length / 8 - index);
    let count = 1;
    while (count < most && l1Host(view, at + count * 8) === first + count * clusterSize) count++;
    return count;
  }

  private countL2s(walk: L1Walk, index: number, count: number): Awaitable<void> {
    const { image, counts } = this;
    const { clusterSize } = image.geometry;
    const first = l1Host(viewOf(walk.table), index * 8);
    const known = count === 1 ? this.shared.get(first) : undefined;
    if (!known || known.odd || known.visits < VISITS_MAX) {
      const read = this.readTables(first, counts.tables.subarray(0, count * clusterSize));
      if (!settled(read))
        return read.then(() => this.countLoaded(walk, { index, first, count }, 0));
    }
    return this.countLoaded(walk, { index, first, count }, 0);
  }

  /** The same of tables that are in memory, from one of them on. */
  private countLoaded(walk: L1Walk, tables: SideBySide, from: number): Awaitable<void> {
    const { clusterSize } = this.image.geometry;
    for (let i = from; i < tables.count; i++) {
      const host = tables.first + i * clusterSize;
      this.countL1Entry(walk, tables.index + i, host);
      const shared = this.shared.get(host);
      if (shared && !shared.odd && shared.visits >= VISITS_MAX) {
        shared.waiting++;
        this.counts.addTallies(shared.tallies);
        continue;
      }
      const counted = this.countL2(host, i * clusterSize, { active: walk.active, times: 1 });
      if (!settled(counted)) return counted.then(() => this.countLoaded(walk, tables, i + 1));
    }
  }

  private countL1Entry({ table, active }: L1Walk, index: number, host: number): void {
    const { clusterSize } = this.image.geometry;
    const view = viewOf(table);
    const [high, low] = [view.getUint32(index * 8), view.getUint32(index * 8 + 4)];
    if (high & 0x7f00_0000 || low & 511) {
      const shown = hex64(high, low);
      this.findings.corruption(`ERROR found L1 entry with reserved bits set: ${shown}`);
    }
    this.add(host, clusterSize);
    if (active) this.noteFlag(divFloor(host, clusterSize), high >= COPIED);
    if (host % clusterSize !== 0) {
      this.findings.corruption(
        `ERROR l2_offset=${host.toString(16)}: Table is not cluster aligned; L1 entry corrupted`,
      );
    }
  }

  private noteFlag(cluster: number, copied: boolean): void {
    if (cluster < this.image.clusters) this.counts.noteFlag(cluster, copied);
    else this.oddTables++;
  }

  private readTables(host: number, into: Uint8Array): Awaitable<void> {
    const failed = (cause: unknown): never => {
      this.findings.failed('ERROR: I/O error in check_refcounts_l2');
      throw cause;
    };
    try {
      const read = this.image.read(host, into);
      return settled(read) ? read : read.catch(failed);
    } catch (cause) {
      return failed(cause);
    }
  }

  /** Counts what a table refers to that lies at `at` of the memory for tables. */
  private countL2(host: number, at: number, how: TableUse): Awaitable<void> {
    const { counts, image } = this;
    const { l2Entries, l2EntryBytes: stride } = image.geometry;
    const before = counts.tallies();
    counts.startTable();
    const sound = counts.addTable(counts.tableAt + at, l2Entries, { stride, ...how });
    if (sound === l2Entries) this.remember(host, before, false);
    else return this.countOdd(host, at, how, sound).then(() => this.remember(host, before, true));
  }

  /** Goes on with a table from an entry that there is something to say about. */
  private async countOdd(host: number, at: number, how: TableUse, first: number): Promise<void> {
    const { image, counts } = this;
    const { clusterSize, l2Entries, l2EntryBytes: stride } = image.geometry;
    const { buffer, byteOffset } = counts.tables;
    const view = new DataView(buffer, byteOffset + at, clusterSize);
    for (let index = first; index < l2Entries; ) {
      if (how.active) this.oddTables++;
      await checkOddEntry(this, { host, view, ...how }, index);
      index++;
      const place = counts.tableAt + at + index * stride;
      if (index < l2Entries) index += counts.addTable(place, l2Entries - index, { stride, ...how });
    }
  }

  /** Notes that a table was gone through, and what it added to the tallies. */
  private remember(host: number, before: Tallies, odd: boolean): void {
    const shared = this.shared.get(host);
    if (shared) {
      shared.visits++;
      shared.odd ||= odd;
      if (shared.odd && shared.visits > ODD_VISITS_MAX) {
        throw stopped('Too many references to a broken L2 table');
      }
    } else if (this.shared.size < SHARED_TABLES_MAX) {
      const after = this.counts.tallies();
      const tallies = [after[0] - before[0], after[1] - before[1], after[2] - before[2]] as const;
      this.shared.set(host, { visits: 1, odd, waiting: 0, tallies });
    }
  }

  /** Counts the references of tables that were met more often than they were gone through. */
  private async countShared(): Promise<void> {
    const { clusterSize } = this.image.geometry;
    for (const [host, { waiting }] of this.shared) {
      if (waiting === 0) continue;
      await this.readTables(host, this.counts.tables.subarray(0, clusterSize));
      await this.countL2(host, 0, { active: false, times: waiting });
    }
    this.shared.clear();
  }

  private async countBitmaps(): Promise<void> {
    const { image } = this;
    const { bitmaps: extension } = image.metadata.extensions;
    if (!extension) return;
    this.add(extension.directoryOffset, extension.directoryBytes);
    const { clusterSize } = image.geometry;
    // A repair can have written to what other tables claim, too.
    const limits = { clusterSize, diskSize: image.header.size };
    const bitmaps = await readBitmapDirectory(image.storage, extension, limits).catch(unusable);
    for (const { tableOffset, tableEntries } of bitmaps) {
      this.add(tableOffset, tableEntries * 8);
      const table = new Uint8Array(tableEntries * 8);
      await image.read(tableOffset, table);
      let hosts: number[] = [];
      try {
        hosts = bitmapClusters(table, clusterSize, tableOffset);
      } catch (cause) {
        unusable(cause);
      }
      for (const host of hosts) this.add(host, clusterSize);
    }
  }
}

/** Whether two tables are alike, of as many entries. */
function sameWords(a: Uint8Array, b: Uint8Array): boolean {
  const words = new Int32Array(b.buffer);
  return new Int32Array(a.buffer).every((word, i) => word === words[i]);
}

/** Bitmaps that make no sense end a check. */
function unusable(cause: unknown): never {
  if (!isQcow2Error(cause, 'CORRUPT', 'UNSUPPORTED')) throw cause;
  throw stopped('Invalid argument', cause);
}
