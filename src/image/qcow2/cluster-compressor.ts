/**
 * Compresses the clusters that an image is to hold compressed. It has kernel memory of its own,
 * made for the first of them: most images that are opened for writing never see one.
 */
import type { ClusterCodec } from '../../codec/codec.ts';
import { compressInto } from '../../codec/compress.ts';
import { type Region, Workspace } from '../../kernels/arena.ts';
import { INPUT_SLACK } from '../../kernels/kernels.ts';

/** Compresses clusters of one size. */
export class ClusterCompressor {
  private plain: Region | undefined;
  private stream: Region | undefined;

  constructor(
    private readonly codec: ClusterCodec,
    private readonly clusterSize: number,
  ) {}

  /**
   * @param bytes a cluster, or the start of one whose rest is zeros
   * @returns the stream, or undefined where it would not be smaller than the cluster
   */
  compress(bytes: Uint8Array): Uint8Array | undefined {
    const { codec, clusterSize } = this;
    const { plain, stream } = this.memory();
    plain.bytes.set(bytes);
    plain.bytes.fill(0, bytes.length, clusterSize);
    const length = compressInto(plain.kernels, codec, {
      src: plain.at,
      srcBytes: clusterSize,
      dst: stream.at,
      dstMax: clusterSize - 1,
    });
    // A copy: while this one is written, the next may be compressed.
    return length === 0 ? undefined : stream.bytes.slice(0, length);
  }

  private memory(): { readonly plain: Region; readonly stream: Region } {
    if (!this.plain || !this.stream) {
      const workspace = new Workspace();
      this.plain = workspace.reserve(this.clusterSize + INPUT_SLACK);
      this.stream = workspace.reserve(this.clusterSize);
    }
    return { plain: this.plain, stream: this.stream };
  }
}
