/**
 * COPIED flags of the active disk: they must say of which tables and clusters the refcount is 1,
 * for those are written in place.
 */
import { viewOf } from '../../base/be.ts';
import { divFloor } from '../../base/bits.ts';
import { L2Flags } from '../../kernels/kernels.ts';
import type { ReferenceCounts } from './check-counts.ts';
import { hex64 } from './check-findings.ts';
import { type CheckedImage, l1Host, reasonOf, stopped } from './check-image.ts';
import { type StoredRefcounts, UNREADABLE } from './check-refcounts.ts';

const COPIED = 0x8000_0000;
/** Of `l2CopiedMismatch`: no window comes after this one. */
const LAST_WINDOW = 4;

/** What the flags are compared with. */
export interface CopiedOptions {
  readonly counts: ReferenceCounts;
  readonly stored: StoredRefcounts;
  /** There are refcounts that cannot be read: tables of which they are, are left out. */
  readonly unreadable: boolean;
  /** Flags that are wrong are put right. */
  readonly repair: boolean;
}

/** Checks all flags against the refcounts in the file. */
export async function checkCopiedFlags(image: CheckedImage, options: CopiedOptions): Promise<void> {
  const { counts } = options;
  for (let first = 0; first < image.clusters; first += counts.capacity) {
    counts.first = first;
    await fillOnes(image, options);
    await new CopiedPass(image, options, first + counts.capacity >= image.clusters).run();
  }
}

/** Marks the clusters of the window whose refcount is 1. */
async function fillOnes(image: CheckedImage, { counts, stored }: CopiedOptions): Promise<void> {
  const { refcountOrder, refcountBlockEntries: entries } = image.geometry;
  counts.ones.fill(0);
  await stored.eachBlock(counts, image.clusters, (first, address) => {
    if (address === UNREADABLE || address === counts.zerosAt) return;
    const out = counts.onesAt + (first - counts.first) / 8;
    counts.kernels.refcountOnes(address, entries, refcountOrder, out);
  });
}

/** One look at all L1 and L2 entries. */
class CopiedPass {
  constructor(
    private readonly image: CheckedImage,
    private readonly options: CopiedOptions,
    private readonly lastWindow: boolean,
  ) {}

  async run(): Promise<void> {
    const { image } = this;
    const { clusterSize } = image.geometry;
    const view = viewOf(image.l1);
    const most = this.options.counts.tables.length / clusterSize;
    const entries = image.l1.length / 8;
    for (let index = 0; index < entries; ) {
      const host = l1Host(view, index * 8);
      if (host === 0) {
        index++;
        continue;
      }
      let count = 1;
      while (
        count < Math.min(most, entries - index) &&
        l1Host(view, (index + count) * 8) === host + count * clusterSize
      ) {
        count++;
      }
      await this.tables(index, host, count);
      index += count;
    }
  }

  /** `count` tables that lie side by side. */
  private async tables(index: number, host: number, count: number): Promise<void> {
    const { image, options } = this;
    const { clusterSize } = image.geometry;
    const { tables } = options.counts;
    let unread = true;
    for (let i = 0; i < count; i++) {
      const cluster = divFloor(host, clusterSize) + i;
      if (this.options.unreadable && (await this.options.stored.get(cluster)) === UNREADABLE) {
        continue;
      }
      await this.l1Entry(index + i);
      try {
        if (unread) await image.read(host, tables.subarray(0, count * clusterSize));
      } catch (cause) {
        image.findings.failed(`ERROR: Could not read L2 table: ${reasonOf(cause)}`);
        throw cause;
      }
      unread = false;
      await this.l2Table(host + i * clusterSize, i * clusterSize);
    }
  }

  private async l1Entry(index: number): Promise<void> {
    const { image, options } = this;
    const view = viewOf(image.l1);
    const [high, low] = [view.getUint32(index * 8), view.getUint32(index * 8 + 4)];
    const cluster = divFloor(l1Host(view, index * 8), image.geometry.clusterSize);
    const copied = high >= COPIED;
    const refcount = await this.mismatch(cluster, copied);
    if (refcount === undefined) return;
    const verb = options.repair ? 'Repairing' : 'ERROR';
    image.findings.corruption(
      `${verb} OFLAG_COPIED L2 cluster: l1_index=${index} l1_entry=${hex64(high, low)} ` +
        `refcount=${refcount}`,
    );
    if (!options.repair) return;
    view.setUint32(index * 8, (high ^ COPIED) >>> 0);
    const bytes = image.l1.slice(index * 8, index * 8 + 8);
    const at = image.header.l1Offset + index * 8;
    if (!(await image.writeMetadata(at, bytes, 'active L1 table'))) {
      image.findings.failed();
      throw stopped('Input/output error');
    }
    image.findings.fixed();
  }

  private async l2Table(host: number, at: number): Promise<void> {
    const { image, options } = this;
    const { clusterBits, clusterSize, l2Entries, l2EntryBytes: stride } = image.geometry;
    const { counts, repair } = options;
    const flags = (image.hasDataFile ? L2Flags.dataFile : 0) | (this.lastWindow ? LAST_WINDOW : 0);
    const bytes = counts.tables.subarray(at, at + clusterSize);
    const view = viewOf(bytes);
    let dirty = 0;
    for (let index = 0; index < l2Entries; index++) {
      index += counts.kernels.l2CopiedMismatch(
        counts.tableAt + at + index * stride,
        l2Entries - index,
        stride,
        clusterBits,
        flags,
        counts.onesAt,
        counts.first,
        counts.capacity,
      );
      if (index === l2Entries) break;
      const [high, low] = [view.getUint32(index * stride), view.getUint32(index * stride + 4)];
      const cluster = divFloor(l1Host(view, index * stride), clusterSize);
      const refcount = image.hasDataFile ? '1' : await this.mismatch(cluster, high >= COPIED);
      if (refcount === undefined) continue;
      image.findings.corruption(
        `${repair ? 'Repairing' : 'ERROR'} OFLAG_COPIED data cluster: ` +
          `l2_entry=${hex64(high, low)} refcount=${refcount}`,
      );
      if (!repair) continue;
      view.setUint32(index * stride, (high ^ COPIED) >>> 0);
      dirty++;
    }
    if (dirty === 0) return;
    if (!(await image.writeMetadata(host, bytes, 'active L2 table'))) {
      image.findings.failed(
        'ERROR: Could not write L2 table; metadata overlap check failed: Input/output error',
      );
      throw stopped('Input/output error');
    }
    image.findings.fixed(dirty);
  }

  /** The refcount's digits where the flag is wrong; undefined where it is right or not known. */
  private async mismatch(cluster: number, copied: boolean): Promise<string | undefined> {
    const { counts, stored } = this.options;
    const k = cluster - counts.first;
    if (k < 0 || (k >= counts.capacity && !this.lastWindow)) return undefined;
    const one = k < counts.capacity && ((counts.ones[k >>> 3]! >> (k & 7)) & 1) === 1;
    if (one === copied) return undefined;
    const refcount = await stored.get(cluster);
    if (refcount === UNREADABLE || (refcount === 1) === copied) return undefined;
    return stored.digits(cluster);
  }
}
