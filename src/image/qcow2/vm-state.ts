/**
 * State of a virtual machine, as snapshots keep it: guest bytes behind the disk's end, from the
 * first L1 entry on that the disk has no use for.
 */
import { type Geometry, l1EntriesFor } from '../../format/geometry.ts';

/** Guest offset of the VM state of a disk of that many bytes. */
export function vmStateOffset(diskSize: number, geometry: Geometry): number {
  return l1EntriesFor(diskSize, geometry) * geometry.l2Span;
}
