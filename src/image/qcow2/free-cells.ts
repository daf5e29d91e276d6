/** Letting go of what L2 entries referred to. */
import { cHex } from '../../base/sizes.ts';
import type { FreeOptions } from './allocate.ts';
import { discardRange } from './give-back.ts';
import type { Cell } from './l2-tables.ts';
import type { WriteParts } from './write-parts.ts';

/** Lets go of what cells referred to; clusters that follow each other in the file go at once. */
export async function freeCells(
  parts: WriteParts,
  cells: readonly Cell[],
  options: FreeOptions,
): Promise<void> {
  const { clusterSize } = parts.store.geometry;
  const hosts = cells.map(({ kind, host }) => (kind === 'plain' ? host : -1));
  for (let index = 0; index < cells.length; ) {
    const host = hosts[index]!;
    let end = index + 1;
    if (host >= 0 && host % clusterSize === 0) {
      while (hosts[end] === host + (end - index) * clusterSize) end++;
    }
    await freeCell(parts, cells[index]!, options, end - index);
    index = end;
  }
}

/**
 * Lets go of what a cell referred to.
 * @param options.reusable what the cell showed may be anything until the next flush
 * @param count clusters that follow each other, from the cell's own on
 */
export async function freeCell(
  parts: WriteParts,
  cell: Cell,
  options: FreeOptions = {},
  count = 1,
): Promise<void> {
  const { store, allocator } = parts;
  const length = count * store.geometry.clusterSize;
  if (store.hasDataFile) {
    if (cell.kind === 'plain' && cell.host >= 0 && options.discard) {
      // Its place is its own, so no one can have taken it.
      if (store.passesDiscard(options.discard)) {
        await discardRange(store.data, cell.host, length);
      }
    }
    return;
  }
  if (cell.kind === 'compressed') {
    // Whole sectors, as the descriptor counts them. A stream must stay one that decodes.
    const start = cell.host - (cell.host % 512);
    const bytes = cell.host + cell.length - start;
    await allocator.free(start, bytes, { ...options, reusable: false });
  } else if (cell.host % store.geometry.clusterSize > 0) {
    store.corruption.tell(`Cannot free unaligned cluster ${cHex(cell.host)}`);
  } else if (cell.host >= 0) {
    await allocator.free(cell.host, length, options);
  }
}
