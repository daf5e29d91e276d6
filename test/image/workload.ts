/** Scripted and random workloads, as lists of steps that a proof can run again and again. */
import type { Preallocation, WritableDisk } from '../../src/image/disk.ts';
import type { Random } from '../random.ts';
import { randomBytes, type WriteSetting } from './write-engine.ts';

/** One request, and what becomes of the disk's bytes by it. */
export type Step =
  | { readonly kind: 'write' | 'compress'; readonly at: number; readonly bytes: Uint8Array }
  | {
      readonly kind: 'zero' | 'unmap' | 'discard';
      readonly at: number;
      readonly length: number;
    }
  | {
      readonly kind: 'resize';
      readonly size: number;
      readonly preallocation?: Preallocation;
    }
  | { readonly kind: 'flush' };

/** Steps that are sent together. */
export type Batch = readonly Step[];

/** Sends a step. */
export function send(disk: WritableDisk, step: Step): Promise<void> {
  switch (step.kind) {
    case 'write':
      return disk.write(step.at, step.bytes);
    case 'compress':
      return disk.writeCompressed(step.at, step.bytes);
    case 'zero':
      return disk.zero(step.at, step.length);
    case 'unmap':
      return disk.zero(step.at, step.length, { unmap: true });
    case 'discard':
      return disk.discard(step.at, step.length);
    case 'resize':
      return disk.resize(step.size, { preallocation: step.preallocation ?? 'off' });
    default:
      return disk.flush();
  }
}

/**
 * The bytes that a step leaves in its range, or undefined where it changes none. Discards start
 * on a cluster, and end on one or with the disk.
 */
export function outcome(
  step: Step,
  size: number,
): { readonly at: number; readonly bytes: Uint8Array } | undefined {
  if (step.kind === 'flush') return undefined;
  if (step.kind === 'resize') {
    const at = Math.min(step.size, size);
    return { at, bytes: new Uint8Array(Math.max(step.size, size) - at) };
  }
  if ('bytes' in step) return { at: step.at, bytes: step.bytes };
  return { at: step.at, bytes: new Uint8Array(step.length) };
}

/** A step for people. */
export function describeStep(step: Step): string {
  if (step.kind === 'flush') return 'flush';
  if (step.kind === 'resize') return `resize ${step.size} ${step.preallocation ?? ''}`;
  return `${step.kind} ${step.at} +${'bytes' in step ? step.bytes.length : step.length}`;
}

/** Which requests a random workload has. */
export interface WorkloadOptions {
  readonly batches: number;
  /** Several requests at once, on ranges that do not touch each other. */
  readonly concurrent?: boolean;
  readonly resize?: boolean;
}

/** A random workload. Writes and flushes mostly, on few clusters, so that these are used again. */
export function randomWorkload(
  next: Random,
  setting: WriteSetting,
  options: WorkloadOptions,
): Batch[] {
  const cluster = 2 ** setting.clusterBits;
  let { size } = setting;
  const batches: Batch[] = [];
  for (let i = 0; i < options.batches; i++) {
    if (next.oneIn(3)) {
      batches.push([{ kind: 'flush' }]);
      continue;
    }
    if (options.resize !== false && next.oneIn(12)) {
      const wanted = 512 * (1 + next.below((2 * setting.size) / 512));
      // A last cluster that the disk's end cuts leaves open what a discard may do.
      size = Math.max(cluster, wanted - (wanted % cluster));
      batches.push([{ kind: 'resize', size }]);
      continue;
    }
    const steps: Step[] = [];
    const taken: { from: number; to: number }[] = [];
    const count = options.concurrent ? 1 + next.below(5) : 1;
    for (let k = 0; k < count; k++) {
      const step = randomStep(next, setting, size);
      const range = outcome(step, size);
      if (!range) continue;
      const [from, to] = [range.at, range.at + range.bytes.length];
      if (taken.some((other) => from < other.to && to > other.from)) continue;
      taken.push({ from, to });
      steps.push(step);
    }
    batches.push(steps);
  }
  batches.push([{ kind: 'flush' }]);
  return batches;
}

function randomStep(next: Random, setting: WriteSetting, size: number): Step {
  const cluster = 2 ** setting.clusterBits;
  const clusters = Math.floor(size / cluster);
  const kind = next.below(12);
  if (clusters > 0 && kind < 5) {
    const at = next.below(clusters) * cluster;
    const whole = { at, length: cluster * (1 + next.below(Math.min(8, clusters - at / cluster))) };
    if (kind === 0) return { kind: 'zero', ...whole };
    if (kind === 1) return { kind: 'unmap', ...whole };
    if (kind === 2) return { kind: 'discard', ...whole };
    if (kind === 3 && setting.dataFile === 'none') {
      return { kind: 'compress', at, bytes: randomBytes(next, whole.length) };
    }
  }
  const sectors = size / 512;
  const at = next.below(sectors);
  const most = next.pick([1, cluster / 512, (3 * cluster) / 512]);
  const length = 512 * (1 + next.below(Math.min(sectors - at, Math.max(1, Math.ceil(most)))));
  if (kind === 5) return { kind: 'zero', at: at * 512, length };
  const bytes = randomBytes(next, length);
  // Zeros say nothing about whether a write has arrived.
  if (bytes.every((byte) => byte === 0)) bytes.fill(1 + next.below(255));
  return { kind: 'write', at: at * 512, bytes };
}

/** A workload with every kind of allocation and freeing once, short enough to fail at each call. */
export function scriptedWorkload(setting: WriteSetting): Batch[] {
  const cluster = 2 ** setting.clusterBits;
  const clusters = Math.floor(setting.size / cluster);
  const at = (index: number) => Math.min(index, clusters - 1) * cluster;
  const fill = (length: number, byte: number) => new Uint8Array(length).fill(byte);
  const noise = Uint8Array.from({ length: cluster }, (_, i) => Math.imul(i, 0x9e3779b1) >>> 24);
  const compress: Batch[] =
    setting.dataFile === 'none'
      ? [
          [{ kind: 'compress', at: at(6), bytes: fill(2 * cluster, 0x66) }],
          [{ kind: 'write', at: at(6) + 512 * (cluster > 512 ? 1 : 0), bytes: fill(512, 0x67) }],
        ]
      : [];
  return [
    [{ kind: 'write', at: at(1), bytes: fill(cluster, 0x11) }],
    [{ kind: 'write', at: at(2) + cluster - 512, bytes: fill(1024, 0x22) }],
    [{ kind: 'flush' }],
    [{ kind: 'write', at: at(1), bytes: noise }],
    [{ kind: 'write', at: at(clusters - 2), bytes: fill(cluster, 0x33) }],
    ...compress,
    [{ kind: 'flush' }],
    [{ kind: 'zero', at: at(1), length: cluster }],
    [{ kind: 'unmap', at: at(2), length: cluster }],
    [{ kind: 'write', at: at(4), bytes: fill(cluster, 0x44) }],
    [{ kind: 'flush' }],
    [{ kind: 'discard', at: at(4), length: cluster }],
    [{ kind: 'write', at: at(5), bytes: fill(cluster, 0x55) }],
    [{ kind: 'write', at: at(1), bytes: fill(512, 0x12) }],
    [
      { kind: 'write', at: at(9), bytes: fill(cluster, 0x99) },
      { kind: 'write', at: at(10), bytes: fill(cluster, 0xaa) },
      { kind: 'discard', at: at(clusters - 2), length: cluster },
    ],
    [{ kind: 'flush' }],
    [{ kind: 'resize', size: 2 * clusters * cluster }],
    [{ kind: 'write', at: (2 * clusters - 1) * cluster, bytes: fill(cluster, 0xbb) }],
    [{ kind: 'resize', size: Math.max(1, Math.floor(clusters / 2)) * cluster }],
    [{ kind: 'flush' }],
  ];
}
