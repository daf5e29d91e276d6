/**
 * An image as a check looks at it: its file, its header, and the tables that say where the others
 * are. Nothing of it need be sound. All writes of a repair go through here.
 */
import { type Awaitable, settled } from '../../base/awaitable.ts';
import { viewOf } from '../../base/be.ts';
import { alignUp, divCeil, HIGH } from '../../base/bits.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { Autoclear, hasFeature, Incompatible } from '../../format/feature-bits.ts';
import type { Geometry } from '../../format/geometry.ts';
import type { Header } from '../../format/header.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { Storage } from '../../storage/storage.ts';
import { Findings, hex64, type Repair } from './check-findings.ts';
import { numberBytes, u64Bytes } from './metadata-store.ts';
import type { Metadata } from './open.ts';

/** One entry of the snapshot table, as far as a check needs it; the rest is kept as bytes. */
export interface CheckedSnapshot {
  /** The 40 bytes in front. */
  readonly fixed: Uint8Array;
  /** Extra data, at most 1024 bytes of it. */
  extra: Uint8Array;
  readonly id: Uint8Array;
  readonly name: Uint8Array;
}

/** Places of metadata that nothing else may be written to, in the order they are looked up. */
const PLACES = [
  'qcow2_header',
  'active L1 table',
  'refcount table',
  'snapshot table',
  'inactive L1 table',
  'active L2 table',
  'refcount block',
  'bitmap directory',
] as const;
/** The name of a place of metadata, as messages have it. */
export type Place = (typeof PLACES)[number];

/** What stops a check; its message says why, as the C library would. */
export function stopped(why: string, cause?: unknown): Qcow2Error {
  return new Qcow2Error('CORRUPT', why, undefined, cause);
}

/** A u64 that no offset or size may be: reading there is an error, not zeros. */
export function isBeyondReach(offset: number): boolean {
  return offset >= 2 ** 63;
}

/** The image under check. */
export class CheckedImage {
  header: Header;
  /** The active L1 table, as it is in the file. */
  l1 = new Uint8Array();
  snapshots: CheckedSnapshot[] = [];
  snapshotsOffset = 0;
  snapshotsBytes = 0;
  /** Host offsets of refcount blocks, 0 where there is none, whatever is wrong with them. */
  refcountTable = new Float64Array();
  /** The table's entries as they are: above 2^62 their offsets are not exact as numbers. */
  private refcountEntries = viewOf(new Uint8Array());
  /** Clusters that the file takes, and those that references may reach behind its end. */
  clusters = 0;
  fileBytes = 0;
  /** What is found, and what of it is put right: of the check that is under way. */
  findings = new Findings(undefined);
  repair: Repair | undefined;
  private signaled = false;

  private constructor(
    readonly storage: Storage,
    readonly metadata: Metadata,
  ) {
    this.header = metadata.header;
  }

  /**
   * Reads what a check starts from: the tables that an open image has in memory. They stay what
   * they are for a second check, whatever a repair made of the file.
   * @param metadata as `readCheckMetadata` gives it
   */
  static async open(storage: Storage, metadata: Metadata): Promise<CheckedImage> {
    const image = new CheckedImage(storage, metadata);
    image.fileBytes = await storage.size();
    const { l1Offset, l1Entries } = image.header;
    image.l1 = new Uint8Array(l1Entries * 8);
    await image.read(l1Offset, image.l1);
    await image.readRefcountTable();
    return image;
  }

  get geometry(): Geometry {
    return this.metadata.geometry;
  }

  get hasDataFile(): boolean {
    return this.metadata.dataFile;
  }

  /** Everything that is wrong is to be put right. */
  get repairsAll(): boolean {
    return this.repair === 'all';
  }

  /** Clusters of the file, a part at its end among them. */
  get fileClusters(): number {
    return divCeil(this.fileBytes, this.geometry.clusterSize);
  }

  /** Fills bytes from the file; what lies past its end is zeros. */
  read(at: number, into: Uint8Array): Awaitable<void> {
    if (isBeyondReach(at)) throw stopped('Input/output error');
    const got = at < this.fileBytes ? readFully(this.storage, at, into) : 0;
    if (!settled(got)) return got.then((bytes) => void into.fill(0, bytes));
    if (got < into.length) into.fill(0, got);
  }

  async write(at: number, bytes: Uint8Array): Promise<void> {
    await this.storage.write(at, bytes);
    this.fileBytes = Math.max(this.fileBytes, at + bytes.length);
  }

  /** Reads the refcount table that the header names. */
  async readRefcountTable(): Promise<void> {
    const { refcountTableOffset: at, refcountTableClusters: clusters } = this.header;
    const bytes = new Uint8Array(clusters * this.geometry.clusterSize);
    await this.read(at, bytes);
    const view = viewOf(bytes);
    this.refcountTable = new Float64Array(bytes.length / 8);
    this.refcountEntries = view;
    for (let index = 0; index < this.refcountTable.length; index++) {
      const low = view.getUint32(index * 8 + 4);
      this.refcountTable[index] = view.getUint32(index * 8) * HIGH + ((low & ~511) >>> 0);
    }
  }

  /** The low 9 bits of a refcount table entry, which are reserved. */
  refcountReserved(index: number): number {
    return this.refcountEntries.getUint32(index * 8 + 4) & 511;
  }

  /** Whether a refcount table entry names the start of a cluster, if any. */
  isRefcountBlockAligned(index: number): boolean {
    if (index >= this.refcountTable.length) return true;
    const low = this.refcountEntries.getUint32(index * 8 + 4) - this.refcountReserved(index);
    return low % this.geometry.clusterSize === 0;
  }

  /** The digits of the offset in a refcount table entry. */
  refcountBlockHex(index: number): string {
    const low = this.refcountEntries.getUint32(index * 8 + 4) - this.refcountReserved(index);
    return hex64(this.refcountEntries.getUint32(index * 8), low);
  }

  /** Hooks a new refcount table up in the header, durably. */
  async switchRefcountTable(at: number, clusters: number): Promise<void> {
    await this.storage.flush();
    const fields = new Uint8Array(12);
    fields.set(numberBytes(at));
    viewOf(fields).setUint32(8, clusters);
    await this.write(48, fields);
    await this.storage.flush();
    this.header = { ...this.header, refcountTableOffset: at, refcountTableClusters: clusters };
  }

  /** Clears autoclear bits that nobody here keeps true: before anything is written. */
  async clearUnknownAutoclear(): Promise<void> {
    const { high, low } = this.header.autoclear;
    const known = low & ((1 << Autoclear.bitmaps) | (1 << Autoclear.rawDataFile));
    if (this.header.version === 2 || (high === 0 && low === known)) return;
    await this.write(88, u64Bytes({ high: 0, low: known }));
    this.header = { ...this.header, autoclear: { high: 0, low: known } };
  }

  /** Sets or clears bits of the incompatible features, durably. */
  async setIncompatible(bits: readonly number[], on: boolean): Promise<void> {
    const { high, low } = this.header.incompatible;
    const mask = bits.reduce((sum, bit) => sum | (1 << bit), 0);
    const changed = (on ? low | mask : low & ~mask) >>> 0;
    if (this.header.version === 2 || changed === low) return;
    await this.storage.flush();
    await this.write(72, u64Bytes({ high, low: changed }));
    await this.storage.flush();
    this.header = { ...this.header, incompatible: { high, low: changed } };
  }

  /**
   * Says that something is wrong that no check gets past. Where that ends the image's use, it is
   * marked.
   */
  async signalCorruption(what: string, fatal: boolean): Promise<void> {
    const marked = hasFeature(this.header.incompatible, Incompatible.corrupt);
    if (this.signaled && (!fatal || marked)) return;
    this.signaled = true;
    const [verdict, rest] = fatal
      ? ['Marking image as corrupt', 'corruption']
      : ['Image is corrupt', 'non-fatal corruption'];
    this.findings.say(`qcow2: ${verdict}: ${what}; further ${rest} events will be suppressed`);
    if (fatal) await this.setIncompatible([Incompatible.corrupt], true);
  }

  /**
   * Writes metadata, unless metadata of another kind lies there: then the image is marked corrupt.
   * @param as what is written
   * @returns whether it was
   */
  async writeMetadata(
    at: number,
    bytes: Uint8Array,
    as: Place | 'inactive L2' | 'new table',
  ): Promise<boolean> {
    const hit = this.placeAt(at, bytes.length, as);
    if (hit) {
      const what = `Preventing invalid write on metadata (overlaps with ${hit})`;
      await this.signalCorruption(what, true);
      return false;
    }
    await this.write(at, bytes);
    return true;
  }

  /** What metadata lies in the clusters of a range, `except` aside. */
  private placeAt(at: number, length: number, except: string): Place | undefined {
    const { clusterSize } = this.geometry;
    const start = at - (at % clusterSize);
    const end = alignUp(at + length, clusterSize);
    const meets = (from: number, bytes: number) => from < end && start < from + bytes;
    return PLACES.find((place) => place !== except && this.meetsPlace(place, meets));
  }

  private meetsPlace(place: Place, meets: (from: number, bytes: number) => boolean): boolean {
    const { header, geometry } = this;
    const { clusterSize } = geometry;
    switch (place) {
      case 'qcow2_header':
        return meets(0, clusterSize);
      case 'active L1 table':
        return meets(header.l1Offset, this.l1.length);
      case 'refcount table':
        return meets(header.refcountTableOffset, header.refcountTableClusters * clusterSize);
      case 'snapshot table':
        return meets(this.snapshotsOffset, this.snapshotsBytes);
      case 'inactive L1 table':
        return this.snapshots.some((one) => meets(l1Of(one).offset, l1Of(one).entries * 8));
      case 'active L2 table': {
        const view = viewOf(this.l1);
        for (let entry = 0; entry < this.l1.length; entry += 8) {
          const host = l1Host(view, entry);
          if (host !== 0 && meets(host, clusterSize)) return true;
        }
        return false;
      }
      case 'refcount block':
        return this.refcountTable.some((host) => host !== 0 && meets(host, clusterSize));
      case 'bitmap directory': {
        const { bitmaps } = this.metadata.extensions;
        return bitmaps !== undefined && meets(bitmaps.directoryOffset, bitmaps.directoryBytes);
      }
    }
  }
}

/** Where a snapshot says that its L1 table is. */
export function l1Of({ fixed }: CheckedSnapshot): { offset: number; entries: number } {
  const view = viewOf(fixed);
  return {
    offset: view.getUint32(0) * HIGH + view.getUint32(4),
    entries: view.getUint32(8),
  };
}

/** The offset in an L1 entry, whatever else is in it. */
export function l1Host(view: DataView, at: number): number {
  return (view.getUint32(at) & 0x00ff_ffff) * HIGH + ((view.getUint32(at + 4) & ~511) >>> 0);
}

/** Why something failed, for a line that ends with it: the last part of the error's message. */
export function reasonOf(cause: unknown): string {
  if (!isQcow2Error(cause)) throw cause;
  return cause.message.slice(cause.message.lastIndexOf(': ') + 1).trimStart();
}
