/** zstd for writing, by the kernel. */
import { type Region, Workspace } from '../kernels/arena.ts';

/** zstd's default, which is QEMU's. */
const LEVEL = 3;

const CLUSTER_BYTES_MAX = 0x200000;

let regions: { readonly plain: Region; readonly stored: Region } | undefined;

function reserve() {
  const workspace = new Workspace();
  return {
    plain: workspace.reserve(CLUSTER_BYTES_MAX),
    stored: workspace.reserve(CLUSTER_BYTES_MAX),
  };
}

/** One cluster as a zstd frame; undefined where that would not be smaller. */
export function zstdCluster(cluster: Uint8Array): Uint8Array | undefined {
  regions ??= reserve();
  const { plain, stored } = regions;
  plain.bytes.set(cluster);
  const { kernels } = plain;
  const max = cluster.length - 1;
  const length = kernels.zstdEncode(plain.at, cluster.length, stored.at, max, LEVEL);
  return length > 0 ? stored.bytes.slice(0, length) : undefined;
}
