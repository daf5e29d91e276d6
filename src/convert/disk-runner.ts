/**
 * The data plane for disks that are there already and have their own places for clusters: gathers
 * clusters, finds out what of them has to be written, and asks the disk to write it.
 */
import { assert } from '../base/errors.ts';
import type { WritableDisk } from '../image/disk.ts';
import { Workspace } from '../kernels/arena.ts';
import type { Storage } from '../storage/storage.ts';
import { ClusterBuffer } from './cluster-buffer.ts';
import { OP_STRIDE, OpKind } from './job.ts';
import { type ClusterOptions, type Runner, type Tally, type Turn, UnitState } from './runner.ts';
import { SourceReader } from './source-reader.ts';

/** How clusters are written. */
export interface DiskRunnerOptions extends ClusterOptions {
  /** Whole clusters are compressed. */
  readonly compress: boolean;
  /** Zeros give up the clusters that held something. */
  readonly unmap: boolean;
}

/** Writes clusters into a disk, one job at a time. */
export class DiskRunner implements Runner {
  private readonly reader: SourceReader;
  private readonly buffer: ClusterBuffer;
  private last: Promise<unknown> = Promise.resolve();

  constructor(
    sources: readonly Storage[],
    private readonly target: WritableDisk,
    private readonly options: DiskRunnerOptions,
  ) {
    const workspace = new Workspace();
    this.reader = new SourceReader(workspace, sources, options);
    this.buffer = new ClusterBuffer(workspace, { ...options, compress: undefined }, this.reader);
  }

  get tally(): Tally {
    return this.reader.tally;
  }

  async ready(): Promise<void> {
    await this.last;
  }

  run(ops: Float64Array, turn?: Turn): Promise<void> {
    const done = this.last.then(() => this.carryOut(ops, turn));
    this.last = done.catch(() => {});
    return done;
  }

  private async carryOut(ops: Float64Array, turn: Turn | undefined): Promise<void> {
    const { buffer, target, options, tally } = this;
    const { clusterSize, diskSize, explicitZeros, backingSource, compress, unmap } = options;
    const isNothing = ops.length === OP_STRIDE && ops[0] === OpKind.zero;
    if (isNothing && explicitZeros && backingSource < 0) {
      if (turn) await turn();
      await target.zero(ops[4]!, ops[5]!, { unmap });
      return;
    }
    await buffer.gather(ops);
    buffer.judge({ wholeClusters: true, zeroFlag: true });
    if (turn) await turn();
    for (let unit = 0; unit < buffer.count; ) {
      const state = buffer.state[unit]!;
      const isPacked = compress && state === UnitState.data;
      const end = isPacked ? unit + 1 : this.alikeUntil(unit);
      const guest = buffer.guest[unit]! * clusterSize;
      const length = Math.min((end - unit) * clusterSize, diskSize - guest);
      if (state === UnitState.zero) await target.zero(guest, length, { unmap });
      else if (state !== UnitState.skip) {
        assert(state === UnitState.data, 'nothing was copied here');
        const at = buffer.at[unit]!;
        const bytes = buffer.plain.bytes.subarray(at, at + length);
        // A part of a cluster cannot be compressed, unless nothing of the disk lies behind it.
        const isWhole = length === clusterSize || guest + length === target.size;
        await (isPacked && isWhole
          ? target.writeCompressed(guest, bytes)
          : target.write(guest, bytes));
        tally[isPacked && isWhole ? 'compressedClusters' : 'dataClusters'] += end - unit;
        tally.bytesWritten += length;
      }
      unit = end;
    }
  }

  /** The end of the units from `first` on that follow each other and have the same fate. */
  private alikeUntil(first: number): number {
    const { count, guest, state } = this.buffer;
    let end = first + 1;
    while (end < count && state[end] === state[first] && guest[end] === guest[end - 1]! + 1) end++;
    return end;
  }
}
