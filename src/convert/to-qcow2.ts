/**
 * Converting to a new qcow2 image: workers make clusters, `BulkImage` gives them their places in
 * the order of the jobs, so that the image is the same for any number of workers. Tables are
 * written once, when they are complete; the header comes last.
 */
import { alignUp } from '../base/bits.ts';
import { assert, Qcow2Error } from '../base/errors.ts';
import { CompressionLevels } from '../codec/compress.ts';
import { CipherStorage } from '../crypto/cipher-storage.ts';
import { legacyKeys } from '../crypto/legacy-aes.ts';
import { payloadKeys } from '../crypto/luks.ts';
import { formatLuks } from '../crypto/luks-format.ts';
import { type DataSource, type Disk, ExtentKind, ExtentList, extentWindow } from '../image/disk.ts';
import { type BulkFront, BulkImage, type PlacedTable } from '../image/qcow2/bulk-image.ts';
import type { Qcow2CreateOptions } from '../image/qcow2/create.ts';
import { refuseCompressed } from '../image/qcow2/encryption.ts';
import { Qcow2Image } from '../image/qcow2/qcow2-image.ts';
import { passphraseBytes } from '../image/secret.ts';
import { borrowed } from '../storage/borrowed.ts';
import { holdHead } from '../storage/held-head.ts';
import type { SectorKeys, Storage } from '../storage/storage.ts';
import { collectExtents } from './collect.ts';
import { Conversion, type ConversionParts, type TurnOrder } from './conversion.ts';
import { convertDirty } from './dirty.ts';
import { ImageRunner } from './image-runner.ts';
import { allInBackground, Lane, lanesOver } from './lane.ts';
import {
  type ConvertOptions,
  type ConvertResult,
  concatenatedSize,
  ratedJobBytes,
  resultOf,
  workersFor,
} from './options.ts';
import { allSources, isAsIs, type JobSource, type PlanClusters, Planner } from './plan.ts';
import { OverlayPlanner } from './plan-overlay.ts';
import type { ImageRunnerOptions } from './runner.ts';
import { convertToDisk } from './to-disk.ts';

/** Plain bytes of a job whose clusters are compressed: enough to make a hand-over worth it. */
const COMPRESSED_JOB_BYTES = 2 ** 20;
/**
 * Of other jobs, which are done so fast that what threads have to say to each other counts; a few
 * of them are still in the processors' cache when they are written.
 */
const JOB_BYTES = 2 * 2 ** 20;
/** Where reads start slowly: a job's are one long read then. */
const SLOW_JOB_BYTES = 4 * 2 ** 20;

/** Of the first job: what is written waits for it, and its memory is new. */
const FIRST_JOB_BYTES = 2 ** 19;

/** How a qcow2 target is made. */
export interface Qcow2Target {
  /** Empty storage for the image. */
  readonly file: Storage;
  /** Empty storage for the external data file, where `create` names one. */
  readonly data?: Storage;
  /** What the image is to be; its size is that of the sources, or more. */
  readonly create: Omit<Qcow2CreateOptions, 'size'> & { readonly size?: number };
  /** Compresses clusters, at a level from 1 (fastest) to 9; QEMU's by default. */
  readonly compress?: { readonly level?: number | undefined } | undefined;
  /**
   * The open backing file that `create` names: only what differs from it is written. `sameFile`
   * tells whether two files of the sources and of the backing are one.
   */
  readonly backing?:
    | { readonly disk: Disk; readonly sameFile?: (a: Storage, b: Storage) => boolean }
    | undefined;
  /**
   * Only what this bitmap of the one source says is dirty is copied; the rest is unallocated.
   */
  readonly bitmap?: string;
  /** Makes the image that is to be filled; what fails there may be told in words of its own. */
  readonly making?: (<T>(make: () => Promise<T>) => Promise<T>) | undefined;
}

/**
 * Writes disks, one after another, as a new qcow2 image. On failure what was written is no image;
 * it is the caller's to remove.
 * @throws Qcow2Error of any kind; ABORTED when the signal says so
 */
export async function convertToQcow2(
  disks: readonly Disk[],
  target: Qcow2Target,
  options: ConvertOptions = {},
): Promise<ConvertResult> {
  const plan = new ImageConversion(disks, target, options);
  if (plan.needsEngine) return convertThroughEngine(disks, target, plan.create, options);
  const { file } = target;
  const { encryption } = plan.create;
  const luks =
    encryption?.format === 'luks'
      ? await formatLuks(passphraseBytes(encryption.passphrase), encryption)
      : undefined;
  const bulk = new BulkImage(plan.create, { order: 'file', luksBytes: luks?.area.length });
  const plainData = target.data ?? file;
  const data = luks
    ? new CipherStorage(plainData, {
        keys: await payloadKeys(luks.header, luks.masterKey),
        start: 0,
        borrowed: true,
      })
    : plainData;
  const result = await plan.run(
    {
      kind: 'placed',
      inLine: false,
      place: (units, { until }) => {
        const { hosts, tables } = bulk.place(units, until);
        return { hosts, tables, dry: false, stream: undefined };
      },
    },
    { file, data },
    false,
  );
  await writeTables(file, bulk.end().tables);
  const { tables, header } = bulk.frontParts();
  await writeTables(file, tables);
  if (luks && bulk.luks) {
    await file.write(bulk.luks.offset, luks.area);
    await growTo(file, bulk.frontBytes);
  }
  // Compressed bytes end anywhere, files at a sector.
  if (target.compress) await growTo(file, alignUp(await file.size(), 512));
  if (target.data) await growTo(target.data, plan.create.size);
  await writeTables(file, [header]);
  return result;
}

/** A qcow2 image for a target without positions. */
export interface Qcow2StreamTarget extends Omit<Qcow2Target, 'file' | 'data' | 'backing'> {
  readonly file: TargetFile;
  /** Told how long the image will be, before its first byte is written. */
  readonly onLength?: (bytes: number) => void;
}

/**
 * Writes disks as a new qcow2 image, front to back. The sources are read twice: what stands in
 * front of an image is known only when all of it is.
 * @throws Qcow2Error of any kind; CORRUPT where the sources changed between the two readings
 */
export async function convertToQcow2Stream(
  disks: readonly Disk[],
  target: Qcow2StreamTarget,
  options: ConvertOptions = {},
): Promise<ConvertResult> {
  const { file } = target;
  const plan = new ImageConversion(disks, target, options);
  const { create } = plan;
  if (plan.needsEngine || create.dataFile || create.backing || create.encryption) {
    const message =
      'an image with preallocation, encryption, data file or backing file cannot be a stream';
    throw new Qcow2Error('UNSUPPORTED', message);
  }
  const clustersMax = await touchedClusters(disks, create.clusterSize ?? 65536, options);
  const { onProgress } = options;
  const run = (bulk: BulkImage, dry: boolean): Promise<ConvertResult> => {
    const half: ConvertOptions['onProgress'] =
      onProgress &&
      ((done, total, rate) => onProgress((dry ? done : total + done) / 2, total, rate));
    const pass = new ImageConversion(disks, target, { ...options, onProgress: half });
    return pass.run(
      {
        kind: 'placed',
        inLine: !dry,
        place: (units, { until }) => {
          const { hosts, tables, from, to } = bulk.place(units, until);
          return { hosts, tables, dry, stream: { from, to } };
        },
      },
      { file, data: file },
      true,
    );
  };

  const first = new BulkImage(create, { order: 'stream', clustersMax });
  await run(first, true);
  first.end();
  target.onLength?.(first.fileBytes);
  const front: BulkFront = first.outcome;
  const second = new BulkImage(create, { order: 'stream', clustersMax, front });
  const { tables, header } = second.frontParts();
  await writeInOrder(file, [header, ...tables], { from: 0, to: second.frontBytes });
  const result = await run(second, false);
  const end = second.end();
  await writeInOrder(file, end.tables, end);
  if (JSON.stringify(second.outcome) !== JSON.stringify(front)) {
    throw new Qcow2Error('CORRUPT', 'the source changed while it was being converted');
  }
  return result;
}

/** What a conversion writes to. */
type TargetFile = Pick<Storage, 'write' | 'background' | 'copiesInBackground' | 'share'>;
interface TargetFiles {
  readonly file: TargetFile;
  readonly data: TargetFile;
}

/** What one run over the sources needs. */
class ImageConversion {
  readonly create: Qcow2CreateOptions;
  private readonly options: ConvertOptions;

  constructor(
    private readonly disks: readonly Disk[],
    private readonly target: Omit<Qcow2Target, 'file'>,
    options: ConvertOptions,
  ) {
    const size = concatenatedSize(disks);
    this.create = { ...target.create, size: target.create.size ?? size };
    this.options = options;
    if (this.create.size < size) {
      throw new Qcow2Error('OUT_OF_RANGE', 'the target is smaller than the sources');
    }
    if (this.create.encryption && target.compress) refuseCompressed();
  }

  /** Every cluster has its place from the start. */
  get needsEngine(): boolean {
    const { preallocation = 'off', dataFile } = this.create;
    if (this.target.bitmap !== undefined) return true;
    return preallocation !== 'off' || dataFile?.raw === true;
  }

  private get guestKeys(): SectorKeys | undefined {
    const { encryption } = this.create;
    if (encryption?.format !== 'aes') return undefined;
    return legacyKeys(passphraseBytes(encryption.passphrase));
  }

  async run(order: TurnOrder, files: TargetFiles, stream: boolean): Promise<ConvertResult> {
    const { disks, create, target, options } = this;
    const sources = [...allSources(disks), ...(target.backing?.disk.sources ?? [])];
    const clusterSizeMax = Math.max(1, ...sources.map((source) => source.clusterSize));
    const { clusterSize = 65536, extendedL2 = false, version = 3 } = create;
    const storages = sources.map(({ storage }) => storage);
    const startsSlowly = storages.some((storage) => storage.slowStart);
    const quick = target.compress ? COMPRESSED_JOB_BYTES : JOB_BYTES;
    const usual = startsSlowly ? SLOW_JOB_BYTES : quick;
    const roomFor = (bytes: number) =>
      alignUp(Math.max(bytes, clusterSizeMax + clusterSize), clusterSize);
    const jobBytes = roomFor(ratedJobBytes(usual, options));
    const firstJobBytes = startsSlowly ? jobBytes : Math.min(jobBytes, roomFor(FIRST_JOB_BYTES));
    const { sparseBytes = 4096 } = options;
    const codec = create.compression ?? 'deflate';
    const runner: ImageRunnerOptions = {
      kind: 'image',
      clusterSizeMax,
      clusterSize,
      subclusterSize: extendedL2 ? clusterSize / 32 : clusterSize,
      diskSize: create.size,
      jobBytes,
      sparseBytes,
      explicitZeros: target.backing !== undefined,
      backingSource: target.backing ? allSources(disks).length : -1,
      compress: target.compress && {
        codec,
        level: target.compress.level ?? CompressionLevels[codec].default,
      },
      zeroFlag: version === 3,
      guestKeys: this.guestKeys,
      salvage: options.salvage ?? false,
    };
    const { file, data } = files;
    const lanes = this.lanes(sources, files, runner);
    const conversion = new Conversion({
      ...options,
      lanes,
      copyLane: stream ? undefined : this.copyLane(sources, files, runner),
      jobs: this.jobs({ jobBytes, firstJobBytes }, clusterSize),
      runner: new ImageRunner(storages, files, runner),
      order,
      total: create.size,
      startWorkers: () =>
        workersFor(
          sources,
          { file, data: data === file ? undefined : data, runner, stream },
          options,
        ),
    });
    return resultOf(await conversion.run(), create.size, clusterSize);
  }

  /** Lanes, where nothing is to be done with bytes but to move them. */
  private lanes(
    sources: readonly DataSource[],
    { file, data }: TargetFiles,
    runner: ImageRunnerOptions,
  ): Lane[] {
    const { workers = 0, copyRange } = this.options;
    const { compress, guestKeys } = runner;
    if (workers === 0 || copyRange || compress || guestKeys) return [];
    const targets = data === file ? [file] : [file, data];
    const storages = sources.map(({ storage }) => storage);
    return lanesOver([...targets, ...storages], ([image, ...others]) => {
      const clusters = data === file ? image : others.shift();
      assert(image && clusters, 'a lane writes to what it was made over');
      return new ImageRunner(others, { file: image, data: clusters }, runner);
    });
  }

  /** What is copied as it is. */
  private get copied(): Pick<PlanClusters, 'copies' | 'moves'> {
    const { target, create, options } = this;
    // What is damaged cannot be told untouched, and what differs has to be looked at.
    if (target.backing || options.salvage) return { copies: undefined };
    // The host copies; nobody looks at the bytes.
    const moves = options.copyRange === true && !target.compress && !create.encryption;
    // A level that was asked for is worth the work.
    const asIs = target.compress && target.compress.level === undefined;
    return { copies: asIs ? (create.compression ?? 'deflate') : undefined, moves };
  }

  /** Where the host copies while this thread goes on. */
  private copyLane(
    sources: readonly DataSource[],
    { file, data }: TargetFiles,
    runner: ImageRunnerOptions,
  ): ConversionParts['copyLane'] {
    const { workers = 0 } = this.options;
    const { copies: codec, moves } = this.copied;
    const { clusterSize } = runner;
    const copied = sources.filter((source) => moves || isAsIs(source, { codec, clusterSize }));
    if (workers === 0 || copied.length === 0) return undefined;
    const files = [file, data, ...copied.map(({ storage }) => storage)];
    const works = () => files.every(({ copiesInBackground }) => copiesInBackground === true);
    if (!works()) return undefined;
    const [image, clusters] = allInBackground([file, data]) ?? [];
    if (!image || !clusters) return undefined;
    const storages = sources.map(({ storage }) => storage);
    const target = { file: image, data: clusters };
    return { lane: new Lane(new ImageRunner(storages, target, runner)), works };
  }

  private jobs(
    { jobBytes, firstJobBytes }: { readonly jobBytes: number; readonly firstJobBytes: number },
    clusterSize: number,
  ): JobSource {
    const { disks, target, create, options } = this;
    const { backing } = target;
    if (backing) {
      const same = backing.sameFile ?? ((a: Storage, b: Storage) => a === b);
      return new OverlayPlanner(disks, backing.disk, {
        jobBytes,
        clusterSize,
        diskSize: create.size,
        sameFile: (a, b) => same(a.storage, b.storage),
      });
    }
    return new Planner(disks, {
      jobBytes,
      firstJobBytes,
      clusters: { clusterSize, diskSize: create.size, ...this.copied },
      // A rate counts what a cluster holds, whatever is copied of it.
      copiesMax: options.bytesPerSecond ? Math.max(1, jobBytes / clusterSize) : undefined,
      writeZeros: options.sparseBytes === 0,
      salvage: options.salvage,
      holdFrom: Number.POSITIVE_INFINITY,
    });
  }
}

/** Clusters of the target that get bytes, at most. */
async function touchedClusters(
  disks: readonly Disk[],
  clusterSize: number,
  { sparseBytes }: ConvertOptions,
): Promise<number> {
  let count = 0;
  let last = -1;
  let start = 0;
  const list = new ExtentList();
  for (const disk of disks) {
    const window = extentWindow(disk);
    for (let at = 0; at < disk.size; at += window) {
      list.clear();
      await collectExtents(disk, [at, Math.min(disk.size, at + window)], list, 0);
      for (let index = 0; index < list.count; index++) {
        const kind = list.kind(index);
        const isData = kind === ExtentKind.data || kind === ExtentKind.compressed;
        if (!isData && sparseBytes !== 0) continue;
        const guest = start + list.guest(index);
        const first = Math.max(last + 1, Math.floor(guest / clusterSize));
        last = Math.floor((guest + list.length(index) - 1) / clusterSize);
        count += Math.max(0, last - first + 1);
      }
    }
    start += disk.size;
  }
  return count;
}

async function writeTables(
  file: Pick<Storage, 'write'>,
  tables: readonly PlacedTable[],
): Promise<void> {
  for (const { host, bytes } of tables) await file.write(host, bytes);
}

/** Writes the bytes [from, to) of a stream: tables, and zeros between them. */
async function writeInOrder(
  file: Pick<Storage, 'write'>,
  tables: readonly PlacedTable[],
  { from, to }: { readonly from: number; readonly to: number },
): Promise<void> {
  let at = from;
  for (const { host, bytes } of [...tables].sort((a, b) => a.host - b.host)) {
    if (at < host) await file.write(at, new Uint8Array(host - at));
    await file.write(host, bytes);
    at = host + bytes.length;
  }
  if (at < to) await file.write(at, new Uint8Array(to - at));
}

async function growTo(storage: Storage, size: number): Promise<void> {
  if ((await storage.size()) < size) await storage.truncate(size);
}

/** An image all of whose clusters have their place before anything is written. */
async function convertThroughEngine(
  disks: readonly Disk[],
  target: Qcow2Target,
  create: Qcow2CreateOptions,
  options: ConvertOptions,
): Promise<ConvertResult> {
  const { file, data, backing, bitmap } = target;
  const compress = target.compress !== undefined;
  // What has a place before it is written is whatever the key makes of it, or a device held there.
  const isPlaced = (create.preallocation ?? 'off') !== 'off' || create.dataFile?.raw === true;
  const isScrambled = create.encryption !== undefined || ((data ?? file).isFixed ?? false);
  const held = holdHead(file);
  const { making = (make) => make() } = target;
  const image = await making(() =>
    Qcow2Image.create(borrowed(held.storage), create, {
      ...(backing ? { backing: async () => borrowed(backing.disk) } : {}),
      ...(data ? { dataFile: async () => borrowed(data) } : {}),
    }),
  );
  let result: ConvertResult;
  try {
    const [source] = disks;
    result =
      bitmap !== undefined && source instanceof Qcow2Image
        ? await convertDirty(source, image, { ...options, bitmap, compress })
        : await convertToDisk(disks, image, {
            ...options,
            targetIsZero: backing === undefined && !(isPlaced && isScrambled),
            compress,
          });
  } finally {
    await image.close();
  }
  await held.release();
  return result;
}
