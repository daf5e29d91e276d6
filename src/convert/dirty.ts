/**
 * Copying what a bitmap says has changed, and bitmaps themselves. Bytes that are not dirty are not
 * looked at: the target keeps what it has there, or shows its backing file.
 */
import { Qcow2Error } from '../base/errors.ts';
import type { Disk, WritableDisk } from '../image/disk.ts';
import type { Qcow2Image } from '../image/qcow2/qcow2-image.ts';
import { ClusterCount } from './cluster-count.ts';
import type { ConvertOptions, ConvertResult } from './options.ts';

/** Bytes that are copied at a time. */
const PIECE_BYTES = 2 ** 20;

/** How dirty ranges are copied. */
export interface ConvertDirtyOptions extends ConvertOptions {
  /** The bitmap, of the source. */
  readonly bitmap: string;
  /** Writes compressed clusters. */
  readonly compress?: boolean;
}

/**
 * Writes the ranges that a bitmap says are dirty to a disk that is at least as long; those of a
 * compressed target are made whole clusters.
 * @throws Qcow2Error of any kind; OUT_OF_RANGE where there is no such bitmap; ABORTED when the
 * signal says so
 */
export async function convertDirty(
  source: Qcow2Image,
  target: WritableDisk,
  options: ConvertDirtyOptions,
): Promise<ConvertResult> {
  const { bitmap, compress = false, signal, onProgress } = options;
  const unit = compress ? (target.sources[0]?.clusterSize ?? 1) : 1;
  const copy = new DirtyCopy(source, target, compress ? unit : 0);
  let done = 0;
  for await (const { guest, length } of source.bitmaps.ranges(bitmap)) {
    const end = Math.min(source.size, Math.ceil((guest + length) / unit) * unit);
    let at = Math.max(done, Math.floor(guest / unit) * unit);
    while (at < end) {
      if (signal?.aborted) throw new Qcow2Error('ABORTED', 'the conversion was stopped');
      const next = Math.min(end, (Math.floor(at / PIECE_BYTES) + 1) * PIECE_BYTES);
      await copy.range(at, next);
      at = next;
      onProgress?.(at, source.size, 0);
    }
    done = Math.max(done, end);
  }
  const { bytesRead, bytesWritten } = copy;
  return {
    bytesRead,
    bytesWritten,
    diskBytes: source.size,
    bytesSkipped: source.size - bytesWritten,
    lost: [],
    unmapped: [],
    clusters: { data: copy.written.count, compressed: copy.compressed, copied: 0 },
  };
}

/** Copies ranges, zeros of the source as zeros. */
class DirtyCopy {
  bytesRead = 0;
  bytesWritten = 0;
  compressed = 0;
  readonly written: ClusterCount;

  constructor(
    private readonly source: Disk,
    private readonly target: WritableDisk,
    /** Bytes of a compressed cluster; 0: nothing is compressed. */
    private readonly clusterSize: number,
  ) {
    this.written = new ClusterCount(target);
  }

  async range(from: number, to: number): Promise<void> {
    if (this.clusterSize > 0) return this.clusters(from, to);
    for await (const { kind, guest, length } of this.source.extents(from, to)) {
      if (kind === 'zero') {
        await this.target.zero(guest, length, { unmap: true });
        continue;
      }
      const bytes = await this.read(guest, length);
      await this.target.write(guest, bytes);
      this.written.add(guest, length);
      this.bytesWritten += length;
    }
  }

  private async clusters(from: number, to: number): Promise<void> {
    for (let at = from; at < to; at += this.clusterSize) {
      const length = Math.min(this.clusterSize, to - at);
      const bytes = await this.read(at, length);
      if (bytes.some((byte) => byte !== 0)) {
        await this.target.writeCompressed(at, bytes);
        this.bytesWritten += length;
        this.compressed++;
      } else await this.target.zero(at, length, { unmap: true });
    }
  }

  private async read(guest: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    await this.source.read(guest, bytes);
    this.bytesRead += length;
    return bytes;
  }
}

/** What becomes of bitmaps that are inconsistent. */
export interface CopyBitmapsOptions {
  /** Told of each that is left out; without it such a bitmap is an error. */
  readonly onSkipped?: ((name: string) => void) | undefined;
}

/**
 * Copies all bitmaps of an image to another of the same size, whether they follow writes included.
 * @throws Qcow2Error: `Failed to create bitmap …`, `Failed to populate bitmap …`
 */
export async function copyBitmaps(
  source: Qcow2Image,
  target: Qcow2Image,
  { onSkipped }: CopyBitmapsOptions = {},
): Promise<void> {
  const wanted = [];
  // QEMU goes through them from the last one on, which its messages show.
  for (const one of source.bitmaps.list().reverse()) {
    const { name } = one;
    if (!one.inconsistent) wanted.unshift(one);
    else if (onSkipped) onSkipped(name);
    else throw new Qcow2Error('CORRUPT', `Cannot copy inconsistent bitmap '${name}'`);
  }
  const there = new Set(target.bitmaps.list().map(({ name }) => name));
  const twice = wanted.findLast(({ name }) => there.has(name))?.name;
  if (twice !== undefined) {
    const message = `Failed to create bitmap ${twice}: Bitmap already exists: ${twice}`;
    throw new Qcow2Error('OUT_OF_RANGE', message);
  }
  const last = wanted.at(-1)?.name;
  if (target.size !== source.size && last !== undefined) {
    throw new Qcow2Error(
      'OUT_OF_RANGE',
      `Failed to populate bitmap ${last}: Bitmaps are of different sizes (destination size is ` +
        `${target.size}, source size is ${source.size}) and can't be merged`,
    );
  }
  for (const { name, granularity, enabled } of wanted) {
    await named(`Failed to create bitmap ${name}`, () =>
      target.bitmaps.add(name, { granularity, enabled: false }),
    );
    await named(`Failed to populate bitmap ${name}`, () =>
      target.bitmaps.merge(name, name, source.bitmaps),
    );
    if (enabled) await target.bitmaps.enable(name);
  }
}

async function named(what: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (cause) {
    if (!(cause instanceof Qcow2Error)) throw cause;
    throw new Qcow2Error(cause.code, `${what}: ${cause.message}`);
  }
}
