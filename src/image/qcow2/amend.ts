/**
 * Amending: what an image was made with changes afterwards. What makes no sense is refused before
 * anything changes; then each change is one that a power cut leaves undone or done. The way to
 * version 2 comes last, and whether it is open depends on what the others made: where it is not,
 * the others stay, as with QEMU.
 */
import { divFloor } from '../../base/bits.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { Autoclear, Compatible, hasFeature, Incompatible } from '../../format/feature-bits.ts';
import { HEADER_BYTES_V2, HEADER_BYTES_V3, type Header } from '../../format/header.ts';
import { FEATURE_NAMES, type HeaderClusterParts } from '../../format/header-cluster.ts';
import { SNAPSHOT_EXTRA_BYTES_V3 } from '../../format/snapshot-table.ts';
import { withDirtyBit } from './dirty-guard.ts';
import { expandActiveZeros, expandSnapshotZeros } from './expand-zeros.ts';
import type { MetadataStore } from './metadata-store.ts';
import { readL1 } from './open.ts';
import { changeRefcountWidth } from './refcount-width.ts';
import { l2TablesOf, slicesOf } from './references.ts';
import { rewriteHeader } from './rewrite-header.ts';
import { writeSnapshotTable } from './snapshot-store.ts';
import type { WriteParts } from './write-parts.ts';

/** What is to change; what is left out stays. */
export interface AmendOptions {
  readonly version?: 2 | 3 | undefined;
  /** The virtual size: a new version comes before it, an old one after it. */
  readonly size?: number | undefined;
  /** Bits of a refcount: a power of two up to 64. */
  readonly refcountBits?: number | undefined;
  readonly lazyRefcounts?: boolean | undefined;
  /** The name of the external data file, of an image that has one; empty: it is given elsewhere. */
  readonly dataFile?: string | undefined;
  /** Only `false` where the data file is not raw by now. */
  readonly dataFileRaw?: boolean | undefined;
  /** Hears of what takes long, another refcount width and the way to version 2: its steps. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/**
 * Carries out changes of an image; the caller holds every range.
 * @param steps hear of what takes long
 * @throws Qcow2Error UNSUPPORTED for what cannot be; OUT_OF_RANGE for counts too large for a width
 */
export async function amendImage(
  parts: WriteParts,
  options: Omit<AmendOptions, 'size' | 'onProgress'>,
  steps: AmendSteps,
): Promise<void> {
  const { store } = parts;
  refuseAmendment(parts, options);
  const { version = store.header.version, refcountBits, lazyRefcounts } = options;
  const change = (work: (header: HeaderClusterParts) => HeaderClusterParts) =>
    store.lock.run(async () => {
      await store.order.flush();
      await rewriteHeader(store, work);
    });
  const changeHeader = (work: (header: Header) => Partial<Header>) =>
    change((all) => ({ ...all, header: { ...all.header, ...work(all.header) } }));

  if (version > store.header.version) {
    const onStep = steps.operation();
    onStep(0, 2);
    // Version 2 lets entries leave out what version 3 asks for.
    const isShort = store.snapshots.some((one) => one.extraBytes < SNAPSHOT_EXTRA_BYTES_V3);
    if (isShort) await store.lock.run(() => writeSnapshotTable(parts, store.snapshots));
    onStep(1, 2);
    await change(upgraded);
    onStep(2, 2);
  }
  if (refcountBits !== undefined && isOtherWidth(store, refcountBits)) {
    const order = Math.log2(refcountBits);
    const onStep = steps.operation();
    await store.lock.run(() => changeRefcountWidth(parts, order, onStep));
  }
  const { dataFile, dataFileRaw } = options;
  if (dataFileRaw === false && hasFeature(store.header.autoclear, Autoclear.rawDataFile)) {
    await changeHeader(({ autoclear }) => ({
      autoclear: withBit(autoclear, Autoclear.rawDataFile, false),
    }));
  }
  if (dataFile !== undefined) {
    await change(({ extensions: { dataFileName: _, ...others }, ...all }) => ({
      ...all,
      extensions: dataFile === '' ? others : { ...others, dataFileName: dataFile },
    }));
  }
  const isLazy = hasFeature(store.header.compatible, Compatible.lazyRefcounts);
  if (lazyRefcounts !== undefined && lazyRefcounts !== isLazy) {
    if (isLazy) await settleCounts(parts);
    await changeHeader(({ compatible }) => ({
      compatible: withBit(compatible, Compatible.lazyRefcounts, lazyRefcounts),
    }));
  }
  if (version >= store.header.version) return;
  await store.lock.run(() => refuseDowngrade(parts));
  await downgrade(parts, change, steps.operation());
}

type OnStep = (done: number, total: number) => void;

const isOtherWidth = ({ geometry }: MetadataStore, bits: number) =>
  bits !== 2 ** geometry.refcountOrder;

/**
 * Operations one after another as one count of steps. How many steps the later ones have is not
 * known before they begin: until then it is as many as those before them have, on average.
 */
export class AmendSteps {
  private readonly onProgress: AmendOptions['onProgress'];
  private readonly operations: number;
  private begun = 0;
  /** Steps of the operations before the present one. */
  private before = 0;
  private size = 0;

  constructor(store: MetadataStore, { version, refcountBits, onProgress }: AmendOptions) {
    const otherVersion = version !== undefined && version !== store.header.version;
    const otherWidth = refcountBits !== undefined && isOtherWidth(store, refcountBits);
    this.operations = (otherVersion ? 1 : 0) + (otherWidth ? 1 : 0);
    this.onProgress = onProgress;
  }

  /** Begins the next operation; its steps are told to what this gives. */
  operation(): OnStep {
    this.begun++;
    this.before += this.size;
    this.size = 0;
    return (done, size) => {
      this.size = size;
      const known = this.before + size;
      const unknown = divFloor(known * (this.operations - this.begun), this.begun);
      this.onProgress?.(this.before + done, known + unknown);
    };
  }
}

const no = (message: string) => new Qcow2Error('UNSUPPORTED', message);

/** @throws Qcow2Error UNSUPPORTED for what an image cannot be made into; nothing has changed */
export function refuseAmendment({ store, bitmaps }: WriteParts, options: AmendOptions): void {
  const { header, hasDataFile, geometry } = store;
  const { version = header.version, refcountBits, lazyRefcounts } = options;
  if (options.dataFile !== undefined && !hasDataFile) {
    throw no('data-file can only be set for images that use an external data file');
  }
  if (options.dataFileRaw && !hasFeature(header.autoclear, Autoclear.rawDataFile)) {
    throw no('data-file-raw cannot be set on existing images');
  }
  const bits = refcountBits ?? 2 ** geometry.refcountOrder;
  if (bits > 64 || !Number.isInteger(Math.log2(bits))) {
    throw no('Refcount width must be a power of two and may not exceed 64 bits');
  }
  const needs = 'compatibility level 1.1';
  if (version < 3 && bits !== 2 ** geometry.refcountOrder) {
    const what = 'Refcount widths other than 16 bits require';
    if (bits !== 16) throw no(`${what} ${needs} or above (use compat=1.1 or greater)`);
  }
  if (version < 3 && lazyRefcounts) {
    throw no(`Lazy refcounts only supported with ${needs} and above (use compat=1.1 or greater)`);
  }
  if (version < header.version && bitmaps.bitmaps.length > 0) {
    throw no('Cannot downgrade an image with bitmaps');
  }
}

/** @throws Qcow2Error UNSUPPORTED for an image that cannot be one of version 2 as it is */
async function refuseDowngrade(parts: WriteParts): Promise<void> {
  const { store } = parts;
  const { header, hasDataFile, geometry, snapshots } = store;
  if (hasDataFile) throw no('Cannot downgrade an image with a data file');
  if (geometry.refcountOrder !== 4) throw no('compat=0.10 requires refcount_bits=16');
  const differs = snapshots.some(
    ({ vmStateBytes, virtualSize }) => vmStateBytes > 0xffff_ffff || virtualSize !== header.size,
  );
  if (differs) throw no('Internal snapshots prevent downgrade of image');
  // A compression that nothing is compressed with is one like the other.
  if (header.compression !== 'deflate' && (await hasCompressedClusters(parts))) {
    const what = 'zstd compression type and existing compressed clusters';
    throw no(`Cannot downgrade an image with ${what}`);
  }
  const clean = withBit(header.incompatible, Incompatible.dirty, false);
  const { low, high } = withBit(clean, Incompatible.compressionType, false);
  if (low !== 0 || high !== 0) {
    throw no(`Cannot downgrade an image with incompatible features 0x${low.toString(16)} set`);
  }
}

/** Whether there are any, in the disk or in a snapshot. */
async function hasCompressedClusters({ store, tables }: WriteParts): Promise<boolean> {
  const found = new Set<number>();
  for (let index = 0; index < store.l1Entries; index++) {
    const { host } = store.l1Entry(index);
    if (host !== 0) found.add(host);
  }
  for (const { l1Offset: offset, l1Entries: entries } of store.snapshots) {
    const l1 = await readL1(store.storage, { offset, entries });
    for (const { host } of l2TablesOf(store, l1, offset)) found.add(host);
  }
  for (const table of found) {
    for await (const slice of slicesOf(store, table)) {
      for (let at = 0; at < store.l2.sliceBytes; at += store.geometry.l2EntryBytes) {
        if (tables.read({ slice, at, guest: 0 }).kind === 'compressed') return true;
      }
    }
  }
  return false;
}

function withBit(word: { readonly high: number; readonly low: number }, bit: number, on: boolean) {
  const { high, low } = word;
  return { high, low: (on ? low | (1 << bit) : low & ~(1 << bit)) >>> 0 };
}

/** Refcounts that lag behind are brought to the disk, and the image is clean. */
async function settleCounts({ store }: WriteParts): Promise<void> {
  await store.lock.run(async () => {
    await store.order.flush();
    await store.refcountBlocks.writeDirty();
    await store.order.flushStorage();
    if (!store.unsound) await store.setIncompatible(Incompatible.dirty, false);
    store.order.lazy = false;
    store.order.becomeLazy = undefined;
  });
}

/** What a failure on the way to version 2 says; its cause says why. */
export const EXPANDING_FAILED = 'Failed to turn zero into data clusters';

const NO_BITS = { high: 0, low: 0 };

function upgraded({ header, extensions, backingName }: HeaderClusterParts): HeaderClusterParts {
  const next = {
    header: {
      ...header,
      version: 3 as const,
      headerLength: HEADER_BYTES_V3,
      unknownFields: new Uint8Array(HEADER_BYTES_V3 - 105),
    },
    extensions: { ...extensions, featureNames: FEATURE_NAMES },
    backingName,
  };
  // Names of features are for people: the smallest clusters have no room for them beside others.
  const isSmall = header.clusterBits < 11;
  return isSmall ? { ...next, extensions: { ...extensions, featureNames: [] } } : next;
}

async function downgrade(
  parts: WriteParts,
  change: (work: (header: HeaderClusterParts) => HeaderClusterParts) => Promise<void>,
  onStep: OnStep,
): Promise<void> {
  await settleCounts(parts);
  await expandZeros(parts, onStep);
  await settleCounts(parts);
  await change(({ header, extensions, backingName }) => ({
    header: {
      ...header,
      version: 2,
      headerLength: HEADER_BYTES_V2,
      compression: 'deflate',
      unknownFields: new Uint8Array(),
      incompatible: NO_BITS,
      compatible: NO_BITS,
      autoclear: NO_BITS,
    },
    extensions: { ...extensions, featureNames: [] },
    backingName,
  }));
}

async function expandZeros(parts: WriteParts, onStep: OnStep): Promise<void> {
  const { store } = parts;
  const { snapshots, l1Entries } = store;
  const total = snapshots.reduce((sum, one) => sum + one.l1Entries, l1Entries);
  try {
    await expandActiveZeros(parts, (done) => onStep(done, total));
    if (snapshots.length > 0) {
      const done = (count: number) => onStep(l1Entries + count, total);
      await store.lock.run(() => withDirtyBit(store, () => expandSnapshotZeros(parts, done)));
    }
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    await store.corruption.note(cause);
    throw new Qcow2Error(cause.code, EXPANDING_FAILED, cause.at, cause);
  }
}
