/**
 * The data plane for disks that are there already and have their own places for clusters: gathers
 * clusters, finds out what of them has to be written, and asks the disk to write it while the next
 * ones are read.
 */
import { assert } from '../base/errors.ts';
import { Workspace } from '../kernels/arena.ts';
import type { Storage } from '../storage/storage.ts';
import type { AheadTarget } from './ahead-target.ts';
import { ClusterBuffer } from './cluster-buffer.ts';
import { OP_STRIDE, OpKind } from './job.ts';
import { type ClusterOptions, type Runner, type Tally, UnitState, whenWritten } from './runner.ts';
import { SourceReader } from './source-reader.ts';

/** How clusters are written. */
export interface DiskRunnerOptions extends ClusterOptions {
  /** Whole clusters are compressed. */
  readonly compress: boolean;
  /** Zeros give up the clusters that held something. */
  readonly unmap: boolean;
}

/** Jobs whose clusters are in memory: one is read while others are written. */
const BUFFERS = 3;

/** Clusters in memory, and what of them is being written. */
interface Slot {
  readonly buffer: ClusterBuffer;
  underWay: Promise<void>[];
}

/** Writes clusters into a disk: reads one job at a time. */
export class DiskRunner implements Runner {
  private readonly reader: SourceReader;
  private readonly slots: readonly Slot[];
  private jobs = 0;
  private last: Promise<unknown> = Promise.resolve();

  constructor(
    sources: readonly Storage[],
    private readonly target: AheadTarget,
    private readonly options: DiskRunnerOptions,
  ) {
    const workspace = new Workspace();
    this.reader = new SourceReader(workspace, sources, options);
    this.slots = Array.from({ length: options.compress ? 1 : BUFFERS }, () => ({
      buffer: new ClusterBuffer(workspace, { ...options, compress: undefined }, this.reader),
      underWay: [],
    }));
  }

  get tally(): Tally {
    return this.reader.tally;
  }

  async ready(): Promise<void> {
    await this.last;
  }

  run(ops: Float64Array): Promise<void> {
    const writes: Promise<void>[] = [];
    const begun = this.last.then(() => this.carryOut(ops, writes));
    this.last = begun.catch(() => {});
    return whenWritten(begun, writes);
  }

  /** Reads a job's clusters, and begins to write them. */
  private async carryOut(ops: Float64Array, writes: Promise<void>[]): Promise<void> {
    const { target, options } = this;
    const { explicitZeros, backingSource, unmap } = options;
    const isNothing = ops.length === OP_STRIDE && ops[0] === OpKind.zero;
    if (isNothing && explicitZeros && backingSource < 0) {
      await target.zero(ops[4]!, ops[5]!, { unmap });
      return;
    }
    const slot = this.slots[this.jobs++ % this.slots.length] as Slot;
    await Promise.allSettled(slot.underWay);
    slot.underWay = writes;
    const { buffer } = slot;
    await buffer.gather(ops);
    buffer.judge({ wholeClusters: true, zeroFlag: true });
    for (let unit = 0; unit < buffer.count; ) {
      const end = this.isPacked(buffer, unit) ? unit + 1 : alikeUntil(buffer, unit);
      const written = this.write(buffer, unit, end);
      // Whoever waits for the job hears of it.
      written.catch(() => {});
      writes.push(written);
      unit = end;
    }
  }

  private isPacked({ state }: ClusterBuffer, unit: number): boolean {
    return this.options.compress && state[unit] === UnitState.data;
  }

  /** Writes units that have the same fate. */
  private async write(buffer: ClusterBuffer, unit: number, end: number): Promise<void> {
    const { target, options, tally } = this;
    const { clusterSize, diskSize, unmap } = options;
    const state = buffer.state[unit]!;
    if (state === UnitState.skip) return;
    const guest = buffer.guest[unit]! * clusterSize;
    const length = Math.min((end - unit) * clusterSize, diskSize - guest);
    if (state === UnitState.zero) return target.zero(guest, length, { unmap });
    assert(state === UnitState.data, 'nothing was copied here');
    const at = buffer.at[unit]!;
    const bytes = buffer.plain.bytes.subarray(at, at + length);
    // A part of a cluster cannot be compressed, unless nothing of the disk lies behind it.
    const isWhole = length === clusterSize || guest + length === target.size;
    const packs = this.isPacked(buffer, unit) && isWhole;
    await (packs ? target.writeCompressed(guest, bytes) : target.write(guest, bytes));
    tally[packs ? 'compressedClusters' : 'dataClusters'] += end - unit;
    tally.bytesWritten += length;
  }
}

/** The end of the units from `first` on that follow each other and have the same fate. */
function alikeUntil({ count, guest, state }: ClusterBuffer, first: number): number {
  let end = first + 1;
  while (end < count && state[end] === state[first] && guest[end] === guest[end - 1]! + 1) end++;
  return end;
}
