/**
 * Giving freed clusters back to the host: which of them, and when. A cluster goes once no entry on
 * disk refers to it, if nothing has taken it meanwhile. What the storage cannot take back stays.
 *
 * The reasons and what is passed on by default are QEMU's (`discard`, `pass-discard-request`,
 * `pass-discard-snapshot`, `pass-discard-other`).
 */
import { settled } from '../../base/awaitable.ts';
import { isQcow2Error } from '../../base/errors.ts';
import type { MetadataStore } from './metadata-store.ts';
import type { Refcounts } from './refcounts.ts';

/**
 * Why clusters are not needed any more: the guest said so, a snapshot went, a table moved, or the
 * disk became smaller.
 */
export type DiscardReason = 'request' | 'snapshot' | 'other' | 'shrink';

/** Which freed clusters go back to the host. */
export interface DiscardPolicy {
  /**
   * `ignore`: requests to discard do nothing, and `unmap` of those to zero is as if it were not
   * there. Default `unmap`.
   */
  readonly discard?: 'ignore' | 'unmap';
  /** What requests let go of is given back to the host. Default: as `discard` says. */
  readonly passDiscardRequest?: boolean | undefined;
  /** The same for what deleted snapshots let go of. Default true. */
  readonly passDiscardSnapshot?: boolean | undefined;
  /** The same for what tables leave behind that move. Default false: it is used again soon. */
  readonly passDiscardOther?: boolean | undefined;
}

/** Whether what is freed for a reason goes back to the host. */
export function passesDiscard(policy: DiscardPolicy, reason: DiscardReason): boolean {
  const { discard = 'unmap' } = policy;
  switch (reason) {
    case 'request':
      return policy.passDiscardRequest ?? discard === 'unmap';
    case 'snapshot':
      return policy.passDiscardSnapshot ?? true;
    case 'other':
      return policy.passDiscardOther ?? false;
    default:
      return true;
  }
}

/**
 * Gives clusters back that are still free, in runs. Called with the metadata lock held, so that
 * none of them is taken meanwhile.
 * @param clusters cluster indices, ascending
 */
export async function giveBackClusters(
  store: MetadataStore,
  refcounts: Refcounts,
  clusters: readonly number[],
): Promise<void> {
  const { storage, geometry } = store;
  if (!storage.discard) return;
  const { clusterSize } = geometry;
  const size = await storage.size();
  let start = 0;
  let end = 0;
  const pass = async () => {
    const stop = Math.min(end * clusterSize, size);
    const at = start * clusterSize;
    if (stop > at) await discardRange(storage, at, stop - at);
  };
  for (const cluster of clusters) {
    if ((await refcounts.get(cluster)) !== 0) continue;
    if (cluster !== end) {
      await pass();
      start = cluster;
    }
    end = cluster + 1;
  }
  await pass();
}

/** A storage that fails to give room back has lost nothing: the range is as it was, or zeros. */
export async function discardRange(
  storage: Pick<MetadataStore['storage'], 'discard'>,
  at: number,
  length: number,
): Promise<void> {
  try {
    const discarded = storage.discard?.(at, length);
    if (!settled(discarded)) await discarded;
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
  }
}
