/**
 * State of a virtual machine, as snapshots keep it: guest bytes behind the disk's end, from the
 * first L1 entry on that the disk has no use for.
 */
import { divCeil } from '../../base/bits.ts';
import { type Geometry, l1EntriesFor } from '../../format/geometry.ts';
import type { Mapping } from './mapping.ts';
import { growL1To } from './resize.ts';
import { writeRange } from './write.ts';
import { type WriteParts, withRange } from './write-parts.ts';

/** Guest offset of the VM state of a disk of that many bytes. */
export function vmStateOffset(diskSize: number, geometry: Geometry): number {
  return l1EntriesFor(diskSize, geometry) * geometry.l2Span;
}

/**
 * Writes state that the next snapshot will keep; the L1 table grows where it must, by half at
 * least, as QEMU's does.
 * @param at bytes from the state's start
 * @throws Qcow2Error OUT_OF_RANGE where no L1 table is that long
 */
export async function writeVmState(
  parts: WriteParts,
  mapping: Mapping,
  at: number,
  from: Uint8Array,
): Promise<void> {
  const { geometry, header } = parts.store;
  const guest = vmStateOffset(header.size, geometry) + at;
  await withRange(parts, { guest, length: from.length }, async () => {
    const needed = l1EntriesFor(guest + from.length, geometry);
    let entries = Math.max(1, parts.store.l1Entries);
    while (entries < needed) entries = divCeil(entries * 3, 2);
    await growL1To(parts, mapping, entries);
    await writeRange(parts, guest, from);
  });
}
