/**
 * Clusters of a target in the making: operations are gathered into whole clusters side by side in
 * memory, and looked at for what of them has to be written.
 *
 *   plain     the bytes of the clusters that operations touch, one cluster after another
 *   backing   what the target's backing file has there, where it has one
 *   packed    compressed clusters that were made here, one behind the other
 */
import { type Awaitable, settled } from '../base/awaitable.ts';
import type { Region, Workspace } from '../kernels/arena.ts';
import { INPUT_SLACK, type Kernels } from '../kernels/kernels.ts';
import { OP_STRIDE, OpKind } from './job.ts';
import { type ClusterOptions, granuleFor, type ImageRunnerOptions, UnitState } from './runner.ts';
import type { SourceReader } from './source-reader.ts';

/** Every subcluster. */
const ALL = 0xffff_ffff;

const RANGE_PAIRS = 4096;

/** The units of one job, and memory for their bytes. */
export class ClusterBuffer {
  readonly plain: Region;
  readonly packed: Region;
  private readonly backing: Region | undefined;
  private readonly ranges: Region;
  /** Units in guest order. */
  count = 0;
  /** Of each unit: cluster index in the target, state, subclusters that hold data as a mask. */
  readonly guest: Float64Array;
  readonly state: Float64Array;
  readonly mask: Uint32Array;
  /** Where a unit's bytes are in `plain` or `packed`. */
  readonly at: Float64Array;
  /** 1 where the target's backing file shows a unit's bytes already. */
  private readonly isShown: Uint8Array;
  packedBytes = 0;
  /** What operations brought in, three numbers each: first unit, start and end in `plain`. */
  private readonly pieces: number[] = [];

  constructor(
    workspace: Workspace,
    private readonly options: ClusterOptions & Partial<Pick<ImageRunnerOptions, 'compress'>>,
    private readonly reader: SourceReader,
  ) {
    const { jobBytes, clusterSize, backingSource, compress } = options;
    this.plain = workspace.reserve(jobBytes);
    if (backingSource >= 0) this.backing = workspace.reserve(jobBytes);
    this.packed = workspace.reserve(compress ? jobBytes + INPUT_SLACK : 0);
    this.ranges = workspace.reserve(RANGE_PAIRS * 8);
    const unitsMax = jobBytes / clusterSize;
    this.guest = new Float64Array(unitsMax);
    this.state = new Float64Array(unitsMax);
    this.mask = new Uint32Array(unitsMax);
    this.at = new Float64Array(unitsMax);
    this.isShown = new Uint8Array(unitsMax);
  }

  /** Brings in the bytes of all operations. */
  async gather(ops: Float64Array): Promise<void> {
    this.count = 0;
    this.packedBytes = 0;
    this.pieces.length = 0;
    this.listUnits(ops);
    const { backingSource } = this.options;
    // How far the bytes of each side are there, in `plain` and `backing`.
    let filled = 0;
    let filledBacking = 0;
    let unit = 0;
    let unitBacking = 0;
    for (let op = 0; op < ops.length; op += OP_STRIDE) {
      const isBacking = backingSource >= 0 && ops[op + 1]! >= backingSource;
      const region = isBacking && this.backing ? this.backing : this.plain;
      const { clusterSize } = this.options;
      const first = Math.floor(ops[op + 4]! / clusterSize);
      let index = isBacking ? unitBacking : unit;
      while (this.guest[index]! < first) index++;
      if (isBacking) unitBacking = index;
      else unit = index;
      const at = this.at[index]! + (ops[op + 4]! % clusterSize);
      const before = isBacking ? filledBacking : filled;
      if (before < at) region.bytes.fill(0, before, at);
      const read = this.readInto(ops, op, region, at);
      if (!settled(read)) await read;
      if (isBacking) filledBacking = at + ops[op + 5]!;
      else {
        filled = at + ops[op + 5]!;
        if (ops[op] !== OpKind.zero) this.pieces.push(index, at, filled);
      }
    }
    const end = this.count * this.options.clusterSize;
    this.plain.bytes.fill(0, filled, end);
    this.backing?.bytes.fill(0, filledBacking, end);
  }

  private readInto(ops: Float64Array, op: number, region: Region, at: number): Awaitable<void> {
    const length = ops[op + 5]!;
    if (ops[op] === OpKind.copy) {
      const into = region.bytes.subarray(at, at + length);
      return this.reader.copy(ops, op, 0, into);
    }
    if (ops[op] === OpKind.zero) {
      region.bytes.fill(0, at, at + length);
      return;
    }
    const loaded = this.reader.load(ops, op);
    if (loaded) return loaded.then(() => this.reader.decode(ops, op, region.at + at));
    this.reader.decode(ops, op, region.at + at);
  }

  /** Which clusters the operations touch. Both sides come in guest order, the backing last. */
  private listUnits(ops: Float64Array): void {
    const { clusterSize, backingSource } = this.options;
    if (backingSource >= 0) {
      this.listBoth(ops);
      return;
    }
    let last = -1;
    for (let op = 0; op < ops.length; op += OP_STRIDE) {
      const target = ops[op + 4]!;
      const from = Math.floor(target / clusterSize);
      const to = Math.floor((target + ops[op + 5]! - 1) / clusterSize);
      const first = from === last ? from + 1 : from;
      for (let cluster = first; cluster <= to; cluster++) this.addUnit(cluster);
      last = to;
    }
  }

  private listBoth(ops: Float64Array): void {
    const { clusterSize } = this.options;
    const touched = new Set<number>();
    for (let op = 0; op < ops.length; op += OP_STRIDE) {
      const from = Math.floor(ops[op + 4]! / clusterSize);
      const to = Math.floor((ops[op + 4]! + ops[op + 5]! - 1) / clusterSize);
      for (let cluster = from; cluster <= to; cluster++) touched.add(cluster);
    }
    for (const cluster of Float64Array.from(touched).sort()) this.addUnit(cluster);
  }

  private addUnit(cluster: number): void {
    const unit = this.count++;
    this.guest[unit] = cluster;
    this.state[unit] = UnitState.skip;
    this.mask[unit] = 0;
    this.at[unit] = unit * this.options.clusterSize;
  }

  /** Finds out what of the gathered bytes has to be written. */
  judge(options: { readonly wholeClusters: boolean; readonly zeroFlag: boolean }): void {
    const { clusterSize, sparseBytes, explicitZeros, backingSource } = this.options;
    if (backingSource >= 0) this.compareBacking();
    if (sparseBytes === 0 && backingSource < 0) this.markAll();
    else this.findData(options.wholeClusters);
    for (let unit = 0; unit < this.count; unit++) {
      if (this.isShown[unit] === 1) this.state[unit] = UnitState.skip;
      else if (this.mask[unit] !== 0) this.state[unit] = UnitState.data;
      else if (!explicitZeros) this.state[unit] = UnitState.skip;
      else {
        this.state[unit] = options.zeroFlag ? UnitState.zero : UnitState.data;
        if (!options.zeroFlag) this.mask[unit] = ALL;
      }
      if (this.state[unit] !== UnitState.data) continue;
      // What the backing file shows in the rest of the cluster must not show through.
      if (clusterSize === this.options.subclusterSize) this.mask[unit] = ALL;
    }
  }

  /** Marks all subclusters that the disk has: it may end within its last cluster. */
  private markAll(): void {
    const { clusterSize, diskSize } = this.options;
    for (let unit = 0; unit < this.count; unit++) {
      const left = diskSize - this.guest[unit]! * clusterSize;
      this.markData(unit, 0, Math.min(clusterSize, left));
    }
  }

  /**
   * Marks the subclusters that hold data. Each operation is looked at by itself, and holes begin
   * and end where qemu-img lets them, so that small clusters lie where it puts them.
   */
  private findData(wholeClusters: boolean): void {
    const { clusterSize, subclusterSize, sparseBytes } = this.options;
    const granule = wholeClusters ? Math.min(4096, subclusterSize) : granuleFor(sparseBytes);
    const holeBytes = wholeClusters ? 0 : sparseBytes;
    const { ranges, plain, pieces } = this;
    const { kernels } = plain;
    for (let piece = 0; piece < pieces.length; piece += 3) {
      const unit = pieces[piece]!;
      const from = pieces[piece + 1]!;
      const bytes = pieces[piece + 2]! - from;
      const skip = from - this.at[unit]!;
      if (this.isAllShown(unit, unit + Math.ceil((skip + bytes) / clusterSize))) continue;
      const phase = (this.guest[unit]! * clusterSize + skip) % granule;
      const at = plain.at + from;
      const count = kernels.dataRanges(at, bytes, granule, phase, ranges.at, RANGE_PAIRS);
      const pairs = new Uint32Array(kernels.memory.buffer, ranges.at, count * 2);
      for (let pair = 0; pair < count * 2; ) {
        const start = pairs[pair]!;
        let stop = pairs[pair + 1]!;
        pair += 2;
        while (pair < count * 2 && pairs[pair]! - stop < holeBytes) {
          stop = pairs[pair + 1]!;
          pair += 2;
        }
        this.markData(unit, skip + start, skip + stop);
      }
    }
  }

  private markData(first: number, start: number, stop: number): void {
    const { clusterSize, subclusterSize } = this.options;
    for (let at = start; at < stop; ) {
      const unit = Math.floor(at / clusterSize);
      const base = unit * clusterSize;
      const to = Math.min(stop, base + clusterSize);
      const low = Math.floor((at - base) / subclusterSize);
      const high = Math.floor((to - 1 - base) / subclusterSize);
      const bits = high === 31 ? ALL : 2 ** (high + 1) - 1;
      this.mask[first + unit]! |= bits & ~(2 ** low - 1);
      at = to;
    }
  }

  private compareBacking(): void {
    for (let unit = 0; unit < this.count; unit++) {
      this.isShown[unit] = this.equalsBacking(unit) ? 1 : 0;
    }
  }

  /** Units that the backing file shows need no look for zeros. */
  private isAllShown(from: number, to: number): boolean {
    for (let unit = from; unit < to; unit++) if (this.isShown[unit] !== 1) return false;
    return true;
  }

  private equalsBacking(unit: number): boolean {
    const { plain, backing } = this;
    if (!backing) return false;
    const { clusterSize, diskSize } = this.options;
    const at = this.at[unit]!;
    const bytes = Math.min(clusterSize, diskSize - this.guest[unit]! * clusterSize);
    return plain.kernels.firstDifference(plain.at + at, backing.at + at, bytes) === bytes;
  }

  /** Compresses the units that hold data, where that makes them smaller. */
  compress(pack: (kernels: Kernels, range: PackRange) => number): void {
    const { clusterSize } = this.options;
    const { plain, packed } = this;
    for (let unit = 0; unit < this.count; unit++) {
      if (this.state[unit] !== UnitState.data) continue;
      const dstMax = Math.min(clusterSize - 1, packed.length - INPUT_SLACK - this.packedBytes);
      const src = plain.at + this.at[unit]!;
      const dst = packed.at + this.packedBytes;
      const length = pack(plain.kernels, { src, srcBytes: clusterSize, dst, dstMax });
      if (length === 0) continue;
      this.state[unit] = length;
      this.at[unit] = this.packedBytes;
      this.packedBytes += length;
    }
  }

  /** The units that are to be written or said, three numbers each: see `ImageRunner`. */
  report(): Float64Array<ArrayBuffer> {
    let wanted = 0;
    for (let unit = 0; unit < this.count; unit++) {
      if (this.state[unit] !== UnitState.skip) wanted++;
    }
    const units = new Float64Array(wanted * 3);
    let at = 0;
    for (let unit = 0; unit < this.count; unit++) {
      if (this.state[unit] === UnitState.skip) continue;
      units[at] = this.guest[unit]!;
      units[at + 1] = this.state[unit]!;
      units[at + 2] = this.mask[unit]!;
      at += 3;
    }
    return units;
  }
}

/** A cluster in memory, and room for its compressed bytes. */
export interface PackRange {
  readonly src: number;
  readonly srcBytes: number;
  readonly dst: number;
  readonly dstMax: number;
}
