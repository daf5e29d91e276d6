/**
 * Who must reach the disk before whom. A crash may keep any of the writes since the last flush and
 * lose the others; these five rules keep what is left sound (leaks at worst):
 *
 *   1. A refcount is raised before an entry refers to the cluster.
 *   2. What was copied into a cluster is there before an L2 entry shows it.
 *   3. An L2 table is there before an L1 entry names it.
 *   4. An entry lets go of a cluster before its refcount is lowered.
 *   5. An entry lets go of a cluster before that is written for another.
 *
 * 1 and 4 are dependencies between the two caches, declared when an entry or a count changes and
 * honoured when the cache writes. Where a new one would close a circle, the old one is met first.
 * 2 is a flush before L2 slices are written, 3 is done at once where a table is made. For 5, freed
 * clusters are set aside until the entries are on disk; nobody waits for that. What of them nobody
 * has taken by then goes back to the host, where that is wanted.
 */
import { type Awaitable, settled } from '../../base/awaitable.ts';
import type { Storage } from '../../storage/storage.ts';
import type { WriteBackCache } from './write-back-cache.ts';

/** Past so many clusters set aside, entries are written at once: a bound on memory. */
const SET_ASIDE_MAX = 65536;

/** The order of writes of one image's L2 slices and refcount blocks. */
export class FlushOrder {
  l2!: WriteBackCache;
  refcounts!: WriteBackCache;
  /** The dirty bit is on disk: refcounts may be wrong, and rules 1 and 4 do not hold. */
  lazy = false;
  /** Where refcounts may be lazy: puts that bit on disk, before the first entry that is ahead. */
  becomeLazy: (() => Promise<void>) | undefined;
  /** L2 slices wait for refcount blocks (rule 1), or the other way round (rule 4). */
  private l2AfterRefcounts = false;
  private refcountsAfterL2 = false;
  /** L2 slices wait for data that was written (rule 2). */
  private l2AfterData = false;
  /** Clusters that entries on disk may still refer to: not to be handed out (rule 5). */
  private readonly setAside = new Set<number>();
  /** Freed clusters whose room in the file may go, once no entry on disk refers to them. */
  private readonly unneeded = new Set<number>();
  /** Gives clusters back to the host that are still free. */
  giveBack: (clusters: readonly number[]) => Promise<void> = async () => {};
  /** The lowest cluster that may be handed out again since `takeReleased` was asked. */
  private released = Number.POSITIVE_INFINITY;

  constructor(
    private readonly storage: Storage,
    private readonly data: Storage,
  ) {}

  /** An entry is about to refer to clusters whose refcounts were raised. */
  async entryAfterRefcount(): Promise<void> {
    if (this.lazy) return;
    if (this.becomeLazy) return this.becomeLazy();
    if (this.refcountsAfterL2) await this.meetRefcountsAfterL2();
    this.l2AfterRefcounts = true;
  }

  /** An entry is about to show data that was written, and not flushed. */
  entryAfterData(): void {
    this.l2AfterData = true;
  }

  /** Refcounts of clusters are about to be lowered that entries let go of. */
  async refcountAfterEntry(): Promise<void> {
    if (this.lazy) return;
    if (this.l2AfterRefcounts) await this.meetL2AfterRefcounts();
    this.refcountsAfterL2 = true;
  }

  /** Clusters have become free, and entries that let go of them may not be on disk. */
  async clustersFreed(
    clusters: readonly number[],
    how: { readonly aside: boolean; readonly unneeded: boolean },
  ): Promise<void> {
    for (const cluster of clusters) {
      if (how.aside || this.lazy) this.setAside.add(cluster);
      if (how.unneeded) this.unneeded.add(cluster);
    }
    if (this.setAside.size + this.unneeded.size > SET_ASIDE_MAX) await this.meetRefcountsAfterL2();
  }

  /** Whether there are clusters that can be had after the next flush. */
  get setsAside(): boolean {
    return this.setAside.size > 0;
  }

  isSetAside(cluster: number): boolean {
    return this.setAside.has(cluster);
  }

  /** The lowest cluster that is no longer set aside since this was asked last, or infinity. */
  takeReleased(): number {
    const { released } = this;
    this.released = Number.POSITIVE_INFINITY;
    return released;
  }

  /** Before L2 slices are written. */
  async beforeL2(): Promise<void> {
    if (this.l2AfterRefcounts) await this.meetL2AfterRefcounts();
    if (this.l2AfterData) await this.flushStorage();
  }

  /** Before refcount blocks are written. */
  async beforeRefcounts(): Promise<void> {
    if (this.refcountsAfterL2) await this.meetRefcountsAfterL2();
  }

  /**
   * Everything on disk, in order; refcounts that may be wrong anyway stay where they are.
   * @param beforeStorage runs when all is written, and may not be durable yet
   */
  async flush(beforeStorage?: () => Awaitable<void>): Promise<void> {
    await this.l2.writeDirty();
    if (!this.lazy) await this.refcounts.writeDirty();
    if (beforeStorage) await beforeStorage();
    await this.flushStorage();
    this.l2AfterRefcounts = false;
    this.refcountsAfterL2 = false;
    await this.release();
  }

  /** Flushes both files: what was written so far is durable. */
  async flushStorage(): Promise<void> {
    if (this.data !== this.storage) {
      const flushed = this.data.flush();
      if (!settled(flushed)) await flushed;
    }
    const flushed = this.storage.flush();
    if (!settled(flushed)) await flushed;
    this.l2AfterData = false;
  }

  private async meetL2AfterRefcounts(): Promise<void> {
    await this.refcounts.writeDirty();
    await this.flushStorage();
    this.l2AfterRefcounts = false;
  }

  private async meetRefcountsAfterL2(): Promise<void> {
    await this.l2.writeDirty();
    await this.flushStorage();
    this.refcountsAfterL2 = false;
    await this.release();
  }

  /** All entries are on disk as they are in memory. */
  private async release(): Promise<void> {
    for (const cluster of this.setAside) this.released = Math.min(this.released, cluster);
    this.setAside.clear();
    if (this.unneeded.size === 0) return;
    const clusters = [...this.unneeded].sort((a, b) => a - b);
    this.unneeded.clear();
    await this.giveBack(clusters);
  }
}
