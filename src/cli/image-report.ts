/** What `info` says of one image: facts from its metadata, in the words of QEMU's tools. */
import { alignUp } from '../base/bits.ts';
import { type BitmapDirectoryEntry, BitmapFlag } from '../format/bitmap-directory.ts';
import { Autoclear, Compatible, hasFeature } from '../format/feature-bits.ts';
import { CryptMethod } from '../format/header.ts';
import type { Snapshot } from '../format/snapshot-table.ts';
import { probeFormat } from '../image/formats.ts';
import { type Metadata, readMetadata } from '../image/qcow2/open.ts';
import type { Storage } from '../storage/storage.ts';
import type { JsonObject } from './json.ts';
import { bigOf, icountOf } from './snapshot-list.ts';

/** The backing file that an image names. */
export interface BackingReport {
  /** As stored in the image. */
  readonly name: string;
  /** As it has to be opened from here. */
  readonly path: string;
  readonly format: string | undefined;
}

/** One image. Sizes in bytes. */
export interface ImageReport {
  readonly filename: string;
  readonly format: string;
  readonly virtualSize: number;
  /** Undefined where nobody knows. */
  readonly allocatedBytes: number | undefined;
  readonly encrypted: boolean;
  readonly clusterSize: number | undefined;
  readonly dirty: boolean;
  /** False: there is nothing that could be dirty. */
  readonly knowsDirty?: boolean;
  readonly backing: BackingReport | undefined;
  readonly snapshots: readonly Snapshot[];
  /** What only this format has; its members are in the order that they are printed in. */
  readonly specific: JsonObject | undefined;
  /** Bitmaps stand in the file that nobody may trust any more. */
  readonly bitmapsInconsistent: 'version2' | 'version3' | undefined;
}

/** What the report cannot take from the image's own bytes. */
export interface ReportContext {
  readonly filename: string;
  /** `raw` or `qcow2`; found out from the content where not given. */
  readonly format: string | undefined;
  readonly allocatedBytes: number;
  /** Where a backing file of this name lies. */
  readonly resolve: (name: string) => string;
  /** Is shown a qcow2 image before it is reported; what it throws ends the report. */
  readonly check?: (metadata: Metadata) => void;
}

/**
 * Reads metadata only: neither the backing file nor the data file needs to be there.
 * @throws Qcow2Error as `readMetadata` does
 */
export async function reportImage(storage: Storage, context: ReportContext): Promise<ImageReport> {
  const format = context.format ?? (await probeFormat(storage));
  if (format === 'qcow2') {
    const metadata = await readMetadata(storage);
    context.check?.(metadata);
    const isLuks = metadata.header.cryptMethod === CryptMethod.luks;
    const luks = isLuks ? await import('./luks-report.ts') : undefined;
    return reportQcow2(metadata, await luks?.areaReport(storage, metadata), context);
  }
  const { filename, allocatedBytes } = context;
  const container = format === 'luks' ? await import('./luks-report.ts') : undefined;
  const luks = await container?.containerReport(storage);
  const size = (await storage.size()) - (luks?.payloadOffset ?? 0);
  return {
    filename,
    format,
    virtualSize: alignUp(Math.max(0, size), 512),
    allocatedBytes,
    encrypted: luks !== undefined,
    // Of a disk within another's: that of the image around it.
    clusterSize: storage.clusterBytes,
    dirty: false,
    backing: undefined,
    snapshots: [],
    specific: luks && { type: 'luks', data: luks.data },
    bitmapsInconsistent: undefined,
  };
}

function reportQcow2(
  metadata: Metadata,
  luks: JsonObject | undefined,
  context: ReportContext,
): ImageReport {
  const { header, extensions, geometry, backingName, snapshots, dirty } = metadata;
  const { filename, allocatedBytes, resolve } = context;
  return {
    filename,
    format: 'qcow2',
    virtualSize: header.size,
    allocatedBytes,
    encrypted: header.cryptMethod !== CryptMethod.none,
    clusterSize: geometry.clusterSize,
    dirty,
    backing: backingName
      ? { name: backingName, path: resolve(backingName), format: extensions.backingFormat }
      : undefined,
    // With an external data file there can be none, whatever the header says.
    snapshots: metadata.dataFile ? [] : snapshots,
    specific: { type: 'qcow2', data: specificMembers(metadata, luks) },
    bitmapsInconsistent: extensions.bitmapsInconsistent ? `version${header.version}` : undefined,
  };
}

function specificMembers(metadata: Metadata, luks: JsonObject | undefined): JsonObject {
  const { header, extensions, geometry, bitmaps, dataFile, corrupt } = metadata;
  const v3 = header.version === 3;
  return {
    compat: v3 ? '1.1' : '0.10',
    'compression-type': header.compression === 'zstd' ? 'zstd' : 'zlib',
    'lazy-refcounts': v3 ? hasFeature(header.compatible, Compatible.lazyRefcounts) : undefined,
    bitmaps: bitmaps.length > 0 ? bitmaps.map(bitmapMembers) : undefined,
    'refcount-bits': 2 ** header.refcountOrder,
    'data-file': dataFile ? extensions.dataFileName : undefined,
    encrypt: header.cryptMethod === CryptMethod.aes ? { format: 'aes' } : luks,
    'data-file-raw': dataFile ? hasFeature(header.autoclear, Autoclear.rawDataFile) : undefined,
    corrupt: v3 ? corrupt : undefined,
    'extended-l2': v3 ? geometry.extendedL2 : undefined,
  };
}

function bitmapMembers({ flags, granularityBits, name }: BitmapDirectoryEntry): JsonObject {
  const names = [
    flags & BitmapFlag.inUse ? 'in-use' : undefined,
    flags & BitmapFlag.auto ? 'auto' : undefined,
  ];
  return {
    flags: names.filter((flag) => flag !== undefined),
    name,
    granularity: 2 ** granularityBits,
  };
}

/** Members of one snapshot in JSON. */
export function snapshotMembers(snapshot: Snapshot): JsonObject {
  const clock = bigOf(snapshot.clock);
  return {
    icount: icountOf(snapshot),
    'vm-clock-nsec': clock % 1_000_000_000n,
    name: snapshot.name,
    'date-sec': snapshot.dateSeconds,
    'date-nsec': snapshot.dateNanoseconds,
    'vm-clock-sec': clock / 1_000_000_000n,
    id: snapshot.id,
    'vm-state-size': snapshot.vmStateBytes,
  };
}
