/**
 * A raw image: guest offset and file offset are the same. Bytes past the file's end, up to the
 * next multiple of 512, read as zeros.
 */
import { alignUp } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import type { Storage } from '../../storage/storage.ts';
import {
  type DataSource,
  type Disk,
  type Extent,
  ExtentKind,
  type ExtentList,
  iterateExtents,
} from '../disk.ts';

/** A raw disk over storage that it owns. */
export class RawImage implements Disk {
  readonly format = 'raw';
  readonly sources: readonly DataSource[];

  private constructor(
    private readonly storage: Storage,
    readonly size: number,
    depth: number,
  ) {
    this.sources = [{ storage, depth, clusterSize: 1, codec: 'deflate' }];
  }

  /** @param options.depth how many images stand in front of this one in its chain */
  static async open(storage: Storage, options: { depth?: number } = {}): Promise<RawImage> {
    const size = alignUp(await storage.size(), 512);
    return new RawImage(storage, size, options.depth ?? 0);
  }

  async read(guest: number, into: Uint8Array): Promise<void> {
    if (guest < 0 || guest + into.length > this.size) {
      throw new Qcow2Error('OUT_OF_RANGE', 'read past the end of the disk', guest);
    }
    const got = await this.storage.read(guest, into);
    into.fill(0, got);
  }

  extents(from = 0, to = this.size): AsyncIterable<Extent> {
    return iterateExtents(this, from, to);
  }

  collectExtents(from: number, to: number, list: ExtentList, sourceBase = 0): void {
    if (to > from) list.push(ExtentKind.data, from, to - from, sourceBase, from);
  }

  async close(): Promise<void> {
    await this.storage.close();
  }
}
