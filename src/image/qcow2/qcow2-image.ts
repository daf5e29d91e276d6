/**
 * The public face of a qcow2 image: an open `Disk` with what the image says about itself. Holds no
 * algorithm; those are in the files beside it. What most who open an image do without (writing,
 * encryption, checks) is loaded when it is asked for.
 */
import type { Awaitable } from '../../base/awaitable.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import type { KeySlotChange } from '../../crypto/luks-slots.ts';
import { Autoclear, hasFeature, Incompatible } from '../../format/feature-bits.ts';
import type { Header } from '../../format/header.ts';
import { holdHead } from '../../storage/held-head.ts';
import type { Storage } from '../../storage/storage.ts';
import {
  type DataSource,
  type Disk,
  type Extent,
  type ExtentList,
  iterateExtents,
  type ResizeOptions,
  type WritableDisk,
  type WriteUnderWay,
  type ZeroOptions,
} from '../disk.ts';
import type { AmendOptions } from './amend.ts';
import { BitmapReader } from './bitmap-ranges.ts';
import { BitmapState } from './bitmap-state.ts';
import { Bitmaps } from './bitmaps.ts';
import type { CheckOptions } from './check.ts';
import type { CheckResult } from './check-findings.ts';
import type { Qcow2CreateOptions, writeFreshImage } from './create.ts';
import type { EncryptionChoice } from './encrypt-fresh.ts';
import type { Encryption } from './encryption.ts';
import { collectImageExtents, ownSources, visitRuns } from './image-extents.ts';
import { type ImageParts, openParts, type Qcow2OpenOptions } from './image-parts.ts';
import type { RunVisitor } from './mapping.ts';
import { Snapshots } from './snapshots.ts';
import { vmStateOffset } from './vm-state.ts';
import type { ImageWriter } from './writer.ts';

export type { Qcow2OpenOptions } from './image-parts.ts';

/** What becomes of a new image's size is said as QEMU says it. @throws Qcow2Error */
function notResized(cause: unknown): never {
  if (!isQcow2Error(cause)) throw cause;
  const { code, message, at } = cause;
  throw new Qcow2Error(code, `Could not resize image: ${message}`, at, cause.cause);
}

/** An open qcow2 image. */
export class Qcow2Image implements WritableDisk {
  readonly format = 'qcow2';
  readonly sources: readonly DataSource[];

  private constructor(private readonly parts: ImageParts) {
    this.sources = [...ownSources(parts), ...(parts.backing?.sources ?? [])];
  }

  /**
   * Opens an image for reading. Images with the dirty or the corrupt bit open: reading them needs
   * no refcounts.
   * @throws Qcow2Error NOT_QCOW2, CORRUPT, UNSUPPORTED, REFUSED or IO
   */
  static async open(storage: Storage, options: Qcow2OpenOptions = {}): Promise<Qcow2Image> {
    const owned: { close(): Awaitable<void> }[] = [storage];
    try {
      return new Qcow2Image(await openParts(storage, options, owned));
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
      await image.resize(fresh.size, fresh).catch(notResized);
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

  /** Guest bytes that one slice of an L2 table maps for QEMU, which looks no further at a time. */
  get sliceSpan(): number {
    return this.parts.sliceSpan;
  }

  /** The size of a cluster. */
  get clusterSize(): number {
    return this.parts.metadata.geometry.clusterSize;
  }

  /** The unit of allocation: a subcluster, or a cluster where there are none. */
  get subclusterSize(): number {
    return this.parts.metadata.geometry.subclusterSize;
  }

  /** Plain clusters are encrypted. */
  get isEncrypted(): boolean {
    return this.parts.encryption !== undefined;
  }

  /** The file that plain clusters are in, as it is. */
  get dataStorage(): Storage {
    return this.parts.dataStorage;
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
    // Who debugs requests may hold one that writes: QEMU's reads do not wait for it.
    const isDebugged = this.parts.storage.announce !== undefined;
    if (!writer || isDebugged) return reader.read(guest, into);
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

  async writeAhead(guest: number, from: Uint8Array): Promise<WriteUnderWay> {
    return this.needWriter().writeAhead(guest, from);
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
    const writer = this.needWriter();
    await writer.makeEmpty();
    if (!this.isSimple) return;
    const { leaksFixed } = await this.check({ repair: 'leaks' });
    // What leaked may have been all that was left at the end of the file.
    if (leaksFixed > 0) await writer.makeEmpty();
  }

  /** Tables and the disk's clusters are all there is. Such an image is made anew by QEMU. */
  private get isSimple(): boolean {
    const { header, bitmaps, snapshots } = this;
    const isPlain = header.version > 2 && !hasFeature(header.incompatible, Incompatible.dataFile);
    const has = snapshots.list().length + bitmaps.list().length > 0;
    return isPlain && !has && this.parts.encryption === undefined;
  }

  /**
   * Changes what the image was made with. It has to be closed then, and opened anew for more.
   * @throws Qcow2Error UNSUPPORTED for what cannot change, OUT_OF_RANGE for refcounts that do not
   * fit: nothing has changed then, but that what is asked for beside version 2 stays where the
   * image cannot be of that version
   */
  async amend(options: AmendOptions): Promise<void> {
    await this.needWriter().amend(options);
  }

  /**
   * Judges an amendment, but for its size, without carrying it out.
   * @throws Qcow2Error UNSUPPORTED for what the image cannot be made into
   */
  async refuseAmendment(options: AmendOptions): Promise<void> {
    await this.needWriter().refuseAmendment(options);
  }

  /** Whether there may be a backing file: a raw data file is all of the disk, and hides it. */
  get mayHaveBacking(): boolean {
    return !hasFeature(this.header.autoclear, Autoclear.rawDataFile);
  }

  /** @throws Qcow2Error UNSUPPORTED for an image that cannot have a backing file */
  refuseBacking(): void {
    if (this.mayHaveBacking) return;
    const message = 'an image with a raw data file cannot have a backing file';
    throw new Qcow2Error('UNSUPPORTED', message);
  }

  /**
   * Makes the header name another backing file, or none. Nothing of the disk is read or written:
   * this open image goes on with the one it has.
   * @throws Qcow2Error OUT_OF_RANGE where the header's cluster has no room; UNSUPPORTED where there
   * can be none
   */
  async setBackingName(
    backing: { readonly name: string; readonly format: string } | undefined,
  ): Promise<void> {
    const writer = this.needWriter();
    if (backing) this.refuseBacking();
    await writer.setBackingName(backing);
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
    await this.keySlots().changeKeySlots(change);
  }

  /** @throws Qcow2Error UNSUPPORTED where the image has no key slots */
  needKeySlots(): void {
    this.keySlots();
  }

  private keySlots(): Encryption {
    const { encryption } = this.parts;
    if (!encryption) {
      const message = "Can't amend encryption options - encryption not present";
      throw new Qcow2Error('UNSUPPORTED', message);
    }
    encryption.needKeySlots();
    return encryption;
  }

  async flush(): Promise<void> {
    await this.parts.writer?.flush();
  }

  extents(from = 0, to = this.size): AsyncIterable<Extent> {
    return iterateExtents(this, from, to);
  }

  /**
   * What the image itself has of the guest range [from, to), in order and without gaps.
   * @throws Qcow2Error CORRUPT or IO
   */
  visitRuns(from: number, to: number, visitor: RunVisitor): Awaitable<void> {
    return visitRuns(this.parts, { from, to }, visitor);
  }

  /**
   * Where the stretch ends that no L2 table is for and that a guest offset lies in; the offset
   * itself, where an L1 entry names a table.
   */
  emptyFrom(at: number): number {
    return this.parts.mapping.emptyFrom(at, this.size);
  }

  collectExtents(from: number, to: number, list: ExtentList, sourceBase = 0): Awaitable<void> {
    return collectImageExtents(this.parts, { from, to }, list, sourceBase);
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
}
