/**
 * How many bytes an image would take, before it is made: QEMU's numbers. A full image's are exact;
 * the ones that are needed count metadata for all of the disk.
 */

import { alignUp, divCeil } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import { L1_BYTES_MAX } from '../base/limits.ts';
import { byteLength } from '../base/text.ts';
import type { Disk } from '../image/disk.ts';
import { Qcow2Image } from '../image/qcow2/qcow2-image.ts';
import { refcountMetadata } from '../image/qcow2/refcounts.ts';
import { mapDisk } from './map.ts';

/** The image that is measured. Sizes are bytes. */
export interface MeasureTarget {
  readonly clusterSize: number;
  readonly refcountBits: number;
  readonly extendedL2: boolean;
  readonly version: 2 | 3;
  /** It has a backing file: nobody knows what of it the target will repeat. */
  readonly backing: boolean;
  /** Data clusters get their room at once. */
  readonly allocates: boolean;
  /** Bytes of an encryption header in front of the disk. */
  readonly cryptoBytes: number;
}

/** What was measured, bytes. */
export interface Measure {
  readonly required: number;
  readonly fullyAllocated: number;
  /** Where the source may have bitmaps, and the target: what they take. */
  readonly bitmaps?: number | undefined;
}

const DIRECTORY_ENTRY_BYTES = 24;

/** A raw image of a disk. */
export function measureRaw(source: Disk | number): Measure {
  const size = alignUp(typeof source === 'number' ? source : source.size, 512);
  return { required: size, fullyAllocated: size };
}

/**
 * A qcow2 image of a disk, or of an empty one of so many bytes.
 * @throws Qcow2Error OUT_OF_RANGE for a disk that is too large; CORRUPT or IO
 */
export async function measureQcow2(source: Disk | number, target: MeasureTarget): Promise<Measure> {
  const { clusterSize, cryptoBytes, allocates } = target;
  const given = typeof source === 'number' ? source : 0;
  refuseTooLarge(alignUp(given, 512), target);
  const size = typeof source === 'number' ? alignUp(source, 512) : source.size;
  const virtual = alignUp(size, clusterSize);
  let data = 0;
  if (allocates) data = virtual;
  else if (typeof source !== 'number') {
    data = target.backing ? virtual : await dataBytes(source, clusterSize);
  }
  const fullyAllocated = alignUp(cryptoBytes, clusterSize) + fullBytes(virtual, target);
  const required = fullyAllocated - virtual + data;
  const image = source instanceof Qcow2Image ? source : undefined;
  if (!image || target.version < 3 || image.header.version < 3) {
    return { required, fullyAllocated };
  }
  return { required, fullyAllocated, bitmaps: bitmapBytes(image, clusterSize) };
}

function refuseTooLarge(size: number, { clusterSize, extendedL2 }: MeasureTarget): void {
  const tables = divCeil(divCeil(size, clusterSize), clusterSize / (extendedL2 ? 16 : 8));
  if (tables * 8 > L1_BYTES_MAX) {
    const message = 'The image size is too large (try using a larger cluster size)';
    throw new Qcow2Error('OUT_OF_RANGE', message);
  }
}

/** Bytes of a file with all clusters in it. */
function fullBytes(virtual: number, target: MeasureTarget): number {
  const { clusterSize, extendedL2, refcountBits } = target;
  const perTable = clusterSize / (extendedL2 ? 16 : 8);
  const tables = divCeil(virtual / clusterSize, perTable);
  const l1 = alignUp(tables * 8, clusterSize);
  const rest = clusterSize + tables * clusterSize + l1;
  const { blocks, tableClusters } = refcountMetadata((rest + virtual) / clusterSize, {
    clusterSize,
    refcountOrder: Math.log2(refcountBits),
    generous: false,
  });
  return rest + virtual + (blocks + tableClusters) * clusterSize;
}

/** Bytes of the target's clusters that hold data. */
async function dataBytes(disk: Disk, clusterSize: number): Promise<number> {
  let bytes = 0;
  let counted = 0;
  for await (const { start, length, zero, data } of mapDisk(disk)) {
    if (zero || !data) continue;
    const first = Math.max(counted, start - (start % clusterSize));
    counted = Math.max(counted, alignUp(start + length, clusterSize));
    bytes += Math.max(0, counted - first);
  }
  return bytes;
}

/** Bytes of bitmaps like those of an image, all their bits in the file. */
function bitmapBytes(image: Qcow2Image, clusterSize: number): number {
  let bytes = 0;
  let directory = 0;
  for (const { name, granularity } of image.bitmaps.list()) {
    const clusters = divCeil(divCeil(divCeil(image.size, granularity), 8), clusterSize);
    bytes += clusters * clusterSize + alignUp(clusters * 8, clusterSize);
    const nameBytes = byteLength(name);
    directory += alignUp(DIRECTORY_ENTRY_BYTES + nameBytes, 8);
  }
  return bytes + alignUp(directory, clusterSize);
}
