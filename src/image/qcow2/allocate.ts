/**
 * Handing out host clusters, and taking them back. The first free run is taken, searched for from
 * where the last search ended or the lowest cluster that was freed since, as QEMU does.
 */
import { alignUp } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { refcountMax } from '../../format/refcount-block.ts';
import { strayWrite } from './corruption.ts';
import type { DiscardReason } from './give-back.ts';
import type { MetadataStore } from './metadata-store.ts';
import type { Refcounts } from './refcounts.ts';

/** Host offsets that entries can hold: 56 bits. */
const HOST_MAX = 2 ** 56;

/** How clusters are let go of. */
export interface FreeOptions {
  /** Nobody minds what entries on disk would show: the clusters may be handed out at once. */
  readonly reusable?: boolean;
  /** Why their room in the file is not needed; absent: it is, and soon. */
  readonly discard?: DiscardReason;
}

/** Hands out clusters of one image. Methods are called with the metadata lock held. */
export class Allocator {
  constructor(
    private readonly store: MetadataStore,
    private readonly refcounts: Refcounts,
  ) {}

  /**
   * Takes clusters for `length` bytes, one after another in the file.
   * @param hostMax first byte offset that the entry meant for them cannot hold
   * @returns host offset
   */
  async clusters(length: number, hostMax = HOST_MAX): Promise<number> {
    const { clusterSize } = this.store.geometry;
    const count = Math.ceil(length / clusterSize);
    const { storage } = this.store;
    if (storage.announce) await storage.announce('cluster_alloc');
    for (;;) {
      const first = await this.refcounts.findFree(count);
      if ((first + count) * clusterSize > hostMax) {
        throw beyondOffsets();
      }
      const host = first * clusterSize;
      try {
        if ((await this.refcounts.change(host, count * clusterSize, 1)) === 'done') return host;
      } catch (cause) {
        this.store.freeIndex = Math.min(this.store.freeIndex, first);
        throw cause;
      }
    }
  }

  /**
   * Takes clusters at a given place, as many of `count` as are free there.
   * @returns how many
   */
  async clustersAt(host: number, count: number): Promise<number> {
    const { clusterSize } = this.store.geometry;
    for (;;) {
      const free = await this.refcounts.freeFrom(host / clusterSize, count);
      if (free === 0) return 0;
      if ((await this.refcounts.change(host, free * clusterSize, 1)) === 'done') return free;
    }
  }

  /**
   * Takes bytes for a compressed cluster: behind the last one where there is room, else in a new
   * cluster. The count of a cluster is the number of streams that touch it.
   */
  async bytes(length: number, hostMax: number): Promise<number> {
    const { store, refcounts } = this;
    const { clusterSize } = store.geometry;
    if (store.storage.announce) await store.storage.announce('cluster_alloc_bytes');
    for (;;) {
      let at = store.freeByte;
      if (at !== 0) {
        const count = await refcounts.get(Math.floor(at / clusterSize));
        // Full, or freed meanwhile.
        if (count === 0 || count === refcountMax(store.geometry.refcountOrder)) at = 0;
      }
      if (at === 0 || clusterSize - (at % clusterSize) < length) {
        const fresh = (await refcounts.findFree(1)) * clusterSize;
        if (fresh === 0) {
          const what = 'Preventing invalid allocation of compressed cluster at offset 0';
          throw strayWrite(what, 0);
        }
        if (fresh + clusterSize > hostMax) {
          throw beyondOffsets();
        }
        // Lucky where the new cluster follows the one in hand: then both serve.
        if (at === 0 || alignUp(at, clusterSize) !== fresh) at = fresh;
      }
      if ((await refcounts.change(at, length, 1)) === 'again') {
        store.freeByte = 0;
        continue;
      }
      store.freeByte = (at + length) % clusterSize === 0 ? 0 : at + length;
      return at;
    }
  }

  /** Lets go of clusters that no entry refers to any more; entries on disk still may. */
  async free(host: number, length: number, options: FreeOptions = {}): Promise<void> {
    const { storage } = this.store;
    if (storage.announce) await storage.announce('cluster_free');
    await this.refcounts.change(host, length, -1, { ...options, aside: !options.reusable });
  }
}

/** An entry could not say where the clusters are. As a host's error it would be EFBIG. */
function beyondOffsets(): Qcow2Error {
  const message = 'the image file cannot hold more clusters';
  return new Qcow2Error('NO_SPACE', message, undefined, { code: 'EFBIG' });
}
