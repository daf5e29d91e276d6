/**
 * The public face of a qcow2 image: an open `Disk` with what the image says about itself. Holds no
 * algorithm; those are in the files beside it. What most who open an image do without (writing,
 * encryption, checks) is loaded when it is asked for.
 */
import { type Awaitable, settled } from '../../base/awaitable.ts';
import { assert, isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { L2_CACHE_BYTES_DEFAULT, L2_SLICE_BYTES_MAX } from '../../base/limits.ts';
import type { KeySlotChange } from '../../crypto/luks-slots.ts';
import { l1EntriesFor } from '../../format/geometry.ts';
import { CryptMethod, type Header } from '../../format/header.ts';
import { checkSnapshotL1, type Snapshot } from '../../format/snapshot-table.ts';
import { type Region, Workspace } from '../../kernels/arena.ts';
import { INPUT_SLACK, L2Flags, RUN_BYTES, RunKind } from '../../kernels/kernels.ts';
import { holdHead } from '../../storage/held-head.ts';
import type { Storage } from '../../storage/storage.ts';
import {
  type DataSource,
  type Disk,
  type Extent,
  ExtentKind,
  type ExtentList,
  iterateExtents,
  type ResizeOptions,
  type WritableDisk,
  type ZeroOptions,
} from '../disk.ts';
import type { Secret } from '../secret.ts';
import type { AmendOptions } from './amend.ts';
import { BitmapReader, bitmapReaderBytes } from './bitmap-ranges.ts';
import { BitmapState, bitmapSliceBytes } from './bitmap-state.ts';
import { Bitmaps } from './bitmaps.ts';
import type { CheckOptions } from './check.ts';
import type { CheckListener, CheckResult } from './check-findings.ts';
import { type CorruptionListener, CorruptionWatch } from './corruption.ts';
import type { Qcow2CreateOptions, writeFreshImage } from './create.ts';
import type { EncryptionChoice } from './encrypt-fresh.ts';
import type { Encryption } from './encryption.ts';
import type { DiscardPolicy } from './give-back.ts';
import { Mapping, type RunVisitor } from './mapping.ts';
import { type Metadata, readL1, readMetadata } from './open.ts';
import type { OverlapOptions } from './overlap-options.ts';
import { GuestReader } from './read.ts';
import { SCRATCH_BYTES_PER_ENTRY } from './references.ts';
import { findSnapshot, type SnapshotOwner, type SnapshotSelector, Snapshots } from './snapshots.ts';
import { TableCache } from './table-cache.ts';
import { vmStateOffset } from './vm-state.ts';
import type { ImageWriter } from './writer.ts';

/** Bytes of refcount blocks that a writer keeps in memory; four blocks at least. */
const REFCOUNT_CACHE_BYTES = 1024 * 1024;

/** Bytes of bitmaps' bits that a writer keeps in memory. */
const BITMAP_CACHE_BYTES = 1024 * 1024;

/** How an image is opened. The image owns its storage from here on, also when opening fails. */
export interface Qcow2OpenOptions extends DiscardPolicy {
  /**
   * Opens the backing file that the image names; an image that names one is refused without it.
   * `none` leaves it out: what it would supply reads as zeros.
   */
  readonly backing?: 'none' | ((name: string, format: string | undefined) => Promise<Disk>);
  /** `backing` is asked for images that name none, too: with an empty name. */
  readonly backingUnnamed?: boolean;
  /** Opens the external data file that the image names; needed where it has one. */
  readonly dataFile?: (name: string) => Promise<Storage>;
  /** `dataFile` is asked for an image that does not name the one it has: with an empty name. */
  readonly dataFileUnnamed?: boolean;
  /** Reads as one of the internal snapshots. */
  readonly snapshot?: SnapshotSelector;
  /** Bytes of L2 tables to keep in memory. Default 32 MiB. */
  readonly cacheBytes?: number;
  /** Kernel memory shared with the rest of a chain. */
  readonly workspace?: Workspace;
  /** How many images stand in front of this one in its chain. */
  readonly depth?: number;
  /** The passphrase, where the image is encrypted. */
  readonly secret?: Secret | undefined;
  /** PBKDF2 iterations that an encrypted image may ask for. Default 100 million. */
  readonly iterationsMax?: number | undefined;
  /** Metadata that is guarded against stray writes. Default: QEMU's, `cached`. */
  readonly overlapCheck?: OverlapOptions | undefined;
  /** Refcounts may lag behind, whatever the image says of that itself (version 3). */
  readonly lazyRefcounts?: boolean | undefined;
  /** Opens for writing; storage and data file must be writable. */
  readonly writable?: boolean;
  /** Hears what is repaired of an image that was left dirty, which opening it for writing does. */
  readonly onRepair?: CheckListener | undefined;
  /** Hears of metadata that cannot be as it is, when it is met. */
  readonly onCorruption?: CorruptionListener | undefined;
}

/** An open qcow2 image. */
export class Qcow2Image implements WritableDisk {
  readonly format = 'qcow2';
  readonly sources: readonly DataSource[];

  private constructor(private readonly parts: OpenImage) {
    const { storage, dataStorage, backing, metadata, depth } = parts;
    const { clusterSize } = metadata.geometry;
    const codec = metadata.header.compression;
    const own: DataSource[] = [{ storage, depth, clusterSize, codec }];
    if (parts.plainData) {
      own.push({ storage: parts.plainData, depth, clusterSize, codec, encrypted: true });
    } else if (dataStorage !== storage) {
      own.push({ storage: dataStorage, depth, clusterSize, codec });
    }
    this.sources = [...own, ...(backing?.sources ?? [])];
  }

  /**
   * Opens an image for reading. Images with the dirty or the corrupt bit open: reading them needs
   * no refcounts.
   * @throws Qcow2Error NOT_QCOW2, CORRUPT, UNSUPPORTED, REFUSED or IO
   */
  static async open(storage: Storage, options: Qcow2OpenOptions = {}): Promise<Qcow2Image> {
    const owned: { close(): Awaitable<void> }[] = [storage];
    try {
      return new Qcow2Image(await openImage(storage, options, owned));
    } catch (cause) {
      for (const resource of owned.reverse()) await resource.close();
      throw cause;
    }
  }

  /**
   * Makes a new image in empty storage and opens it for writing. It is none before all of it is
   * there: its magic number is written last.
   * @param open how it is opened afterwards: with the backing and data files that it names
   * @throws Qcow2Error OUT_OF_RANGE for options that the format does not allow together
   */
  static async create(
    storage: Storage,
    options: Qcow2CreateOptions,
    open: Qcow2OpenOptions = {},
  ): Promise<Qcow2Image> {
    const held = holdHead(storage);
    let fresh: Awaited<ReturnType<typeof writeFreshImage>>;
    try {
      const { writeFreshImage } = await import('./create.ts');
      fresh = await writeFreshImage(held.storage, options);
    } catch (cause) {
      await storage.close();
      throw cause;
    }
    let image = await Qcow2Image.open(held.storage, { ...open, writable: true });
    try {
      await image.resize(fresh.size, fresh);
      if (options.encryption) image = await image.encrypted(options.encryption);
      await held.release();
    } catch (cause) {
      await image.close();
      throw cause;
    }
    return image;
  }

  get size(): number {
    return this.header.size;
  }

  get header(): Header {
    return this.parts.writer?.header ?? this.parts.metadata.header;
  }

  /** Open for writing. */
  get writable(): boolean {
    return this.parts.writer !== undefined;
  }

  /** The disk that unallocated clusters show, where the image has one. */
  get backing(): Disk | undefined {
    return this.parts.backing;
  }

  /** Guest bytes that one slice of an L2 table maps: QEMU looks no further at a time. */
  get sliceSpan(): number {
    const { clusterSize, l2EntryBytes } = this.parts.metadata.geometry;
    return (Math.min(clusterSize, L2_SLICE_BYTES_MAX) / l2EntryBytes) * clusterSize;
  }

  /**
   * More clusters are in use than the host has given the file room for: data may lie in its holes.
   * @throws Qcow2Error CORRUPT or IO
   */
  async isPreallocated(): Promise<boolean> {
    const { storage, metadata } = this.parts;
    const { isPreallocated } = await import('./preallocated.ts');
    return isPreallocated(storage, this.header, metadata.geometry);
  }

  /** The backing file as the image named it when it was opened. */
  get backingName(): { readonly name: string | undefined; readonly format: string | undefined } {
    const { backingName: name, extensions } = this.parts.metadata;
    return { name, format: extensions.backingFormat };
  }

  /** Internal snapshots, and what can be done with them. */
  get snapshots(): Snapshots {
    const { writer, metadata, stateReader } = this.parts;
    return new Snapshots({
      list: () => writer?.store.snapshots ?? metadata.snapshots,
      writer: () => this.needWriter(),
      stateReader,
      stateOffset: ({ virtualSize }) => vmStateOffset(virtualSize, metadata.geometry),
    });
  }

  /** Persistent dirty bitmaps; none are listed where the image says that they are out of date. */
  get bitmaps(): Bitmaps {
    const { writer, metadata, storage, bitmapReader } = this.parts;
    const { clusterSize } = metadata.geometry;
    const image = { clusterSize, size: this.size };
    return new Bitmaps({
      states: () =>
        writer?.bitmaps.bitmaps ?? metadata.bitmaps.map((entry) => new BitmapState(entry)),
      writer: () => this.needWriter(),
      sync: async () => writer?.syncBitmaps(),
      reader: (state) => new BitmapReader(storage, state, image, bitmapReader),
    });
  }

  async read(guest: number, into: Uint8Array): Promise<void> {
    if (guest < 0 || guest + into.length > this.size) {
      throw new Qcow2Error('OUT_OF_RANGE', 'read past the end of the disk', guest);
    }
    const { reader, writer } = this.parts;
    if (!writer) return reader.read(guest, into);
    const hold = writer.ranges.acquire(guest, guest + into.length, true);
    try {
      if (hold.ready) await hold.ready;
      await reader.read(guest, into);
    } finally {
      writer.ranges.release(hold);
    }
  }

  /**
   * Reads the state of a virtual machine that the next snapshot would keep; zeros where there is
   * none. (What a snapshot has kept: `snapshots.readVmState`.)
   * @param at bytes from the state's start
   */
  async readVmState(at: number, into: Uint8Array): Promise<void> {
    const { activeState, metadata } = this.parts;
    await activeState.read(vmStateOffset(this.size, metadata.geometry) + at, into);
  }

  /**
   * Writes it.
   * @throws Qcow2Error OUT_OF_RANGE for more than an L1 table maps
   */
  async writeVmState(at: number, from: Uint8Array): Promise<void> {
    await this.needWriter().writeVmState(at, from);
  }

  async write(guest: number, from: Uint8Array): Promise<void> {
    await this.needWriter().write(guest, from);
  }

  async zero(guest: number, length: number, options: ZeroOptions = {}): Promise<void> {
    await this.needWriter().zero(guest, length, options);
  }

  async discard(guest: number, length: number): Promise<void> {
    await this.needWriter().discard(guest, length);
  }

  async writeCompressed(guest: number, from: Uint8Array): Promise<void> {
    await this.needWriter().writeCompressed(guest, from);
  }

  async resize(size: number, options: ResizeOptions = {}): Promise<void> {
    await this.needWriter().resize(size, options);
  }

  /**
   * Lets go of all that the image itself holds: it shows what its backing file does. Snapshots
   * keep what they have.
   */
  async makeEmpty(): Promise<void> {
    await this.needWriter().makeEmpty();
  }

  /**
   * Changes what the image was made with. It has to be closed then, and opened anew for more.
   * @throws Qcow2Error UNSUPPORTED for what cannot change, OUT_OF_RANGE for refcounts that do not
   * fit: nothing has changed then
   */
  async amend(options: AmendOptions): Promise<void> {
    await this.needWriter().amend(options);
  }

  /**
   * Makes the header name another backing file, or none. Nothing of the disk is read or written:
   * this open image goes on with the one it has.
   * @throws Qcow2Error OUT_OF_RANGE where the header's cluster has no room
   */
  async setBackingName(
    backing: { readonly name: string; readonly format: string } | undefined,
  ): Promise<void> {
    await this.needWriter().setBackingName(backing);
  }

  /**
   * Checks the image's metadata, and repairs it where told to; an image that is open for writing
   * is quiet meanwhile. Its snapshots are checked with it, its backing file is not.
   * @throws Qcow2Error READ_ONLY for a repair of an image that is open for reading; others where
   * the check cannot be carried out to its end
   */
  async check(options: CheckOptions = {}): Promise<CheckResult> {
    const { storage, writer } = this.parts;
    if (options.repair) this.needWriter();
    const { checkStorage } = await import('./check.ts');
    const check = () => checkStorage(storage, options);
    if (!writer) return check();
    return options.repair ? writer.whileRepaired(check) : writer.whileQuiet(check);
  }

  /**
   * Adds or erases key slots of an image that is encrypted with LUKS and open for writing.
   * @throws Qcow2Error OUT_OF_RANGE for what would leave no way in, or makes no sense
   */
  async changeKeySlots(change: KeySlotChange): Promise<void> {
    this.needWriter();
    const { encryption } = this.parts;
    if (!encryption) throw new Qcow2Error('UNSUPPORTED', 'No encryption in the image to amend');
    await encryption.changeKeySlots(change);
  }

  async flush(): Promise<void> {
    await this.parts.writer?.flush();
  }

  extents(from = 0, to = this.size): AsyncIterable<Extent> {
    return iterateExtents(this, from, to);
  }

  collectExtents(from: number, to: number, list: ExtentList, sourceBase = 0): Awaitable<void> {
    const { storage, dataStorage, plainData, encryption, backing } = this.parts;
    const { mapping, metadata, reader, writer } = this.parts;
    const ownData = dataStorage === storage && !plainData;
    const dataSource = ownData ? sourceBase : sourceBase + 1;
    // The old AES counts guest sectors, so that its plain bytes are found by guest offset.
    const byGuest = encryption?.format === 'aes';
    const { clusterSize } = metadata.geometry;
    // Ranges that the backing disk answers for, in order, until the visit is over: its answer may
    // take time, and the list must stay in guest order.
    let pending: Promise<void> | undefined;
    const keep = (host: number) => (host === 0 || encryption ? -1 : host);
    const later = (work: () => Awaitable<void>) => {
      const done = pending ? pending.then(work) : work();
      if (settled(done)) return;
      pending = done;
      // It is waited for at the end: until then its failure is not one that nobody handles.
      pending.catch(() => {});
    };
    const visitor: RunVisitor = (kind, guest, length, host, stored) => {
      later(() => {
        switch (kind) {
          case RunKind.data:
            list.push(ExtentKind.data, guest, length, dataSource, byGuest ? guest : host);
            return;
          case RunKind.compressed: {
            const skip = guest % clusterSize;
            list.push(ExtentKind.compressed, guest, length, sourceBase, host, stored, skip);
            return;
          }
          case RunKind.zero:
            list.push(ExtentKind.zero, guest, length, dataSource, keep(host));
            return;
          default:
            return backing
              ? this.collectBacking(backing, { guest, length, host: keep(host) }, list, sourceBase)
              : this.pushHole({ guest, length, host: keep(host) }, list, sourceBase);
        }
      });
    };
    const visited = reader.watched(() =>
      writer
        ? writer.store.lock.run(() => mapping.visit(from, to, visitor))
        : mapping.visit(from, to, visitor),
    );
    if (settled(visited)) return pending;
    return visited.then(() => pending);
  }

  async close(): Promise<void> {
    const { storage, dataStorage, backing, writer, encryption } = this.parts;
    try {
      await writer?.close();
    } finally {
      encryption?.close();
      await this.closeFiles(storage, dataStorage, backing);
    }
  }

  /** The same image, encrypted from now on. */
  private async encrypted(choice: EncryptionChoice): Promise<Qcow2Image> {
    const { parts } = this;
    const encryption = await this.needWriter().encryptFresh(choice);
    const { plainStorage } = await import('./plain-storage.ts');
    const plainData = plainStorage(encryption, parts, () => this.size);
    return new Qcow2Image({ ...parts, encryption, plainData });
  }

  private needWriter(): ImageWriter {
    const { writer } = this.parts;
    if (!writer) throw new Qcow2Error('READ_ONLY', 'the image is open for reading only');
    return writer;
  }

  private async closeFiles(
    storage: Storage,
    dataStorage: Storage,
    backing: Disk | undefined,
  ): Promise<void> {
    await backing?.close();
    if (dataStorage !== storage) await dataStorage.close();
    await storage.close();
  }

  private pushHole({ guest, length, host }: Hole, list: ExtentList, sourceBase: number): void {
    const { storage, dataStorage, plainData } = this.parts;
    const hasOther = dataStorage !== storage || plainData !== undefined;
    const source = hasOther && host >= 0 ? sourceBase + 1 : sourceBase;
    list.push(ExtentKind.hole, guest, length, source, host);
  }

  /** What a backing disk shorter than this one does not have is this image's zeros. */
  private collectBacking(
    backing: Disk,
    { guest, length, host }: Hole,
    list: ExtentList,
    sourceBase: number,
  ): Awaitable<void> {
    const base = sourceBase + this.sources.length - backing.sources.length;
    const inBacking = Math.max(0, Math.min(length, backing.size - guest));
    const tail = () => {
      if (length > inBacking) {
        const rest = { guest: guest + inBacking, length: length - inBacking };
        this.pushHole({ ...rest, host: host < 0 ? host : host + inBacking }, list, sourceBase);
      }
    };
    if (inBacking === 0) return tail();
    const done = backing.collectExtents(guest, guest + inBacking, list, base);
    return settled(done) ? tail() : done.then(tail);
  }
}

/** A range that no cluster or subcluster is for; `host` −1 unless its cluster is there. */
interface Hole {
  readonly guest: number;
  readonly length: number;
  readonly host: number;
}

/** What an open image consists of. */
interface OpenImage {
  readonly storage: Storage;
  /** The file of plain clusters: `storage`, or the external data file. */
  readonly dataStorage: Storage;
  readonly backing: Disk | undefined;
  readonly metadata: Metadata;
  readonly mapping: Mapping;
  readonly reader: GuestReader;
  readonly stateReader: SnapshotOwner['stateReader'];
  /** Reads behind the disk's end. */
  readonly activeState: GuestReader;
  readonly writer: ImageWriter | undefined;
  /** Memory for one who reads a bitmap. */
  readonly bitmapReader: Region;
  readonly depth: number;
  readonly encryption: Encryption | undefined;
  /** Plain bytes of encrypted clusters. */
  readonly plainData: Storage | undefined;
}

/** Opens what the image consists of; whatever was opened is in `owned` when this throws. */
async function openImage(
  storage: Storage,
  options: Qcow2OpenOptions,
  owned: { close(): Awaitable<void> }[],
): Promise<OpenImage> {
  let metadata = await readMetadata(storage);
  const isEncrypted = metadata.header.cryptMethod !== CryptMethod.none;
  const crypto = isEncrypted ? await import('./encryption.ts') : undefined;
  const encryption = await crypto?.openEncryption(storage, metadata, options);
  if (options.writable && metadata.dirty && !metadata.corrupt && storage.writable) {
    const { repairDirty } = await import('./check.ts');
    metadata = await repairDirty(storage, options.onRepair);
  }
  const { header, geometry, snapshots } = metadata;
  const snapshot =
    options.snapshot === undefined ? undefined : findSnapshot(snapshots, options.snapshot);
  if (snapshot) checkSnapshotL1(snapshot, geometry.clusterSize, header.snapshotsOffset);
  const l1Place = snapshot
    ? { offset: snapshot.l1Offset, entries: snapshot.l1Entries }
    : { offset: header.l1Offset, entries: header.l1Entries };
  const l1 = await readL1(storage, l1Place);
  const dataStorage = await openDataFile(storage, metadata, options);
  if (dataStorage !== storage) owned.push(dataStorage);

  const workspace = options.workspace ?? new Workspace();
  const { writable = false, cacheBytes = L2_CACHE_BYTES_DEFAULT } = options;
  if (writable && snapshot) {
    throw new Qcow2Error('READ_ONLY', 'snapshots are read-only');
  }
  const memory = reserveMemory(workspace, metadata, { cacheBytes, writable });
  const backing = await openBacking(metadata, options);
  if (backing) owned.push(backing);

  const flags =
    (header.version === 2 ? L2Flags.version2 : 0) | (metadata.dataFile ? L2Flags.dataFile : 0);
  const sliceBytes = Math.min(geometry.clusterSize, L2_SLICE_BYTES_MAX);
  const writer = writable
    ? await (await import('./writer.ts')).ImageWriter.open({
        storage,
        data: dataStorage,
        backing,
        metadata,
        l1,
        l2Region: memory.tables,
        refcountRegion: memory.refcounts,
        discardPolicy: options,
        scratch: memory.scratch,
        encryption,
        overlapCheck: options.overlapCheck,
        lazyRefcounts: options.lazyRefcounts,
        bitmapRegion: memory.bitmapBits,
        onCorruption: options.onCorruption,
      })
    : undefined;
  const cache = writer?.store.l2 ?? new TableCache(storage, memory.tables, sliceBytes);
  const l1Offset = l1Place.offset;
  const { records } = memory;
  const mapping = new Mapping({ geometry, l1, l1Offset, flags, cache, records });
  const readParts = {
    mapping,
    storage,
    data: dataStorage,
    backing,
    codec: header.compression,
    clusterSize: geometry.clusterSize,
    stream: memory.stream,
    cluster: memory.cluster,
    lock: writer?.store.lock,
    corruption: writer?.store.corruption ?? new CorruptionWatch(options.onCorruption),
    encryption,
  };
  const reader = new GuestReader(readParts);
  const { stateCluster } = memory;
  const stateReader = async (of: Snapshot) => {
    checkSnapshotL1(of, geometry.clusterSize, header.snapshotsOffset);
    const table = await readL1(storage, { offset: of.l1Offset, entries: of.l1Entries });
    const state = new Mapping({
      geometry,
      l1: table,
      l1Offset: of.l1Offset,
      flags,
      cache,
      records,
    });
    const parts = { ...readParts, mapping: state, backing: undefined, cluster: stateCluster };
    return new GuestReader(parts);
  };
  await writer?.attach(mapping, reader);
  const depth = options.depth ?? 0;
  const diskSize = () => writer?.header.size ?? header.size;
  let plainData: Storage | undefined;
  if (encryption) {
    const { plainStorage } = await import('./plain-storage.ts');
    plainData = plainStorage(encryption, { dataStorage, reader }, diskSize);
  }
  return {
    storage,
    dataStorage,
    backing,
    metadata,
    mapping,
    reader,
    stateReader,
    activeState: new GuestReader({ ...readParts, backing: undefined, cluster: stateCluster }),
    writer,
    bitmapReader: memory.bitmapReader,
    depth,
    encryption,
    plainData,
  };
}

async function openDataFile(
  storage: Storage,
  { dataFile, extensions }: Metadata,
  options: Qcow2OpenOptions,
): Promise<Storage> {
  if (!dataFile) return storage;
  if (extensions.dataFileName === undefined && !options.dataFileUnnamed) {
    throw new Qcow2Error('CORRUPT', "'data-file' is required for this image", 72);
  }
  if (!options.dataFile) {
    throw new Qcow2Error('REFUSED', `no gate opens the data file '${extensions.dataFileName}'`);
  }
  return options.dataFile(extensions.dataFileName ?? '');
}

async function openBacking(
  { backingName, extensions }: Metadata,
  options: Qcow2OpenOptions,
): Promise<Disk | undefined> {
  if (options.backing === 'none' || !(backingName || options.backingUnnamed)) return undefined;
  if (!options.backing) {
    throw new Qcow2Error('REFUSED', `no gate opens the backing file '${backingName}'`);
  }
  try {
    return await options.backing(backingName ?? '', extensions.backingFormat);
  } catch (cause) {
    // As QEMU says it, once for each step down the chain; of a ring one step says enough.
    if (!isQcow2Error(cause) || cause.code === 'OUT_OF_RANGE') throw cause;
    const message = `Could not open backing file: ${cause.message}`;
    throw new Qcow2Error(cause.code, message, cause.at, cause);
  }
}

/**
 * Kernel memory. A reader needs no more for tables than the whole disk's take; a writer's disk may
 * grow.
 */
function reserveMemory(
  workspace: Workspace,
  { header, geometry, bitmaps }: Metadata,
  { cacheBytes, writable }: { readonly cacheBytes: number; readonly writable: boolean },
) {
  const { clusterSize, l2Entries } = geometry;
  const sliceBytes = Math.min(clusterSize, L2_SLICE_BYTES_MAX);
  assert(cacheBytes > 0, 'cacheBytes must be positive');
  const whole = Math.max(l1EntriesFor(header.size, geometry), header.l1Entries, 1) * clusterSize;
  const tables = Math.max(sliceBytes, Math.min(cacheBytes, whole));
  const unitsPerSlice = (l2Entries * sliceBytes * (geometry.extendedL2 ? 32 : 1)) / clusterSize;
  // Runs of a slice at worst; beyond 64 K records a slice is decoded in several steps.
  const records = Math.min(unitsPerSlice, 65536) * RUN_BYTES;
  return {
    tables: workspace.reserve(writable ? Math.max(2 * sliceBytes, cacheBytes) : tables),
    refcounts: workspace.reserve(writable ? Math.max(4 * clusterSize, REFCOUNT_CACHE_BYTES) : 0),
    records: workspace.reserve(records),
    scratch: workspace.reserve(
      writable ? ((l2Entries * sliceBytes) / clusterSize) * SCRATCH_BYTES_PER_ENTRY : 0,
    ),
    stream: workspace.reserve(2 * clusterSize + 512 + INPUT_SLACK),
    cluster: workspace.reserve(clusterSize),
    stateCluster: workspace.reserve(clusterSize),
    bitmapReader: workspace.reserve(
      writable || bitmaps.length > 0 ? bitmapReaderBytes(clusterSize) : 0,
    ),
    bitmapBits: workspace.reserve(
      writable ? Math.max(BITMAP_CACHE_BYTES, 2 * bitmapSliceBytes(clusterSize)) : 0,
    ),
  };
}
