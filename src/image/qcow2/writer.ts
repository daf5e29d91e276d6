/**
 * The writing side of an open image: puts the parts together that the verbs work on, and does what
 * belongs to the first write and to the last.
 */
import { alignUp } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { RangeLock } from '../../base/locks.ts';
import { BitmapFlag } from '../../format/bitmap-directory.ts';
import { Autoclear, hasFeature, Incompatible } from '../../format/feature-bits.ts';
import type { Header } from '../../format/header.ts';
import type { Region } from '../../kernels/arena.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { Storage } from '../../storage/storage.ts';
import type { Disk, ResizeOptions, ZeroOptions } from '../disk.ts';
import { Allocator } from './allocate.ts';
import { ClusterCompressor } from './cluster-compressor.ts';
import { discardGuest } from './discard.ts';
import { type EncryptionChoice, encryptFresh } from './encrypt-fresh.ts';
import type { Encryption } from './encryption.ts';
import { type DiscardPolicy, giveBackClusters } from './give-back.ts';
import { noteInactiveL2 } from './inactive-l2.ts';
import { L2Tables } from './l2-tables.ts';
import type { Mapping } from './mapping.ts';
import { MetadataStore, u64Bytes, viewOf } from './metadata-store.ts';
import { type Metadata, readMetadata } from './open.ts';
import type { MetadataRange } from './overlap.ts';
import type { OverlapOptions } from './overlap-options.ts';
import type { GuestReader } from './read.ts';
import { Refcounts } from './refcounts.ts';
import { resizeDisk } from './resize.ts';
import { snapshotRanges } from './snapshot-store.ts';
import { writeGuest } from './write.ts';
import { writeCompressedGuest } from './write-compressed.ts';
import { refuseCorrupt, type WriteParts } from './write-parts.ts';
import { zeroGuest } from './zero.ts';

/** What a writer is made of. */
export interface WriterOptions {
  readonly storage: Storage;
  readonly data: Storage;
  readonly backing: Disk | undefined;
  readonly metadata: Metadata;
  readonly l1: Uint8Array;
  readonly l2Region: Region;
  readonly refcountRegion: Region;
  readonly discardPolicy: DiscardPolicy;
  readonly scratch: Region;
  readonly encryption: Encryption | undefined;
  readonly overlapCheck?: OverlapOptions | undefined;
}

/** Autoclear bits that this library keeps true while it writes. */
const AUTOCLEAR_KNOWN = (1 << Autoclear.bitmaps) | (1 << Autoclear.rawDataFile);

/** Writes one image. */
export class ImageWriter {
  readonly store: MetadataStore;
  /** Guest ranges in use: reads share them, writes do not. */
  readonly ranges = new RangeLock();
  private parts!: WriteParts;
  private mapping!: Mapping;
  private readonly metadata: Metadata;
  private started: Promise<void> | undefined;

  private constructor(private readonly options: WriterOptions) {
    const { storage, data, metadata, l1, l2Region, refcountRegion, discardPolicy, scratch } =
      options;
    this.metadata = metadata;
    const { header, geometry } = metadata;
    this.store = new MetadataStore({
      storage,
      data,
      header,
      geometry,
      l1,
      l2Region,
      refcountRegion,
      discardPolicy,
      scratch,
      snapshots: metadata.snapshots,
      overlapCheck: options.overlapCheck,
    });
  }

  /** @throws Qcow2Error READ_ONLY, CORRUPT: the image cannot be written */
  static async open(options: WriterOptions): Promise<ImageWriter> {
    const { storage, data, metadata } = options;
    if (!storage.writable || !data.writable) {
      throw new Qcow2Error('READ_ONLY', 'the image file is not open for writing');
    }
    if (metadata.corrupt) {
      const message = 'qcow2: Image is corrupt; cannot be opened read/write';
      throw new Qcow2Error('CORRUPT', message, 72);
    }
    const writer = new ImageWriter(options);
    await writer.store.loadRefcountTable();
    const { overlap } = writer.store;
    overlap.fixed = fixedRanges(metadata);
    await noteInactiveL2(writer.store);
    return writer;
  }

  /** The parts that only exist once reading does. */
  async attach(mapping: Mapping, reader: GuestReader): Promise<void> {
    const { store, ranges } = this;
    const { backing, metadata, encryption } = this.options;
    const refcounts = new Refcounts(store);
    store.order.giveBack = (clusters) => giveBackClusters(store, refcounts, clusters);
    const allocator = new Allocator(store, refcounts);
    const tables = new L2Tables(store, allocator);
    this.mapping = mapping;
    this.parts = {
      store,
      refcounts,
      allocator,
      tables,
      reader,
      backing,
      compressor: new ClusterCompressor(metadata.header.compression, metadata.geometry.clusterSize),
      encryption,
      ranges,
      rawDataFile:
        metadata.dataFile && hasFeature(metadata.header.autoclear, Autoclear.rawDataFile),
      beforeFirstWrite: () => this.beforeFirstWrite(),
    };
  }

  /** Encrypts an image that is being made: nothing has been written for its guest yet. */
  async encryptFresh(choice: EncryptionChoice): Promise<Encryption> {
    const encryption = await encryptFresh(this.parts, this.metadata, choice);
    this.parts.encryption = encryption;
    this.parts.reader.encryptWith(encryption);
    return encryption;
  }

  get header(): Header {
    return this.store.header;
  }

  get size(): number {
    return this.store.header.size;
  }

  async write(guest: number, from: Uint8Array): Promise<void> {
    this.checkRange(guest, from.length);
    if (from.length > 0) await writeGuest(this.parts, guest, from);
  }

  async zero(guest: number, length: number, options: ZeroOptions): Promise<void> {
    this.checkRange(guest, length);
    if (length === 0) return;
    const range = { guest, length, diskSize: this.size };
    const unmap = this.actsOnDiscards && (options.unmap ?? false);
    await zeroGuest(this.parts, range, { unmap });
  }

  async discard(guest: number, length: number): Promise<void> {
    this.checkRange(guest, length);
    if (!this.actsOnDiscards) return;
    await discardGuest(this.parts, { guest, length, diskSize: this.size });
  }

  async writeCompressed(guest: number, from: Uint8Array): Promise<void> {
    this.checkRange(guest, from.length);
    await writeCompressedGuest(this.parts, { guest, diskSize: this.size }, from);
  }

  async resize(size: number, { preallocation = 'off' }: ResizeOptions): Promise<void> {
    if (this.metadata.bitmaps.length > 0 && size !== this.size) {
      throw new Qcow2Error('UNSUPPORTED', 'Cannot resize an image that has bitmaps');
    }
    await resizeDisk(this.parts, this.mapping, { to: size, preallocation });
  }

  /**
   * Runs a verb that concerns the whole image, with no request beside it. Its place in the order of
   * requests is when it was asked for, however long its code takes to load.
   */
  async alone<T>(work: (parts: WriteParts, mapping: Mapping) => Promise<T>): Promise<T> {
    const hold = this.ranges.acquire(0, Number.MAX_SAFE_INTEGER, false);
    try {
      if (hold.ready) await hold.ready;
      return await work(this.parts, this.mapping);
    } finally {
      this.ranges.release(hold);
    }
  }

  async flush(): Promise<void> {
    const { store } = this;
    refuseCorrupt(store);
    await store.lock.run(() => store.order.flush());
  }

  /** Does `work` on the file while no request is under way, and reads anew what it changes. */
  async whileQuiet<T>(work: () => Promise<T>): Promise<T> {
    const { store, ranges, mapping } = this;
    const hold = ranges.acquire(0, Number.POSITIVE_INFINITY, false);
    try {
      if (hold.ready) await hold.ready;
      return await store.lock.run(async () => {
        refuseCorrupt(store);
        await store.order.flush();
        await store.refcountBlocks.writeDirty();
        const result = await work();
        await store.reload();
        const metadata = await readMetadata(store.storage);
        store.snapshots = metadata.snapshots;
        store.overlap.fixed = fixedRanges(metadata);
        if (!store.dirty) {
          // A repair has said so; the next write begins anew.
          store.order.lazy = false;
          this.started = undefined;
        }
        mapping.replaceL1(store.l1, store.header.l1Offset);
        return result;
      });
    } finally {
      ranges.release(hold);
    }
  }

  /** Brings all on disk and says that the image is clean. */
  async close(): Promise<void> {
    const { store } = this;
    if (store.overlap.caught || this.started === undefined) return;
    await store.lock.run(async () => {
      await store.order.flush();
      if (!store.order.lazy) return;
      // The refcounts were let be until now.
      await store.refcountBlocks.writeDirty();
      await store.order.flushStorage();
      if (!store.unsound) await store.setIncompatible(Incompatible.dirty, false);
      store.order.lazy = false;
    });
  }

  private get actsOnDiscards(): boolean {
    return this.options.discardPolicy.discard !== 'ignore';
  }

  private checkRange(guest: number, length: number): void {
    if (guest < 0 || length < 0 || guest + length > this.size) {
      throw new Qcow2Error('OUT_OF_RANGE', 'request past the end of the disk', guest);
    }
  }

  private beforeFirstWrite(): Promise<void> {
    this.started ??= this.start().catch((cause) => {
      this.started = undefined;
      throw cause;
    });
    return this.started;
  }

  /** What an image must say before anything of it changes. */
  private start(): Promise<void> {
    const { store } = this;
    return store.lock.run(async () => {
      const { high, low } = store.header.autoclear;
      if (high !== 0 || (low & ~AUTOCLEAR_KNOWN) !== 0) {
        const known = { high: 0, low: low & AUTOCLEAR_KNOWN };
        await store.writeHeader(88, u64Bytes(known));
        store.header = { ...store.header, autoclear: known };
      }
      await this.markBitmapsInUse();
      if (store.lazyRefcounts) {
        await store.setIncompatible(Incompatible.dirty, true);
        store.order.lazy = true;
      }
    });
  }

  /** Enabled bitmaps that are not kept up to date are marked so, as a crash would leave them. */
  private async markBitmapsInUse(): Promise<void> {
    const extension = this.metadata.extensions.bitmaps;
    if (!extension || !this.metadata.bitmaps.some(({ flags }) => flags & BitmapFlag.auto)) return;
    const { storage } = this.store;
    const bytes = new Uint8Array(extension.directoryBytes);
    await readFully(storage, extension.directoryOffset, bytes);
    const view = viewOf(bytes);
    let at = 0;
    for (const { flags, extraData } of this.metadata.bitmaps) {
      if (flags & BitmapFlag.auto) view.setUint32(at + 12, flags | BitmapFlag.inUse);
      at = alignUp(at + 24 + extraData.length + view.getUint16(at + 18), 8);
    }
    this.store.overlap.check(extension.directoryOffset, bytes.length, 'bitmap-directory');
    await storage.write(extension.directoryOffset, bytes);
    await this.store.order.flushStorage();
  }
}

/** Tables that stay where they are while the image is open. */
function fixedRanges(metadata: Metadata): MetadataRange[] {
  const { header, snapshots, extensions } = metadata;
  const ranges = snapshotRanges(snapshots, header.snapshotsOffset);
  if (extensions.bitmaps) {
    const { directoryOffset: at, directoryBytes: length } = extensions.bitmaps;
    ranges.push({ kind: 'bitmap-directory', at, length });
  }
  return ranges;
}
