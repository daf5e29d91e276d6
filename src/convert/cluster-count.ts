/** Counting the clusters of an image that requests go to. */
import type { WritableDisk } from '../image/disk.ts';

/** Counts clusters of a qcow2 disk, each once, when requests come in the order of the disk. */
export class ClusterCount {
  /** Clusters that were touched so far; 0 for disks of other formats. */
  count = 0;
  private readonly clusterSize: number;
  private last = -1;

  constructor({ format, sources }: Pick<WritableDisk, 'format' | 'sources'>) {
    this.clusterSize = format === 'qcow2' ? (sources[0]?.clusterSize ?? 0) : 0;
  }

  /** @param guest bytes, as is `length` */
  add(guest: number, length: number): void {
    const { clusterSize, last } = this;
    if (clusterSize === 0 || length === 0) return;
    const first = Math.max(last + 1, Math.floor(guest / clusterSize));
    this.last = Math.max(last, Math.floor((guest + length - 1) / clusterSize));
    this.count += this.last - first + 1;
  }
}
