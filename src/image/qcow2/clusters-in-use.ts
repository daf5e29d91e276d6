/** How much of an image's file is in use. */
import { divCeil } from '../../base/bits.ts';
import type { WriteParts } from './write-parts.ts';

/** Clusters of the file up to the last one that is in use. */
export async function clustersInUse({ store, refcounts }: WriteParts): Promise<number> {
  const { clusterSize } = store.geometry;
  const end = divCeil(await store.storage.size(), clusterSize);
  for (let cluster = end; cluster > 0; cluster--) {
    if ((await refcounts.get(cluster - 1)) > 0) return cluster;
  }
  return end;
}
