/**
 * Jobs: what the control plane hands to the data plane. A job is an array of numbers, so that it
 * crosses a thread boundary as one transfer.
 *
 *   per operation 8 numbers:
 *   0 kind · 1 source index · 2 host offset · 3 stored bytes · 4 target offset · 5 length
 *   6 bytes to skip of the decoded cluster, or see `ExtentList` · 7 cluster size
 */

/** Numbers per operation. */
export const OP_STRIDE = 8;
/** Operations of one job at most: bounds a job of many small pieces. */
export const JOB_OPS_MAX = 4096;

/** What an operation does with `length` bytes of the target. */
export const OpKind = {
  /** Reads them from `source` at `host`. */
  copy: 0,
  /** Decodes the raw deflate stream at `host`, at most `stored` bytes long. */
  deflate: 1,
  /** The same for zstd. */
  zstd: 2,
  /** Zeros, written for a target that may hold something else. */
  zero: 3,
} as const;
export type OpKind = (typeof OpKind)[keyof typeof OpKind];

/** Whether an operation decodes a compressed stream. */
export function isStream(kind: number): boolean {
  return kind === OpKind.deflate || kind === OpKind.zstd;
}

/** Operations in target order, as they are being collected. */
export class JobBuilder {
  private ops = new Float64Array(OP_STRIDE * 64);
  count = 0;
  /** Target bytes that the operations produce. */
  bytes = 0;

  add(
    kind: OpKind,
    source: number,
    host: number,
    stored: number,
    target: number,
    length: number,
    skip: number,
    clusterSize: number,
  ): void {
    const at = this.count * OP_STRIDE;
    if (at === this.ops.length) {
      const grown = new Float64Array(this.ops.length * 2);
      grown.set(this.ops);
      this.ops = grown;
    }
    const { ops } = this;
    ops[at] = kind;
    ops[at + 1] = source;
    ops[at + 2] = host;
    ops[at + 3] = stored;
    ops[at + 4] = target;
    ops[at + 5] = length;
    ops[at + 6] = skip;
    ops[at + 7] = clusterSize;
    this.count++;
    this.bytes += length;
  }

  /** The job so far, in an array of its own; the builder starts anew. */
  take(): Float64Array<ArrayBuffer> {
    const job = this.ops.slice(0, this.count * OP_STRIDE);
    this.count = 0;
    this.bytes = 0;
    return job;
  }
}
