/**
 * The writing side of an open image: puts the parts together that the verbs work on, and does what
 * belongs to the first write and to the last.
 */
import { Qcow2Error } from '../../base/errors.ts';
import { RangeLock } from '../../base/locks.ts';
import { Autoclear, hasFeature, Incompatible } from '../../format/feature-bits.ts';
import type { Header } from '../../format/header.ts';
import type { Region } from '../../kernels/arena.ts';
import type { Storage } from '../../storage/storage.ts';
import type { Disk, ResizeOptions, WriteUnderWay, ZeroOptions } from '../disk.ts';
import { Allocator } from './allocate.ts';
import type { AmendOptions } from './amend.ts';
import { BitmapStore } from './bitmap-store.ts';
import { ClusterCompressor } from './cluster-compressor.ts';
import type { CorruptionListener } from './corruption.ts';
import { discardGuest } from './discard.ts';
import { type EncryptionChoice, encryptFresh } from './encrypt-fresh.ts';
import type { Encryption } from './encryption.ts';
import { type DiscardPolicy, giveBackClusters } from './give-back.ts';
import { noteInactiveL2 } from './inactive-l2.ts';
import { L2Tables } from './l2-tables.ts';
import type { Mapping } from './mapping.ts';
import { MetadataStore, u64Bytes } from './metadata-store.ts';
import { type Metadata, readMetadata } from './open.ts';
import type { MetadataRange } from './overlap.ts';
import type { OverlapOptions } from './overlap-options.ts';
import type { GuestReader } from './read.ts';
import { Refcounts } from './refcounts.ts';
import { letGoBehind, resizeDisk } from './resize.ts';
import { rewriteHeader } from './rewrite-header.ts';
import { snapshotRanges } from './snapshot-store.ts';
import { writeGuest } from './write.ts';
import { writeCompressedGuest } from './write-compressed.ts';
import { changing, type WriteParts } from './write-parts.ts';
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
  readonly lazyRefcounts?: boolean | undefined;
  readonly onCorruption?: CorruptionListener | undefined;
  /** Where bits of bitmaps are kept while they change. */
  readonly bitmapRegion: Region;
}

/** Autoclear bits that this library keeps true while it writes. */
const AUTOCLEAR_KNOWN = (1 << Autoclear.bitmaps) | (1 << Autoclear.rawDataFile);

/** Writes one image. */
export class ImageWriter {
  readonly store: MetadataStore;
  /** Guest ranges in use: reads share them, writes do not. */
  readonly ranges = new RangeLock();
  /** Its persistent bitmaps. */
  bitmaps!: BitmapStore;
  private parts!: WriteParts;
  private mapping!: Mapping;
  private started: Promise<void> | undefined;

  private constructor(private readonly options: WriterOptions) {
    const { storage, data, metadata, l1, l2Region, refcountRegion, discardPolicy, scratch } =
      options;
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
      lazyRefcounts: options.lazyRefcounts,
      onCorruption: options.onCorruption,
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
    const { bitmapRegion } = this.options;
    const { bitmaps } = metadata.extensions;
    this.bitmaps = new BitmapStore(store, allocator, metadata.bitmaps, bitmaps, bitmapRegion);
    this.mapping = mapping;
    this.parts = {
      store,
      refcounts,
      allocator,
      tables,
      reader,
      backing,
      bitmaps: this.bitmaps,
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
    const encryption = await encryptFresh(this.parts, this.options.metadata, choice);
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

  /** See `WritableDisk.writeAhead`. */
  async writeAhead(guest: number, from: Uint8Array): Promise<WriteUnderWay> {
    this.checkRange(guest, from.length);
    if (from.length === 0) return { written: Promise.resolve() };
    const { data, storage } = this.store;
    // Who debugs requests holds them where they are carried out at once.
    if (!storage.announce) this.dataLater ??= data.background?.();
    let placed = () => {};
    const isPlaced = new Promise<void>((resolve) => {
      placed = resolve;
    });
    const others = [...this.underWay];
    const settle = () => Promise.allSettled(others);
    const ahead = { data: this.dataLater ?? data, placed, settle };
    const written = writeGuest(this.parts, guest, from, ahead);
    this.underWay.add(written);
    const forget = () => this.underWay.delete(written);
    written.then(forget, forget);
    await Promise.race([isPlaced, written]);
    return { written };
  }
  /** Such requests that are not done. */
  private readonly underWay = new Set<Promise<void>>();
  /** The data, for requests that others follow before they are done. */
  private dataLater: Storage | undefined;

  /** Writes state of a virtual machine: see `vm-state.ts`. */
  async writeVmState(at: number, from: Uint8Array): Promise<void> {
    if (from.length === 0) return;
    const { writeVmState } = await import('./vm-state.ts');
    await writeVmState(this.parts, this.mapping, at, from);
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
    if (size < this.size) {
      const { refuseMiscounted } = await import('./shrink-guard.ts');
      await this.whileQuiet(() => refuseMiscounted(this.store.storage));
    }
    const change = () => resizeDisk(this.parts, this.mapping, { to: size, preallocation });
    if (this.bitmaps.bitmaps.length === 0 || size === this.size) return change();
    const { resizeBitmaps } = await import('./bitmap-resize.ts');
    await this.beforeFirstWrite();
    await resizeBitmaps(this.bitmaps, size, change);
  }

  /** Judges an amendment, but for its size. */
  async refuseAmendment(options: AmendOptions): Promise<void> {
    const { refuseAmendment } = await import('./amend.ts');
    await this.alone(async (parts) => refuseAmendment(parts, options));
  }

  /** Changes what the image was made with; it has to be opened anew for what comes next. */
  async amend({ size, ...options }: AmendOptions): Promise<void> {
    const { AmendSteps, amendImage } = await import('./amend.ts');
    const steps = new AmendSteps(this.store, options);
    const amend = (some: typeof options) =>
      this.alone((parts) => changing(parts, () => amendImage(parts, some, steps)));
    if (size === undefined) return amend(options);
    await this.refuseAmendment(options);
    const { version, ...others } = options;
    // Version 2 resizes no image with snapshots, and its snapshots are all as large as the disk.
    await amend(version === 2 ? others : options);
    await this.resize(size, {});
    if (version === 2) await amend({ version });
  }

  /** Changes what the header's cluster says, durably. */
  async changeHeader(change: Parameters<typeof rewriteHeader>[1]): Promise<void> {
    await this.alone((parts) =>
      changing(parts, () =>
        this.store.lock.run(async () => {
          await this.store.order.flush();
          await rewriteHeader(this.store, change);
        }),
      ),
    );
  }

  /** Makes the header name another backing file, or none. */
  async setBackingName(
    backing: { readonly name: string; readonly format: string } | undefined,
  ): Promise<void> {
    await this.changeHeader(({ header, extensions }) => {
      const { backingFormat: _, ...others } = extensions;
      return {
        header,
        extensions: backing ? { ...others, backingFormat: backing.format } : others,
        backingName: backing?.name,
      };
    });
  }

  /** Leaves every cluster of the disk unallocated. */
  async makeEmpty(): Promise<void> {
    const { storage } = this.store;
    await this.alone(async (parts) => {
      await changing(parts, async () => {
        if (storage.announce) await storage.announce('empty_image_prepare');
        await letGoBehind(parts, 0);
        await this.flush();
      });
    });
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

  /** Brings bits of bitmaps to where a reader of the file finds them. */
  syncBitmaps(): Promise<void> {
    return this.store.lock.run(() => this.bitmaps.data.writeDirty());
  }

  async flush(): Promise<void> {
    const { store } = this;
    store.corruption.refuse();
    await store.lock.run(async () => {
      const { storage } = store;
      if (storage.announce) await storage.announce('flush_to_os');
      await store.order.flush(() => storage.announce?.('flush_to_disk'));
    });
  }

  /** Looks at the file while no request is under way: all that is in memory is there, too. */
  async whileQuiet<T>(look: () => Promise<T>): Promise<T> {
    const { store, ranges } = this;
    const hold = ranges.acquire(0, Number.POSITIVE_INFINITY, false);
    try {
      if (hold.ready) await hold.ready;
      return await store.lock.run(async () => {
        store.corruption.refuse();
        await store.order.flush();
        await store.refcountBlocks.writeDirty();
        return await look();
      });
    } finally {
      ranges.release(hold);
    }
  }

  /** The same for one who changes the file: it is read anew, also where he got stuck halfway. */
  async whileRepaired<T>(repair: () => Promise<T>): Promise<T> {
    return this.whileQuiet(async () => {
      const { store } = this;
      if (store.broken) throw store.broken;
      const outcome = await repair().then(
        (value) => () => value,
        (cause) => () => {
          throw cause;
        },
      );
      await this.readAnew();
      return outcome();
    });
  }

  private async readAnew(): Promise<void> {
    const { store, mapping } = this;
    await store.reload();
    mapping.replaceL1(store.l1, store.header.l1Offset);
    const metadata = await readMetadata(store.storage).catch((cause) => {
      store.broken ??= new Qcow2Error('IO', 'The repaired image could not be read', 0, cause);
      throw cause;
    });
    store.snapshots = metadata.snapshots;
    store.overlap.fixed = fixedRanges(metadata);
    if (store.dirty) return;
    // A repair has said so; the next write begins anew.
    store.order.lazy = false;
    store.order.becomeLazy = undefined;
    this.started = undefined;
  }

  /** Brings all on disk and says that the image is clean. */
  async close(): Promise<void> {
    const { store } = this;
    if (store.corruption.isStray || this.started === undefined) return;
    await store.lock.run(async () => {
      await this.bitmaps.settle();
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
      if (!store.lazyRefcounts) return;
      store.order.becomeLazy = async () => {
        await store.setIncompatible(Incompatible.dirty, true);
        store.order.lazy = true;
      };
    });
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
