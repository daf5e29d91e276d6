/**
 * Compressing one cluster the way that other readers of qcow2 take: raw deflate with a 4 KiB
 * window, or one zstd frame.
 */
import type { ClusterCodec } from './codec.ts';
import { deflateCluster } from './deflate.ts';
import { zstdCluster } from './zstd.ts';

/** @returns the stream, or undefined where it would not be smaller than the cluster */
export async function compressCluster(
  codec: ClusterCodec,
  cluster: Uint8Array,
): Promise<Uint8Array | undefined> {
  if (codec === 'zstd') return zstdCluster(cluster);
  const stream = await deflateCluster(cluster);
  return stream.length < cluster.length ? stream : undefined;
}
