/**
 * What compressed clusters are decoded with: kernels in place, failures as typed errors.
 */
import { Qcow2Error } from '../base/errors.ts';
import { DecodeError, type Kernels } from '../kernels/kernels.ts';

/** How compressed clusters are compressed; the header calls deflate 0 and zstd 1. */
export type ClusterCodec = 'deflate' | 'zstd';

const REASONS: Record<number, string> = {
  [DecodeError.truncated]: 'its data ends too early',
  [DecodeError.short]: 'it holds less than a cluster',
  [DecodeError.invalid]: 'its data is damaged',
  [DecodeError.overlong]: 'it holds more than a cluster',
  [DecodeError.checksum]: 'its checksum is wrong',
  [DecodeError.unsupported]: 'it needs a dictionary or too large a window',
};

/** Decodes one cluster of `dstBytes` inside kernel memory; a negative result is a DecodeError. */
export function decodeInto(
  kernels: Kernels,
  codec: ClusterCodec,
  range: {
    readonly src: number;
    readonly srcBytes: number;
    readonly dst: number;
    readonly dstBytes: number;
  },
): number {
  const { src, srcBytes, dst, dstBytes } = range;
  return codec === 'zstd'
    ? kernels.zstdDecode(src, srcBytes, dst, dstBytes)
    : kernels.inflate(src, srcBytes, dst, dstBytes);
}

/** The error for a failed decode. @param host byte offset of the stream in its file */
export function decodeFailure(result: number, codec: ClusterCodec, host: number): Qcow2Error {
  const why = REASONS[result] ?? 'its data is damaged';
  return new Qcow2Error('CORRUPT', `compressed cluster (${codec}) cannot be read: ${why}`, host);
}
