/**
 * What an open image consists of, and how all of it is opened: metadata, memory, the files that the
 * image names, and for writing a writer. Those who use it see `qcow2-image.ts`.
 */
import type { Awaitable } from '../../base/awaitable.ts';
import { assert, isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { L2_CACHE_BYTES_DEFAULT, L2_SLICE_BYTES_MAX } from '../../base/limits.ts';
import { l1EntriesFor } from '../../format/geometry.ts';
import { CryptMethod } from '../../format/header.ts';
import { checkSnapshotL1, type Snapshot } from '../../format/snapshot-table.ts';
import { type Region, Workspace } from '../../kernels/arena.ts';
import { INPUT_SLACK, L2Flags, RUN_BYTES } from '../../kernels/kernels.ts';
import type { Storage } from '../../storage/storage.ts';
import type { Disk } from '../disk.ts';
import type { Secret } from '../secret.ts';
import { bitmapReaderBytes } from './bitmap-ranges.ts';
import { bitmapSliceBytes } from './bitmap-state.ts';
import type { CheckListener } from './check-findings.ts';
import { type CorruptionListener, CorruptionWatch } from './corruption.ts';
import type { Encryption } from './encryption.ts';
import type { DiscardPolicy } from './give-back.ts';
import { Mapping } from './mapping.ts';
import { checkRawDataFile, type Metadata, readL1, readMetadata } from './open.ts';
import type { OverlapOptions } from './overlap-options.ts';
import { GuestReader } from './read.ts';
import { SCRATCH_BYTES_PER_ENTRY } from './references.ts';
import { type QemuCaches, qemuSliceSpan } from './slice-span.ts';
import { findSnapshot, type SnapshotOwner, type SnapshotSelector } from './snapshots.ts';
import { TableCache } from './table-cache.ts';
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
  /**
   * Is shown the image's metadata before its key, its files or its tables are touched; what it
   * throws ends the opening.
   */
  readonly onMetadata?: ((metadata: Metadata) => Awaitable<void>) | undefined;
  /** What QEMU's caches would be like: they decide how far it looks at a time. */
  readonly qemuCaches?: QemuCaches | undefined;
  /** Opens for writing; storage and data file must be writable. */
  readonly writable?: boolean;
  /** Hears what is repaired of an image that was left dirty, which opening it for writing does. */
  readonly onRepair?: CheckListener | undefined;
  /** Hears of metadata that cannot be as it is, when it is met. */
  readonly onCorruption?: CorruptionListener | undefined;
  /** Hears of bitmaps that nobody vouches for: who wrote the image last knew of none. */
  readonly onStaleBitmaps?: ((version: 2 | 3) => void) | undefined;
}

/** What an open image consists of. */
export interface ImageParts {
  readonly storage: Storage;
  /** The file of plain clusters: `storage`, or the external data file. */
  readonly dataStorage: Storage;
  readonly backing: Disk | undefined;
  readonly metadata: Metadata;
  /** See `Qcow2Image.sliceSpan`. */
  readonly sliceSpan: number;
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
export async function openParts(
  storage: Storage,
  options: Qcow2OpenOptions,
  owned: { close(): Awaitable<void> }[],
): Promise<ImageParts> {
  let metadata = await readMetadata(storage);
  await options.onMetadata?.(metadata);
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
  if (metadata.extensions.bitmapsInconsistent) options.onStaleBitmaps?.(header.version);

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
    sliceSpan: qemuSliceSpan(metadata, options.qemuCaches),
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
  metadata: Metadata,
  options: Qcow2OpenOptions,
): Promise<Storage> {
  checkRawDataFile(metadata);
  const { dataFile, extensions } = metadata;
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
