/**
 * Checking an image, and repairing it: all references are counted and compared with the refcounts,
 * then the COPIED flags with these. What is found, in which order and in what words are QEMU's, so
 * that scripts which read them need not know who did it.
 *
 * A repair keeps what it was not asked to change, and is safe to interrupt: refcounts go up before
 * they are relied upon, new tables are on disk before the header names them, and the marks that say
 * that something is wrong go last.
 */
import { divCeil } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { Incompatible } from '../../format/feature-bits.ts';
import type { Storage } from '../../storage/storage.ts';
import { checkCopiedFlags } from './check-copied.ts';
import { ReferenceCounts } from './check-counts.ts';
import {
  type CheckListener,
  type CheckNumbers,
  type CheckResult,
  Findings,
  noNumbers,
  type Repair,
} from './check-findings.ts';
import { CheckedImage, reasonOf, stopped } from './check-image.ts';
import { readCheckMetadata } from './check-open.ts';
import { canRebuild, REBUILD_BYTES, rebuildRefcounts, rebuildRoom } from './check-rebuild.ts';
import { StoredRefcounts, UNREADABLE } from './check-refcounts.ts';
import { ReferenceWalk } from './check-references.ts';
import { fixSnapshotTable, readSnapshotTable } from './check-snapshots.ts';
import { type Metadata, readMetadata } from './open.ts';

/** How an image is checked. */
export interface CheckOptions {
  /** What of it is put right; the storage must be writable. Default: nothing. */
  readonly repair?: Repair | undefined;
  /** Hears of everything that is found or repaired, a line at a time. */
  readonly onError?: CheckListener | undefined;
  /** Stops the check, which then fails with ABORTED; a repair may be halfway then. */
  readonly signal?: AbortSignal | undefined;
  /** Called now and then, with L1 entries: those that were gone through, and all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  /** Bytes of memory for counts; larger images are gone through several times. Default 128 MiB. */
  readonly countBytes?: number | undefined;
  /** Refcounts only: what COPIED flags say is not looked at. */
  readonly countsOnly?: boolean | undefined;
}

/** More clusters than a check counts (QEMU's limit). */
const CLUSTERS_MAX = 2 ** 31 - 1;

/**
 * Checks an image that nobody else is writing.
 * @throws Qcow2Error where the check cannot be carried out to its end; the message says why
 */
export async function checkImage(
  image: CheckedImage,
  options: CheckOptions = {},
): Promise<CheckResult> {
  const { storage } = image;
  const { repair } = options;
  if (repair && !storage.writable) {
    throw new Qcow2Error('READ_ONLY', 'the image file is not open for writing');
  }
  const findings = new Findings(options.onError);
  image.findings = findings;
  image.repair = repair;
  image.fileBytes = await storage.size();
  if (repair) await image.clearUnknownAutoclear();
  await readSnapshotTable(image);
  const ofSnapshots = findings.numbers;
  findings.numbers = noNumbers();
  const check = new RefcountCheck(image, options);
  await check.run();
  const ofRefcounts = findings.numbers;
  findings.numbers = ofSnapshots;
  await fixSnapshotTable(image);
  const numbers = sumOf(ofRefcounts, findings.numbers);
  if (repair) {
    await storage.flush();
    if (numbers.checkErrors === 0 && numbers.corruptions === 0) {
      await image.setIncompatible([Incompatible.dirty, Incompatible.corrupt], false);
    }
  }
  return { ...numbers, ...check.extent() };
}

/** `checkImage` of a file of which nothing is known yet. */
export async function checkStorage(
  storage: Storage,
  options: CheckOptions = {},
): Promise<CheckResult> {
  const metadata = await readCheckMetadata(storage);
  return checkImage(await CheckedImage.open(storage, metadata), options);
}

/**
 * Repairs an image that was left dirty, before it is written again.
 * @returns its metadata as it is now
 * @throws Qcow2Error CORRUPT where that cannot be done
 */
export async function repairDirty(
  storage: Storage,
  onError: CheckListener | undefined,
): Promise<Metadata> {
  const fail = (why: string, cause?: unknown) => {
    const message = `Could not repair dirty image: ${why}`;
    return new Qcow2Error('CORRUPT', message, 72, cause);
  };
  let checkErrors: number;
  try {
    ({ checkErrors } = await checkStorage(storage, { repair: 'all', onError }));
  } catch (cause) {
    throw fail(reasonOf(cause), cause);
  }
  if (checkErrors > 0) throw fail('Input/output error');
  return readMetadata(storage);
}

function sumOf(a: CheckNumbers, b: CheckNumbers): CheckNumbers {
  return {
    checkErrors: a.checkErrors + b.checkErrors,
    corruptions: a.corruptions + b.corruptions,
    leaks: a.leaks + b.leaks,
    corruptionsFixed: a.corruptionsFixed + b.corruptionsFixed,
    leaksFixed: a.leaksFixed + b.leaksFixed,
  };
}

/** What a comparison does about counts that differ. */
interface Fixes {
  readonly leaks: boolean;
  readonly errors: boolean;
}

/** The check of refcounts and COPIED flags. */
class RefcountCheck {
  private counts: ReferenceCounts;
  private readonly stored: StoredRefcounts;
  private rebuild = false;
  private highest = 0;
  private limitBytes = 0;
  private unreadable = false;
  private tallies: readonly number[] = [0, 0, 0];
  /** All COPIED flags were seen to fit: they need not be looked at again. */
  private flagsFit = true;

  constructor(
    private readonly image: CheckedImage,
    private readonly options: CheckOptions,
  ) {
    image.clusters = image.fileClusters;
    if (image.clusters > CLUSTERS_MAX) throw stopped('File too large');
    this.counts = this.countsFor(image.clusters, options.countBytes);
    this.stored = new StoredRefcounts(image);
  }

  /** How much of the disk has a place, and where the image ends. */
  extent(): Pick<
    CheckResult,
    | 'totalClusters'
    | 'allocatedClusters'
    | 'fragmentedClusters'
    | 'compressedClusters'
    | 'imageEndOffset'
  > {
    const { geometry, header } = this.image;
    const [allocated = 0, fragmented = 0, compressed = 0] = this.tallies;
    return {
      totalClusters: divCeil(header.size, geometry.clusterSize),
      allocatedClusters: allocated,
      fragmentedClusters: fragmented,
      compressedClusters: compressed,
      imageEndOffset: (this.highest + 1) * geometry.clusterSize,
    };
  }

  async run(): Promise<void> {
    const { image } = this;
    const { findings, repair } = image;
    const compared = noNumbers();
    await this.eachWindow('nothing', () => this.compare(compared, { leaks: false, errors: false }));
    const before = findings.numbers;
    if (this.rebuild && repair === 'all') {
      await this.rebuildAll(sumOf(before, compared));
    } else if (this.rebuild && repair) {
      findings.failed('ERROR need to rebuild refcount structures');
      throw stopped('Input/output error');
    } else if (repair && sumOf(before, compared).corruptions + compared.leaks > 0) {
      const fixed = noNumbers();
      const fixes = { leaks: true, errors: repair === 'all' };
      await this.eachWindow('all', () => this.compare(fixed, fixes));
      findings.numbers = sumOf(before, fixed);
    } else findings.numbers = sumOf(before, compared);
    await this.stored.drop();
    if (repair) await image.storage.flush();
    if (this.flagsFit || this.options.countsOnly) return;
    await checkCopiedFlags(image, {
      counts: this.counts,
      stored: this.stored,
      unreadable: this.unreadable,
      repair: this.repairsFlags(),
    });
  }

  /** Flags are made to fit refcounts that are right. */
  private repairsFlags(): boolean {
    const { repair, findings } = this.image;
    const { checkErrors, corruptions, leaks } = findings.numbers;
    return repair === 'all' || (repair === 'leaks' && checkErrors + corruptions + leaks === 0);
  }

  private countsFor(clusters: number, windowBytes: number | undefined): ReferenceCounts {
    const { geometry, hasDataFile: dataFile, l1 } = this.image;
    let tables = 0;
    for (let at = 0; at < l1.length; at += 8) if (l1[at]! & 0x80) tables++;
    const dense = tables * geometry.l2Entries * 2 > clusters;
    return new ReferenceCounts({ geometry, dataFile, clusters, windowBytes, dense });
  }

  /**
   * Counts the references of each window, then does `work`.
   * @param muted what was said before
   */
  private async eachWindow(muted: 'nothing' | 'all', work: () => Promise<void>): Promise<void> {
    const { image, counts } = this;
    const whole = muted === 'all' && counts.length > 0 && counts.length >= image.clusters;
    if (whole) return work();
    await this.count(0, muted);
    if (muted === 'nothing') this.tallies = this.counts.tallies();
    await work();
    for (let first = this.counts.capacity; first < image.clusters; first += this.counts.capacity) {
      await this.count(first, muted === 'nothing' ? 'known' : 'all');
      await work();
    }
    image.findings.muted = 'nothing';
  }

  /** Counts all references to the window at cluster `first`. */
  private async count(first: number, muted: 'nothing' | 'known' | 'all'): Promise<void> {
    const { image, options } = this;
    const { signal, onProgress } = options;
    const repairs = image.repairsAll && muted === 'nothing';
    image.findings.muted = muted;
    // References to what was no part of the file stay what they were when it grows.
    if (muted === 'nothing') this.limitBytes = image.fileBytes;
    const { limitBytes } = this;
    this.counts.reset(first, divCeil(limitBytes, image.geometry.clusterSize));
    const walk = new ReferenceWalk(image, this.counts, {
      limitBytes,
      repairs,
      signal,
      onProgress,
    });
    await walk.countTables();
    const grown = await this.countBlocks(walk);
    image.findings.muted = 'nothing';
    if (walk.oddTables > 0 || image.hasDataFile) this.flagsFit = false;
    if (!grown || this.counts.capacity > image.clusters) return;
    // The file has grown past what there are counts for.
    this.counts = this.countsFor(image.clusters, options.countBytes);
    await this.count(first, 'all');
  }

  /**
   * Counts refcount blocks, each of which must have its cluster to itself.
   * @returns whether the file was made longer
   */
  private async countBlocks(walk: ReferenceWalk): Promise<boolean> {
    const { image, counts } = this;
    const { findings, geometry, refcountTable } = image;
    let grown = false;
    walk.limitBytes = image.fileBytes;
    for (let index = 0; index < refcountTable.length; index++) {
      const host = refcountTable[index]!;
      if (image.refcountReserved(index) !== 0) {
        findings.corruption(`ERROR refcount table entry ${index} has reserved bits set`);
        this.rebuild = true;
        continue;
      }
      if (host === 0) continue;
      if (!image.isRefcountBlockAligned(index)) {
        findings.corruption(
          `ERROR refcount block ${index} is not cluster aligned; refcount table entry corrupted`,
        );
        this.rebuild = true;
        continue;
      }
      const cluster = host / geometry.clusterSize;
      if (cluster >= image.clusters) {
        const verb = walk.repairs ? 'Repairing' : 'ERROR';
        findings.corruption(`${verb} refcount block ${index} is outside image`);
        if (!walk.repairs || !(await this.growTo(host + geometry.clusterSize))) continue;
        grown = true;
        walk.limitBytes = image.fileBytes;
        findings.fixed();
        walk.add(host, geometry.clusterSize);
        continue;
      }
      walk.add(host, geometry.clusterSize);
      const inWindow = cluster >= counts.first && cluster < counts.first + counts.length;
      if (!inWindow || counts.of(cluster) === 1) continue;
      findings.windowCorruption(`ERROR refcount block ${index} refcount=${counts.of(cluster)}`);
      this.rebuild = true;
    }
    return grown;
  }

  /**
   * Makes the file longer so that a refcount block lies in it; not so long that nothing could be
   * repaired in it any more, its refcounts first: nobody has written what is not there.
   */
  private async growTo(bytes: number): Promise<boolean> {
    const { image, rebuild } = this;
    const { findings, geometry, storage } = image;
    this.rebuild = true;
    if (bytes >= 2 ** 63) {
      findings.say('ERROR could not resize image: Invalid argument');
      return false;
    }
    try {
      const clusters = bytes / geometry.clusterSize;
      if (clusters > CLUSTERS_MAX || !canRebuild(geometry, clusters, this.counts.width)) {
        throw stopped('File too large');
      }
      await storage.truncate(bytes);
    } catch (cause) {
      const why = reasonOf(cause);
      findings.say(`Could not resize file: ${why}`, 'tool');
      findings.say(`ERROR could not resize image: ${why}`);
      return false;
    }
    this.rebuild = rebuild;
    image.fileBytes = bytes;
    image.clusters = image.fileClusters;
    return true;
  }

  /** Compares the window's counts with the refcounts in the file. */
  private async compare(numbers: CheckNumbers, fixes: Fixes): Promise<void> {
    const { image, counts, stored } = this;
    const { refcountBlockEntries: entries, refcountOrder } = image.geometry;
    const unreadable = new Set<number>();
    const freed: number[] = [];
    let alike = true;
    counts.ones.fill(0);
    await stored.eachBlock(counts, image.clusters, async (first, address) => {
      const count = Math.min(entries, image.clusters - first);
      if (address === UNREADABLE) {
        unreadable.add(first);
        for (let i = 0; i < count; i++) {
          image.findings.say(`Can't get refcount for cluster ${first + i}: Input/output error`);
        }
        numbers.checkErrors += count;
        return;
      }
      for (let i = 0; i < count; i++) {
        const at = counts.countsAt + (first - counts.first + i) * counts.width;
        const rest = count - i;
        i += counts.kernels.refcountCompare(address, i, rest, refcountOrder, at, counts.width);
        if (i === count) break;
        alike = false;
        if (await this.mismatch(first + i, numbers, fixes)) freed.push(first + i);
      }
      if (address === counts.zerosAt) return;
      const ones = counts.onesAt + (first - counts.first) / 8;
      counts.kernels.refcountOnes(address, entries, refcountOrder, ones);
    });
    await stored.writeBack();
    this.unreadable = unreadable.size > 0;
    if (!alike || this.unreadable || !counts.flagsFit()) this.flagsFit = false;
    this.highest = Math.max(this.highest, this.lastUsed(unreadable));
    if (freed.length > 0) await this.discard(freed);
  }

  /**
   * Two counts that differ.
   * @returns whether the cluster is free now
   */
  private async mismatch(cluster: number, numbers: CheckNumbers, fixes: Fixes): Promise<boolean> {
    const { image, counts, stored } = this;
    const refcount = await stored.get(cluster);
    const references = counts.of(cluster);
    const leak = refcount > references;
    this.highest = Math.max(this.highest, cluster);
    if (refcount === 0) this.rebuild = true;
    const fix = refcount !== 0 && (leak ? fixes.leaks : fixes.errors);
    const verb = fix ? 'Repairing' : leak ? 'Leaked' : 'ERROR';
    const digits = await stored.digits(cluster);
    image.findings.say(`${verb} cluster ${cluster} refcount=${digits} reference=${references}`);
    if (fix) {
      await stored.set(cluster, references);
      if (leak) numbers.leaksFixed++;
      else numbers.corruptionsFixed++;
    } else if (leak) numbers.leaks++;
    else numbers.corruptions++;
    return fix && references === 0;
  }

  /** The last cluster of the window that anything refers to, in what could be compared. */
  private lastUsed(unreadable: ReadonlySet<number>): number {
    const { image, counts } = this;
    const { refcountBlockEntries: entries } = image.geometry;
    let end = Math.min(image.clusters, counts.first + counts.length);
    while (end > counts.first) {
      const start = Math.floor((end - 1) / entries) * entries;
      const last = unreadable.has(start) ? -1 : counts.lastUsed(start, end);
      if (last >= 0) return last;
      end = start;
    }
    return 0;
  }

  /** Gives the room of free clusters back to the host. */
  private async discard(freed: readonly number[]): Promise<void> {
    const { storage, geometry } = this.image;
    if (!storage.discard) return;
    // Counts that say so must be on disk first.
    await storage.flush();
    for (let i = 0; i < freed.length; ) {
      let end = i + 1;
      while (freed[end] === freed[i]! + end - i) end++;
      await storage.discard(freed[i]! * geometry.clusterSize, (end - i) * geometry.clusterSize);
      i = end;
    }
  }

  /** Makes new refcount structures. @param old what was found before */
  private async rebuildAll(old: CheckNumbers): Promise<void> {
    const { image, options, stored } = this;
    const { findings } = image;
    findings.say('Rebuilding refcount structure');
    await stored.drop();
    const room = image.clusters + rebuildRoom(image.geometry, image.clusters);
    if (this.counts.capacity < room) {
      this.counts = this.countsFor(room, REBUILD_BYTES);
      if (this.counts.capacity < room) throw stopped('Cannot allocate memory');
      await this.count(0, 'all');
    }
    await rebuildRefcounts(image, this.counts);
    this.rebuild = false;
    this.flagsFit = false;
    findings.numbers = { ...old, corruptions: 0, leaks: 0 };
    const { signal } = options;
    this.counts.reset(0, image.fileClusters);
    const limitBytes = image.fileBytes;
    const walk = new ReferenceWalk(image, this.counts, { limitBytes, repairs: false, signal });
    await walk.countTables();
    await this.countBlocks(walk);
    // What the new structures do not need of the old ones.
    const fresh = noNumbers();
    this.highest = 0;
    await this.compare(fresh, { leaks: true, errors: false });
    if (this.rebuild) findings.say('ERROR rebuilt refcount structure is still broken');
    const { numbers } = findings;
    numbers.corruptionsFixed += Math.max(0, old.corruptions - numbers.corruptions);
    numbers.leaksFixed += Math.max(0, old.leaks - numbers.leaks);
    numbers.leaks += fresh.leaks;
  }
}
