/**
 * Converting into a disk that is there already, with its own places for clusters: through the
 * engine, request by request.
 */
import { assert } from '../base/errors.ts';
import type { Disk, WritableDisk } from '../image/disk.ts';
import { Workspace } from '../kernels/arena.ts';
import type { Storage } from '../storage/storage.ts';
import { ClusterBuffer, UnitState } from './cluster-buffer.ts';
import { Conversion } from './conversion.ts';
import { OP_STRIDE, OpKind } from './job.ts';
import { type ConvertOptions, type ConvertResult, concatenatedSize, resultOf } from './options.ts';
import { allSources, Planner } from './plan.ts';
import { RawRunner } from './raw-runner.ts';
import type { ClusterOptions, Runner, Tally } from './runner.ts';
import { SourceReader } from './source-reader.ts';

/** Target bytes of a job. */
const JOB_BYTES = 2 ** 20;

/** How a disk is filled. */
export interface ConvertToDiskOptions extends ConvertOptions {
  /** Writes clusters compressed, where that makes them smaller. */
  readonly compress?: boolean;
}

/**
 * Writes the guest bytes of disks, one after another, into a disk that is at least as long. What
 * lies behind them there stays as it is. On failure the disk holds some of them.
 * @throws Qcow2Error of any kind; ABORTED when the signal says so
 */
export async function convertToDisk(
  disks: readonly Disk[],
  target: WritableDisk,
  options: ConvertToDiskOptions = {},
): Promise<ConvertResult> {
  const { sparseBytes = 4096, targetIsZero = false, compress = false, salvage = false } = options;
  const sources = allSources(disks);
  const storages = sources.map(({ storage }) => storage);
  const total = concatenatedSize(disks);
  const clusterSizeMax = Math.max(1, ...sources.map((source) => source.clusterSize));
  const clusterSize = Math.max(512, target.sources[0]?.clusterSize ?? 1);
  const isPacked = compress && target.format === 'qcow2';
  const jobBytes = Math.ceil(Math.max(JOB_BYTES, clusterSizeMax) / clusterSize + 1) * clusterSize;
  const runner = isPacked
    ? new CompressedRunner(storages, target, {
        clusterSizeMax,
        clusterSize,
        subclusterSize: clusterSize,
        diskSize: total,
        jobBytes,
        sparseBytes,
        explicitZeros: !targetIsZero,
        backingSource: -1,
        salvage,
      })
    : new RawRunner(storages, zeroing(target), {
        kind: 'raw',
        clusterSizeMax,
        granule: sparseBytes > 0 && sparseBytes % 4096 === 0 ? 4096 : 512,
        holeBytes: sparseBytes,
        zeroHoles: !targetIsZero,
        allocate: sparseBytes === 0,
        salvage,
      });
  const conversion = new Conversion({
    ...options,
    jobs: new Planner(disks, {
      jobBytes,
      writeZeros: sparseBytes === 0 || !targetIsZero,
      holdFrom: Number.POSITIVE_INFINITY,
      salvage,
      ...(isPacked ? { clusters: { clusterSize, diskSize: total, copies: undefined } } : {}),
    }),
    runner,
    order: { kind: 'none' },
    total,
    startWorkers: async () => [],
  });
  const tally = await conversion.run();
  return resultOf(tally, total, target.format === 'qcow2' && isPacked ? clusterSize : 1);
}

/** A disk as what a runner writes to. Zeros may give up the clusters that held something. */
function zeroing(disk: WritableDisk): Pick<Storage, 'write' | 'zero'> {
  return {
    write: (guest, from) => disk.write(guest, from),
    zero: (guest, length) => disk.zero(guest, length, { unmap: true }),
  };
}

/** Writes whole clusters, compressed. */
class CompressedRunner implements Runner {
  private readonly reader: SourceReader;
  private readonly buffer: ClusterBuffer;
  private last: Promise<unknown> = Promise.resolve();

  constructor(
    sources: readonly Storage[],
    private readonly target: WritableDisk,
    private readonly options: ClusterOptions,
  ) {
    const workspace = new Workspace();
    this.reader = new SourceReader(workspace, sources, options);
    this.buffer = new ClusterBuffer(workspace, options, this.reader);
  }

  get tally(): Tally {
    return this.reader.tally;
  }

  async ready(): Promise<void> {
    await this.last;
  }

  run(ops: Float64Array): Promise<void> {
    const done = this.last.then(() => this.carryOut(ops));
    this.last = done.catch(() => {});
    return done;
  }

  private async carryOut(ops: Float64Array): Promise<void> {
    const { buffer, target, options, tally } = this;
    if (ops.length === OP_STRIDE && ops[0] === OpKind.zero && options.explicitZeros) {
      await target.zero(ops[4]!, ops[5]!, { unmap: true });
      return;
    }
    await buffer.gather(ops);
    buffer.judge({ wholeClusters: true, zeroFlag: true });
    const { clusterSize, diskSize } = options;
    for (let unit = 0; unit < buffer.count; unit++) {
      const guest = buffer.guest[unit]! * clusterSize;
      const length = Math.min(clusterSize, diskSize - guest);
      const state = buffer.state[unit]!;
      if (state === UnitState.skip) continue;
      if (state === UnitState.zero) {
        await target.zero(guest, length, { unmap: true });
        continue;
      }
      assert(state === UnitState.data, 'nothing was copied here');
      const at = buffer.at[unit]!;
      const bytes = buffer.plain.bytes.subarray(at, at + length);
      // A part of a cluster cannot be compressed, unless nothing of the disk lies behind it.
      const isWhole = length === clusterSize || guest + length === target.size;
      await (isWhole ? target.writeCompressed(guest, bytes) : target.write(guest, bytes));
      tally[isWhole ? 'compressedClusters' : 'dataClusters']++;
      tally.bytesWritten += length;
    }
  }
}
