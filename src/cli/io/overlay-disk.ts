/**
 * A disk over another one that is only read: what is written stays in memory, cluster by cluster,
 * and is gone when the disk is closed. It looks like a new qcow2 image with a backing file.
 */
import { alignDown } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import {
  type DataSource,
  type Disk,
  type Extent,
  ExtentKind,
  type ExtentList,
  iterateExtents,
  type WritableDisk,
} from '../../image/disk.ts';
import { memoryStorage } from '../../storage/memory.ts';

/** Bytes of a cluster: what an image has that is created without saying. */
export const OVERLAY_CLUSTER_BYTES = 65536;

/** Bytes of a cluster that was written, or that it reads as zeros. */
type Cluster = Uint8Array | 'zero';

/** Changes to a disk, in memory. */
export class OverlayDisk implements WritableDisk {
  readonly format = 'qcow2';
  readonly sources: readonly DataSource[];
  private readonly clusters = new Map<number, Cluster>();
  private bytes: number;

  constructor(private readonly backing: Disk) {
    this.bytes = backing.size;
    const storage = memoryStorage(new Uint8Array(), { name: 'snapshot' });
    const own = {
      storage,
      depth: 0,
      clusterSize: OVERLAY_CLUSTER_BYTES,
      codec: 'deflate',
    } as const;
    this.sources = [
      own,
      ...backing.sources.map((source) => ({ ...source, depth: source.depth + 1 })),
    ];
  }

  get size(): number {
    return this.bytes;
  }

  async read(guest: number, into: Uint8Array): Promise<void> {
    this.needInside(guest, into.length);
    for (const part of partsOf(guest, into.length)) {
      const view = into.subarray(part.done, part.done + part.length);
      const cluster = this.clusters.get(part.index);
      if (cluster === 'zero') view.fill(0);
      else if (cluster) view.set(cluster.subarray(part.within, part.within + part.length));
      else await this.readBacking(guest + part.done, view);
    }
  }

  async write(guest: number, from: Uint8Array): Promise<void> {
    this.needInside(guest, from.length);
    for (const part of partsOf(guest, from.length)) {
      const cluster = await this.ownCluster(part.index);
      cluster.set(from.subarray(part.done, part.done + part.length), part.within);
    }
  }

  async zero(guest: number, length: number): Promise<void> {
    this.needInside(guest, length);
    for (const part of partsOf(guest, length)) {
      if (this.isWhole(part)) this.clusters.set(part.index, 'zero');
      else {
        const cluster = await this.ownCluster(part.index);
        cluster.fill(0, part.within, part.within + part.length);
      }
    }
  }

  async discard(guest: number, length: number): Promise<void> {
    this.needInside(guest, length);
    for (const part of partsOf(guest, length)) {
      if (this.isWhole(part)) this.clusters.set(part.index, 'zero');
    }
  }

  /** Memory holds clusters as they are; what an image refuses is refused here, too. */
  async writeCompressed(guest: number, from: Uint8Array): Promise<void> {
    this.needInside(guest, from.length);
    for (const { index } of partsOf(guest, from.length)) {
      if (this.clusters.has(index)) throw new Qcow2Error('IO', 'the cluster is there already');
    }
    await this.write(guest, from);
  }

  async resize(size: number): Promise<void> {
    if (size % 512 !== 0) {
      throw new Qcow2Error('OUT_OF_RANGE', 'The new size must be a multiple of 512');
    }
    const end = Math.ceil(size / OVERLAY_CLUSTER_BYTES);
    for (const index of this.clusters.keys()) if (index >= end) this.clusters.delete(index);
    const last = this.clusters.get(end - 1);
    if (last instanceof Uint8Array && size % OVERLAY_CLUSTER_BYTES !== 0) {
      last.fill(0, size % OVERLAY_CLUSTER_BYTES);
    }
    const before = this.bytes;
    this.bytes = size;
    // What was cut off does not come back from the backing disk; QEMU covers all that is new.
    if (size > before && this.backing.size > before) await this.zero(before, size - before);
  }

  async flush(): Promise<void> {}

  extents(from = 0, to = this.size): AsyncIterable<Extent> {
    return iterateExtents(this, from, to);
  }

  async collectExtents(from: number, to: number, list: ExtentList, sourceBase = 0): Promise<void> {
    // Clusters that were written are few: what lies between them is asked for at once.
    const own = [...this.clusters.entries()].sort(([a], [b]) => a - b);
    let at = from;
    for (const [index, cluster] of own) {
      const start = Math.max(at, index * OVERLAY_CLUSTER_BYTES);
      const end = Math.min(to, (index + 1) * OVERLAY_CLUSTER_BYTES);
      if (end <= start) continue;
      await this.collectBacking(at, start, list, sourceBase);
      const kind = cluster === 'zero' ? ExtentKind.zero : ExtentKind.data;
      list.push(kind, start, end - start, sourceBase, cluster === 'zero' ? -1 : start);
      at = end;
    }
    await this.collectBacking(at, to, list, sourceBase);
  }

  async close(): Promise<void> {
    await this.backing.close();
  }

  private async collectBacking(from: number, to: number, list: ExtentList, sourceBase: number) {
    const inBacking = Math.min(to, this.backing.size);
    if (inBacking > from) {
      await this.backing.collectExtents(from, inBacking, list, sourceBase + 1);
    }
    const start = Math.max(from, inBacking);
    if (to > start) list.push(ExtentKind.hole, start, to - start, sourceBase);
  }

  private async readBacking(guest: number, into: Uint8Array): Promise<void> {
    const inBacking = Math.max(0, Math.min(into.length, this.backing.size - guest));
    if (inBacking > 0) await this.backing.read(guest, into.subarray(0, inBacking));
    into.fill(0, inBacking);
  }

  private async ownCluster(index: number): Promise<Uint8Array> {
    const cluster = this.clusters.get(index);
    if (cluster instanceof Uint8Array) return cluster;
    const fresh = new Uint8Array(OVERLAY_CLUSTER_BYTES);
    if (cluster === undefined) {
      const start = index * OVERLAY_CLUSTER_BYTES;
      await this.readBacking(start, fresh.subarray(0, Math.min(fresh.length, this.bytes - start)));
    }
    this.clusters.set(index, fresh);
    return fresh;
  }

  /** Covers the cluster, or what the disk has of it. */
  private isWhole({ index, within, length }: Part): boolean {
    if (within !== 0) return false;
    return (
      length === OVERLAY_CLUSTER_BYTES || index * OVERLAY_CLUSTER_BYTES + length === this.bytes
    );
  }

  private needInside(guest: number, length: number): void {
    if (guest < 0 || guest + length > this.bytes) {
      throw new Qcow2Error('OUT_OF_RANGE', 'past the end of the disk', guest);
    }
  }
}

/** What a range has of one cluster. */
interface Part {
  readonly index: number;
  readonly within: number;
  readonly length: number;
  /** Bytes of the range before this part. */
  readonly done: number;
}

function* partsOf(guest: number, length: number): Generator<Part> {
  for (let done = 0; done < length; ) {
    const at = guest + done;
    const within = at - alignDown(at, OVERLAY_CLUSTER_BYTES);
    const part = Math.min(length - done, OVERLAY_CLUSTER_BYTES - within);
    yield { index: (at - within) / OVERLAY_CLUSTER_BYTES, within, length: part, done };
    done += part;
  }
}
