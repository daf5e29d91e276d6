/**
 * Where guest bytes live: the only reader of L1 and L2 tables. A guest range becomes runs here,
 * and whoever reads, maps or converts consumes runs.
 *
 * The L1 table is in memory; an L1 entry without a table is one run whatever it spans, so that an
 * empty disk costs what its L1 table costs. L2 slices are decoded by the kernels where they lie.
 */
import { type Awaitable, settled } from '../../base/awaitable.ts';
import { alignDown, HIGH } from '../../base/bits.ts';
import { atGuest, Qcow2Error } from '../../base/errors.ts';
import type { Geometry } from '../../format/geometry.ts';
import { parseL1Offset } from '../../format/l1-entry.ts';
import type { Region } from '../../kernels/arena.ts';
import { L2Flags, RUN_BYTES, RunKind } from '../../kernels/kernels.ts';
import { entryCorruption, noticing } from './corruption.ts';

/** A run that has no place in a file. */
export const NO_PLACE = -1;

/**
 * Takes one run. Numbers are bytes; `host` is where its bytes are, or would be (those of zeros, or
 * of subclusters that are not there, whose cluster has a place), or `NO_PLACE`.
 */
export type RunVisitor = (
  kind: RunKind,
  guest: number,
  length: number,
  host: number,
  stored: number,
) => void;

/** Where a mapping finds L2 slices: see `TableCache` and `WriteBackCache`. */
export interface SliceCache {
  readonly sliceBytes: number;
  peek(file: number): number | undefined;
  load(file: number, tableStart: number): Awaitable<void>;
}

/** What a mapping is made of. */
export interface MappingParts {
  readonly geometry: Geometry;
  /** The L1 table as it is in the file, and where that is. */
  readonly l1: Uint8Array;
  readonly l1Offset: number;
  /** `L2Flags`, OR-ed. */
  readonly flags: number;
  readonly cache: SliceCache;
  /** Where the kernels write run records. */
  readonly records: Region;
}

/** The guest-to-host map of one image or of one of its snapshots. */
export class Mapping {
  private l1View!: DataView;
  private l1Entries = 0;
  private l1Offset = 0;

  constructor(private readonly parts: MappingParts) {
    this.replaceL1(parts.l1, parts.l1Offset);
  }

  /** The L1 table has another place and size. */
  replaceL1(l1: Uint8Array, offset: number): void {
    this.l1View = new DataView(l1.buffer, l1.byteOffset, l1.byteLength);
    this.l1Entries = Math.floor(l1.byteLength / 8);
    this.l1Offset = offset;
  }

  /**
   * Visits the runs of [from, to) in guest order, without gaps. Answers at once where the tables
   * it needs are at hand or the storage answers at once.
   * @throws Qcow2Error CORRUPT, `at` = offset of the entry
   */
  visit(from: number, to: number, visitor: RunVisitor): Awaitable<void> {
    let at = from;
    while (at < to) {
      const step = this.visitSome(at, to, visitor);
      if (!settled(step)) return this.visitRest(step, to, visitor);
      at = step;
    }
  }

  private async visitRest(first: Promise<number>, to: number, visitor: RunVisitor) {
    let at = await first;
    while (at < to) {
      const step = this.visitSome(at, to, visitor);
      at = settled(step) ? step : await step;
    }
  }

  /** Visits up to the end of one L2 slice, or a stretch of empty L1 entries: returns how far. */
  private visitSome(at: number, to: number, visitor: RunVisitor): Awaitable<number> {
    const { geometry } = this.parts;
    const { l2Span, clusterSize, l2EntryBytes } = geometry;
    const index = Math.floor(at / l2Span);
    const table = this.l2Table(index);
    if (table === 0) {
      const end = Math.min(to, this.emptyUntil(index, Math.ceil(to / l2Span)) * l2Span);
      visitor(RunKind.unallocated, at, end - at, NO_PLACE, 0);
      return end;
    }
    const { cache } = this.parts;
    const inTable = Math.floor((at % l2Span) / clusterSize) * l2EntryBytes;
    const inSlice = inTable % cache.sliceBytes;
    const slice = table + inTable - inSlice;
    const place = { table, slice, inSlice, entry: this.l1Offset + index * 8 };
    const address = cache.peek(slice);
    if (address !== undefined) return this.decode(address, at, to, place, visitor);
    const loaded = this.load(place, at);
    if (settled(loaded)) return this.decodeLoaded(at, to, place, visitor);
    return loaded.then(() => this.decodeLoaded(at, to, place, visitor));
  }

  /** Loads a slice; where that fails, the error has the place in the disk that it was for. */
  private load({ slice, table }: SlicePlace, guest: number): Awaitable<void> {
    const fail = (cause: unknown): never => {
      throw atGuest(cause, guest);
    };
    try {
      const loaded = this.parts.cache.load(slice, table);
      if (!settled(loaded)) return loaded.then(() => {}, fail);
    } catch (cause) {
      fail(cause);
    }
  }

  /** The slice was just loaded; another reader may have pushed it out again meanwhile. */
  private decodeLoaded(
    at: number,
    to: number,
    place: SlicePlace,
    visitor: RunVisitor,
  ): Awaitable<number> {
    const address = this.parts.cache.peek(place.slice);
    if (address === undefined) return this.visitSome(at, to, visitor);
    return this.decode(address, at, to, place, visitor);
  }

  /** Runs the kernel over the entries of one slice that [at, to) touches. */
  private decode(
    address: number,
    at: number,
    to: number,
    place: SlicePlace,
    visitor: RunVisitor,
  ): number {
    const { geometry, records, flags, cache } = this.parts;
    const { clusterBits, clusterSize, subclusterSize, extendedL2, l2EntryBytes } = geometry;
    const { kernels } = records;
    const room = Math.floor(records.length / RUN_BYTES);
    const start = alignDown(at, subclusterSize);
    const entriesLeft = (cache.sliceBytes - place.inSlice) / l2EntryBytes;
    const sliceEnd = alignDown(at, clusterSize) + entriesLeft * clusterSize;
    // A data file has a place 0, which kernels take for none: that cluster is looked at alone.
    const mayBeFirst = extendedL2 && (flags & L2Flags.dataFile) !== 0 && at < clusterSize;
    const end = Math.min(to, sliceEnd, mayBeFirst ? clusterSize : sliceEnd);
    const units = Math.ceil((end - start) / subclusterSize);
    const table = address + place.inSlice;
    const count = extendedL2
      ? kernels.l2ExtendedRuns(
          table,
          (start % clusterSize) / subclusterSize,
          units,
          clusterBits,
          flags,
          records.at,
          room,
        )
      : kernels.l2Runs(table, units, clusterBits, flags, records.at, room);
    const view = new DataView(kernels.memory.buffer, records.at, count * RUN_BYTES);
    let guest = start;
    for (let record = 0; record < count * RUN_BYTES; record += RUN_BYTES) {
      const kind = view.getUint32(record, true) as RunKind;
      const length = view.getUint32(record + 4, true) * subclusterSize;
      const host = view.getFloat64(record + 8, true);
      if (kind === RunKind.corrupt) {
        const index = Math.floor((guest - alignDown(start, clusterSize)) / clusterSize);
        throw atGuest(
          this.corrupt(guest, place, table + index * l2EntryBytes),
          Math.max(guest, at),
        );
      }
      // The first and the last run may reach beyond what was asked for.
      const skip = Math.max(0, at - guest);
      const take = Math.min(guest + length, end) - guest - skip;
      const stored = view.getUint32(record + 16, true);
      const isNothing = kind === RunKind.unallocated || (kind === RunKind.zero && host === 0);
      if (isNothing && (kind === RunKind.unallocated ? extendedL2 : mayBeFirst)) {
        this.visitHoles(table, { kind, from: guest + skip, length: take, start }, visitor);
      } else {
        const place = kind === RunKind.compressed ? host : isNothing ? NO_PLACE : host + skip;
        visitor(kind, guest + skip, take, place, stored);
      }
      guest += length;
    }
    return Math.min(guest, end);
  }

  /**
   * Visits subclusters that have no bytes, cut where their clusters are: `host` is the place that
   * is kept for them.
   * @param table address of the entry of the cluster that `start` lies in
   */
  private visitHoles(table: number, hole: Hole, visitor: RunVisitor): void {
    const { clusterSize } = this.parts.geometry;
    const { kind, from } = hole;
    const end = from + hole.length;
    const base = alignDown(hole.start, clusterSize);
    let runStart = from;
    let runHost = NO_PLACE;
    for (let at = from; at < end; ) {
      const cluster = alignDown(at, clusterSize);
      const place = this.placeOf(table + ((cluster - base) / clusterSize) * 16);
      const host = place === NO_PLACE ? NO_PLACE : place + at - cluster;
      const follows = runHost === NO_PLACE ? host === NO_PLACE : host === runHost + at - runStart;
      if (at > runStart && !follows) {
        visitor(kind, runStart, at - runStart, runHost, 0);
        runStart = at;
      }
      if (at === runStart) runHost = host;
      at = cluster + clusterSize;
    }
    visitor(kind, runStart, end - runStart, runHost, 0);
  }

  /** Where the cluster of an extended entry is. @param address of the entry, in memory */
  private placeOf(address: number): number {
    const { records, flags } = this.parts;
    const view = new DataView(records.kernels.memory.buffer);
    const high = view.getUint32(address);
    const place = (high & 0x00ff_ffff) * HIGH + view.getUint32(address + 4);
    if (place !== 0) return place;
    const isCopied = high >>> 31 === 1;
    return isCopied && (flags & L2Flags.dataFile) !== 0 ? 0 : NO_PLACE;
  }

  /** @param address of the entry, in memory */
  private corrupt(
    guest: number,
    { table, slice, inSlice }: SlicePlace,
    address: number,
  ): Qcow2Error {
    const { geometry, cache, records } = this.parts;
    const { l2EntryBytes, clusterSize } = geometry;
    const entry = (Math.floor(guest / clusterSize) * l2EntryBytes) % cache.sliceBytes;
    const at = slice + Math.max(entry, inSlice);
    const view = new DataView(records.kernels.memory.buffer);
    const { flags } = this.parts;
    const place = { table, index: (at - table) / l2EntryBytes, at };
    const known = entryCorruption(view, address, { ...place, geometry, flags });
    if (known) return known;
    const message = `corrupt L2 entry for guest offset 0x${guest.toString(16)}`;
    return new Qcow2Error('CORRUPT', message, at);
  }

  /** Host offset of an L2 table, 0 where there is none (also past the end of the L1 table). */
  private l2Table(index: number): number {
    if (index >= this.l1Entries) return 0;
    const { clusterSize, l2Span } = this.parts.geometry;
    try {
      return noticing(() => parseL1Offset(this.l1View, index * 8, clusterSize, this.l1Offset));
    } catch (cause) {
      throw atGuest(cause, index * l2Span);
    }
  }

  /**
   * Where the stretch ends that no L2 table is for and that a guest offset lies in; the offset
   * itself, where an L1 entry names a table, though it be at a place that none can have.
   */
  emptyFrom(at: number, to: number): number {
    const { l2Span } = this.parts.geometry;
    const index = Math.floor(at / l2Span);
    if (this.namesTable(index)) return at;
    return Math.min(to, this.emptyUntil(index, Math.ceil(to / l2Span)) * l2Span);
  }

  /** The next index whose L1 entry names a table, at most `limit`. */
  private emptyUntil(index: number, limit: number): number {
    const end = Math.min(limit, this.l1Entries);
    for (let next = index + 1; next < end; next++) if (this.namesTable(next)) return next;
    return limit;
  }

  private namesTable(index: number): boolean {
    if (index >= this.l1Entries) return false;
    const { l1View } = this;
    const high = l1View.getUint32(index * 8) & 0x00ff_ffff;
    return high !== 0 || l1View.getUint32(index * 8 + 4) >>> 9 !== 0;
  }
}

/** Subclusters of one kind that have no bytes, `from` some byte of them on. */
interface Hole {
  readonly kind: RunKind;
  readonly from: number;
  readonly length: number;
  /** The guest offset that was looked at first. */
  readonly start: number;
}

/** An entry's way through the file. */
interface SlicePlace {
  /** File offsets: of the L2 table, of the slice of it, and of the L1 entry that names it. */
  readonly table: number;
  readonly slice: number;
  readonly entry: number;
  /** Bytes from the slice's start to the first entry wanted. */
  readonly inSlice: number;
}
