/**
 * Refcounts as they are in the file, and what they are set to: blocks of any width, in an image
 * whose refcount table may point anywhere.
 *
 * A block is read once for each look at it; the last one stays in memory. Changes are written when
 * another block is looked at, or by `writeBack`.
 */
import { divFloor } from '../../base/bits.ts';
import { formatU64 } from '../../base/sizes.ts';
import { putRefcount, refcountAt } from '../../format/refcount-block.ts';
import type { ReferenceCounts } from './check-counts.ts';
import { type CheckedImage, isBeyondReach } from './check-image.ts';

/** A refcount that cannot be told: its block is nowhere to be read. */
export const UNREADABLE = -1;

/** The refcounts of the file. */
export class StoredRefcounts {
  private readonly block: Uint8Array;
  private readonly view: DataView;
  private loaded = -1;
  private dirty = false;

  constructor(private readonly image: CheckedImage) {
    this.block = new Uint8Array(image.geometry.clusterSize);
    this.view = new DataView(this.block.buffer);
  }

  /** Host offset of the block that counts a cluster, 0: none, `UNREADABLE`: not to be read. */
  async blockOf(index: number): Promise<number> {
    const { image } = this;
    const host = image.refcountTable[index] ?? 0;
    if (!image.isRefcountBlockAligned(index)) {
      const offset = image.refcountBlockHex(index);
      // As C shows it: a zero has no prefix.
      const place = index === 0 ? '0' : `0x${index.toString(16)}`;
      const what = `Refblock offset 0x${offset} unaligned (reftable index: ${place})`;
      // What is about to be made anew need not be marked.
      await image.signalCorruption(what, image.repair === 'leaks');
      return UNREADABLE;
    }
    return isBeyondReach(host) ? UNREADABLE : host;
  }

  /** The refcount of a cluster, or `UNREADABLE`. Widths of 64 bits are exact up to 2^53. */
  async get(cluster: number): Promise<number> {
    const { refcountBlockEntries, refcountOrder } = this.image.geometry;
    const index = divFloor(cluster, refcountBlockEntries);
    const host = await this.blockOf(index);
    if (host === 0) return 0;
    if (host === UNREADABLE) return UNREADABLE;
    await this.load(host);
    return refcountAt(this.view, cluster % refcountBlockEntries, refcountOrder);
  }

  /** The digits of a refcount: also of one that no number holds. */
  async digits(cluster: number): Promise<string> {
    const { refcountBlockEntries, refcountOrder } = this.image.geometry;
    const count = await this.get(cluster);
    if (refcountOrder < 6 || count < 2 ** 53) return String(count);
    const at = (cluster % refcountBlockEntries) * 8;
    return formatU64(this.view.getUint32(at), this.view.getUint32(at + 4));
  }

  /** Changes the refcount of a cluster whose block is there. */
  async set(cluster: number, count: number): Promise<void> {
    const { refcountBlockEntries, refcountOrder } = this.image.geometry;
    await this.load(await this.blockOf(divFloor(cluster, refcountBlockEntries)));
    putRefcount(this.view, 0, cluster % refcountBlockEntries, refcountOrder, count);
    this.dirty = true;
  }

  /** Writes what was changed. */
  async writeBack(): Promise<void> {
    if (!this.dirty) return;
    this.dirty = false;
    await this.image.write(this.loaded, this.block);
  }

  /** Forgets what was read. */
  async drop(): Promise<void> {
    await this.writeBack();
    this.loaded = -1;
  }

  private async load(host: number): Promise<void> {
    if (this.loaded === host) return;
    await this.writeBack();
    this.loaded = -1;
    await this.image.read(host, this.block);
    this.loaded = host;
  }

  /**
   * Looks at all blocks of a window, in order: `look` gets the first cluster that each counts, and
   * the block's address in kernel memory (zeros where there is none) or `UNREADABLE`.
   * @param end clusters of the image
   */
  async eachBlock(
    counts: ReferenceCounts,
    end: number,
    look: (first: number, address: number) => void | Promise<void>,
  ): Promise<void> {
    await this.drop();
    const { refcountBlockEntries: entries, clusterSize } = this.image.geometry;
    const windowEnd = Math.min(end, counts.first + counts.length);
    const last = divFloor(windowEnd + entries - 1, entries);
    for (let index = counts.first / entries; index < last; ) {
      const host = await this.blockOf(index);
      if (host <= 0) {
        await look(index * entries, host === 0 ? counts.zerosAt : UNREADABLE);
        index++;
        continue;
      }
      // Those that lie side by side come in with one read.
      const most = Math.min(counts.tables.length / clusterSize, last - index);
      const { refcountTable } = this.image;
      let count = 1;
      while (count < most && refcountTable[index + count] === host + count * clusterSize) count++;
      const into = counts.tables.subarray(0, count * clusterSize);
      try {
        await this.image.read(host, into);
      } catch {
        await look(index * entries, UNREADABLE);
        index++;
        continue;
      }
      for (let i = 0; i < count; i++) {
        await look((index + i) * entries, counts.tableAt + i * clusterSize);
      }
      index += count;
    }
  }
}
