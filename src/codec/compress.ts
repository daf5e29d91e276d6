/**
 * Compressing one cluster the way that other readers of qcow2 take: raw deflate with a 4 KiB
 * window, or one zstd frame. In kernel memory, at once: workers and the engine alike.
 */
import { assert } from '../base/errors.ts';
import type { Kernels } from '../kernels/kernels.ts';
import type { ClusterCodec } from './codec.ts';

/** The levels of each codec: what QEMU uses, and what there is. */
export const CompressionLevels: Record<
  ClusterCodec,
  { readonly default: number; readonly min: number; readonly max: number }
> = {
  deflate: { default: 6, min: 1, max: 9 },
  zstd: { default: 3, min: 1, max: 9 },
};

/**
 * Compresses `srcBytes` bytes inside kernel memory.
 * @returns the length of the stream in bytes, or 0 where it would be longer than `dstMax` (a
 * cluster is not worth it: `dstMax` is the cluster's size less one)
 */
export function compressInto(
  kernels: Kernels,
  codec: ClusterCodec,
  range: {
    readonly src: number;
    readonly srcBytes: number;
    readonly dst: number;
    readonly dstMax: number;
    readonly level?: number;
  },
): number {
  const { src, srcBytes, dst, dstMax, level = CompressionLevels[codec].default } = range;
  const length =
    codec === 'zstd'
      ? kernels.zstdEncode(src, srcBytes, dst, dstMax, level)
      : kernels.deflate(src, srcBytes, dst, dstMax, level);
  assert(length >= 0, 'compression in memory that is not there, or at a level that is none');
  return length;
}
