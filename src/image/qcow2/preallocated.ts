/**
 * Whether an image has more clusters than its file has room for: then its data may lie in holes of
 * the file, and read as zeros. QEMU's rule (`qcow2_detect_metadata_preallocation`): a tenth more
 * clusters in use than fit into what the host has given the file, and two at least.
 */
import { divCeil } from '../../base/bits.ts';
import type { Geometry } from '../../format/geometry.ts';
import type { Header } from '../../format/header.ts';
import { refcountAt } from '../../format/refcount-block.ts';
import { checkRefcountBlockOffset, parseRefcountTableEntry } from '../../format/refcount-table.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { Storage } from '../../storage/storage.ts';

/**
 * Counts clusters in use until there are too many; false where the host does not tell.
 * @throws Qcow2Error CORRUPT or IO
 */
export async function isPreallocated(
  storage: Storage,
  header: Header,
  geometry: Geometry,
): Promise<boolean> {
  const allocated = storage.allocatedBytes?.();
  if (allocated === undefined) return false;
  const { clusterSize, refcountBlockEntries: perBlock, refcountOrder } = geometry;
  const room = Math.floor(allocated / clusterSize);
  const enough = Math.max(Math.floor((room * 10) / 9), room + 2);
  const end = divCeil(await storage.size(), clusterSize);
  if (enough > end) return false;
  const table = new Uint8Array(header.refcountTableClusters * clusterSize);
  await readFully(storage, header.refcountTableOffset, table);
  const entries = new DataView(table.buffer);
  const block = new Uint8Array(clusterSize);
  const view = new DataView(block.buffer);
  let count = 0;
  for (let slot = 0; slot * perBlock < end && slot * 8 < table.length; slot++) {
    const host = parseRefcountTableEntry(entries, slot * 8);
    const file = header.refcountTableOffset;
    checkRefcountBlockOffset(host, { index: slot, clusterSize, file });
    if (host === 0) continue;
    block.fill(0, await readFully(storage, host, block));
    const stop = Math.min(perBlock, end - slot * perBlock);
    for (let index = 0; index < stop; index++) {
      if (refcountAt(view, index, refcountOrder) !== 0 && ++count >= enough) return true;
    }
  }
  return false;
}
