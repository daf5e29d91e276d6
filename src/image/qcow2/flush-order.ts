/**
 * Who must reach the disk before whom. A crash may keep any of the writes since the last flush and
 * lose the others; these four rules keep what is left sound (leaks at worst):
 *
 *   1. A refcount is raised before an entry refers to the cluster.
 *   2. What was copied into a cluster is there before an L2 entry shows it.
 *   3. An L2 table is there before an L1 entry names it.
 *   4. An entry lets go of a cluster before its refcount is lowered.
 *
 * 1 and 4 are dependencies between the two caches, declared when an entry or a count changes and
 * honoured when the cache writes. Where a new one would close a circle, the old one is met first.
 * 2 is a flush before L2 slices are written, 3 is done at once where a table is made.
 */
import { settled } from '../../base/awaitable.ts';
import type { Storage } from '../../storage/storage.ts';
import type { WriteBackCache } from './write-back-cache.ts';

/** The order of writes of one image's L2 slices and refcount blocks. */
export class FlushOrder {
  l2!: WriteBackCache;
  refcounts!: WriteBackCache;
  /** The dirty bit is on disk: refcounts may be wrong, and rules 1 and 4 do not hold. */
  lazy = false;
  /** L2 slices wait for refcount blocks (rule 1), or the other way round (rule 4). */
  private l2AfterRefcounts = false;
  private refcountsAfterL2 = false;
  /** L2 slices wait for data that was written (rule 2). */
  private l2AfterData = false;

  constructor(
    private readonly storage: Storage,
    private readonly data: Storage,
  ) {}

  /** An entry is about to refer to clusters whose refcounts were raised. */
  async entryAfterRefcount(): Promise<void> {
    if (this.lazy) return;
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

  /** Before L2 slices are written. */
  async beforeL2(): Promise<void> {
    if (this.l2AfterRefcounts) await this.meetL2AfterRefcounts();
    if (this.l2AfterData) await this.flushStorage();
  }

  /** Before refcount blocks are written. */
  async beforeRefcounts(): Promise<void> {
    if (this.refcountsAfterL2) await this.meetRefcountsAfterL2();
  }

  /** Everything on disk, in order; refcounts that may be wrong anyway stay where they are. */
  async flush(): Promise<void> {
    await this.l2.writeDirty();
    if (!this.lazy) await this.refcounts.writeDirty();
    await this.flushStorage();
    this.l2AfterRefcounts = false;
    this.refcountsAfterL2 = false;
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
  }
}
