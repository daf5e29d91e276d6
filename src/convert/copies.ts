/**
 * Clusters that are copied as they are: nobody looks at their bytes, so that all is known of them
 * when a job is planned. They get their places then and there, and whoever copies them is told
 * ranges of two files and nothing else.
 */
import { EXTENT_STRIDE, ExtentKind, type ExtentList } from '../image/disk.ts';
import type { CopiedRange } from './range-copier.ts';
import { type CopyBatch, type Placement, UnitState, type Units } from './runner.ts';

/** Every subcluster. */
const ALL = 0xffff_ffff;
/** Numbers per unit: see `Units`. */
const UNIT_STRIDE = 3;

/** Clusters of a job that are copied as they are. */
export interface CopiedClusters {
  /** Bytes of each. */
  readonly clusterSize: number;
  readonly units: Units;
  /** Where each comes from: index of the source, byte offset in its file. */
  readonly sources: Int32Array;
  readonly hosts: Float64Array;
}

/** Streams of a window of a disk, and which of them the target would have just so. */
export interface StreamWindow {
  /** The window's extents, in guest order. */
  readonly list: ExtentList;
  /** Where the disk starts in the target. */
  readonly diskStart: number;
  /** Bytes of a cluster of the target, and of its disk, which may end within the last one. */
  readonly clusterSize: number;
  readonly diskSize: number;
}

/** Clusters that are copied, as they are found in a window; jobs take them from the front. */
export class CopyList {
  private units: Units = new Float64Array(64 * UNIT_STRIDE);
  private hosts = new Float64Array(64);
  private sources = new Int32Array(64);
  private count = 0;
  /** How many have been given to jobs. */
  private taken = 0;

  get isEmpty(): boolean {
    return this.taken === this.count;
  }

  clear(): void {
    this.count = 0;
    this.taken = 0;
  }

  /** @param state bytes of a stream, or `UnitState.data` */
  add(cluster: number, state: number, source: number, host: number): void {
    const at = this.count++;
    if (at === this.hosts.length) this.grow();
    this.units[at * UNIT_STRIDE] = cluster;
    this.units[at * UNIT_STRIDE + 1] = state;
    this.units[at * UNIT_STRIDE + 2] = ALL;
    this.hosts[at] = host;
    this.sources[at] = source;
  }

  /**
   * Adds the compressed clusters of one source that are just what the target would have.
   * @param fileEnd bytes of the source's file
   * @param isAdded of each record of the list: set to 1 where it is added
   */
  addStreams(window: StreamWindow, source: number, fileEnd: number, isAdded: Uint8Array): void {
    const { list, diskStart, clusterSize } = window;
    const inFile = streamsInFileOrder(list, source);
    const lengths = streamLengths(window, inFile, fileEnd);
    const { records } = list;
    const order = isFarBetter(records, inFile, lengths) ? inFile : inFile.slice().sort();
    for (let at = 0; at < order.length; at++) {
      const index = order[at]!;
      const length = lengths[index]!;
      if (length === 0) continue;
      isAdded[index] = 1;
      const record = index * EXTENT_STRIDE;
      const cluster = (diskStart + records[record + 1]!) / clusterSize;
      this.add(cluster, length, source, records[record + 4]!);
    }
  }

  /** Takes the clusters of one job: of at most so many bytes, if there is more than one. */
  take(bytesMax: number, countMax: number, clusterSize: number): CopiedClusters {
    const { units, taken: from } = this;
    const last = Math.min(this.count, from + countMax);
    let to = from;
    for (let bytes = 0; to < last; to++) {
      const state = units[to * UNIT_STRIDE + 1]!;
      bytes += state > 0 ? state : clusterSize;
      if (bytes > bytesMax && to > from) break;
    }
    this.taken = to;
    return {
      clusterSize,
      units: units.slice(from * UNIT_STRIDE, to * UNIT_STRIDE),
      hosts: this.hosts.slice(from, to),
      sources: this.sources.slice(from, to),
    };
  }

  private grow(): void {
    const { units, hosts, sources } = this;
    this.units = new Float64Array(units.length * 2);
    this.units.set(units);
    this.hosts = new Float64Array(hosts.length * 2);
    this.hosts.set(hosts);
    this.sources = new Int32Array(sources.length * 2);
    this.sources.set(sources);
  }
}

/** Records of a source's streams, in the order in which they lie in its file. */
function streamsInFileOrder({ records, count }: ExtentList, source: number): Uint32Array {
  const order = new Uint32Array(count);
  let streams = 0;
  let last = 0;
  for (let index = 0; index < count; index++) {
    const record = index * EXTENT_STRIDE;
    if (records[record] !== ExtentKind.compressed || records[record + 3] !== source) continue;
    order[streams++] = index;
    last = Math.max(last, records[record + 4]!);
  }
  const found = order.subarray(0, streams);
  // A number holds both where a stream is and which one it is, but in the largest of files:
  // sorting those is ten times as fast as asking for each two.
  if ((last + 1) * count > Number.MAX_SAFE_INTEGER) {
    return found.sort((a, b) => records[a * EXTENT_STRIDE + 4]! - records[b * EXTENT_STRIDE + 4]!);
  }
  const keys = new Float64Array(streams);
  for (let at = 0; at < streams; at++) {
    const index = found[at]!;
    keys[at] = records[index * EXTENT_STRIDE + 4]! * count + index;
  }
  keys.sort();
  for (let at = 0; at < streams; at++) found[at] = keys[at]! % count;
  return found;
}

/**
 * Bytes of streams, by their records: an entry says in how many sectors it lies, and where another
 * one starts in the last of them, or the file ends, it ends there. 0 for those that are made anew:
 * they are no whole cluster of the target, may not be there as a whole, or may be longer than a
 * cluster, and are known to be shorter then.
 */
function streamLengths(
  { list, diskStart, clusterSize, diskSize }: StreamWindow,
  inFile: Uint32Array,
  fileEnd: number,
): Float64Array {
  const { records } = list;
  const lengths = new Float64Array(list.count);
  let next = Number.POSITIVE_INFINITY;
  for (let at = inFile.length - 1; at >= 0; at--) {
    const index = inFile[at]!;
    const record = index * EXTENT_STRIDE;
    const target = diskStart + records[record + 1]!;
    const guestBytes = records[record + 2]!;
    const host = records[record + 4]!;
    const stored = records[record + 5]!;
    const apart = next - host;
    const ends = apart > 0 && apart < stored && apart > stored - 512;
    const length = ends ? apart : Math.min(stored, fileEnd - host);
    const isWhole = guestBytes === clusterSize || target + guestBytes === diskSize;
    const isAlone = records[record + 6] === 0 && target % clusterSize === 0;
    const isThere = length > 0 && length > stored - 512 && length <= clusterSize;
    if (isWhole && isAlone && isThere) lengths[index] = length;
    if (apart > 0) next = host;
  }
  return lengths;
}

/**
 * Whether far fewer ranges are copied in the order of the file. Who compresses in parallel
 * (qemu-img `-m 8 -W`) packs clusters in the order they are done: in guest order three in four
 * would get another neighbour. Nobody reads slower for it, since a window of the disk is not large.
 */
function isFarBetter(records: Float64Array, inFile: Uint32Array, lengths: Float64Array): boolean {
  let ranges = 0;
  let end = -1;
  for (let at = 0; at < inFile.length; at++) {
    const index = inFile[at]!;
    if (lengths[index] === 0) continue;
    const host = records[index * EXTENT_STRIDE + 4]!;
    if (host !== end) ranges++;
    end = host + lengths[index]!;
  }
  let inGuest = 0;
  end = -1;
  for (let index = 0; index < lengths.length; index++) {
    if (lengths[index] === 0) continue;
    const host = records[index * EXTENT_STRIDE + 4]!;
    if (host !== end) inGuest++;
    end = host + lengths[index]!;
  }
  return ranges * 2 <= inGuest;
}

/** What is to be copied once clusters have their places. */
export function copyBatch(
  { clusterSize, units, sources, hosts: from }: CopiedClusters,
  { hosts, tables, stream }: Placement,
): CopyBatch {
  const ranges: CopiedRange[] = [];
  let streams = 0;
  let last: CopiedRange | undefined;
  for (let index = 0; index < from.length; index++) {
    const state = units[index * UNIT_STRIDE + 1]!;
    const isData = state === UnitState.data;
    const length = isData ? clusterSize : state;
    if (!isData) streams++;
    const source = sources[index]!;
    const continues =
      last !== undefined &&
      last.from + last.length === from[index] &&
      last.host + last.length === hosts[index] &&
      last.source === source &&
      last.isData === isData;
    if (continues) last!.length += length;
    else {
      last = { source, from: from[index]!, length, host: hosts[index]!, isData };
      ranges.push(last);
    }
  }
  return { ranges, tables, stream, streams, plain: from.length - streams };
}
