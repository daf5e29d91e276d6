/**
 * New refcount blocks and a new table, made from nothing but the references that were counted: for
 * an image whose own are lost. The old ones are let go of when the header names the new.
 *
 * Clusters are taken where QEMU takes them: each block's from the first free one that it counts
 * itself on, the table's from the first gap that is large enough.
 */
import { viewOf } from '../../base/be.ts';
import { alignUp, divCeil, divFloor } from '../../base/bits.ts';
import { REFCOUNT_TABLE_BYTES_MAX } from '../../base/limits.ts';
import type { Geometry } from '../../format/geometry.ts';
import { putRefcount } from '../../format/refcount-block.ts';
import { serializeRefcountTableEntry } from '../../format/refcount-table.ts';
import type { ReferenceCounts } from './check-counts.ts';
import { type CheckedImage, reasonOf, stopped } from './check-image.ts';

/** Bytes of counts that a rebuild may take: it needs those of the whole image at once. */
export const REBUILD_BYTES = 3 * 2 ** 30;

/** Clusters that a rebuilt image may have more than before, at most: what counts need room for. */
export function rebuildRoom({ refcountBlockEntries, clusterSize }: Geometry, clusters: number) {
  const blocks = divCeil(clusters, refcountBlockEntries);
  return 4 * (blocks + divCeil(blocks * 8, clusterSize)) + 4096;
}

/**
 * Whether a file of so many clusters can have new refcount structures: by what a refcount table may
 * name, and by memory.
 * @param width bytes of a count
 */
export function canRebuild(geometry: Geometry, clusters: number, width: number): boolean {
  const all = clusters + rebuildRoom(geometry, clusters);
  const counted = (REFCOUNT_TABLE_BYTES_MAX / 8) * geometry.refcountBlockEntries;
  return all <= counted && all * width <= REBUILD_BYTES;
}

/** Writes the new structures and hooks them up. The counts' one window holds the whole image. */
export async function rebuildRefcounts(
  image: CheckedImage,
  counts: ReferenceCounts,
): Promise<void> {
  const rebuild = new Rebuild(image, counts);
  await rebuild.writeBlocks(0, image.clusters);
  const { clusterSize } = image.geometry;
  let at: number;
  let clusters: number;
  let grown: boolean;
  do {
    clusters = (rebuild.table.length * 8) / clusterSize;
    const first = rebuild.allocate(clusters, 0).cluster;
    at = first * clusterSize;
    // The table's own clusters have to be counted, which may make it grow.
    grown = await rebuild.writeBlocks(first, first + clusters);
  } while (grown);
  await writeStructure(image, 'reftable', at, rebuild.tableBytes());
  await image.switchRefcountTable(at, clusters);
  await image.readRefcountTable();
}

/** Writes a part of the new structures; of one that cannot be written is said which it was. */
async function writeStructure(
  image: CheckedImage,
  part: 'refblock' | 'reftable',
  at: number,
  bytes: Uint8Array,
): Promise<void> {
  try {
    await image.write(at, bytes);
  } catch (cause) {
    image.findings.say(`ERROR writing ${part}: ${reasonOf(cause)}`, 'tool');
    throw cause;
  }
}

/** The new structures while they are being made. */
class Rebuild {
  /** Host offsets of the new blocks. */
  table: number[] = [];

  constructor(
    private readonly image: CheckedImage,
    private readonly counts: ReferenceCounts,
  ) {}

  /**
   * Writes the blocks that count clusters [start, end), where any is in use.
   * @returns whether the table has grown
   */
  async writeBlocks(start: number, end: number): Promise<boolean> {
    const { image, counts } = this;
    const { refcountBlockEntries: entries, clusterSize } = image.geometry;
    let last = end;
    let free = 0;
    let grown = false;
    for (let cluster = start; cluster < last; cluster++) {
      if (counts.of(cluster) === 0) continue;
      const index = divFloor(cluster, entries);
      if (!this.table[index]) {
        // A block that is written already must not be counted in anew.
        const found = this.allocate(1, Math.max(free, index * entries));
        free = found.gap;
        last = Math.max(last, found.cluster + 1);
        grown = this.growTo(index) || grown;
        this.table[index] = found.cluster * clusterSize;
      }
      await writeStructure(image, 'refblock', this.table[index]!, this.blockBytes(index));
      cluster = (index + 1) * entries - 1;
    }
    return grown;
  }

  /**
   * Takes the first `count` free clusters in a row, from `from` on; behind the end where there are
   * none.
   * @returns the first of them, and the first gap that was met
   */
  allocate(count: number, from: number): { readonly cluster: number; readonly gap: number } {
    const { image, counts } = this;
    let cluster = from;
    let run = 0;
    let gap = -1;
    for (; cluster < image.clusters && run < count; cluster++) {
      if (counts.of(cluster) !== 0) run = 0;
      else {
        run++;
        if (gap < 0) gap = cluster;
      }
    }
    const first = cluster - run;
    if (first + count > counts.capacity) throw stopped('Cannot allocate memory');
    image.clusters = Math.max(image.clusters, first + count);
    for (let i = 0; i < count; i++) counts.set(first + i, 1);
    return { cluster: first, gap: gap < 0 ? from : gap };
  }

  /** The table in the file's byte order. */
  tableBytes(): Uint8Array {
    const bytes = new Uint8Array(this.table.length * 8);
    const view = viewOf(bytes);
    for (const [index, host] of this.table.entries()) {
      serializeRefcountTableEntry(view, index * 8, host);
    }
    return bytes;
  }

  private growTo(index: number): boolean {
    if (index < this.table.length) return false;
    const length = alignUp(index + 1, this.image.geometry.clusterSize / 8);
    if (length * 8 > REFCOUNT_TABLE_BYTES_MAX) throw stopped('File too large');
    while (this.table.length < length) this.table.push(0);
    return true;
  }

  private blockBytes(index: number): Uint8Array {
    const { refcountBlockEntries: entries, clusterSize, refcountOrder } = this.image.geometry;
    const bytes = new Uint8Array(clusterSize);
    const view = viewOf(bytes);
    for (let i = 0; i < entries; i++) {
      const count = this.counts.of(index * entries + i);
      if (count !== 0) putRefcount(view, 0, i, refcountOrder, count);
    }
    return bytes;
  }
}
